// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// The families of a GPU as a whole that derive from DCGM's fields. They are about
// the hardware, so that instances do not repeat them, and no family mixes totals
// with the parts that they are of: sums are right.
var (
	gpuClockEventActive = definition{"gpu_clock_event_active", field.MetricGauge, "Whether the reason holds the clocks below what was asked for now (field 112).", []string{"reason"}}
	gpuViolation        = definition{"gpu_violation_seconds_total", field.MetricCounter, "Time that the policy kept the clocks down, since the driver was loaded (fields 240 to 245).", []string{"policy"}}
	gpuBelowClocks      = definition{"gpu_clocks_below_seconds_total", field.MetricCounter, "Time with clocks below the application or base clocks, for whatever reason, since the driver was loaded (fields 246 and 247).", []string{"clocks"}}

	gpuFabricState  = definition{"gpu_fabric_state", field.MetricGauge, "Whether the GPU's registration with the NVLink fabric is in this state; one is 1. Absent without a fabric (field 170).", []string{"state"}}
	gpuFabricError  = definition{"gpu_fabric_error_code", field.MetricGauge, "Error with which the registration with the NVLink fabric ended; 0 is none. Absent until it has ended (field 171).", nil}
	gpuFabricHealth = definition{"gpu_fabric_health", field.MetricGauge, "Whether the NVLink fabric is in this state of health, as the driver sums it up; one is 1 (field 175).", []string{"state"}}
	gpuFabricFault  = definition{"gpu_fabric_fault", field.MetricGauge, "Whether the NVLink fabric has this fault. Absent where the driver cannot tell (field 174).", []string{"fault"}}
	gpuFabricInfo   = definition{"gpu_fabric_info", field.MetricGauge, "Which NVLink cluster of several nodes, and which clique in it, the GPU belongs to; always 1 (fields 172 and 173).", []string{"clique", "cluster_uuid"}}

	gpuRecoveryAction  = definition{"gpu_recovery_action", field.MetricGauge, "Whether the driver asks for this action to recover the GPU; one is 1 (field 1523).", []string{"action"}}
	gpuRemappedRows    = definition{"gpu_remapped_rows", field.MetricGauge, "Memory rows remapped over the life of the GPU, by the type of error (fields 393 and 394).", []string{"type"}}
	gpuRemapPending    = definition{"gpu_row_remap_pending", field.MetricGauge, "Whether a row remapping waits for a reset of the GPU (field 396).", nil}
	gpuRemapFailed     = definition{"gpu_row_remap_failed", field.MetricGauge, "Whether a row remapping has failed (field 395).", nil}
	gpuRemapBanks      = definition{"gpu_row_remap_banks", field.MetricGauge, "Memory banks by the spare rows that they have left (fields 385 to 389).", []string{"availability"}}
	gpuRetiredPages    = definition{"gpu_retired_pages", field.MetricGauge, "Memory pages retired over the life of the GPU, by cause (fields 390 and 391).", []string{"cause"}}
	gpuRetiredPending  = definition{"gpu_retired_pages_pending", field.MetricGauge, "Whether the retirement of memory pages waits for a reset of the GPU (field 392).", nil}
	gpuUnrepairable    = definition{"gpu_memory_unrepairable", field.MetricGauge, "Whether the memory has an error that cannot be repaired (field 1507).", nil}
	gpuSRAMExceeded    = definition{"gpu_sram_threshold_exceeded", field.MetricGauge, "Whether uncorrectable SRAM errors have passed the threshold for replacing the GPU (field 346).", nil}
	gpuECC             = definition{"gpu_ecc_errors_total", field.MetricCounter, "ECC errors in all memories since the driver was loaded (fields 310 and 311).", []string{"type"}}
	gpuECCLocation     = definition{"gpu_ecc_location_errors_total", field.MetricCounter, "ECC errors since the driver was loaded, by memory; they are part of gpu_ecc_errors_total.", []string{"location", "type"}}
	gpuECCLife         = definition{"gpu_ecc_lifetime_errors_total", field.MetricCounter, "ECC errors in all memories over the life of the GPU (fields 312 and 313).", []string{"type"}}
	gpuECCLifeLocation = definition{"gpu_ecc_lifetime_location_errors_total", field.MetricCounter, "ECC errors over the life of the GPU, by memory; they are part of gpu_ecc_lifetime_errors_total.", []string{"location", "type"}}
)

