// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// The gpu_* families of the hardware are about whole GPUs, so instances do not repeat
// them. No family mixes totals with their parts, so sums are correct.

// The fields of gpu_fabric_info.
const (
	fieldFabricCluster model.FieldID = 172
	fieldFabricClique  model.FieldID = 173
)

// noCluster is the cluster UUID of GPUs whose fabric ends at their own node.
const noCluster = "00000000-0000-0000-0000-000000000000"

// hardwareRow decodes a field into one series of each GPU.
type hardwareRow struct {
	family *Definition
	field  model.FieldID
	labels []string // values of the family's labels
	value  decode
}

// decode converts the value of a field into that of a series; false is no series.
type decode func(int64) (float64, bool)

var hardwareRows = slices.Concat(
	clockEventRows(),
	rowsOf(&gpuViolation, nanoseconds, []oneRow{
		{240, "power"}, {241, "thermal"}, {242, "sync_boost"}, {243, "board_limit"}, {244, "low_utilization"}, {245, "reliability"}}),
	rowsOf(&gpuBelowClocks, nanoseconds, []oneRow{{246, "application"}, {247, "base"}}),
	// dcgmFabricManagerStatus_t (dcgm_structs.h), of which 0 is "no fabric" and 6 "the driver library is too old".
	stateRows(&gpuFabricState, 170, 1, 6, "not_started", "in_progress", "success", "failure"),
	rowsOf(&gpuFabricError, signed, []oneRow{{171, ""}}),
	// NVML_GPU_FABRIC_HEALTH_* (nvml.h), of which 0 is "not supported".
	stateRows(&gpuFabricHealth, 175, 1, noValue, "healthy", "unhealthy", "limited_capacity"),
	faultRows(),
	// nvmlDeviceGpuRecoveryAction_t (nvml.h); drivers after 4.6's header have the last three.
	stateRows(&gpuRecoveryAction, 1523, 0, noValue, "none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset",
		"recover_imex_domain", "bus_reset", "system_reboot"),
	rowsOf(&gpuRemappedRows, unsigned, []oneRow{{394, "correctable"}, {393, "uncorrectable"}}),
	rowsOf(&gpuRemapPending, truth, []oneRow{{396, ""}}),
	rowsOf(&gpuRemapFailed, truth, []oneRow{{395, ""}}),
	rowsOf(&gpuRemapBanks, unsigned, []oneRow{{385, "max"}, {386, "high"}, {387, "partial"}, {388, "low"}, {389, "none"}}),
	rowsOf(&gpuRetiredPages, unsigned, []oneRow{{391, "double_bit_ecc"}, {390, "single_bit_ecc"}}),
	rowsOf(&gpuRetiredPending, truth, []oneRow{{392, ""}}),
	rowsOf(&gpuUnrepairable, truth, []oneRow{{1507, ""}}),
	rowsOf(&gpuSRAMExceeded, truth, []oneRow{{346, ""}}),
	rowsOf(&gpuECC, unsigned, []oneRow{{310, "corrected"}, {311, "uncorrected"}}),
	locationRows(&gpuECCLocation, 314, 316, 318, 320, 322, 334, 336, 342),
	rowsOf(&gpuECCLife, unsigned, []oneRow{{312, "corrected"}, {313, "uncorrected"}}),
	locationRows(&gpuECCLifeLocation, 324, 326, 328, 330, 332, 338, 340, 344),
)

type oneRow struct {
	field model.FieldID
	label string // empty for a family without labels
}

func rowsOf(family *Definition, value decode, list []oneRow) []hardwareRow {
	rows := make([]hardwareRow, len(list))
	for i, r := range list {
		rows[i] = hardwareRow{family, r.field, nil, value}
		if r.label != "" {
			rows[i].labels = []string{r.label}
		}
	}
	return rows
}

func unsigned(v int64) (float64, bool) { return float64(v), v >= 0 }

func signed(v int64) (float64, bool) { return float64(v), true }

func truth(v int64) (float64, bool) { return bit(v != 0), v >= 0 }

func nanoseconds(v int64) (float64, bool) { return float64(v) / 1e9, v >= 0 }

// noValue is a value that no field has.
const noValue = -1

