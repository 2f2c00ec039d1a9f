// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// TrackedField is a field of which every value is wanted, and not only the newest
// at each sample: integrals, statistics and histograms are made of them.
type TrackedField struct {
	Field FieldID
	Kinds KindSet
	// Every is how often DCGM is to have a new value; 0 is once a sample.
	Every time.Duration
	// Unless is a profiling field that does better: entities that have it do
	// without this one. 0 is none.
	Unless FieldID
	// Parents says that GPUs are asked, too, of which only the instances are read.
	Parents bool
	// Statistics and Histogram say what is made of the values besides integrals.
	Statistics, Histogram bool
}

// TrackedFields returns what is to be tracked for the integrals and for the
// counters that ask for it, each field once. Fields whose values are readings of
// a moment, or of a short time, are looked at every resolution.
func TrackedFields(counters []Counter, resolution time.Duration) []TrackedField {
	list := integratedFields(resolution)
	for _, c := range counters {
		if !c.tracked() {
			continue
		}
		t := TrackedField{Field: c.Field.ID, Every: c.Resolution, Statistics: c.Statistics, Histogram: c.Histogram}
		for kind := range EntityKind(kindCount) {
			if c.On(kind) {
				t.Kinds |= Kinds(kind)
			}
		}
		at := slices.IndexFunc(list, func(other TrackedField) bool { return other.Field == t.Field })
		if at < 0 {
			list = append(list, t)
			continue
		}
		list[at].add(t)
	}
	return list
}

// tracked says whether the counter asks for more than the newest value. A label
// has none, and values that are no numbers have no minimum.
func (c Counter) tracked() bool {
	return c.Type != MetricLabel && c.Field.Type.Numeric() && (c.Statistics || c.Histogram)
}

func (t *TrackedField) add(other TrackedField) {
	t.Kinds |= other.Kinds
	if other.Every > 0 && (t.Every == 0 || other.Every < t.Every) {
		t.Every = other.Every
	}
	t.Unless = 0 // the counter's values are wanted wherever they are
	t.Statistics = t.Statistics || other.Statistics
	t.Histogram = t.Histogram || other.Histogram
}

// Tracks is what was seen of the tracked fields since the last frame of its kind.
// It belongs to the sample that follows.
type Tracks struct {
	Generation uint64
	List       []Track
}

// Track is the values of one field on one entity, in the order of their time.
type Track struct {
	Entity int // position in the inventory of the same generation
	Field  FieldID
	Points []Point
}

// Point is a value and when DCGM took it: µs since 1970 by the engine's clock.
type Point struct {
	At    int64
	Value float64
}

func (t *Tracks) validate(inv *Inventory) error {
	for i := range t.List {
		if e := t.List[i].Entity; e < 0 || e >= len(inv.Entities) {
			return fmt.Errorf("a track of entity %d of %d", e, len(inv.Entities))
		}
		for _, p := range t.List[i].Points {
			if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
				return fmt.Errorf("a track of field %d has a value that is no number", t.List[i].Field)
			}
		}
	}
	return nil
}

// WriteTracks writes what was seen between samples.
func (f *FrameWriter) WriteTracks(t *Tracks) error {
	f.begin()
	f.u64(t.Generation)
	f.num(len(t.List))
	for i := range t.List {
		track := &t.List[i]
		f.num(track.Entity)
		f.num(int(track.Field))
		f.num(len(track.Points))
		var at int64
		for _, p := range track.Points {
			f.buf = binary.AppendVarint(f.buf, p.At-at) // short, but for the first
			at = p.At
			f.u64(math.Float64bits(p.Value))
		}
	}
	return f.flush(frameTracks)
}

// pointSize is the least that a point takes: time and value.
const pointSize = 1 + 8

func (d *decoder) tracks() *Tracks {
	t := &Tracks{Generation: d.u64()}
	t.List = make([]Track, d.count(3))
	for i := range t.List {
		track := &t.List[i]
		track.Entity, track.Field = d.num(), FieldID(d.num())
		track.Points = make([]Point, d.count(pointSize))
		var at int64
		for j := range track.Points {
			at += int64(d.num())
			track.Points[j] = Point{at, math.Float64frombits(d.u64())}
		}
	}
	return t
}

// trackKey names a field of an entity across inventories and samplers.
type trackKey struct {
	entity entityKey
	kind   EntityKind
	id     uint32 // of what is no GPU nor instance of one, or has no known UUID
	field  FieldID
}

func trackKeyOf(inv *Inventory, entity int, field FieldID) trackKey {
	e := &inv.Entities[entity]
	key := trackKey{entity: instanceKey(inv, entity), kind: e.Kind, field: field}
	if e.Kind != KindGPU && e.Kind != KindGPUInstance || key.entity.uuid == "" {
		key.id = e.ID // nothing else tells it from another
	}
	return key
}

// tracking is what a [Node] makes of tracks. It outlives samplers.
type tracking struct {
	fields   map[FieldID]TrackedField
	interval time.Duration // of the samples
	tracks   map[trackKey]*trackState
	integrals
}