// The fields that are used otherwise than through derivedRows and for clock events.
const (
	fieldFabricCluster model.FieldID = 172
	fieldFabricClique  model.FieldID = 173
)

// noCluster is the UUID of GPUs whose fabric ends at their own node.
const noCluster = "00000000-0000-0000-0000-000000000000"

// derivedRow is a series for each GPU: a field, and what its value means for it.
type derivedRow struct {
	family *definition
	field  model.FieldID
	labels []string // values of the family's labels, in their order
	// value makes the series' value of the field's; false is none.
	value func(int64) (Value, bool)
}

// derivedRows are all of them, those of one family together.
var derivedRows = slices.Concat(
	clockEventRows(),
	rowsOf(&gpuViolation, nanoseconds, []oneRow{
		{240, "power"}, {241, "thermal"}, {242, "sync_boost"}, {243, "board_limit"}, {244, "low_utilization"}, {245, "reliability"}}),
	rowsOf(&gpuBelowClocks, nanoseconds, []oneRow{{246, "application"}, {247, "base"}}),
	fabricStateRows(),
	rowsOf(&gpuFabricError, signed, []oneRow{{171, ""}}),
	// NVML_GPU_FABRIC_HEALTH_* (nvml.h), of which 0 is "not supported".
	stateRows(&gpuFabricHealth, 175, 1, "healthy", "unhealthy", "limited_capacity"),
	faultRows(),
	// nvmlDeviceGpuRecoveryAction_t (nvml.h); the last three are of drivers after 4.6's header.
	stateRows(&gpuRecoveryAction, 1523, 0, "none", "gpu_reset", "node_reboot", "drain_p2p", "drain_and_reset",
		"recover_imex_domain", "bus_reset", "system_reboot"),
	rowsOf(&gpuRemappedRows, plain, []oneRow{{394, "correctable"}, {393, "uncorrectable"}}),
	rowsOf(&gpuRemapPending, truth, []oneRow{{396, ""}}),
	rowsOf(&gpuRemapFailed, truth, []oneRow{{395, ""}}),
	rowsOf(&gpuRemapBanks, plain, []oneRow{{385, "max"}, {386, "high"}, {387, "partial"}, {388, "low"}, {389, "none"}}),
	rowsOf(&gpuRetiredPages, plain, []oneRow{{391, "double_bit_ecc"}, {390, "single_bit_ecc"}}),
	rowsOf(&gpuRetiredPending, truth, []oneRow{{392, ""}}),
	rowsOf(&gpuUnrepairable, truth, []oneRow{{1507, ""}}),
	rowsOf(&gpuSRAMExceeded, truth, []oneRow{{346, ""}}),
	rowsOf(&gpuECC, plain, []oneRow{{310, "corrected"}, {311, "uncorrected"}}),
	locationRows(&gpuECCLocation, 314, 316, 318, 320, 322, 334, 336, 342),
	rowsOf(&gpuECCLife, plain, []oneRow{{312, "corrected"}, {313, "uncorrected"}}),
	locationRows(&gpuECCLifeLocation, 324, 326, 328, 330, 332, 338, 340, 344),
)

type oneRow struct {
	field model.FieldID
	label string // empty for a family without labels
}

func rowsOf(family *definition, value func(int64) (Value, bool), list []oneRow) []derivedRow {
	rows := make([]derivedRow, len(list))
	for i, r := range list {
		rows[i] = derivedRow{family, r.field, nil, value}
		if r.label != "" {
			rows[i].labels = []string{r.label}
		}
	}
	return rows
}

func plain(v int64) (Value, bool) { return Number(float64(v)), v >= 0 }

