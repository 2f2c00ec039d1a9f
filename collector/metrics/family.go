// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
)

// family is a metric family under construction. Its series are allocated in blocks,
// because a sample has thousands of them.
type family struct {
	*dto.MetricFamily
	// The unused parts of the current block.
	metrics  []dto.Metric
	values   []float64
	gauges   []dto.Gauge
	counters []dto.Counter
}

// firstBlock is the size of a family's first block: most nodes have 8 GPUs.
const firstBlock = 8

func newFamily(name, help string, typ field.MetricType) *family {
	proto := dto.MetricType_GAUGE
	switch typ {
	case field.MetricCounter:
		proto = dto.MetricType_COUNTER
	case field.MetricHistogram:
		proto = dto.MetricType_HISTOGRAM
	}
	return &family{MetricFamily: &dto.MetricFamily{Name: &name, Help: &help, Type: &proto}}
}

// add appends a series. The labels are shared, not copied.
func (f *family) add(labels []*dto.LabelPair, value float64) {
	isCounter := *f.Type == dto.MetricType_COUNTER
	if len(f.metrics) == 0 {
		size := max(firstBlock, len(f.Metric))
		if labels == nil {
			size = 1 // the only series of its family
		}
		f.metrics, f.values = make([]dto.Metric, size), make([]float64, size)
		f.Metric = slices.Grow(f.Metric, size)
		if isCounter {
			f.counters = make([]dto.Counter, size)
		} else {
			f.gauges = make([]dto.Gauge, size)
		}
	}
	m, v := &f.metrics[0], &f.values[0]
	f.metrics, f.values = f.metrics[1:], f.values[1:]
	m.Label, *v = labels, value
	if isCounter {
		m.Counter, f.counters = &f.counters[0], f.counters[1:]
		m.Counter.Value = v
	} else {
		m.Gauge, f.gauges = &f.gauges[0], f.gauges[1:]
		m.Gauge.Value = v
	}
	f.Metric = append(f.Metric, m)
}

// addHistogram appends a series of a family of histograms.
func (f *family) addHistogram(labels []*dto.LabelPair, h *dto.Histogram) {
	f.Metric = append(f.Metric, &dto.Metric{Label: labels, Histogram: h})
}

// pair returns a label. Prometheus rejects the whole page for a value that is not
// UTF-8, so invalid bytes are replaced.
func pair(name, value string) *dto.LabelPair {
	value = strings.ToValidUTF8(value, "\uFFFD")
	return &dto.LabelPair{Name: &name, Value: &value}
}

// with returns the labels followed by more, which are names and values in turn.
func with(labels []*dto.LabelPair, more ...string) []*dto.LabelPair {
	all := make([]*dto.LabelPair, len(labels), len(labels)+len(more)/2)
	copy(all, labels)
	for i := 0; i+1 < len(more); i += 2 {
		all = append(all, pair(more[i], more[i+1]))
	}
	return all
}

func byName(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) }

// sortedByName returns all the labels in one list, sorted by name.
func sortedByName(labels ...[]*dto.LabelPair) []*dto.LabelPair {
	all := slices.Concat(labels...)
	slices.SortStableFunc(all, byName)
	return all
}

// nonEmpty removes the labels without a value.
func nonEmpty(labels []*dto.LabelPair) []*dto.LabelPair {
	return slices.DeleteFunc(labels, func(l *dto.LabelPair) bool { return l.GetValue() == "" })
}

// bit returns 1 for true and 0 for false.
func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func decimal[N ~int | ~int64 | ~uint32](n N) string { return strconv.FormatInt(int64(n), 10) }
