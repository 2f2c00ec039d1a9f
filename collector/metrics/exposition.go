// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/state"
)

// Exposition is everything that one scrape answers, ready to be encoded. It is
// immutable: one exposition serves all scrapes until the next replaces it.
type Exposition struct {
	// Families are ours, sorted by name, each name once.
	Families []Family
	// Process are the families of the exporter process itself, as its registry
	// gathered them: sorted by name, none of them also in Families.
	Process []*dto.MetricFamily
}

// Append encodes the exposition in the given format. Families of both kinds
// are merged by name. A family of Process that cannot be encoded is left out and
// named in the error; what is returned is a valid body all the same.
func (e *Exposition) Append(dst []byte, format expfmt.Format) ([]byte, error) {
	appendFamily := e.appendText
	switch format.FormatType() {
	case expfmt.TypeOpenMetrics:
		appendFamily = e.appendOpenMetrics
	case expfmt.TypeProtoDelim, expfmt.TypeProtoText, expfmt.TypeProtoCompact:
		return e.appendProto(dst, format)
	}
	if dst == nil {
		dst = make([]byte, 0, e.textSize())
	}
	var errs []error
	process := e.Process
	appendProcess := func(mf *dto.MetricFamily) {
		var err error
		if dst, err = appendProcessText(dst, mf, format); err != nil {
			errs = append(errs, err)
		}
	}
	for i := range e.Families {
		f := &e.Families[i]
		for len(process) > 0 && process[0].GetName() < f.Name {
			appendProcess(process[0])
			process = process[1:]
		}
		dst = appendFamily(dst, f)
	}
	for _, mf := range process {
		appendProcess(mf)
	}
	if format.FormatType() == expfmt.TypeOpenMetrics {
		dst = append(dst, "# EOF\n"...)
	}
	return dst, errors.Join(errs...)
}

// textSize estimates the text body from above, so that encoding allocates once.
func (e *Exposition) textSize() int {
	const perValue, processFamily = 28, 1024
	size := len(e.Process) * processFamily
	for i := range e.Families {
		f := &e.Families[i]
		size += 2*len(f.Name) + len(f.Help) + 64
		for j := range f.Series {
			size += len(f.Name) + len(f.Series[j].Labels.text) + perValue
		}
		for j := range f.Histograms {
			size += 3 * (len(f.Name) + len(f.Histograms[j].Labels.text) + 2*perValue)
		}
	}
	return size
}

var (
	textHelpEscaper        = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	openMetricsHelpEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func (e *Exposition) appendText(dst []byte, f *Family) []byte {
	typ := "gauge"
	switch f.Type {
	case field.MetricCounter:
		typ = "counter"
	case field.MetricHistogram:
		typ = "histogram"
	}
	return appendSeries(appendHead(dst, f.Name, textHelpEscaper.Replace(f.Help), typ), f)
}

// appendOpenMetrics writes a family as expfmt does: a counter's family name goes
// without _total, and a counter whose name lacks _total is of type unknown,
// because in OpenMetrics it could not be a counter under its own name.
func (e *Exposition) appendOpenMetrics(dst []byte, f *Family) []byte {
	name, typ := f.Name, "gauge"
	switch f.Type {
	case field.MetricHistogram:
		typ = "histogram"
	case field.MetricCounter:
		typ = "unknown"
		if base, ok := strings.CutSuffix(name, "_total"); ok {
			name, typ = base, "counter"
		}
	}
	return appendSeries(appendHead(dst, name, openMetricsHelpEscaper.Replace(f.Help), typ), f)
}

func appendHead(dst []byte, name, help, typ string) []byte {
	dst = append(dst, "# HELP "...)
	dst = append(dst, name...)
	dst = append(dst, ' ')
	dst = append(dst, help...)
	dst = append(dst, "\n# TYPE "...)
	dst = append(dst, name...)
	dst = append(dst, ' ')
	dst = append(dst, typ...)
	return append(dst, '\n')
}

func appendSeries(dst []byte, f *Family) []byte {
	for i := range f.Series {
		s := &f.Series[i]
		dst = append(dst, f.Name...)
		dst = append(dst, s.Labels.text...)
		dst = append(dst, ' ')
		dst = s.Value.append(dst)
		dst = append(dst, '\n')
	}
	for i := range f.Histograms {
		dst = appendHistogram(dst, f.Name, &f.Histograms[i])
	}
	return dst
}

func appendProcessText(dst []byte, mf *dto.MetricFamily, format expfmt.Format) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	var err error
	if format.FormatType() == expfmt.TypeOpenMetrics {
		_, err = expfmt.MetricFamilyToOpenMetrics(buf, mf)
	} else {
		_, err = expfmt.MetricFamilyToText(buf, mf)
	}
	if err != nil {
		return dst, fmt.Errorf("encoding %s: %w", mf.GetName(), err)
	}
	return buf.Bytes(), nil
}

