// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// Window summarizes the values of a field between two samples.
type Window struct {
	count          int
	Min, Max       float64
	weighted, span float64 // the sum of value × microseconds; the sum of microseconds
}

// add adds a value that held for a number of microseconds.
func (w *Window) add(v, micros float64) {
	if w.count == 0 {
		w.Min, w.Max = v, v
	}
	w.count++
	w.Min, w.Max = min(w.Min, v), max(w.Max, v)
	w.weighted += v * micros
	w.span += micros
}

// Mean returns the mean over time: a value that held twice as long has twice the weight.
func (w *Window) Mean() float64 {
	if w.span <= 0 {
		return w.Max
	}
	return min(max(w.weighted/w.span, w.Min), w.Max) // rounding may exceed the range
}

// TrackedFields returns the fields to track for the selected integrals and for the counters
// with statistics or a histogram, each once. The sampler reads gauges of a moment or of a short
// time every resolution.
func TrackedFields(counters []field.Counter, selected func(Quantity) bool, resolution time.Duration) []model.TrackedField {
	list := integratedFields(selected, resolution)
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

// tracking accumulates the values of tracked fields.
type tracking struct {
	fields   map[model.FieldID]model.TrackedField
	interval time.Duration // of the samples
	tracks   map[model.FieldKey]*trackState
	integrals
}

// trackState is the state of one field of one entity.
type trackState struct {
	at        int64 // of the newest point
	window    Window
	histogram prometheus.Histogram // nil unless configured
}

// Track sets the tracked fields and the interval of the samples. Call it before the first
// frame and when the configuration changes. Integrals continue.
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

// add adds the values between two samples.
func (t *tracking) add(inv *model.Inventory, tracks *model.Tracks) {
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

// clockStep separates repeated values from a clock that was set back, in µs. A value that
// is up to 5 s older than the newest one is a repetition.
const clockStep = int64(5 * time.Second / time.Microsecond)

func (s *trackState) add(p model.Point, step time.Duration) {
	since := p.At - s.at
	if since <= 0 && since > -clockStep {
		return // repeated by a sampler
	}
	held := step.Microseconds()
	if s.at != 0 && since > 0 && since < 3*held {
		held = since
	}
	s.at = p.At
	s.window.add(p.Value, float64(held))
	if s.histogram != nil {
		s.histogram.Observe(p.Value)
	}
}

// step returns the usual time between two values of the field.
func (t *tracking) step(field model.FieldID) time.Duration {
	if every := t.fields[field].Every; every > 0 && (every < t.interval || t.interval == 0) {
		return every
	}
	return t.interval
}

// keep clears the windows of entities that are absent from the inventory. Histograms and
// integrals are counters, so they remain.
func (t *tracking) keep(inv *model.Inventory) {
	present := make(map[model.FieldKey]bool, len(inv.Entities))
	for i := range inv.Entities {
		present[model.FieldKeyOf(inv, i, 0)] = true
	}
	for key, s := range t.tracks {
		entity := key
		entity.Field = 0
		if present[entity] {
			continue
		}
		s.window = Window{}
		if key.Kind != model.KindGPU && key.Kind != model.KindGPUInstance {
			delete(t.tracks, key) // another entity may get the id
		}
	}
	t.pause(inv)
	t.interrupt()
}

// TrackView is the state of the tracked fields at a sample. It is immutable.
type TrackView struct {
	Statistics map[TrackAt]Window
	Histograms map[TrackAt]*dto.Histogram
	IntegralView
}

// TrackAt is a field of an entity of the same view's inventory.
type TrackAt struct {
	Entity int
	Field  model.FieldID
}

// close ends the windows at a sample and returns them.
func (t *tracking) close(inv *model.Inventory, sample *model.Sample, gone []model.Entity) *TrackView {
	partitioned := inv.ReadAsInstances(sample)
	v := &TrackView{
		Statistics: make(map[TrackAt]Window, len(t.tracks)), Histograms: map[TrackAt]*dto.Histogram{},
		IntegralView: t.view(inv, partitioned, gone),
	}
	for i := range inv.Entities {
		if len(t.tracks) == 0 || partitioned[i] {
			continue
		}
		for id, field := range t.fields {
			s := t.tracks[model.FieldKeyOf(inv, i, id)]
			if s == nil {
				continue
			}
			at := TrackAt{i, id}
			if field.Statistics && s.window.count > 0 {
				v.Statistics[at] = s.window
			}
			s.window = Window{}
			if s.histogram != nil {
				v.Histograms[at] = snapshot(s.histogram)
			}
		}
	}
	return v
}

// newHistogram returns a native histogram of the values of one field of one entity.
func newHistogram() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "values", Help: "Values of a field.", // not published

		NativeHistogramBucketFactor:    1.1, // schema 3: each bucket is 9 % wider than the previous one
		NativeHistogramMaxBucketNumber: 160,
	})
}

// snapshot returns an immutable copy of the histogram.
func snapshot(h prometheus.Histogram) *dto.Histogram {
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		return nil // only exemplars cause errors
	}
	return m.Histogram
}
