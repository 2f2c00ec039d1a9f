// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"math"
	"testing"

	"gpu_exporter/collector"
)

func TestNumberCell(t *testing.T) {
	const (
		i64 = collector.ValueInt64
		dbl = collector.ValueDouble
	)
	bits := func(f float64) int64 { return int64(math.Float64bits(f)) }
	for _, tt := range []struct {
		name string
		cell nativeCell
		want collector.ValueType
		is   collector.Cell
	}{
		{"int64", nativeCell{typ: 'i', bits: -3}, i64, collector.Int64Cell(-3)},
		{"double", nativeCell{typ: 'd', bits: bits(0.25)}, dbl, collector.DoubleCell(0.25)},
		{"time", nativeCell{typ: 't', bits: 7}, collector.ValueTime, collector.Int64Cell(7)},

		{"int64 blank", nativeCell{typ: 'i', bits: 0x7ffffffffffffff0}, i64, collector.NoValue(collector.StatusBlank)},
		{"int64 not found", nativeCell{typ: 'i', bits: 0x7ffffffffffffff1}, i64, collector.NoValue(collector.StatusNotFound)},
		{"int64 not supported", nativeCell{typ: 'i', bits: 0x7ffffffffffffff2}, i64, collector.NoValue(collector.StatusNotSupported)},
		{"int64 not permitted", nativeCell{typ: 'i', bits: 0x7ffffffffffffff3}, i64, collector.NoValue(collector.StatusNotPermitted)},
		{"int64 unnamed sentinel", nativeCell{typ: 'i', bits: math.MaxInt64}, i64, collector.NoValue(collector.StatusBlank)},
		{"int32 blank", nativeCell{typ: 'i', bits: 0x7ffffff0}, i64, collector.NoValue(collector.StatusBlank)},
		{"int32 not supported", nativeCell{typ: 'i', bits: 0x7ffffff2}, i64, collector.NoValue(collector.StatusNotSupported)},
		{"int32 not permitted", nativeCell{typ: 'i', bits: 0x7ffffff3}, i64, collector.NoValue(collector.StatusNotPermitted)},
		{"below the int32 sentinels", nativeCell{typ: 'i', bits: 0x7fffffef}, i64, collector.Int64Cell(0x7fffffef)},
		{"above the int32 sentinels", nativeCell{typ: 'i', bits: 0x7ffffff4}, i64, collector.Int64Cell(0x7ffffff4)},
		{"a large counter", nativeCell{typ: 'i', bits: 1 << 60}, i64, collector.Int64Cell(1 << 60)},

		{"double blank", nativeCell{typ: 'd', bits: bits(140737488355328)}, dbl, collector.NoValue(collector.StatusBlank)},
		{"double not found", nativeCell{typ: 'd', bits: bits(140737488355329)}, dbl, collector.NoValue(collector.StatusNotFound)},
		{"double not supported", nativeCell{typ: 'd', bits: bits(140737488355330)}, dbl, collector.NoValue(collector.StatusNotSupported)},
		{"double not permitted", nativeCell{typ: 'd', bits: bits(140737488355331)}, dbl, collector.NoValue(collector.StatusNotPermitted)},
		{"double unnamed sentinel", nativeCell{typ: 'd', bits: bits(140737488355335)}, dbl, collector.NoValue(collector.StatusBlank)},
		{"double beyond the sentinels", nativeCell{typ: 'd', bits: bits(3e14)}, dbl, collector.DoubleCell(3e14)},
		{"NaN", nativeCell{typ: 'd', bits: bits(math.NaN())}, dbl, collector.NoValue(collector.StatusBlank)},

		{"double for an int64 field", nativeCell{typ: 'd', bits: bits(1)}, i64, collector.DoubleCell(1)},
		{"int64 for a double field", nativeCell{typ: 'i', bits: 1}, dbl, collector.Int64Cell(1)},
		{"string for an int64 field", nativeCell{typ: 's'}, i64, collector.NoValue(collector.StatusUnexpectedType)},
		{"blob", nativeCell{typ: 'b'}, collector.ValueBlob, collector.NoValue(collector.StatusUnexpectedType)},
		{"no type", nativeCell{}, i64, collector.NoValue(collector.StatusUnexpectedType)},

		{"a bad status goes before the value", nativeCell{typ: 'i', bits: 5, status: codeNoData}, i64, collector.NoValue(collector.StatusNoData)},
		{"a value that was not answered", nativeCell{status: codeNoAnswer}, i64, collector.NoValue(collector.StatusError)},
	} {
		if got := numberCell(&tt.cell, tt.want); got != tt.is {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.is)
		}
	}
}

func TestCodeStatus(t *testing.T) {
	for c, want := range map[code]collector.Status{
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
		if got := c.status(); got != want {
			t.Errorf("code %d means %v, want %v", c, got, want)
		}
	}
	for c, want := range map[code]bool{0: false, -3: false, -10: true, -11: true, -18: false, -21: true} {
		if c.lost() != want {
			t.Errorf("code %d: engine lost %v, want %v", c, c.lost(), want)
		}
	}
}

func TestStringStatus(t *testing.T) {
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
		if got := stringStatus([]byte(s)); got != want {
			t.Errorf("%q means %v, want %v", s, got, want)
		}
	}
}

func TestBuildVersion(t *testing.T) {
	for info, want := range map[string]string{
		"version:4.6.0;arch:x86_64;buildtype:Release;builddate:2026-07-06": "4.6.0",
		"arch:x86_64; version : 4.5.1":                                     "4.5.1",
		"arch:x86_64":                                                      "",
		"":                                                                 "",
	} {
		if got := buildVersion(info); got != want {
			t.Errorf("buildVersion(%q) = %q, want %q", info, got, want)
		}
	}
}
