// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// TestTrackedTargets shows that fast fields have separate watches, except profiling
// fields, which have one interval on a GPU.
func TestTrackedTargets(t *testing.T) {
	const fine = 100 * time.Millisecond
	gpus, both := model.Kinds(gpu), model.Kinds(gpu, inst)
	for name, tt := range map[string]struct {
		tracked []model.TrackedField
		want    []string
	}{
		"none": {nil, []string{
			"[67 155] on 1/0 1/5", "[155] on 4/7 4/8", "[1001 1002] on 1/0", "[1001] on 4/7 4/8",
		}},
		"a column at a shorter interval": {
			[]model.TrackedField{{Field: 155, Kinds: gpus, Every: fine}},
			[]string{"[67] on 1/0 1/5", "100ms [155] on 1/0 1/5", "[155] on 4/7 4/8", "[1001 1002] on 1/0", "[1001] on 4/7 4/8"},
		},
		"parents of instances": {
			[]model.TrackedField{{Field: 156, Kinds: gpus, Parents: true}},
			[]string{"[67 155 156] on 1/0 1/5", "[156] on 1/1", "[155] on 4/7 4/8", "[1001 1002] on 1/0", "[1001] on 4/7 4/8"},
		},
		"an alternative to a profiling field": {
			[]model.TrackedField{{Field: 203, Kinds: both, Every: fine, Unless: 1001}},
			[]string{
				"[67 155 203] on 1/0", "[67 155] on 1/5", "100ms [203] on 1/5", "[155 203] on 4/7 4/8",
				"[1001 1002] on 1/0", "[1001] on 4/7 4/8",
			},
		},
		"profiling that the GPU does not have": {
			[]model.TrackedField{{Field: 1005, Kinds: both}},
			[]string{"[67 155] on 1/0 1/5", "[155] on 4/7 4/8", "[1001 1002] on 1/0", "[1001] on 4/7 4/8"},
		},
		"profiling that is no column": {
			[]model.TrackedField{{Field: 1004, Kinds: gpus}},
			[]string{"[67 155] on 1/0 1/5", "[155] on 4/7 4/8", "[1001 1002 1004] on 1/0", "[1001] on 4/7 4/8"},
		},
		"profiling at a shorter interval": {
			[]model.TrackedField{{Field: 1001, Kinds: gpus, Every: fine}},
			[]string{"[67 155] on 1/0 1/5", "[155] on 4/7 4/8", "100ms [1001 1002] on 1/0", "[1001] on 4/7 4/8"},
		},
		"at the interval of the samples": {
			[]model.TrackedField{{Field: 155, Kinds: gpus, Every: time.Second}},
			[]string{"[67 155] on 1/0 1/5", "[155] on 4/7 4/8", "[1001 1002] on 1/0", "[1001] on 4/7 4/8"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlan(testInventory(testColumns), selectors{}, testCapabilities)
			p.track(tt.tracked, time.Second, false)
			var got []string
			for _, target := range p.targets() {
				if target.Events {
					continue
				}
				var b strings.Builder
				if target.Every > 0 {
					fmt.Fprintf(&b, "%v ", target.Every)
				}
				fmt.Fprintf(&b, "%v on", target.Fields)
				for _, e := range target.Entities {
					fmt.Fprintf(&b, " %d/%d", e.Kind, e.ID)
				}
				got = append(got, b.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// trackedValues receives frames until the second sample, and returns the tracked values
// before it, by entity and field.
func (p *process) trackedValues() map[string][]model.Point {
	p.t.Helper()
	points := make(map[string][]model.Point)
	for samples := 0; samples < 2; {
		f := p.frame("values between samples")
		switch {
		case f.Sample != nil:
			samples++
		case f.Tracks != nil:
			if f.Tracks.Generation != p.inv.Generation {
				p.t.Fatalf("values of inventory %d, after inventory %d", f.Tracks.Generation, p.inv.Generation)
			}
			for _, track := range f.Tracks.List {
				e := p.inv.Entities[track.Entity]
				key := fmt.Sprintf("%v %d: %d", e.Kind, e.ID, track.Field)
				points[key] = append(points[key], track.Points...)
			}
		}
	}
	return points
}

// TestValuesBetweenSamples shows that fast fields have many values between two samples,
// each reported once.
func TestValuesBetweenSamples(t *testing.T) {
	cfg := defaultConfig()
	cfg.Interval = 2 * time.Second
	cfg.Tracked = []model.TrackedField{
		{Field: 155, Kinds: model.Kinds(gpu), Every: 100 * time.Millisecond, Parents: true},
		{Field: 156, Kinds: model.Kinds(gpu), Parents: true},
		{Field: 1001, Kinds: model.Kinds(gpu, inst)},
		{Field: 203, Kinds: model.Kinds(gpu, inst), Every: 100 * time.Millisecond, Unless: 1001},
		{Field: 190, Kinds: model.Kinds(gpu, inst), Every: 100 * time.Millisecond}, // not supported
	}
	points := newNode(t, "h100x8-mig").start(cfg).trackedValues()
	for key, want := range map[string][2]int{
		"gpu 3: 155":           {5, 25}, // DCGM may skip some of the twenty
		"gpu 0: 155":           {5, 25}, // in MIG mode
		"gpu 0: 156":           {1, 3},
		"gpu_instance 0: 1001": {0, 2}, // the first one is blank
		"gpu_instance 0: 155":  {0, 0},
		"gpu 6: 203":           {1, 3}, // with the samples: the GPU has field 1001
		"gpu 0: 1001":          {0, 0}, // its instances have it
	} {
		got := points[key]
		if len(got) < want[0] || len(got) > want[1] {
			t.Errorf("%s: %d values, want %d to %d", key, len(got), want[0], want[1])
		}
		for i := range got {
			if i > 0 && got[i].At <= got[i-1].At {
				t.Errorf("%s: the value of %d follows that of %d", key, got[i].At, got[i-1].At)
			}
		}
	}
}

// TestUtilizationWithoutProfiling shows that GPUs without profiling track the driver's
// utilisation instead.
func TestUtilizationWithoutProfiling(t *testing.T) {
	cfg := defaultConfig()
	cfg.Interval = time.Second
	cfg.Tracked = state.TrackedFields(nil, func(state.Quantity) bool { return true }, 100*time.Millisecond)
	points := newNode(t, "t4x1").start(cfg).trackedValues()
	if n := len(points["gpu 0: 203"]); n < 3 {
		t.Errorf("%d values of the utilization", n)
	}
	if n := len(points["gpu 0: 1001"]); n > 0 {
		t.Errorf("%d values of profiling, for which the GPU has no module", n)
	}
}

// TestTrackedTimesAcrossStepsOfTheClock shows that a step of the engine's clock moves the
// time of no tracked value.
func TestTrackedTimesAcrossStepsOfTheClock(t *testing.T) {
	for _, step := range []time.Duration{0, time.Second, 4 * time.Minute, -time.Hour} {
		start := time.Now()
		value := seenValue{}
		for i := range 5 {
			at := start.Add(time.Duration(i) * time.Second)
			stamp := at
			if i >= 2 {
				stamp = stamp.Add(step)
			}
			value = value.next(stamp.UnixMicro(), at)
		}
		got := time.UnixMicro(value.point).Sub(time.UnixMicro(start.UnixMicro()))
		want := 4 * time.Second
		if step == time.Second { // not distinguishable from a late value
			want += step
		}
		if got != want {
			t.Errorf("step of %v: the last value follows the first after %v, want %v", step, got, want)
		}
	}
}
