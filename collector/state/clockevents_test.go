// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"testing"
	"time"

	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/model"
)

// derivedSample returns the node with the fields of clock events.
func derivedSample(t *testing.T, values map[model.FieldID]int64) (*model.Inventory, *model.Sample) {
	t.Helper()
	return fixture.DerivedSample(t, []model.FieldID{112, 1420, 1421, 1422, 1423, 1424, 1523}, values)
}

// Samples without the fields, and samples out of order, are accepted.
func TestClockEventsUnusualSamples(t *testing.T) {
	var c clockEventCounts
	inv, s := derivedSample(t, map[model.FieldID]int64{112: 1})
	c.add(testInventory(t), testSample(testInventory(t)))
	c.window = time.Minute
	for _, seconds := range []int{100, 90, 90, 91, 200} {
		next := *s
		next.Time = epoch.Add(time.Duration(seconds) * time.Second)
		c.add(inv, &next)
	}
	got := c.copy()[model.EntityKey{UUID: "GPU-aaaa", Instance: model.Unknown}]
	if got.Seconds[0] != 110 || got.Samples[0] != 3 || got.Window[0] != 1 {
		t.Errorf("%v s, %d samples, %d in the last minute", got.Seconds[0], got.Samples[0], got.Window[0])
	}
}

// The window of clock events expires while the GPU is lost, and a long window is stored in
// parts.
func TestClockEventsWindow(t *testing.T) {
	c := clockEventCounts{window: time.Minute}
	inv, s := derivedSample(t, map[model.FieldID]int64{112: 1})
	key := model.EntityKey{UUID: "GPU-aaaa", Instance: model.Unknown}
	add := func(at time.Duration) {
		next := *s
		next.Time = epoch.Add(at)
		c.add(inv, &next)
	}
	for i := range 3000 { // 20 ms apart: a part of the window has five
		add(time.Duration(i) * 20 * time.Millisecond)
	}
	state := c.gpus[key]
	if state.Window[0] != 3000 || state.Samples[0] != 3000 || len(state.recent) > windowParts+1 {
		t.Errorf("%d in the window, %d in total, %d parts", state.Window[0], state.Samples[0], len(state.recent))
	}
	add(90 * time.Second)
	if got := state.Window[0]; got < 1490 || got > 1505 {
		t.Errorf("%d in the last minute of 90 s, want about 1500", got)
	}
	s.Derived[0][fixture.DerivedColumn(t, inv, 112)] = model.NoValue(model.StatusEntityLost)
	add(5 * time.Minute)
	if state.Window[0] != 0 || state.Samples[0] != 3001 {
		t.Errorf("%d in the window after minutes without the GPU, %d in total", state.Window[0], state.Samples[0])
	}
}
