// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"math"

	"gpu_exporter/collector"
)

// sentinels are the meanings of DCGM's *_BLANK + n (dcgm_structs.h), by n. All
// other values of the range mean blank.
var sentinels = [...]collector.Status{
	collector.StatusBlank, collector.StatusNotFound, collector.StatusNotSupported, collector.StatusNotPermitted,
}

const (
	int32Blank = 0x7ffffff0
	int64Blank = 0x7ffffffffffffff0
	// doubleBlank is 2^47. DCGM reserves the numbers above it for more sentinels.
	doubleBlank = 140737488355328.0
	// doubleBlankRange bounds the sentinels. DCGM's own macro has no bound, which
	// would drop sums of bytes above 128 TiB.
	doubleBlankRange = 16
)

// int64Status returns StatusOK if v is a value and no sentinel. DCGM has one
// integer type for fields, but some values pass through an int and have int32's
// sentinels. The four int32 sentinels are dropped from every field: a counter
// that passes 2147483632 exactly loses one sample.
func int64Status(v int64) collector.Status {
	switch {
	case v >= int64Blank:
		if i := v - int64Blank; i < int64(len(sentinels)) {
			return sentinels[i]
		}
		return collector.StatusBlank
	case v >= int32Blank && v < int32Blank+int64(len(sentinels)):
		return sentinels[v-int32Blank]
	}
	return collector.StatusOK
}

func doubleStatus(v float64) collector.Status {
	switch {
	case math.IsNaN(v):
		return collector.StatusBlank
	case v >= doubleBlank && v < doubleBlank+doubleBlankRange:
		if i := int(v - doubleBlank); i < len(sentinels) {
			return sentinels[i]
		}
		return collector.StatusBlank
	}
	return collector.StatusOK
}

// TextStatus returns StatusOK if v is a value and no sentinel.
func TextStatus(v []byte) collector.Status {
	if len(v) == 0 {
		return collector.StatusBlank
	}
	if !bytes.HasPrefix(v, []byte("<<<")) {
		return collector.StatusOK
	}
	switch string(v) {
	case "<<<NOT_FOUND>>>":
		return collector.StatusNotFound
	case "<<<NOT_SUPPORTED>>>":
		return collector.StatusNotSupported
	case "<<<NOT_PERM>>>", "<<<NOT_PERMISSIONED>>>":
		return collector.StatusNotPermitted
	}
	// <<<NULL>>> and any other text in this form (DCGM_STR_IS_BLANK).
	if bytes.HasSuffix(v, []byte(">>>")) {
		return collector.StatusBlank
	}
	return collector.StatusOK
}

// Valid reports whether the event's code is a value and no sentinel.
func (e Event) Valid() bool { return int64Status(e.Code) == collector.StatusOK }

// Int64 returns the value of an integer cell, and whether it has one.
func (c *Cell) Int64() (int64, bool) {
	return c.Bits, c.Status == OK && c.Type == 'i' && int64Status(c.Bits) == collector.StatusOK
}

// Number returns the value of a numeric cell, and whether it has a finite one.
func (c *Cell) Number() (float64, bool) {
	if c.Type == 'd' {
		v := math.Float64frombits(uint64(c.Bits))
		return v, c.Status == OK && doubleStatus(v) == collector.StatusOK && !math.IsInf(v, 0)
	}
	v, ok := c.Int64()
	return float64(v), ok
}

// Value returns the cell of a sample, for every type except strings. want is the
// field's type. The value decides between integer and double, because DCGM's
// headers do not state the type of every field.
func (c *Cell) Value(want collector.ValueType) collector.Cell {
	// The first two cases cover nearly all values.
	switch {
	case c.Status != OK:
		return collector.NoValue(c.Status.Status())
	case c.Type == 'i' && want == collector.ValueInt64 && uint64(c.Bits) < int32Blank:
		return collector.Int64Cell(c.Bits)
	case c.Type == 'i' && want.Numeric(), c.Type == 't' && want == collector.ValueTime:
		if s := int64Status(c.Bits); s != collector.StatusOK {
			return collector.NoValue(s)
		}
		return collector.Int64Cell(c.Bits)
	case c.Type == 'd' && want.Numeric():
		v := math.Float64frombits(uint64(c.Bits))
		if s := doubleStatus(v); s != collector.StatusOK {
			return collector.NoValue(s)
		}
		return collector.DoubleCell(v)
	}
	return collector.NoValue(collector.StatusUnexpectedType)
}
