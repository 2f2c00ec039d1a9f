// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"math"
	"testing"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// sourcePoint is a value at a time in seconds, from one of the sources.
type sourcePoint struct {
	source   int
	seconds  float64
	value    float64
	wantSum  float64 // after it
	wantGap  float64 // seconds bridged by it
	wantFrom int     // the source in use
}

func TestIntegrator(t *testing.T) {
	mean := []IntegralSource{{"best", 1001, ofInterval, 1}, {"other", 203, ofInterval, field.Percent}}
	power := []IntegralSource{{"counter", 156, ofAllTime, 1e-3}, {"power", 155, ofMoment, 1}}
	every := steps{step: 1, covered: 3, bridge: 30, silence: 3}
	for name, tc := range map[string]struct {
		sources []IntegralSource
		points  []sourcePoint
	}{
		"a mean covers the time since the previous value": {mean, []sourcePoint{
			{0, 100, 0.9, 0, 0, 0}, // the time that it covers is unknown
			{0, 101, 0.5, 0.5, 0, 0},
			{0, 103, 0.25, 1, 0, 0},
		}},
		"a repeated value counts once": {mean, []sourcePoint{
			{0, 100, 1, 0, 0, 0}, {0, 101, 1, 1, 0, 0}, {0, 101, 1, 1, 0, 0}, {0, 100.5, 1, 1, 0, 0},
		}},
		"instantaneous readings are joined by straight lines": {power, []sourcePoint{
			{1, 100, 300, 0, 0, 1}, {1, 101, 500, 400, 0, 1}, {1, 102, 100, 700, 0, 1},
		}},
		"a sum includes any gap": {power, []sourcePoint{
			{0, 100, 7_000_000, 0, 0, 0}, {0, 101, 7_300_000, 300, 0, 0}, {0, 4000, 8_000_000, 1000, 0, 0},
		}},
		"a sum includes the time of another source": {power, []sourcePoint{
			{0, 100, 1_000_000, 0, 0, 0}, {0, 105, 1_500_000, 500, 0, 0},
			{1, 109, 300, 500 + 4*300, 4, 1}, {1, 110, 300, 500 + 5*300, 0, 1},
			{0, 115, 4_500_000, 3500, 0, 0},
			{1, 119, 900, 3500 + 4*900, 4, 1},
			{0, 120, 4_600_000, 3500 + 4*900, 0, 0}, // less than the estimate: the total does not decrease
		}},
		"a sum that was reset adds nothing once": {power, []sourcePoint{
			{0, 100, 7_000_000, 0, 0, 0}, {0, 101, 5000, 0, 0, 0}, {0, 102, 6000, 1, 0, 0},
		}},
		"an impossible increase of a sum adds nothing": {power, []sourcePoint{
			{0, 100, 7_000_000, 0, 0, 0}, {0, 101, 7_600_000, 600, 0, 0},
			{0, 102, 1e15, 600, 0, 0}, {0, 103, 7_700_000, 600, 0, 0}, {0, 104, 8_300_000, 1200, 0, 0},
		}},
		"the mean of both sides bridges a gap": {mean, []sourcePoint{
			{0, 100, 0.5, 0, 0, 0}, {0, 101, 0.5, 0.5, 0, 0},
			{0, 106, 0.1, 0.5 + 0.1 + 4*0.3, 4, 0}, // it covers the last second
		}},
		"a long gap is omitted": {mean, []sourcePoint{
			{0, 100, 1, 0, 0, 0}, {0, 101, 1, 1, 0, 0}, {0, 132, 1, 1, 0, 0}, {0, 133, 1, 2, 0, 0},
		}},
		"another source is used once the preferred one has stopped": {mean, []sourcePoint{
			{0, 100, 1, 0, 0, 0},
			{1, 100.5, 100, 0, 0, 0},
			{0, 101, 1, 1, 0, 0},
			{1, 102, 50, 1, 0, 0},
			{1, 105, 50, 1 + 4*0.5, 3, 1},
			{0, 106, 1, 4, 0, 0}, // and back
		}},
		"a clock that was set back restarts the integral": {mean, []sourcePoint{
			{0, 1000, 1, 0, 0, 0}, {0, 1001, 1, 1, 0, 0}, {0, 500, 1, 1, 0, 0}, {0, 501, 1, 2, 0, 0},
		}},
		"a negative value is ignored": {mean, []sourcePoint{
			{0, 100, 1, 0, 0, 0}, {0, 101, -1, 0, 0, 0}, {0, 102, 1, 2, 0, 0},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var g integrator
			g.source = tc.points[0].source
			for i, p := range tc.points {
				gap := g.add(tc.sources, p.source, model.Point{At: int64(p.seconds * 1e6), Value: p.value}, every)
				if math.Abs(g.total-p.wantSum) > 1e-9 || math.Abs(gap-p.wantGap) > 1e-9 || g.source != p.wantFrom {
					t.Errorf("after value %d: %v, %v s bridged, from source %d; want %v, %v, %d", i, g.total, gap, g.source, p.wantSum, p.wantGap, p.wantFrom)
				}
			}
		})
	}
}

