// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// A step of the wall clock counts as no time with a clock event reason.
func TestClockEventsAcrossStepsOfTheClock(t *testing.T) {
	for _, step := range []time.Duration{4 * time.Minute, -time.Hour} {
		c := clockEventCounts{window: time.Minute}
		inv, s := derivedSample(t, map[model.FieldID]int64{112: 1})
		for i := range 6 {
			next := *s
			next.Time, next.Uptime = epoch.Add(time.Duration(i)*time.Second), time.Hour+time.Duration(i)*time.Second
			if i >= 3 {
				next.Time = next.Time.Add(step)
			}
			c.add(inv, &next)
		}
		got := c.copy()[model.EntityKey{UUID: "GPU-aaaa", Instance: model.Unknown}]
		if got.Seconds[0] != 5 || got.Samples[0] != 6 || got.Window[0] != 6 {
			t.Errorf("step of %v: %v s, %d samples, %d in the last minute; want 5, 6, 6", step, got.Seconds[0], got.Samples[0], got.Window[0])
		}
	}
}
