// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"testing"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

func TestNamesInBaseUnits(t *testing.T) {
	tests := []struct {
		name string
		cell model.Cell
		want string
	}{
		{"DCGM_FI_DEV_FB_USED_BYTES", model.Int64Cell(80994), "84928364544"},
		{"DCGM_FI_DEV_SM_CLOCK_HERTZ", model.Int64Cell(1980), "1980000000"},
		{"DCGM_FI_DEV_GPU_UTIL_RATIO", model.Int64Cell(7), "0.070000"},
		{"DCGM_FI_DEV_GPU_UTIL", model.Int64Cell(7), "7"}, // as it is
		{"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", model.Int64Cell(1283958694), "1283958.694000"},
		{"DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND", model.Int64Cell(3), "3072000"},
		{"DCGM_FI_DEV_FAN_SPEED_RATIO", model.DoubleCell(104), "1.040000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := field.NewCounter(tt.name, "", "", "")
			if err != nil {
				t.Fatal(err)
			}
			series := []Series{{Value: fieldValue(tt.cell)}}
			scale(c, series)
			if got := string(series[0].Value.append(nil)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
