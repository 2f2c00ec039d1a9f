// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// Window is what is remembered of the values between two samples.
type Window struct {
	count          int
	Min, Max       float64
	weighted, span float64 // the sum of the values, each times its microseconds; and of those
}

// add takes a value that stood for so many microseconds: the time since the value
// before it.
func (w *Window) add(v, micros float64) {
	if w.count == 0 {
		w.Min, w.Max = v, v
	}
	w.count++
	w.Min, w.Max = min(w.Min, v), max(w.Max, v)
	w.weighted += v * micros
	w.span += micros
}

// Mean is weighted by time: a value that stood twice as long counts twice.
func (w *Window) Mean() float64 {
	if w.span <= 0 {
		return w.Max
	}
	// Rounding must not lead out of what was seen.
	return min(max(w.weighted/w.span, w.Min), w.Max)
}

// TrackedFields returns what is to be tracked for the integrals and for the
// counters that ask for it, each field once. Fields whose values are readings of
// a moment, or of a short time, are looked at every resolution.
func TrackedFields(counters []field.Counter, resolution time.Duration) []model.TrackedField {
	list := integratedFields(resolution)
	for _, c := range counters {
		if !c.Tracked() {
			continue
		}
		t := model.TrackedField{Field: c.Field.ID, Every: c.Resolution, Statistics: c.Statistics, Histogram: c.Histogram}
		for kind := range model.EntityKind(model.KindCount) {
			if c.On(kind) {
				t.Kinds |= model.Kinds(kind)
			}
		}
		at := slices.IndexFunc(list, func(other model.TrackedField) bool { return other.Field == t.Field })
		if at < 0 {
			list = append(list, t)
			continue
		}
		list[at].Merge(t)
	}
	return list
}

// tracking is what a [Node] makes of tracks. It outlives samplers.
type tracking struct {
	fields   map[model.FieldID]model.TrackedField
	interval time.Duration // of the samples
	tracks   map[model.FieldKey]*trackState
	integrals
}

// trackState is what is known of one field of one entity.
type trackState struct {
	at     int64 // of the newest point
	window Window
	// histogram is nil if none is wanted.
	histogram prometheus.Histogram
}

// Track says what is made of the values between samples, which come at the
// interval. It is called before the first frame, and when the configuration
// changes; integrals go on.
func (n *Node) Track(fields []model.TrackedField, interval time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tracking.fields = make(map[model.FieldID]model.TrackedField, len(fields))
	for _, f := range fields {
		n.tracking.fields[f.Field] = f
	}
	n.tracking.interval = interval
	for key := range n.tracking.tracks {
		if f := n.tracking.fields[key.Field]; !f.Statistics && !f.Histogram {
			delete(n.tracking.tracks, key)
		}
	}
}

// setTracks takes what was seen between samples. It is no reason to publish: the
// sample that follows is.
func (n *Node) setTracks(t *model.Tracks) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != t.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: errors.New("values of another inventory")}
	}
	if err := t.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	n.tracking.take(n.latest, t)
	return nil
}

func (t *tracking) take(inv *model.Inventory, tracks *model.Tracks) {
	for i := range tracks.List {
		track := &tracks.List[i]
		field, ok := t.fields[track.Field]
		if !ok || !field.Statistics && !field.Histogram {
			continue
		}
		key := model.FieldKeyOf(inv, track.Entity, track.Field)
		s := t.tracks[key]
		if s == nil {
			s = &trackState{}
			if t.tracks == nil {
				t.tracks = map[model.FieldKey]*trackState{}
			}
			t.tracks[key] = s
		}
		if field.Histogram && s.histogram == nil {
			s.histogram = newHistogram()
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

func (s *trackState) add(p model.Point, step time.Duration) {
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
		s.histogram.Observe(p.Value)
	}
}

// step is the time from one value of the field to the next.
func (t *tracking) step(field model.FieldID) time.Duration {
	if every := t.fields[field].Every; every > 0 && (every < t.interval || t.interval == 0) {
		return every
	}
	return t.interval
}

// keep forgets the windows of what the inventory lacks: an entity that comes back
// begins anew. Histograms and integrals are counters, and stay.
func (t *tracking) keep(inv *model.Inventory) {
	here := make(map[model.FieldKey]bool, len(inv.Entities))
	for i := range inv.Entities {
		here[model.FieldKeyOf(inv, i, 0)] = true
	}
	for key, s := range t.tracks {
		k := key
		k.Field = 0
		if here[k] {
			continue
		}
		s.window = Window{}
		if key.Kind != model.KindGPU && key.Kind != model.KindGPUInstance {
			delete(t.tracks, key) // its id may be another one's next time
		}
	}
	t.pause(inv)
	t.interrupt()
}

// TrackView is what tracks had come to at a sample. It is immutable.
type TrackView struct {
	Statistics map[TrackAt]Window
	Histograms map[TrackAt]*dto.Histogram
	IntegralView
}

// TrackAt is a field of an entity of the inventory of the same view.
type TrackAt struct {
	Entity int
	Field  model.FieldID
}

// close ends the windows at a sample.
func (t *tracking) close(inv *model.Inventory, sample *model.Sample, gone []model.Entity) *TrackView {
	split := inv.ReadAsInstances(sample)
	v := &TrackView{IntegralView: t.view(inv, split, gone)}
	if len(t.tracks) == 0 {
		return v
	}
	v.Statistics = make(map[TrackAt]Window, len(t.tracks))
	for i := range inv.Entities {
		for id, field := range t.fields {
			if !field.Statistics && !field.Histogram {
				continue
			}
			s := t.tracks[model.FieldKeyOf(inv, i, id)]
			if s == nil || split[i] {
				continue
			}
			at := TrackAt{i, id}
			if field.Statistics && s.window.count > 0 {
				v.Statistics[at] = s.window
			}
			s.window = Window{}
			if s.histogram != nil {
				if v.Histograms == nil {
					v.Histograms = map[TrackAt]*dto.Histogram{}
				}
				v.Histograms[at] = snapshot(s.histogram)
			}
		}
	}
	return v
}