// The recent mean bridges a gap, not the last value before it: the load has short bursts.
func TestRecentMeanBridgesGap(t *testing.T) {
	sources := []IntegralSource{{field: 1001, scale: 1}}
	var g integrator
	at := int64(1e9)
	for i := range 120 { // 30 % of the time
		v := 0.0
		if i%10 < 3 {
			v = 1
		}
		g.add(sources, 0, model.Point{At: at, Value: v}, steps{step: 0.5, covered: 2, bridge: 30, silence: 2})
		at += 500_000
	}
	before := g.total
	gap := g.add(sources, 0, model.Point{At: at + 10_000_000, Value: 0.3}, steps{step: 0.5, covered: 2, bridge: 30, silence: 2})
	if got := (g.total - before - 0.3*0.5) / gap; gap != 10 || got < 0.2 || got > 0.4 {
		t.Errorf("%v bridges %v s after a load of 0.3", got, gap)
	}
}

// tracksOf returns a frame with one value for each field of an entity.
func tracksOf(at time.Time, entity int, values map[model.FieldID]float64) wire.Frame {
	t := &model.Tracks{Generation: 1}
	for field, v := range values {
		t.List = append(t.List, model.Track{Entity: entity, Field: field, Points: []model.Point{{At: at.UnixMicro(), Value: v}}})
	}
	return wire.Frame{Tracks: t}
}

func TestTracksAreChecked(t *testing.T) {
	node, _ := newTestNode(t)
	for name, tc := range map[string]struct {
		tracks model.Tracks
		reason string
	}{
		"another inventory": {model.Tracks{Generation: 2}, model.RejectInventory},
		"no such entity":    {model.Tracks{Generation: 1, List: []model.Track{{Entity: 99, Field: 1001}}}, model.RejectInvalid},
		"infinite value":    {model.Tracks{Generation: 1, List: []model.Track{{Entity: 0, Field: 1001, Points: []model.Point{{At: 1, Value: math.Inf(1)}}}}}, model.RejectInvalid},
	} {
		var reject *model.RejectError
		if err := node.Deliver(wire.Frame{Tracks: &tc.tracks}); !errors.As(err, &reject) || reject.Reason != tc.reason {
			t.Errorf("%s: %v, want it rejected as %s", name, err, tc.reason)
		}
	}
}