// stateRows returns one row for each state, of which the current one is 1. The first
// state has the value from; larger values than the last one are "other". Smaller
// values and unknown are no state.
func stateRows(family *Definition, field model.FieldID, from, unknown int64, states ...string) []hardwareRow {
	var rows []hardwareRow
	add := func(state string, is func(int64) bool) {
		rows = append(rows, hardwareRow{family, field, []string{state}, func(v int64) (float64, bool) {
			return bit(is(v)), v >= from && v != unknown
		}})
	}
	for i, state := range states {
		add(state, func(v int64) bool { return v == from+int64(i) })
	}
	add("other", func(v int64) bool { return v >= from+int64(len(states)) })
	return rows
}

func clockEventRows() []hardwareRow {
	rows := make([]hardwareRow, field.ClockEventReasonCount)
	for reason := range field.ClockEventReasonCount {
		rows[reason] = hardwareRow{&gpuClockEventActive, field.ClocksEventReasons, []string{field.ClockEventReason(reason)}, func(v int64) (float64, bool) {
			return bit(v>>reason&1 != 0), true
		}}
	}
	return rows
}

// faultRows decode the sub-fields of the fabric's health mask, in which 0 is unknown.
// In a sub-field of two bits, 1 is a fault and 2 is none. In the last one, of four
// bits, 1 is none and larger values are faults (NVML_GPU_FABRIC_HEALTH_MASK_* in nvml.h).
func faultRows() []hardwareRow {
	row := func(fault string, shift int, mask int64, isFault func(int64) bool) hardwareRow {
		return hardwareRow{&gpuFabricFault, 174, []string{fault}, func(v int64) (float64, bool) {
			sub := v >> shift & mask
			return bit(isFault(sub)), v >= 0 && sub != 0
		}}
	}
	one := func(v int64) bool { return v == 1 }
	return []hardwareRow{
		row("access_timeout_recovery", 6, 3, one),
		row("degraded_bandwidth", 0, 3, one),
		row("incorrect_configuration", 8, 15, func(v int64) bool { return v > 1 }),
		row("route_recovery", 2, 3, one),
		row("route_unhealthy", 4, 3, one),
	}
}

// locationRows are the ECC errors of each memory. Each field counts corrected errors,
// and the field after it the uncorrected ones.
func locationRows(family *Definition, fields ...model.FieldID) []hardwareRow {
	locations := [...]string{"l1", "l2", "device", "register", "texture", "shared", "cbu", "sram"}
	var rows []hardwareRow
	for i, f := range fields {
		rows = append(rows,
			hardwareRow{family, f, []string{locations[i], "corrected"}, unsigned},
			hardwareRow{family, f + 1, []string{locations[i], "uncorrected"}, unsigned})
	}
	return rows
}

// DerivedFields returns the fields behind the hardware families, sorted. They are
// read in addition to those of the counters file.
func DerivedFields() []model.FieldID {
	fields := []model.FieldID{field.ClocksEventReasons, fieldFabricCluster, fieldFabricClique}
	for _, r := range hardwareRows {
		fields = append(fields, r.field)
	}
	for reason := range field.ClockEventReasonCount {
		if counter := state.ClockEventCounter(reason); counter != 0 {
			fields = append(fields, counter)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// addHardware adds the hardware families of a fresh sample.
func (p *page) addHardware() {
	cluster, clique := slices.Index(p.v.Inventory.Derived, fieldFabricCluster), slices.Index(p.v.Inventory.Derived, fieldFabricClique)
	for i, cells := range p.v.Sample.Derived {
		if len(cells) == 0 || !p.layout.entities[i].device {
			continue
		}
		for r := range hardwareRows {
			row, column := &hardwareRows[r], p.layout.hardware[r]
			if column < 0 || cells[column].Status != model.StatusOK || cells[column].Type != model.ValueInt64 {
				continue
			}
			if value, ok := row.value(cells[column].Int64()); ok {
				p.addEntity(row.family, i, value, row.labels...)
			}
		}
		if cluster < 0 || clique < 0 || cells[cluster].Status != model.StatusOK || cells[clique].Status != model.StatusOK {
			continue
		}
		if uuid := p.v.Sample.String(cells[cluster]); uuid != "" && uuid != noCluster {
			p.addEntity(&gpuFabricInfo, i, 1, decimal(cells[clique].Int64()), uuid)
		}
	}
}
