// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"strings"
	"testing"
)

// TestBaseUnitsAreConsistent: each scale matches the unit of the older field, and the help
// text equals that of DCGM's new field, if go-dcgm has it.
func TestBaseUnitsAreConsistent(t *testing.T) {
	for _, u := range baseUnits {
		f, ok := ByID(u.field)
		if !ok || !f.Type.Numeric() || f.BaseUnitName() != u.name {
			t.Errorf("%s is converted from field %d, %+v", u.name, u.field, f)
		}
		scale := map[string]float64{"MiB": mebi, "MHz": mega, "mJ": 1e-3, "percent": Percent, "MB/s": nvlinkUnit}[f.Unit]
		if scale != u.scale {
			t.Errorf("%s is %v times a value in %s", u.name, u.scale, f.Unit)
		}
		if own, ok := ByName(u.name); ok && own.ID != u.field && (own.Help != u.help || own.Nature != f.Nature || own.Level != f.Level) {
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

// TestStatisticsInBaseUnits: the factor of the name applies.
func TestStatisticsInBaseUnits(t *testing.T) {
	c, err := NewCounter("DCGM_FI_DEV_SM_CLOCK_HERTZ", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Factor(); got != mega || c.Help != "Clock of the streaming multiprocessors (in Hz)." {
		t.Errorf("factor %v, help %q", got, c.Help)
	}
	if got := (Counter{}).Factor(); got != 1 {
		t.Errorf("factor %v without a scale", got)
	}
}