func signed(v int64) (Value, bool) { return Number(float64(v)), true }

func truth(v int64) (Value, bool) { return Bool(v != 0), v >= 0 }

func nanoseconds(v int64) (Value, bool) { return Number(float64(v) / 1e9), v >= 0 }

// stateRows are a series for each state, of which the value's is 1; the first
// state's value is from, and one below it is none of them. A value beyond them all
// is "other".
func stateRows(family *definition, field model.FieldID, from int64, states ...string) []derivedRow {
	rows := make([]derivedRow, 0, len(states)+1)
	beyond := from + int64(len(states))
	for i, state := range states {
		rows = append(rows, derivedRow{family, field, []string{state}, func(v int64) (Value, bool) {
			return Bool(v == from+int64(i)), v >= from
		}})
	}
	return append(rows, derivedRow{family, field, []string{"other"}, func(v int64) (Value, bool) {
		return Bool(v >= beyond), v >= from
	}})
}

// fabricStateRows are the states of dcgmFabricManagerStatus_t (dcgm_structs.h). 0 is
// no fabric, and 6 that the driver's library is too old to tell.
func fabricStateRows() []derivedRow {
	const tooOld = 6
	rows := stateRows(&gpuFabricState, 170, 1, "not_started", "in_progress", "success", "failure")
	for i := range rows {
		state := rows[i].value
		rows[i].value = func(v int64) (Value, bool) {
			value, ok := state(v)
			return value, ok && v != tooOld
		}
	}
	return rows
}

func clockEventRows() []derivedRow {
	rows := make([]derivedRow, field.ClockEventReasonCount)
	for bit := range field.ClockEventReasonCount {
		rows[bit] = derivedRow{&gpuClockEventActive, field.ClocksEventReasons, []string{field.ClockEventReason(bit)}, func(v int64) (Value, bool) {
			return Bool(v>>bit&1 != 0), true
		}}
	}
	return rows
}

// faultRows decode the fabric's health mask: sub-fields in which 0 is "cannot
// tell". Of two bits, 1 is a fault and 2 is none; of the last one's four, 1 is
// none and what is above says which fault (NVML_GPU_FABRIC_HEALTH_MASK_* in nvml.h).
func faultRows() []derivedRow {
	row := func(fault string, shift int, mask int64, isFault func(int64) bool) derivedRow {
		return derivedRow{&gpuFabricFault, 174, []string{fault}, func(v int64) (Value, bool) {
			sub := v >> shift & mask
			return Bool(isFault(sub)), v >= 0 && sub != 0
		}}
	}
	one := func(v int64) bool { return v == 1 }
	return []derivedRow{
		row("access_timeout_recovery", 6, 3, one),
		row("degraded_bandwidth", 0, 3, one),
		row("incorrect_configuration", 8, 15, func(v int64) bool { return v > 1 }),
		row("route_recovery", 2, 3, one),
		row("route_unhealthy", 4, 3, one),
	}
}

// locationRows are the ECC errors in each memory. fields count the corrected
// errors; the field that follows each one counts the uncorrected.
func locationRows(family *definition, fields ...model.FieldID) []derivedRow {
	locations := [...]string{"l1", "l2", "device", "register", "texture", "shared", "cbu", "sram"}
	var rows []derivedRow
	for i, f := range fields {
		rows = append(rows,
			derivedRow{family, f, []string{locations[i], "corrected"}, plain},
			derivedRow{family, f + 1, []string{locations[i], "uncorrected"}, plain})
	}
	return rows
}

