// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// Names in base units convert the values of fields in another unit.
func TestNamesInBaseUnits(t *testing.T) {
	tests := []struct {
		name string
		cell model.Cell
		want float64
	}{
		{"DCGM_FI_DEV_FB_USED_BYTES", model.Int64Cell(80994), 84928364544},
		{"DCGM_FI_DEV_SM_CLOCK_HERTZ", model.Int64Cell(1980), 1980000000},
		{"DCGM_FI_DEV_GPU_UTIL_RATIO", model.Int64Cell(7), 0.07},
		{"DCGM_FI_DEV_GPU_UTIL", model.Int64Cell(7), 7}, // unchanged
		{"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", model.Int64Cell(1283958694), 1283958.694},
		{"DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND", model.Int64Cell(3), 3072000},
		{"DCGM_FI_DEV_FAN_SPEED_RATIO", model.DoubleCell(104), 1.04},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := field.NewCounter(tt.name, "", "", "")
			if err != nil {
				t.Fatal(err)
			}
			cfg := testConfig(t)
			cfg.Counters = []field.Counter{c}
			f, node, _ := newTestFamilies(t, cfg)
			inv := testInventory(t)
			inv.Columns[model.KindGPU], inv.Columns[model.KindGPUInstance] = []model.FieldID{c.Field.ID}, nil
			sample := &model.Sample{Generation: 1, Time: epoch, Rows: make([][]model.Cell, len(inv.Entities))}
			sample.Rows[0] = []model.Cell{tt.cell}
			deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: sample})
			line := strings.TrimSpace(series(encode(t, f, expfmt.TypeTextPlain), tt.name))
			got, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil || math.Abs(got-tt.want) > 1e-9*tt.want {
				t.Errorf("%q, want %v", line, tt.want)
			}
		})
	}
}