// The source fields of integrals are tracked with any counters. Counters add fields.
func TestTrackedFields(t *testing.T) {
	find := func(list []model.TrackedField, field model.FieldID) (found []model.TrackedField) {
		for _, f := range list {
			if f.Field == field {
				found = append(found, f)
			}
		}
		return found
	}
	const second = time.Second
	list := TrackedFields(nil, all, second)
	both := model.Kinds(model.KindGPU, model.KindGPUInstance)
	for _, want := range []model.TrackedField{
		{Field: 1001, Kinds: both}, // a mean since the previous value loses nothing
		{Field: 203, Kinds: both, Every: second, Unless: 1001},
		{Field: 156, Kinds: model.Kinds(model.KindGPU), Parents: true},
		{Field: 155, Kinds: model.Kinds(model.KindGPU), Parents: true, Every: second},
	} {
		if got := find(list, want.Field); len(got) != 1 || got[0] != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	counter := func(id model.FieldID, typ field.MetricType, c field.Counter) field.Counter {
		c.Field, _ = field.ByID(id)
		c.Name, c.Type = c.Field.Name, typ
		return c
	}
	list = TrackedFields([]field.Counter{
		counter(203, field.MetricGauge, field.Counter{Resolution: 100 * time.Millisecond, Statistics: true}),
		counter(150, field.MetricGauge, field.Counter{Histogram: true, Kinds: model.Kinds(model.KindGPU)}),
		counter(140, field.MetricGauge, field.Counter{Resolution: second}), // neither statistics nor a histogram
		counter(1, field.MetricLabel, field.Counter{Statistics: true}),
	}, all, second)
	if got := find(list, 203); len(got) != 1 || got[0].Every != 100*time.Millisecond || got[0].Unless != 0 || !got[0].Statistics {
		t.Errorf("utilization with statistics: %+v", got)
	}
	if got := find(list, 150); len(got) != 1 || got[0] != (model.TrackedField{Field: 150, Kinds: model.Kinds(model.KindGPU), Histogram: true}) {
		t.Errorf("temperature with a histogram: %+v", got)
	}
	if got := append(find(list, 140), find(list, 1)...); len(got) > 0 {
		t.Errorf("tracked without a use: %+v", got)
	}
	list = TrackedFields(nil, func(q Quantity) bool { return q == BusyTime }, second)
	if len(list) != 2 || len(find(list, 1001)) != 1 || len(find(list, 203)) != 1 {
		t.Errorf("for the busy time alone: %+v", list)
	}
}

// all selects every quantity.
func all(Quantity) bool { return true }

// After a stall, the engine's next mean covers the whole stall, unless a watch may have
// restarted. The time of a lost GPU does not count.
func TestIntegralsThroughGaps(t *testing.T) {
	profiling := func(node *Node) wire.Frame {
		return wire.Frame{Profiling: &model.Profiling{Generation: node.latest.Generation}}
	}
	in := func(state model.EntityState) func(*Node) wire.Frame {
		return func(node *Node) wire.Frame {
			inv := testInventory(t)
			inv.Generation = node.latest.Generation
			inv.Entities[0].State = state
			return wire.Frame{Inventory: inv}
		}
	}
	for name, tc := range map[string]struct {
		meanwhile []func(*Node) wire.Frame
		field     model.FieldID
		want      float64 // after a second at 1, ten seconds without a value, and then 0.1
	}{
		"the engine stalls":            {nil, 1010, 1 + 10*0.1},
		"the profiling watch restarts": {[]func(*Node) wire.Frame{profiling}, 1010, 1 + 0.1 + 9*0.55},
		"a new sampler":                {[]func(*Node) wire.Frame{in(model.EntityUp)}, 1010, 1 + 0.1 + 9*0.55},
		"the GPU is lost and returns":  {[]func(*Node) wire.Frame{in(model.EntityLost), in(model.EntityUp)}, 1010, 1},
		"a mean of the driver":         {nil, 207, (1 + 0.1 + 9*0.55) / 100},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := newTestNode(t)
			node.Track(TrackedFields(nil, all, time.Second), time.Second)
			value := func(after time.Duration, v float64) {
				t.Helper()
				frame := tracksOf(epoch.Add(after), 0, map[model.FieldID]float64{tc.field: v})
				frame.Tracks.Generation = node.latest.Generation
				if err := node.Deliver(frame); err != nil {
					t.Fatal(err)
				}
			}
			value(0, 1)
			value(time.Second, 1)
			for _, frame := range tc.meanwhile {
				if err := node.Deliver(frame(node)); err != nil {
					t.Fatal(err)
				}
			}
			value(11*time.Second, 0.1)
			var got float64
			for _, g := range node.tracking.of[model.EntityKey{UUID: "GPU-aaaa", Instance: model.Unknown}] {
				if g != nil {
					got += g.total
				}
			}
			if math.Abs(got-tc.want) > 1e-9 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
