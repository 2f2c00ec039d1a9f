// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"bytes"
	"math"

	"gpu_exporter/collector"
)

// status says what a value's or call's code means for the cell.
func (c code) status() collector.Status {
	switch c {
	case codeOK:
		return collector.StatusOK
	case codeNoData, codeStaleData:
		return collector.StatusNoData
	case codeNotSupported, codeGPUNotSupported, codeFieldUnsupported, codeProfNotSupported:
		return collector.StatusNotSupported
	case codeNoPermission, codeRequiresRoot:
		return collector.StatusNotPermitted
	case codeUnknownField, codeInstanceNotFound, codeComputeInstMissing:
		return collector.StatusNotFound
	case codeNotWatched:
		return collector.StatusNotWatched
	case codeModuleNotLoaded:
		return collector.StatusModuleMissing
	case codeGPULost, codeGPUsDetached, codeNVMLNotLoaded:
		return collector.StatusEntityLost
	}
	return collector.StatusError
}

// sentinels are, in the order of DCGM's *_BLANK + n (dcgm_structs.h), what a
// value that is no value means. All others of the range mean blank.
var sentinels = [...]collector.Status{
	collector.StatusBlank, collector.StatusNotFound, collector.StatusNotSupported, collector.StatusNotPermitted,
}

const (
	int32Blank = 0x7ffffff0
	int64Blank = 0x7ffffffffffffff0
	// doubleBlank is 2^47; DCGM keeps what follows it for more sentinels.
	doubleBlank = 140737488355328.0
	// doubleBlankRange is how much of it is taken for sentinels. DCGM's own
	// macro takes all of it, which would lose sums of bytes above 128 TiB.
	doubleBlankRange = 16
)

// int64Status says whether v is a value. DCGM has one integer type for fields,
// whose sentinels are int64's; but some values reach it through an int, with
// int32's. The four numbers are taken for sentinels wherever they appear: a
// counter that passes exactly through one of them lacks one sample, while a
// sentinel published as a number would be wrong by two billion.
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

func stringStatus(v []byte) collector.Status {
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
	// <<<NULL>>>, and whatever else DCGM marks in this way (DCGM_STR_IS_BLANK).
	if bytes.HasSuffix(v, []byte(">>>")) {
		return collector.StatusBlank
	}
	return collector.StatusOK
}

// numberCell makes a cell of everything but strings. want is the field's type.
// Whether a number is an integer or a double is for the value to say: DCGM's
// headers do not tell it of every field.
func numberCell(c *nativeCell, want collector.ValueType) collector.Cell {
	if c.status != codeOK {
		return collector.NoValue(c.status.status())
	}
	switch {
	case c.typ == 'i' && want.Numeric(), c.typ == 't' && want == collector.ValueTime:
		if s := int64Status(c.bits); s != collector.StatusOK {
			return collector.NoValue(s)
		}
		return collector.Int64Cell(c.bits)
	case c.typ == 'd' && want.Numeric():
		v := math.Float64frombits(uint64(c.bits))
		if s := doubleStatus(v); s != collector.StatusOK {
			return collector.NoValue(s)
		}
		return collector.DoubleCell(v)
	}
	return collector.NoValue(collector.StatusUnexpectedType)
}