func (e *Exposition) appendProto(dst []byte, format expfmt.Format) ([]byte, error) {
	all := slices.Clone(e.Process)
	for i := range e.Families {
		all = append(all, e.Families[i].proto())
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	var errs []error
	buf := bytes.NewBuffer(dst)
	enc := expfmt.NewEncoder(buf, format)
	for _, mf := range all {
		before := buf.Len()
		if err := enc.Encode(mf); err != nil {
			buf.Truncate(before)
			errs = append(errs, fmt.Errorf("encoding %s: %w", mf.GetName(), err))
		}
	}
	return buf.Bytes(), errors.Join(errs...)
}

func (f *Family) proto() *dto.MetricFamily {
	mf := &dto.MetricFamily{Name: &f.Name, Help: &f.Help, Type: dto.MetricType_GAUGE.Enum()}
	switch f.Type {
	case field.MetricCounter:
		mf.Type = dto.MetricType_COUNTER.Enum()
	case field.MetricHistogram:
		mf.Type = dto.MetricType_HISTOGRAM.Enum()
		for i := range f.Histograms {
			h := &f.Histograms[i]
			mf.Metric = append(mf.Metric, &dto.Metric{Label: h.Labels.proto(), Histogram: histogramProto(h.Histogram)})
		}
		return mf
	}
	mf.Metric = make([]*dto.Metric, len(f.Series))
	for i, s := range f.Series {
		m := &dto.Metric{Label: s.Labels.proto()}
		v := s.Value.Float64()
		if f.Type == field.MetricCounter {
			m.Counter = &dto.Counter{Value: &v}
		} else {
			m.Gauge = &dto.Gauge{Value: &v}
		}
		mf.Metric[i] = m
	}
	return mf
}

func (s *LabelSet) proto() []*dto.LabelPair {
	pairs := make([]*dto.LabelPair, len(s.labels))
	for i := range s.labels {
		value := strings.ToValidUTF8(s.labels[i].Value, "\uFFFD")
		pairs[i] = &dto.LabelPair{Name: &s.labels[i].Name, Value: &value}
	}
	return pairs
}

// HistogramSeries is one time series of a family of histograms.
type HistogramSeries struct {
	Labels    *LabelSet
	Histogram *state.Histogram
}

func histogramProto(h *state.Histogram) *dto.Histogram {
	threshold := float64(state.ZeroThreshold)
	p := &dto.Histogram{
		SampleCount: &h.Count, SampleSum: &h.Sum,
		Schema: &h.Schema, ZeroThreshold: &threshold, ZeroCount: &h.Zero,
	}
	p.PositiveSpan, p.PositiveDelta = spans(h.Positive)
	p.NegativeSpan, p.NegativeDelta = spans(h.Negative)
	return p
}

// spans writes buckets as runs of neighbours, each count as the difference from
// the one before it.
func spans(buckets []state.Bucket) (runs []*dto.BucketSpan, deltas []int64) {
	var before int64
	next := int32(0)
	for _, b := range buckets {
		if len(runs) == 0 || b.Index != next {
			offset, length := b.Index-next, uint32(0)
			runs = append(runs, &dto.BucketSpan{Offset: &offset, Length: &length})
		}
		*runs[len(runs)-1].Length++
		deltas = append(deltas, int64(b.Count)-before)
		before, next = int64(b.Count), b.Index+1
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
	dst = append(Number(float64(s.Histogram.Count)).append(dst), '\n')
	for _, part := range []struct {
		suffix string
		value  float64
	}{{"_sum", s.Histogram.Sum}, {"_count", float64(s.Histogram.Count)}} {
		dst = append(append(append(dst, name...), part.suffix...), s.Labels.text...)
		dst = append(Number(part.value).append(append(dst, ' ')), '\n')
	}
	return dst
}
