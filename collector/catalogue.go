// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"fmt"
	"iter"
	"sort"
	"strings"
)

//go:generate go run ./internal/fieldgen -o catalogue_table.go

// FieldID is DCGM's number for a field.
type FieldID uint16

// The fields that the exporter treats in a way of their own.
const (
	fieldClockEvents FieldID = 112 // DCGM_FI_DEV_CLOCKS_EVENT_REASONS
	fieldGPUUtil     FieldID = 203 // DCGM_FI_DEV_GPU_UTIL
	FieldXID         FieldID = 230 // DCGM_FI_DEV_XID_ERRORS: the last XID
	fieldFBUsed      FieldID = 252 // DCGM_FI_DEV_FB_USED
)

// ValueType is the type of a field's values.
type ValueType uint8

// The value types. ValueNone is the type of the names that mark the edges of an
// id range, and of a cell without a value.
const (
	ValueNone ValueType = iota
	ValueInt64
	ValueDouble
	ValueString
	ValueTime // microseconds since 1970
	ValueBlob // a C structure
)

func (t ValueType) String() string {
	switch t {
	case ValueNone:
		return "none"
	case ValueInt64:
		return "int64"
	case ValueDouble:
		return "double"
	case ValueString:
		return "string"
	case ValueTime:
		return "timestamp"
	case ValueBlob:
		return "binary"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// Numeric says whether values of the type are numbers that can be a series.
func (t ValueType) Numeric() bool { return t == ValueInt64 || t == ValueDouble }

// MetricType says what becomes of a field: a gauge, a counter, or a label on
// the other series of its entity.
type MetricType uint8

// The metric types. MetricNone is the nature of fields that no series or label
// can carry.
const (
	MetricNone MetricType = iota
	MetricGauge
	MetricCounter
	MetricLabel
	// MetricHistogram is that of families of ours: no counters file can ask for it.
	MetricHistogram
)

// String returns the word of the counters file.
func (t MetricType) String() string {
	switch t {
	case MetricNone:
		return "none"
	case MetricGauge:
		return "gauge"
	case MetricCounter:
		return "counter"
	case MetricLabel:
		return "label"
	case MetricHistogram:
		return "histogram"
	}
	return fmt.Sprintf("metric(%d)", uint8(t))
}

// Field is what is known about one DCGM field. It is comparable.
type Field struct {
	ID   FieldID
	Name string // as of DCGM 4.6
	Unit string // empty where the value is a count, code, state or text
	// Help is one sentence, in words of our own.
	Help   string
	legacy string // separated by spaces
	Type   ValueType
	// Level is the smallest entity that the field is about. See [Field.On].
	Level EntityKind
	// Nature is what the values are by themselves. A counters file may say
	// otherwise, and is followed.
	Nature MetricType
}

// Legacy returns the other names that resolve to the field: those of DCGM 4.x
// before 4.6, then the lower-case ones of dcgm-exporter 1.x.
func (f Field) Legacy() []string { return strings.Fields(f.legacy) }

// Profiling says whether the field needs DCGM's profiling (DCP) support.
func (f Field) Profiling() bool { return f.ID >= 1001 && f.ID <= 1099 }

// On says whether entities of the kind are asked for the field. DCGM gives the
// level at which it keeps a field, and answers for what contains that level. A
// GPU's own values are also asked of its instances, where DCGM repeats them, and
// global values of both, as dcgm-exporter does
// (internal/pkg/devicewatcher/device_watcher.go, shouldIncludeField). Values of
// links are not asked of switches, nor global ones of what is no GPU, where
// dcgm-exporter writes the same family twice.
func (f Field) On(kind EntityKind) bool {
	if f.Type == ValueNone {
		return false
	}
	if f.Level == kind {
		return true
	}
	switch kind {
	case KindGPU, KindGPUInstance:
		if f.Level == KindGlobal {
			return true
		}
	}
	switch kind {
	case KindGPU:
		return f.Level == KindGPUInstance || f.Level == KindComputeInstance || f.Level == KindVGPU
	case KindGPUInstance:
		return f.Level == KindGPU || f.Level == KindComputeInstance
	case KindCPU:
		return f.Level == KindCPUCore
	}
	return false
}

// AnsweredBy says whether entities of the kind may have values of the field if they
// are asked, which On leaves out where they would repeat those of another entity: a
// GPU's on what lies in it, a CPU's on its cores, and the node's everywhere. DCGM has
// the totals of NVLinks by link, too, and gives switches a UUID as it does GPUs.
func (f Field) AnsweredBy(kind EntityKind) bool {
	switch {
	case f.Type == ValueNone || f.On(kind):
		return f.On(kind)
	case f.Level == KindGlobal:
		return true
	case kind.OfGPU():
		return f.On(KindGPU)
	case kind == KindCPUCore:
		return f.On(KindCPU)
	case kind == KindLink:
		return f.ID >= 1200 && f.ID <= 1220 || f.ID >= 1404 && f.ID <= 1419
	}
	return kind == KindSwitch && f.ID == 54
}

// fieldName is a row of nameTable.
type fieldName struct {
	name string
	id   FieldID
}

// Fields yields every field, by id.
func Fields() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for i := range fieldTable {
			if !yield(fieldTable[i]) {
				return
			}
		}
	}
}

// FieldByID returns the field with the id.
func FieldByID(id FieldID) (Field, bool) {
	i := sort.Search(len(fieldTable), func(i int) bool { return fieldTable[i].ID >= id })
	if i < len(fieldTable) && fieldTable[i].ID == id {
		return fieldTable[i], true
	}
	return Field{}, false
}

// FieldByName returns the field that go-dcgm resolves the name to. Some names
// of DCGM 4.6 are no new names of an older field but fields of their own, in
// another unit: DCGM_FI_DEV_SM_CLOCK is field 100 (MHz) and
// DCGM_FI_DEV_SM_CLOCK_HERTZ is field 1603.
func FieldByName(name string) (Field, bool) {
	i := sort.Search(len(nameTable), func(i int) bool { return nameTable[i].name >= name })
	if i < len(nameTable) && nameTable[i].name == name {
		return FieldByID(nameTable[i].id)
	}
	return Field{}, false
}
