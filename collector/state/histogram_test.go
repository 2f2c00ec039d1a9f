// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"math"
	"testing"
)

// A histogram with too many buckets becomes coarser, and loses nothing.
func TestHistogramIsBounded(t *testing.T) {
	var h NativeHistogram
	count := uint64(0)
	for e := -100; e < 100; e++ {
		for _, sign := range []float64{1, -1} {
			h.Observe(sign * math.Ldexp(1.2, e))
			count++
		}
	}
	s := h.Snapshot()
	if n := len(s.Positive) + len(s.Negative); n > maxBuckets || s.Schema >= firstSchema {
		t.Fatalf("%d buckets of schema %d", n, s.Schema)
	}
	var found uint64
	for _, side := range [][]Bucket{s.Positive, s.Negative} {
		for i, b := range side {
			found += b.Count
			if i > 0 && b.Index <= side[i-1].Index {
				t.Errorf("bucket %d follows %d", b.Index, side[i-1].Index)
			}
		}
	}
	if found+s.Zero != count || s.Count != count {
		t.Errorf("%d in buckets and %d counted, of %d", found+s.Zero, s.Count, count)
	}
	if i := bucketOf(1.2, s.Schema); upperBound(i, s.Schema) < 1.2 || upperBound(i-1, s.Schema) >= 1.2 {
		t.Errorf("1.2 lies in the bucket %d of schema %d", i, s.Schema)
	}
}
