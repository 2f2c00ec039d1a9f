// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"maps"
	"math"
	"slices"
)

// Prometheus's native histograms: the bucket with index i holds the values above
// 2^((i-1)/2^schema) and up to 2^(i/2^schema)
// (https://prometheus.io/docs/specs/native_histograms/).
const (
	// firstSchema makes each bucket 9 % wider than the one before it.
	firstSchema = 3
	// ZeroThreshold is that of client_golang: smaller values count as zero.
	ZeroThreshold = 0x1p-128
	// maxBuckets bounds a histogram. One with more is made coarser.
	maxBuckets = 160
)

// NativeHistogram counts values by size. The zero value is empty.
type NativeHistogram struct {
	coarser            int32 // how often it was made coarser
	positive, negative map[int32]uint64
	zero, count        uint64
	sum                float64
}

// Observe counts a value. Values that are not finite are ignored.
func (h *NativeHistogram) Observe(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	h.count++
	h.sum += v
	if math.Abs(v) <= ZeroThreshold {
		h.zero++
		return
	}
	side := &h.positive
	if v < 0 {
		side = &h.negative
	}
	if *side == nil {
		*side = map[int32]uint64{}
	}
	(*side)[bucketOf(math.Abs(v), firstSchema-h.coarser)]++
	for len(h.positive)+len(h.negative) > maxBuckets {
		h.positive, h.negative = halved(h.positive), halved(h.negative)
		h.coarser++
	}
}

// bucketOf returns the index of the bucket that a positive value lies in.
func bucketOf(v float64, schema int32) int32 {
	i := int32(math.Ceil(math.Ldexp(math.Log2(v), int(schema))))
	// The logarithm is rounded; a power of two is the upper bound of its bucket.
	for v > upperBound(i, schema) {
		i++
	}
	for v <= upperBound(i-1, schema) {
		i--
	}
	return i
}

func upperBound(i, schema int32) float64 { return math.Exp2(math.Ldexp(float64(i), -int(schema))) }

// halved puts two neighbouring buckets into one, which is what the next lower
// schema has.
func halved(buckets map[int32]uint64) map[int32]uint64 {
	if buckets == nil {
		return nil
	}
	wide := make(map[int32]uint64, len(buckets)/2+1)
	for i, n := range buckets {
		wide[(i+1)>>1] += n
	}
	return wide
}

// Snapshot returns the histogram as it is now.
func (h *NativeHistogram) Snapshot() *Histogram {
	return &Histogram{
		Schema: firstSchema - h.coarser, Count: h.count, Sum: h.sum, Zero: h.zero,
		Positive: bucketsOf(h.positive), Negative: bucketsOf(h.negative),
	}
}

func bucketsOf(counts map[int32]uint64) []Bucket {
	if len(counts) == 0 {
		return nil
	}
	list := make([]Bucket, 0, len(counts))
	for _, i := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, Bucket{i, counts[i]})
	}
	return list
}

// Histogram is a native histogram at the time of the exposition. It is immutable.
type Histogram struct {
	Schema             int32
	Count, Zero        uint64
	Sum                float64
	Positive, Negative []Bucket // by index
}

// Bucket is the number of values in one bucket.
type Bucket struct {
	Index int32
	Count uint64
}
