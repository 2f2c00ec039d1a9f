// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

import (
	"math"
	"testing"

	"gpu_exporter/collector"
)

func TestValue(t *testing.T) {
	const (
		i64 = collector.ValueInt64
		dbl = collector.ValueDouble
	)
	bits := func(f float64) int64 { return int64(math.Float64bits(f)) }
	for _, tt := range []struct {
		name string
		cell Cell
		want collector.ValueType
		is   collector.Cell
	}{
		{"int64", Cell{Type: 'i', Bits: -3}, i64, collector.Int64Cell(-3)},
		{"double", Cell{Type: 'd', Bits: bits(0.25)}, dbl, collector.DoubleCell(0.25)},
		{"time", Cell{Type: 't', Bits: 7}, collector.ValueTime, collector.Int64Cell(7)},

		{"int64 blank", Cell{Type: 'i', Bits: 0x7ffffffffffffff0}, i64, collector.NoValue(collector.StatusBlank)},
		{"int64 not found", Cell{Type: 'i', Bits: 0x7ffffffffffffff1}, i64, collector.NoValue(collector.StatusNotFound)},
		{"int64 not supported", Cell{Type: 'i', Bits: 0x7ffffffffffffff2}, i64, collector.NoValue(collector.StatusNotSupported)},
		{"int64 not permitted", Cell{Type: 'i', Bits: 0x7ffffffffffffff3}, i64, collector.NoValue(collector.StatusNotPermitted)},
		{"int64 unnamed sentinel", Cell{Type: 'i', Bits: math.MaxInt64}, i64, collector.NoValue(collector.StatusBlank)},
		{"int32 blank", Cell{Type: 'i', Bits: 0x7ffffff0}, i64, collector.NoValue(collector.StatusBlank)},
		{"int32 not supported", Cell{Type: 'i', Bits: 0x7ffffff2}, i64, collector.NoValue(collector.StatusNotSupported)},
		{"int32 not permitted", Cell{Type: 'i', Bits: 0x7ffffff3}, i64, collector.NoValue(collector.StatusNotPermitted)},
		{"below the int32 sentinels", Cell{Type: 'i', Bits: 0x7fffffef}, i64, collector.Int64Cell(0x7fffffef)},
		{"above the int32 sentinels", Cell{Type: 'i', Bits: 0x7ffffff4}, i64, collector.Int64Cell(0x7ffffff4)},
		{"a large counter", Cell{Type: 'i', Bits: 1 << 60}, i64, collector.Int64Cell(1 << 60)},

		{"double blank", Cell{Type: 'd', Bits: bits(140737488355328)}, dbl, collector.NoValue(collector.StatusBlank)},
		{"double not found", Cell{Type: 'd', Bits: bits(140737488355329)}, dbl, collector.NoValue(collector.StatusNotFound)},
		{"double not supported", Cell{Type: 'd', Bits: bits(140737488355330)}, dbl, collector.NoValue(collector.StatusNotSupported)},
		{"double not permitted", Cell{Type: 'd', Bits: bits(140737488355331)}, dbl, collector.NoValue(collector.StatusNotPermitted)},
		{"double unnamed sentinel", Cell{Type: 'd', Bits: bits(140737488355335)}, dbl, collector.NoValue(collector.StatusBlank)},
		{"double beyond the sentinels", Cell{Type: 'd', Bits: bits(3e14)}, dbl, collector.DoubleCell(3e14)},
		{"NaN", Cell{Type: 'd', Bits: bits(math.NaN())}, dbl, collector.NoValue(collector.StatusBlank)},

		{"double for an int64 field", Cell{Type: 'd', Bits: bits(1)}, i64, collector.DoubleCell(1)},
		{"int64 for a double field", Cell{Type: 'i', Bits: 1}, dbl, collector.Int64Cell(1)},
		{"string for an int64 field", Cell{Type: 's'}, i64, collector.NoValue(collector.StatusUnexpectedType)},
		{"blob", Cell{Type: 'b'}, collector.ValueBlob, collector.NoValue(collector.StatusUnexpectedType)},
		{"no type", Cell{}, i64, collector.NoValue(collector.StatusUnexpectedType)},

		{"a bad status goes before the value", Cell{Type: 'i', Bits: 5, Status: NoData}, i64, collector.NoValue(collector.StatusNoData)},
		{"a value that was not answered", Cell{Status: NoAnswer}, i64, collector.NoValue(collector.StatusError)},
	} {
		if got := tt.cell.Value(tt.want); got != tt.is {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.is)
		}
	}
}

func TestCodeStatus(t *testing.T) {
	for c, want := range map[Code]collector.Status{
		0:   collector.StatusOK,
		-1:  collector.StatusError,
		-3:  collector.StatusError,
		-6:  collector.StatusNotSupported,
		-8:  collector.StatusError,
		-13: collector.StatusNotFound,
		-14: collector.StatusNoData,
		-15: collector.StatusNoData,
		-16: collector.StatusNotWatched,
		-17: collector.StatusNotPermitted,
		-18: collector.StatusEntityLost,
		-22: collector.StatusNotSupported,
		-29: collector.StatusNotPermitted,
		-32: collector.StatusNotSupported,
		-33: collector.StatusModuleMissing,
		-36: collector.StatusNotSupported,
		-45: collector.StatusNotFound,
		-46: collector.StatusNotFound,
		-56: collector.StatusEntityLost,
		-67: collector.StatusEntityLost,
		99:  collector.StatusError,
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
	for s, want := range map[string]collector.Status{
		"NVIDIA H100 80GB HBM3":  collector.StatusOK,
		"":                       collector.StatusBlank,
		"<<<NULL>>>":             collector.StatusBlank,
		"<<<NOT_FOUND>>>":        collector.StatusNotFound,
		"<<<NOT_SUPPORTED>>>":    collector.StatusNotSupported,
		"<<<NOT_PERM>>>":         collector.StatusNotPermitted,
		"<<<NOT_PERMISSIONED>>>": collector.StatusNotPermitted,
		"<<<SOMETHING_NEW>>>":    collector.StatusBlank,
		"<<<odd name":            collector.StatusOK,
	} {
		if got := TextStatus([]byte(s)); got != want {
			t.Errorf("%q means %v, want %v", s, got, want)
		}
	}
}
