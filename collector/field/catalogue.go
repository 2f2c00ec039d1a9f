// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"fmt"
	"iter"
	"sort"
	"strings"

	"gpu_exporter/collector/model"
)

// The fields that the exporter treats in a way of their own.
const (
	ClocksEventReasons model.FieldID = 112 // DCGM_FI_DEV_CLOCKS_EVENT_REASONS
	GPUUtil            model.FieldID = 203 // DCGM_FI_DEV_GPU_UTIL
	XIDErrors          model.FieldID = 230 // DCGM_FI_DEV_XID_ERRORS: the last XID
	FBUsed             model.FieldID = 252 // DCGM_FI_DEV_FB_USED
)

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
	ID   model.FieldID
	Name string // as of DCGM 4.6
	Unit string // empty where the value is a count, code, state or text
	// Help is one sentence, in words of our own.
	Help   string
	legacy string // separated by spaces
	Type   model.ValueType
	// Level is the smallest entity that the field is about. See [Field.On].
	Level model.EntityKind
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
func (f Field) On(kind model.EntityKind) bool {
	if f.Type == model.ValueNone {
		return false
	}
	if f.Level == kind {
		return true
	}
	switch kind {
	case model.KindGPU, model.KindGPUInstance:
		if f.Level == model.KindGlobal {
			return true
		}
	}
	switch kind {
	case model.KindGPU:
		return f.Level == model.KindGPUInstance || f.Level == model.KindComputeInstance
	case model.KindGPUInstance:
		return f.Level == model.KindGPU || f.Level == model.KindComputeInstance
	case model.KindCPU:
		return f.Level == model.KindCPUCore
	}
	return false
}

// AnsweredBy says whether entities of the kind may have values of the field if they
// are asked, which On leaves out where they would repeat those of another entity: a
// GPU's on what lies in it, a CPU's on its cores, and the node's everywhere. DCGM has
// the totals of NVLinks by link, too, and gives switches a UUID as it does GPUs.
func (f Field) AnsweredBy(kind model.EntityKind) bool {
	switch {
	case f.Type == model.ValueNone || f.On(kind):
		return f.On(kind)
	case f.Level == model.KindGlobal:
		_, ok := model.KindByName(kind.String()) // the numbers have a gap
		return ok
	case kind.OfGPU():
		return f.On(model.KindGPU)
	case kind == model.KindCPUCore:
		return f.On(model.KindCPU)
	case kind == model.KindLink:
		return f.ID >= 1200 && f.ID <= 1220 || f.ID >= 1404 && f.ID <= 1419
	}
	return kind == model.KindSwitch && f.ID == 54
}

// fieldName is a row of nameTable.
type fieldName struct {
	name string
	id   model.FieldID
}

// All yields every field, by id.
func All() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for i := range fieldTable {
			if !yield(fieldTable[i]) {
				return
			}
		}
	}
}

// ByID returns the field with the id.
func ByID(id model.FieldID) (Field, bool) {
	i := sort.Search(len(fieldTable), func(i int) bool { return fieldTable[i].ID >= id })
	if i < len(fieldTable) && fieldTable[i].ID == id {
		return fieldTable[i], true
	}
	return Field{}, false
}

// ByName returns the field that go-dcgm resolves the name to. Some names
// of DCGM 4.6 are no new names of an older field but fields of their own, in
// another unit: DCGM_FI_DEV_SM_CLOCK is field 100 (MHz) and
// DCGM_FI_DEV_SM_CLOCK_HERTZ is field 1603.
func ByName(name string) (Field, bool) {
	i := sort.Search(len(nameTable), func(i int) bool { return nameTable[i].name >= name })
	if i < len(nameTable) && nameTable[i].name == name {
		return ByID(nameTable[i].id)
	}
	return Field{}, false
}

// clockEventReasonNames are the reasons of field 112 in the order of its bits
// (DCGM_CLOCKS_EVENT_REASON_* in dcgm_fields.h), by dcgm-exporter's names.
var clockEventReasonNames = [...]string{
	"gpu_idle", "clocks_setting", "power_cap", "hw_slowdown", "sync_boost",
	"sw_thermal", "hw_thermal", "hw_power_brake", "display_clocks",
}

// ClockEventReasonCount is the number of reasons.
const ClockEventReasonCount = len(clockEventReasonNames)

// ClockEventReason returns the name of the reason with the bit.
func ClockEventReason(bit int) string { return clockEventReasonNames[bit] }
