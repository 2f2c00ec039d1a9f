// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"math"

	"gpu_exporter/collector/model"
)

// sentinels are the meanings of DCGM's *_BLANK + n (dcgm_structs.h), by n. All
// other values of the range mean blank.
var sentinels = [...]model.Status{
	model.StatusBlank, model.StatusNotFound, model.StatusNotSupported, model.StatusNotPermitted,
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
func int64Status(v int64) model.Status {
	switch {
	case v >= int64Blank:
		if i := v - int64Blank; i < int64(len(sentinels)) {
			return sentinels[i]
		}
		return model.StatusBlank
	case v >= int32Blank && v < int32Blank+int64(len(sentinels)):
		return sentinels[v-int32Blank]
	}
	return model.StatusOK
}

func doubleStatus(v float64) model.Status {
	switch {
	case math.IsNaN(v):
		return model.StatusBlank
	case v >= doubleBlank && v < doubleBlank+doubleBlankRange:
		if i := int(v - doubleBlank); i < len(sentinels) {
			return sentinels[i]
		}
		return model.StatusBlank
	}
	return model.StatusOK
}

// TextStatus returns StatusOK if v is a value and no sentinel.
func TextStatus(v []byte) model.Status {
	if len(v) == 0 {
		return model.StatusBlank
	}
	if !bytes.HasPrefix(v, []byte("<<<")) {
		return model.StatusOK
	}
	switch string(v) {
	case "<<<NOT_FOUND>>>":
		return model.StatusNotFound
	case "<<<NOT_SUPPORTED>>>":
		return model.StatusNotSupported
	case "<<<NOT_PERM>>>", "<<<NOT_PERMISSIONED>>>":
		return model.StatusNotPermitted
	}
	// <<<NULL>>> and any other text in this form (DCGM_STR_IS_BLANK).
	if bytes.HasSuffix(v, []byte(">>>")) {
		return model.StatusBlank
	}
	return model.StatusOK
}

// maxXID is far beyond the codes that NVIDIA lists, which have three digits.
const maxXID = 1023

// Valid reports whether the event's code can be an XID. A series exists for each code, so a
// damaged one would remain for ever.
func (e Event) Valid() bool { return e.Code >= 0 && e.Code <= maxXID }

// Int64 returns the value of an integer cell, and whether it has one.
func (c *Cell) Int64() (int64, bool) {
	return c.Bits, c.Status == OK && c.Type == 'i' && int64Status(c.Bits) == model.StatusOK
}

// Range is the least and the greatest value of a field.
type Range struct{ Low, High float64 }

// Number returns the value of a numeric cell, and whether it has one within the range.
func (c *Cell) Number(in Range) (float64, bool) {
	out := c.Value(model.ValueDouble, in)
	return out.Float64(), out.Status == model.StatusOK
}

// Value returns the cell of a sample, for every type except strings. want is the
// field's type. The value decides between integer and double, because DCGM's
// headers do not state the type of every field. in limits numeric values.
func (c *Cell) Value(want model.ValueType, in Range) model.Cell {
	out := c.value(want)
	if want.Numeric() && out.Status == model.StatusOK {
		if v := out.Float64(); !(v >= in.Low && v <= in.High) { // also true for NaN
			return model.NoValue(model.StatusOutOfRange)
		}
	}
	return out
}

func (c *Cell) value(want model.ValueType) model.Cell {
	// The first two cases cover nearly all values.
	switch {
	case c.Status != OK:
		return model.NoValue(c.Status.Status())
	case c.Type == 'i' && want == model.ValueInt64 && uint64(c.Bits) < int32Blank:
		return model.Int64Cell(c.Bits)
	case c.Type == 'i' && want.Numeric(), c.Type == 't' && want == model.ValueTime:
		if s := int64Status(c.Bits); s != model.StatusOK {
			return model.NoValue(s)
		}
		return model.Int64Cell(c.Bits)
	case c.Type == 'd' && want.Numeric():
		v := math.Float64frombits(uint64(c.Bits))
		if s := doubleStatus(v); s != model.StatusOK {
			return model.NoValue(s)
		}
		return model.DoubleCell(v)
	}
	return model.NoValue(model.StatusUnexpectedType)
}
