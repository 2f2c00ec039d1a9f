// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// The mean is one over time: a value counts for as long as it stood.
func TestWindow(t *testing.T) {
	var s trackState
	const step = 100 * time.Millisecond
	for _, p := range []model.Point{{At: 1_000_000, Value: 10}, {At: 1_100_000, Value: 20}, {At: 1_100_000, Value: 20}, {At: 1_300_000, Value: 40}, {At: 9_000_000, Value: 30}} {
		s.add(p, step)
	}
	w := s.window
	// The first and, after a gap, the last stand for what is usual.
	if want := (10*1 + 20*1 + 40*2 + 30*1) / 5.0; w.count != 4 || w.Min != 10 || w.Max != 40 || w.Mean() != want {
		t.Errorf("%d values from %v to %v, mean %v; want 4 from 10 to 40, mean %v", w.count, w.Min, w.Max, w.Mean(), want)
	}
}
