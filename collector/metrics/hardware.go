// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// The gpu_* families of the hardware are about whole GPUs, so instances do not repeat
// them. No family mixes totals with their parts, so sums are correct.

// hardwareRow decodes a field into one series of each GPU.
type hardwareRow struct {
	family *definition.Family
	field  model.FieldID
	labels []string // values of the family's labels
	value  decode
}

// decode converts the value of a field into that of a series; false is no series.
type decode func(float64) (float64, bool)

var hardwareRows = slices.Concat(
	clockEventRows(),
	rowsOf(&definition.GPUThermalMargin, signed, []oneRow{{153, ""}}),
	rowsOf(&definition.GPUSlowdownTemperature, unsigned, []oneRow{{158, ""}}),
	rowsOf(&definition.GPUPowerLimit, unsigned, []oneRow{{164, ""}}),
	rowsOf(&definition.GPUPCIeLinkWidth, unsigned, []oneRow{{238, ""}}),
	rowsOf(&definition.GPUPCIeLinkWidthMax, unsigned, []oneRow{{236, ""}}),
	rowsOf(&definition.GPUPersistenceMode, truth, []oneRow{{66, ""}}),
	rowsOf(&definition.GPUPCIeReplays, unsigned, []oneRow{{202, ""}}),
	rowsOf(&definition.GPURowRemapExhaustedBanks, unsigned, []oneRow{{389, ""}}),
	rowsOf(&definition.GPUViolationSeconds, nanoseconds, []oneRow{
		{240, "power"}, {241, "thermal"}, {242, "sync_boost"}, {243, "board_limit"}, {244, "low_utilization"}, {245, "reliability"}}),
	rowsOf(&definition.GPUClocksBelowSeconds, nanoseconds, []oneRow{{246, "application"}, {247, "base"}}),
	rowsOf(&definition.GPURemappedRows, unsigned, []oneRow{{394, "correctable"}, {393, "uncorrectable"}}),
	rowsOf(&definition.GPURowRemapPending, truth, []oneRow{{396, ""}}),
	rowsOf(&definition.GPURowRemapFailed, truth, []oneRow{{395, ""}}),
	rowsOf(&definition.GPURowRemapBanks, unsigned, []oneRow{{385, "max"}, {386, "high"}, {387, "partial"}, {388, "low"}, {389, "none"}}),
	rowsOf(&definition.GPURetiredPages, unsigned, []oneRow{{391, "double_bit_ecc"}, {390, "single_bit_ecc"}}),
	rowsOf(&definition.GPURetiredPagesPending, truth, []oneRow{{392, ""}}),
	rowsOf(&definition.GPUMemoryUnrepairable, truth, []oneRow{{1507, ""}}),
	rowsOf(&definition.GPUSRAMThresholdExceeded, truth, []oneRow{{346, ""}}),
	rowsOf(&definition.GPUECCErrors, unsigned, []oneRow{{310, "correctable"}, {311, "uncorrectable"}}),
	locationRows(&definition.GPUECCLocationErrors, 314, 316, 318, 320, 322, 334, 336, 342),
	rowsOf(&definition.GPUECCLifetimeErrors, unsigned, []oneRow{{312, "correctable"}, {313, "uncorrectable"}}),
	locationRows(&definition.GPUECCLifetimeLocationErrors, 324, 326, 328, 330, 332, 338, 340, 344),
)

type oneRow struct {
	field model.FieldID
	label string // empty for a family without labels
}

func rowsOf(family *definition.Family, value decode, list []oneRow) []hardwareRow {
	rows := make([]hardwareRow, len(list))
	for i, r := range list {
		rows[i] = hardwareRow{family, r.field, nil, value}
		if r.label != "" {
			rows[i].labels = []string{r.label}
		}
	}
	return rows
}

func unsigned(v float64) (float64, bool) { return v, v >= 0 }

func signed(v float64) (float64, bool) { return v, true }

func truth(v float64) (float64, bool) { return bit(v != 0), v >= 0 }

func nanoseconds(v float64) (float64, bool) { return v / 1e9, v >= 0 }

func clockEventRows() []hardwareRow {
	rows := make([]hardwareRow, field.ClockEventReasonCount)
	for reason := range field.ClockEventReasonCount {
		rows[reason] = hardwareRow{&definition.GPUClockEventActive, field.ClocksEventReasons, []string{field.ClockEventReason(reason)}, func(v float64) (float64, bool) {
			return bit(int64(v)>>reason&1 != 0), true
		}}
	}
	return rows
}

// locationRows are the ECC errors of each memory. Each field counts correctable
// errors, and the field after it the uncorrectable ones.
func locationRows(family *definition.Family, fields ...model.FieldID) []hardwareRow {
	locations := [...]string{"l1", "l2", "device", "register", "texture", "shared", "cbu", "sram"}
	var rows []hardwareRow
	for i, f := range fields {
		rows = append(rows,
			hardwareRow{family, f, []string{locations[i], "correctable"}, unsigned},
			hardwareRow{family, f + 1, []string{locations[i], "uncorrectable"}, unsigned})
	}
	return rows
}

// DerivedFields returns the fields behind the selected hardware families, sorted. They
// are read in addition to those of the counters file.
func (cfg *Config) DerivedFields() []model.FieldID {
	selected := cfg.Selected
	var fields []model.FieldID
	for _, r := range hardwareRows {
		if selected.Has(r.family) {
			fields = append(fields, r.field)
		}
	}
	for _, s := range hardwareStates {
		if s.selected(selected) {
			fields = append(fields, s.fields...)
		}
	}
	if selected.Has(&definition.GPUClockEventSeconds) || selected.Has(&definition.GPUClockPolicySeconds) || cfg.counts(field.ClockEventsCount, field.ClockEventsTotal) {
		fields = append(fields, field.ClocksEventReasons)
		for reason := range field.ClockEventReasonCount {
			if counter := state.ClockEventCounter(reason); counter != 0 {
				fields = append(fields, counter)
			}
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// addHardware adds the hardware families of a fresh sample.
func (p *page) addHardware() {
	for i, cells := range p.v.Sample.Derived {
		if len(cells) == 0 || !p.layout.entities[i].device {
			continue
		}
		for r := range hardwareRows {
			row, column := &hardwareRows[r], p.layout.hardware[r]
			if column < 0 || cells[column].Status != model.StatusOK || !cells[column].Type.Numeric() {
				continue
			}
			if value, ok := row.value(cells[column].Float64()); ok {
				p.addEntity(row.family, i, value, row.labels...)
			}
		}
		gpu := gpuCells{p, i, cells}
		for _, s := range hardwareStates {
			if s.selected(p.cfg.Selected) {
				s.add(&gpu)
			}
		}
	}
}
