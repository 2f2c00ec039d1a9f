// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"iter"
	"sort"
	"strings"

	"gpu_exporter/collector/model"
)

// The fields that the exporter processes specially.
const (
	ClocksEventReasons model.FieldID = 112 // DCGM_FI_DEV_CLOCKS_EVENT_REASONS
	GPUUtil            model.FieldID = 203 // DCGM_FI_DEV_GPU_UTIL
	XIDErrors          model.FieldID = 230 // DCGM_FI_DEV_XID_ERRORS: the last XID
	FBUsed             model.FieldID = 252 // DCGM_FI_DEV_FB_USED
)

// MetricType is the metric type of a field: a gauge, a counter, or a label on the other
// series of its entity.
type MetricType uint8

// The metric types.
const (
	MetricNone MetricType = iota // the field cannot be a series or a label
	MetricGauge
	MetricCounter
	MetricLabel
	MetricHistogram // for derived families only; counters files cannot request it
)

// String returns the word of the counters file.
func (t MetricType) String() string {
	return model.NameOf([]string{"none", "gauge", "counter", "label", "histogram"}, t, "metric")
}

// Field describes a DCGM field. It is comparable.
type Field struct {
	ID   model.FieldID
	Name string // as of DCGM 4.6
	Unit string // empty if the value is a count, code, state or text
	// Help is one sentence.
	Help   string
	legacy string // separated by spaces
	Type   model.ValueType
	// Level is the smallest kind of entity that has the field. See [Field.On].
	Level model.EntityKind
	// Nature is the metric type that fits the values. A counters file may use another.
	Nature MetricType
}

// Legacy returns the legacy names of the field: the names of DCGM 4.x before 4.6, then the
// lower-case names of dcgm-exporter 1.x.
func (f Field) Legacy() []string { return strings.Fields(f.legacy) }

// Names returns all names of the field, the current name first.
func (f Field) Names() []string { return append([]string{f.Name}, f.Legacy()...) }

// Profiling reports whether the field needs DCGM's profiling (DCP) support.
func (f Field) Profiling() bool { return f.ID >= 1001 && f.ID <= 1099 }

// Range returns the least and the greatest value that the hardware can have in the field's
// unit. Values outside of it are errors of DCGM or the driver. The bounds are far beyond
// today's hardware, except that a ratio is at most 1 and percentages are near 100.
func (f Field) Range() (low, high float64) {
	switch f.Unit {
	case "ratio":
		return 0, 1 + 1e-3 // DCGM may round up
	case "percent":
		return 0, 200 // fans may exceed 100 (nvmlDeviceGetFanSpeed)
	case "celsius":
		return -273, 1e4
	case "W":
		return 0, 1e6
	case "MHz":
		return 0, 1e6
	case "kHz":
		return 0, 1e9
	case "Hz":
		return 0, 1e12
	case "mV":
		return 0, 1e7
	case "MiB":
		return 0, 1e10
	case "MB/s":
		return 0, 1e9
	case "KB/s":
		return 0, 1e12
	case "bytes/s":
		return 0, 1e15
	}
	// Totals, counts, codes and bit masks. The least integer marks an error.
	if low, high = -9e18, 1e20; f.Unit != "" || f.Nature == MetricCounter {
		low = 0
	}
	return low, high
}

// On reports whether the exporter reads the field on entities of the kind by default. DCGM
// registers a level for each field, and has values for entities that contain that level.
// In addition, GPUs and GPU instances have global values, and instances have their GPU's
// values, as with dcgm-exporter (internal/pkg/devicewatcher/device_watcher.go,
// shouldIncludeField). Values of links are not read on switches, and global values only on
// GPUs: dcgm-exporter exports such families twice.
func (f Field) On(kind model.EntityKind) bool {
	levels := model.Kinds(kind)
	switch kind {
	case model.KindGPU:
		levels |= model.Kinds(model.KindGlobal, model.KindGPUInstance, model.KindComputeInstance)
	case model.KindGPUInstance:
		levels |= model.Kinds(model.KindGlobal, model.KindGPU, model.KindComputeInstance)
	case model.KindCPU:
		levels |= model.Kinds(model.KindCPUCore)
	}
	return f.Type != model.ValueNone && levels.Has(f.Level)
}

// AnsweredBy reports whether entities of the kind can have values of the field. It
// includes kinds for which On returns false because the values repeat another entity's: a
// GPU's on its instances, a CPU's on its cores, and the node's on every entity. DCGM also
// has the NVLink totals per link, and UUIDs of switches.
func (f Field) AnsweredBy(kind model.EntityKind) bool {
	switch {
	case f.Type == model.ValueNone || f.On(kind):
		return f.On(kind)
	case f.Level == model.KindGlobal:
		_, ok := model.KindByName(kind.String()) // false for the unused number 2
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

// All yields every field, by ID.
func All() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for i := range fieldTable {
			if !yield(fieldTable[i]) {
				return
			}
		}
	}
}

// ByID returns the field with the ID.
func ByID(id model.FieldID) (Field, bool) {
	i := sort.Search(len(fieldTable), func(i int) bool { return fieldTable[i].ID >= id })
	if i < len(fieldTable) && fieldTable[i].ID == id {
		return fieldTable[i], true
	}
	return Field{}, false
}

// ByName returns the field with the name, current or legacy, as go-dcgm resolves it. Some
// names of DCGM 4.6 belong to a new field in another unit: DCGM_FI_DEV_SM_CLOCK is field
// 100 (MHz), and DCGM_FI_DEV_SM_CLOCK_HERTZ is field 1603.
func ByName(name string) (Field, bool) {
	for f := range All() {
		if f.Name == name {
			return f, true
		}
		for legacy := range strings.FieldsSeq(f.legacy) {
			if legacy == name {
				return f, true
			}
		}
	}
	return Field{}, false
}

// clockEventReasonNames are dcgm-exporter's names of the reasons of field 112, in the
// order of its bits (DCGM_CLOCKS_EVENT_REASON_* in dcgm_fields.h).
var clockEventReasonNames = [...]string{
	"gpu_idle", "clocks_setting", "power_cap", "hw_slowdown", "sync_boost",
	"sw_thermal", "hw_thermal", "hw_power_brake", "display_clocks",
}

// ClockEventReasonCount is the number of reasons.
const ClockEventReasonCount = len(clockEventReasonNames)

// ClockEventReason returns the name of the reason with the bit.
func ClockEventReason(bit int) string { return clockEventReasonNames[bit] }

// RecoveryActions returns the names of the values of field 1523 from 1
// (nvmlDeviceGpuRecoveryAction_t in nvml.h). Drivers after 4.6's header have the last three.
func RecoveryActions() []string {
	return []string{"gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset", "recover_imex_domain", "bus_reset", "system_reboot"}
}