// DerivedFields returns the fields that the gpu_* families of a GPU as a whole
// derive from, sorted. They are read whatever the counters file names.
func DerivedFields() []model.FieldID {
	fields := []model.FieldID{field.ClocksEventReasons, fieldFabricCluster, fieldFabricClique}
	for _, r := range derivedRows {
		fields = append(fields, r.field)
	}
	for bit := range field.ClockEventReasonCount {
		if counter := state.ClockEventCounter(bit); counter != 0 {
			fields = append(fields, counter)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// derivedLayout is what stays the same of the derived families from sample to
// sample: where the cells are, and the label sets of each entity.
type derivedLayout struct {
	columns []int         // of derivedRows' fields; -1 is not read
	labels  [][]*LabelSet // by entity and row; made when first needed
	cluster int           // column of the fabric's cluster, and
	clique  int           // of the clique
	fabric  []fabricLabels
}

type fabricLabels struct {
	cluster, clique string
	labels          *LabelSet
}

func newDerivedLayout(inv *model.Inventory) derivedLayout {
	l := derivedLayout{
		columns: make([]int, len(derivedRows)),
		labels:  make([][]*LabelSet, len(inv.Entities)),
		cluster: slices.Index(inv.Derived, fieldFabricCluster),
		clique:  slices.Index(inv.Derived, fieldFabricClique),
		fabric:  make([]fabricLabels, len(inv.Entities)),
	}
	for i, r := range derivedRows {
		l.columns[i] = slices.Index(inv.Derived, r.field)
	}
	return l
}

// appendDevices appends the families that derive from fields. They are what the
// newest sample says: without a fresh one there are none.
func (f *Families) appendDerived(families []Family, v state.View) []Family {
	if v.Sample == nil || len(v.Sample.Derived) == 0 {
		return families
	}
	for from := 0; from < len(derivedRows); {
		definition := derivedRows[from].family
		to := from + 1
		for to < len(derivedRows) && derivedRows[to].family == definition {
			to++
		}
		family := definition.family()
		family.Series = f.buffer(family.Name)
		for i, row := range v.Sample.Derived {
			if len(row) == 0 || f.layout.entities[i].own == nil {
				continue
			}
			for r := from; r < to; r++ {
				column := f.layout.derived.columns[r]
				if column < 0 || row[column].Status != model.StatusOK || row[column].Type != model.ValueInt64 {
					continue
				}
				if value, ok := derivedRows[r].value(row[column].Int64()); ok {
					family.Series = append(family.Series, Series{f.derivedLabels(i, r), value})
				}
			}
		}
		families = append(families, family)
		from = to
	}
	return append(families, f.fabricInfo(v))
}

// derivedLabels returns the labels of an entity's series.
func (f *Families) derivedLabels(entity, row int) *LabelSet {
	l := &f.layout.entities[entity]
	r := &derivedRows[row]
	if len(r.labels) == 0 {
		return l.own
	}
	sets := &f.layout.derived.labels[entity]
	if *sets == nil {
		*sets = make([]*LabelSet, len(derivedRows))
	}
	if (*sets)[row] == nil {
		labels := slices.Clone(l.identity)
		for n, value := range r.labels {
			labels = append(labels, Label{r.family.Labels[n], value})
		}
		(*sets)[row] = NewLabelSet(labels...)
	}
	return (*sets)[row]
}

// fabricInfo returns which cluster and clique each GPU belongs to.
func (f *Families) fabricInfo(v state.View) Family {
	family := gpuFabricInfo.family()
	l := &f.layout.derived
	if l.cluster < 0 || l.clique < 0 {
		return family
	}
	for i, row := range v.Sample.Derived {
		if len(row) == 0 || f.layout.entities[i].own == nil || row[l.cluster].Status != model.StatusOK || row[l.clique].Status != model.StatusOK {
			continue
		}
		cluster := v.Sample.String(row[l.cluster])
		if cluster == "" || cluster == noCluster {
			continue
		}
		clique := strconv.FormatInt(row[l.clique].Int64(), 10)
		known := &l.fabric[i]
		if known.labels == nil || known.cluster != cluster || known.clique != clique {
			*known = fabricLabels{cluster, clique, NewLabelSet(slices.Concat(f.layout.entities[i].identity,
				[]Label{{"clique", clique}, {"cluster_uuid", cluster}})...)}
		}
		family.Series = append(family.Series, Series{known.labels, Number(1)})
	}
	return family
}
