// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"strconv"
	"strings"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// scale multiplies the values of the series by the counter's factor. Whole numbers
// stay whole where the factor is; else six decimals are written, as dcgm-exporter
// writes doubles.
func scale(c field.Counter, series []Series) {
	if c.Scale == 0 {
		return
	}
	whole := int64(c.Scale)
	for i := range series {
		v := &series[i].Value
		if v.form == formInt && float64(whole) == c.Scale {
			*v = Value{uint64(int64(v.bits) * whole), formInt}
			continue
		}
		*v = Number(v.Float64() * c.Scale)
		v.form = formFixed
	}
}

// Label is one name and value. Names are valid in every exposition format.
type Label struct{ Name, Value string }

// LabelSet is an immutable list of labels in the order in which they are
// written. Series of one entity share it, and its text is rendered once.
type LabelSet struct {
	labels []Label
	text   string
}

// NewLabelSet returns the set of the given labels, which it keeps.
func NewLabelSet(labels ...Label) *LabelSet {
	if len(labels) == 0 {
		return &LabelSet{}
	}
	var b strings.Builder
	for i, l := range labels {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(l.Name)
		b.WriteString(`="`)
		// Bytes that are not UTF-8 would make Prometheus reject the whole scrape.
		b.WriteString(labelEscaper.Replace(strings.ToValidUTF8(l.Value, "\uFFFD")))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return &LabelSet{labels: labels, text: b.String()}
}

// The exposition formats escape label values alike.
var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Family is one metric family. Its series stand in the order in which they are
// written.
type Family struct {
	Name   string
	Help   string
	Type   field.MetricType // gauge, counter or histogram
	Series []Series
	// Histograms are what a family of type histogram has in place of Series.
	Histograms []HistogramSeries
}

// Series is one time series' value at the time of the exposition.
type Series struct {
	Labels *LabelSet
	Value  Value
}

// Value is a number together with how it is written.
type Value struct {
	bits uint64
	form valueForm
}

type valueForm uint8

const (
	formShortest valueForm = iota // as client_golang writes a float
	formInt                       // dcgm-exporter's %d
	formFixed                     // dcgm-exporter's %f
)

// Number returns v, written as Prometheus libraries write it.
func Number(v float64) Value { return Value{math.Float64bits(v), formShortest} }

// Integer returns v, written with all its digits.
func Integer(v uint64) Value { return Value{v, formInt} }

// Bool returns 1 for true and 0 for false.
func Bool(v bool) Value {
	if v {
		return Number(1)
	}
	return Number(0)
}

// fieldValue returns the value of a cell, written as dcgm-exporter writes it:
// integers plain, doubles with six decimals.
func fieldValue(c model.Cell) Value {
	if c.Type == model.ValueDouble {
		return Value{c.Bits, formFixed}
	}
	return Value{c.Bits, formInt}
}

// Float64 returns the number.
func (v Value) Float64() float64 {
	if v.form == formInt {
		return float64(int64(v.bits))
	}
	return math.Float64frombits(v.bits)
}

func (v Value) append(dst []byte) []byte {
	if v.form == formInt {
		return strconv.AppendInt(dst, int64(v.bits), 10)
	}
	f := math.Float64frombits(v.bits)
	switch {
	case math.IsInf(f, 1):
		return append(dst, "+Inf"...)
	case v.form == formFixed:
		return strconv.AppendFloat(dst, f, 'f', 6, 64)
	}
	// Most are small whole numbers, which look the same and are sooner written.
	if n := int64(f); float64(n) == f && -1e6 < f && f < 1e6 && v.bits != 1<<63 {
		return strconv.AppendInt(dst, n, 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}
