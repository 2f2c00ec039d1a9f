// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"strings"
	"testing"
)

func TestNamesInBaseUnits(t *testing.T) {
	tests := []struct {
		name string
		cell Cell
		want string
	}{
		{"DCGM_FI_DEV_FB_USED_BYTES", Int64Cell(80994), "84928364544"},
		{"DCGM_FI_DEV_SM_CLOCK_HERTZ", Int64Cell(1980), "1980000000"},
		{"DCGM_FI_DEV_GPU_UTIL_RATIO", Int64Cell(7), "0.070000"},
		{"DCGM_FI_DEV_GPU_UTIL", Int64Cell(7), "7"}, // as it is
		{"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", Int64Cell(1283958694), "1283958.694000"},
		{"DCGM_FI_DEV_NVLINK_THROUGHPUT_BYTES_PER_SECOND", Int64Cell(3), "3072000"},
		{"DCGM_FI_DEV_FAN_SPEED_RATIO", DoubleCell(104), "1.040000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewCounter(tt.name, "", "", "")
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

// Each name is in a base unit, is made of a number in another unit, and is as help and
// unit of DCGM's own field of that name say, where go-dcgm has one.
func TestBaseUnitsAreConsistent(t *testing.T) {
	for _, u := range baseUnits {
		f, ok := FieldByID(u.field)
		if !ok || !f.Type.Numeric() || f.BaseUnitName() != u.name {
			t.Errorf("%s is made of field %d, %+v", u.name, u.field, f)
		}
		scale := map[string]float64{"MiB": mebi, "MHz": mega, "mJ": 1e-3, "percent": percent, "MB/s": nvlinkUnit}[f.Unit]
		if scale != u.scale {
			t.Errorf("%s is %v times a value in %s", u.name, u.scale, f.Unit)
		}
		if own, ok := FieldByName(u.name); ok && own.ID != u.field && (own.Help != u.help || own.Nature != f.Nature || own.Level != f.Level) {
			t.Errorf("%s is %q here and %+v in DCGM", u.name, u.help, own)
		}
		if !ok && f.ID == 0 {
			t.Errorf("%s has no field", u.name)
		}
	}
	if _, err := ParseCounters(strings.NewReader("DCGM_FI_DEV_FB_USED_BYTES,label,x"), "f.csv"); err == nil || !strings.Contains(err.Error(), "write gauge") {
		t.Errorf("as a label: %v", err)
	}
}

// Statistics are in the unit of the name, too.
func TestStatisticsInBaseUnits(t *testing.T) {
	c, err := NewCounter("DCGM_FI_DEV_SM_CLOCK_HERTZ", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.factor(); got != mega || c.Help != "Clock of the streaming multiprocessors (in Hz)." {
		t.Errorf("factor %v, help %q", got, c.Help)
	}
	if got := (Counter{}).factor(); got != 1 {
		t.Errorf("factor %v without a scale", got)
	}
}
