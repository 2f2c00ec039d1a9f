// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"math"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// The mean is over time: a value has the weight of the time that it held.
func TestWindow(t *testing.T) {
	var s trackState
	const step = 100 * time.Millisecond
	for _, p := range []model.Point{{At: 1_000_000, Value: 10}, {At: 1_100_000, Value: 20}, {At: 1_100_000, Value: 20}, {At: 1_300_000, Value: 40}, {At: 9_000_000, Value: 30}} {
		s.add(p, step)
	}
	w := s.window
	// The first value, and the last after a gap, have the weight of one step.
	if want := (10*1 + 20*1 + 40*2 + 30*1) / 5.0; w.count != 4 || w.Min != 10 || w.Max != 40 || w.Mean() != want {
		t.Errorf("%d values from %v to %v, mean %v; want 4 from 10 to 40, mean %v", w.count, w.Min, w.Max, w.Mean(), want)
	}
}

// A histogram with too many buckets becomes coarser and still counts every value.
func TestHistogramIsBounded(t *testing.T) {
	h := newHistogram()
	h.Observe(1)
	if schema := snapshot(h).GetSchema(); schema != 3 {
		t.Errorf("schema %d at first, want 3", schema)
	}
	count := uint64(1)
	for e := -100; e < 100; e++ {
		for _, sign := range []float64{1, -1} {
			h.Observe(sign * math.Ldexp(1.2, e))
			count++
		}
	}
	s := snapshot(h)
	if n := len(s.GetPositiveDelta()) + len(s.GetNegativeDelta()); n > 160 || s.GetSchema() >= 3 {
		t.Errorf("%d buckets of schema %d", n, s.GetSchema())
	}
	found := s.GetZeroCount()
	for _, deltas := range [][]int64{s.GetPositiveDelta(), s.GetNegativeDelta()} {
		bucket := int64(0)
		for _, delta := range deltas {
			bucket += delta
			found += uint64(bucket)
		}
	}
	if found != count || s.GetSampleCount() != count {
		t.Errorf("%d in buckets and %d counted, of %d", found, s.GetSampleCount(), count)
	}
}
