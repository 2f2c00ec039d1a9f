// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

import (
	"math"
	"testing"

	"gpu_exporter/collector/model"
)

func TestValue(t *testing.T) {
	const (
		i64 = model.ValueInt64
		dbl = model.ValueDouble
	)
	bits := func(f float64) int64 { return int64(math.Float64bits(f)) }
	for _, tt := range []struct {
		name string
		cell Cell
		want model.ValueType
		is   model.Cell
	}{
		{"int64", Cell{Type: 'i', Bits: -3}, i64, model.Int64Cell(-3)},
		{"double", Cell{Type: 'd', Bits: bits(0.25)}, dbl, model.DoubleCell(0.25)},
		{"time", Cell{Type: 't', Bits: 7}, model.ValueTime, model.Int64Cell(7)},

		{"int64 blank", Cell{Type: 'i', Bits: 0x7ffffffffffffff0}, i64, model.NoValue(model.StatusBlank)},
		{"int64 not found", Cell{Type: 'i', Bits: 0x7ffffffffffffff1}, i64, model.NoValue(model.StatusNotFound)},
		{"int64 not supported", Cell{Type: 'i', Bits: 0x7ffffffffffffff2}, i64, model.NoValue(model.StatusNotSupported)},
		{"int64 not permitted", Cell{Type: 'i', Bits: 0x7ffffffffffffff3}, i64, model.NoValue(model.StatusNotPermitted)},
		{"int64 unnamed sentinel", Cell{Type: 'i', Bits: math.MaxInt64}, i64, model.NoValue(model.StatusBlank)},
		{"int32 blank", Cell{Type: 'i', Bits: 0x7ffffff0}, i64, model.NoValue(model.StatusBlank)},
		{"int32 not supported", Cell{Type: 'i', Bits: 0x7ffffff2}, i64, model.NoValue(model.StatusNotSupported)},
		{"int32 not permitted", Cell{Type: 'i', Bits: 0x7ffffff3}, i64, model.NoValue(model.StatusNotPermitted)},
		{"below the int32 sentinels", Cell{Type: 'i', Bits: 0x7fffffef}, i64, model.Int64Cell(0x7fffffef)},
		{"above the int32 sentinels", Cell{Type: 'i', Bits: 0x7ffffff4}, i64, model.Int64Cell(0x7ffffff4)},
		{"a large counter", Cell{Type: 'i', Bits: 1 << 60}, i64, model.Int64Cell(1 << 60)},

		{"double blank", Cell{Type: 'd', Bits: bits(140737488355328)}, dbl, model.NoValue(model.StatusBlank)},
		{"double not found", Cell{Type: 'd', Bits: bits(140737488355329)}, dbl, model.NoValue(model.StatusNotFound)},
		{"double not supported", Cell{Type: 'd', Bits: bits(140737488355330)}, dbl, model.NoValue(model.StatusNotSupported)},
		{"double not permitted", Cell{Type: 'd', Bits: bits(140737488355331)}, dbl, model.NoValue(model.StatusNotPermitted)},
		{"double unnamed sentinel", Cell{Type: 'd', Bits: bits(140737488355335)}, dbl, model.NoValue(model.StatusBlank)},
		{"double beyond the sentinels", Cell{Type: 'd', Bits: bits(3e14)}, dbl, model.DoubleCell(3e14)},
		{"NaN", Cell{Type: 'd', Bits: bits(math.NaN())}, dbl, model.NoValue(model.StatusBlank)},

		{"double for an int64 field", Cell{Type: 'd', Bits: bits(1)}, i64, model.DoubleCell(1)},
		{"int64 for a double field", Cell{Type: 'i', Bits: 1}, dbl, model.Int64Cell(1)},
		{"string for an int64 field", Cell{Type: 's'}, i64, model.NoValue(model.StatusUnexpectedType)},
		{"blob", Cell{Type: 'b'}, model.ValueBlob, model.NoValue(model.StatusUnexpectedType)},
		{"no type", Cell{}, i64, model.NoValue(model.StatusUnexpectedType)},

		{"a bad status goes before the value", Cell{Type: 'i', Bits: 5, Status: NoData}, i64, model.NoValue(model.StatusNoData)},
		{"a value that was not answered", Cell{Status: NoAnswer}, i64, model.NoValue(model.StatusError)},
	} {
		if got := tt.cell.Value(tt.want, Range{math.Inf(-1), math.Inf(1)}); got != tt.is {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.is)
		}
	}
}

func TestCodeStatus(t *testing.T) {
	for c, want := range map[Code]model.Status{
		0:   model.StatusOK,
		-1:  model.StatusError,
		-3:  model.StatusError,
		-6:  model.StatusNotSupported,
		-8:  model.StatusError,
		-13: model.StatusNotFound,
		-14: model.StatusNoData,
		-15: model.StatusNoData,
		-16: model.StatusNotWatched,
		-17: model.StatusNotPermitted,
		-18: model.StatusEntityLost,
		-19: model.StatusEntityLost,
		-22: model.StatusNotSupported,
		-29: model.StatusNotPermitted,
		-32: model.StatusNotSupported,
		-33: model.StatusModuleMissing,
		-36: model.StatusNotSupported,
		-45: model.StatusNotFound,
		-46: model.StatusNotFound,
		-56: model.StatusEntityLost,
		-57: model.StatusEntityLost,
		-67: model.StatusEntityLost,
		99:  model.StatusError,
	} {
		if got := c.Status(); got != want {
			t.Errorf("code %d means %v, want %v", c, got, want)
		}
	}
	for c, want := range map[Code]bool{0: false, -3: false, -10: true, -11: true, -18: false, -21: true} {
		if c.EngineLost() != want {
			t.Errorf("code %d: engine lost %v, want %v", c, c.EngineLost(), want)
		}
	}
}

func TestTextStatus(t *testing.T) {
	for s, want := range map[string]model.Status{
		"NVIDIA H100 80GB HBM3":  model.StatusOK,
		"":                       model.StatusBlank,
		"<<<NULL>>>":             model.StatusBlank,
		"<<<NOT_FOUND>>>":        model.StatusNotFound,
		"<<<NOT_SUPPORTED>>>":    model.StatusNotSupported,
		"<<<NOT_PERM>>>":         model.StatusNotPermitted,
		"<<<NOT_PERMISSIONED>>>": model.StatusNotPermitted,
		"<<<SOMETHING_NEW>>>":    model.StatusBlank,
		"<<<odd name":            model.StatusOK,
	} {
		if got := TextStatus([]byte(s)); got != want {
			t.Errorf("%q means %v, want %v", s, got, want)
		}
	}
}