// trackState is what is known of one field of one entity.
type trackState struct {
	at     int64 // of the newest point
	window window
	// histogram is nil if none is wanted.
	histogram *nativeHistogram
}

// Track says what is made of the values between samples, which come at the
// interval. It is called before the first frame, and when the configuration
// changes; integrals go on.
func (n *Node) Track(fields []TrackedField, interval time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tracking.fields = make(map[FieldID]TrackedField, len(fields))
	for _, f := range fields {
		n.tracking.fields[f.Field] = f
	}
	n.tracking.interval = interval
	for key := range n.tracking.tracks {
		if f := n.tracking.fields[key.field]; !f.Statistics && !f.Histogram {
			delete(n.tracking.tracks, key)
		}
	}
}

// setTracks takes what was seen between samples. It is no reason to publish: the
// sample that follows is.
func (n *Node) setTracks(t *Tracks) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != t.Generation {
		return &RejectError{Reason: rejectInventory, Err: errors.New("values of another inventory")}
	}
	if err := t.validate(n.latest); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
	}
	n.tracking.take(n.latest, t)
	return nil
}

func (t *tracking) take(inv *Inventory, tracks *Tracks) {
	for i := range tracks.List {
		track := &tracks.List[i]
		field, ok := t.fields[track.Field]
		if !ok || !field.Statistics && !field.Histogram {
			continue
		}
		key := trackKeyOf(inv, track.Entity, track.Field)
		s := t.tracks[key]
		if s == nil {
			s = &trackState{}
			if t.tracks == nil {
				t.tracks = map[trackKey]*trackState{}
			}
			t.tracks[key] = s
		}
		if field.Histogram && s.histogram == nil {
			s.histogram = &nativeHistogram{}
		}
		step := t.step(track.Field)
		for _, p := range track.Points {
			s.add(p, step)
		}
	}
	t.integrate(inv, tracks, t)
}

// clockStep is how far back a time may lie and still be an old value that comes
// again; beyond it the engine's clock was set back.
const clockStep = int64(5 * time.Second / time.Microsecond)

func (s *trackState) add(p Point, step time.Duration) {
	since := p.At - s.at
	if since <= 0 && since > -clockStep {
		return // known: a sampler says it again
	}
	stood := step.Microseconds()
	if s.at != 0 && since > 0 && since < 3*stood {
		stood = since
	}
	s.at = p.At
	s.window.add(p.Value, float64(stood))
	if s.histogram != nil {
		s.histogram.observe(p.Value)
	}
}

// step is the time from one value of the field to the next.
func (t *tracking) step(field FieldID) time.Duration {
	if every := t.fields[field].Every; every > 0 && (every < t.interval || t.interval == 0) {
		return every
	}
	return t.interval
}

// keep forgets the windows of what the inventory lacks: an entity that comes back
// begins anew. Histograms and integrals are counters, and stay.
func (t *tracking) keep(inv *Inventory) {
	here := make(map[trackKey]bool, len(inv.Entities))
	for i := range inv.Entities {
		here[trackKeyOf(inv, i, 0)] = true
	}
	for key, s := range t.tracks {
		k := key
		k.field = 0
		if here[k] {
			continue
		}
		s.window = window{}
		if key.kind != KindGPU && key.kind != KindGPUInstance {
			delete(t.tracks, key) // its id may be another one's next time
		}
	}
	t.pause(inv)
	t.interrupt()
}

// trackView is what tracks had come to at a sample. It is immutable.
type trackView struct {
	statistics map[trackAt]window
	histograms map[trackAt]*Histogram
	integralView
}

// trackAt is a field of an entity of the inventory of the same view.
type trackAt struct {
	entity int
	field  FieldID
}

// split says of which GPUs, by position, the instances are read in the GPU's place, or
// would be if they were known.
func (inv *Inventory) split(s *Sample) map[int]bool {
	split := map[int]bool{}
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if inv.InstancesUnknownOf(i) && len(s.Rows[i]) == 0 {
			split[i] = true
		}
		if e.Kind == KindGPUInstance && e.Selected && len(s.Rows[e.Parent]) == 0 {
			split[e.Parent] = true
		}
	}
	return split
}

// close ends the windows at a sample.
func (t *tracking) close(inv *Inventory, sample *Sample, gone []Entity) *trackView {
	split := inv.split(sample)
	v := &trackView{integralView: t.view(inv, split, gone)}
	if len(t.tracks) == 0 {
		return v
	}
	v.statistics = make(map[trackAt]window, len(t.tracks))
	for i := range inv.Entities {
		for id, field := range t.fields {
			if !field.Statistics && !field.Histogram {
				continue
			}
			s := t.tracks[trackKeyOf(inv, i, id)]
			if s == nil || split[i] {
				continue
			}
			at := trackAt{i, id}
			if field.Statistics && s.window.count > 0 {
				v.statistics[at] = s.window
			}
			s.window = window{}
			if s.histogram != nil {
				if v.histograms == nil {
					v.histograms = map[trackAt]*Histogram{}
				}
				v.histograms[at] = s.histogram.snapshot()
			}
		}
	}
	return v
}
