// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"math"
	"testing"
)

// A histogram with too many buckets becomes coarser, and counts every value.
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
