// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"maps"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// Prometheus's native histograms: the bucket with index i holds the values above
// 2^((i-1)/2^schema) and up to 2^(i/2^schema)
// (https://prometheus.io/docs/specs/native_histograms/).
const (
	// firstSchema makes each bucket 9 % wider than the one before it.
	firstSchema = 3
	// zeroThreshold is that of client_golang: smaller values count as zero.
	zeroThreshold = 0x1p-128
	// maxBuckets bounds a histogram. One with more is made coarser.
	maxBuckets = 160
)

// nativeHistogram counts values by size. The zero value is empty.
type nativeHistogram struct {
	coarser            int32 // how often it was made coarser
	positive, negative map[int32]uint64
	zero, count        uint64
	sum                float64
}

func (h *nativeHistogram) observe(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	h.count++
	h.sum += v
	if math.Abs(v) <= zeroThreshold {
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

// snapshot returns the histogram as it is now.
func (h *nativeHistogram) snapshot() *Histogram {
	return &Histogram{
		schema: firstSchema - h.coarser, count: h.count, sum: h.sum, zero: h.zero,
		positive: bucketsOf(h.positive), negative: bucketsOf(h.negative),
	}
}

func bucketsOf(counts map[int32]uint64) []bucket {
	if len(counts) == 0 {
		return nil
	}
	list := make([]bucket, 0, len(counts))
	for _, i := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, bucket{i, counts[i]})
	}
	return list
}

// HistogramSeries is one time series of a family of histograms.
type HistogramSeries struct {
	Labels    *LabelSet
	Histogram *Histogram
}

// Histogram is a native histogram at the time of the exposition. It is immutable.
type Histogram struct {
	schema             int32
	count, zero        uint64
	sum                float64
	positive, negative []bucket // by index
}

type bucket struct {
	index int32
	count uint64
}

func histogramProto(h *Histogram) *dto.Histogram {
	threshold := float64(zeroThreshold)
	p := &dto.Histogram{
		SampleCount: &h.count, SampleSum: &h.sum,
		Schema: &h.schema, ZeroThreshold: &threshold, ZeroCount: &h.zero,
	}
	p.PositiveSpan, p.PositiveDelta = spans(h.positive)
	p.NegativeSpan, p.NegativeDelta = spans(h.negative)
	return p
}

// spans writes buckets as runs of neighbours, each count as the difference from
// the one before it.
func spans(buckets []bucket) (runs []*dto.BucketSpan, deltas []int64) {
	var before int64
	next := int32(0)
	for _, b := range buckets {
		if len(runs) == 0 || b.index != next {
			offset, length := b.index-next, uint32(0)
			runs = append(runs, &dto.BucketSpan{Offset: &offset, Length: &length})
		}
		*runs[len(runs)-1].Length++
		deltas = append(deltas, int64(b.count)-before)
		before, next = int64(b.count), b.index+1
	}
	return runs, deltas
}

// appendHistogram writes what the text formats can say of a native histogram: the
// bucket of everything, the sum and the count, as client_golang does.
func appendHistogram(dst []byte, name string, s *HistogramSeries) []byte {
	dst = append(append(dst, name...), "_bucket"...)
	if text := s.Labels.text; text == "" {
		dst = append(dst, '{')
	} else {
		dst = append(append(dst, text[:len(text)-1]...), ',')
	}
	dst = append(dst, `le="+Inf"} `...)
	dst = append(Number(float64(s.Histogram.count)).append(dst), '\n')
	for _, part := range []struct {
		suffix string
		value  float64
	}{{"_sum", s.Histogram.sum}, {"_count", float64(s.Histogram.count)}} {
		dst = append(append(append(dst, name...), part.suffix...), s.Labels.text...)
		dst = append(Number(part.value).append(append(dst, ' ')), '\n')
	}
	return dst
}
