// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"strings"
	"testing"
)

func TestParsePCIBusID(t *testing.T) {
	for in, want := range map[string]string{
		"0000:3b:00.0":     "0000:3b:00.0",
		"00000000:3B:00.0": "0000:3b:00.0",
		"3b:00.0":          "0000:3b:00.0",
		"0001:AF:1f.7":     "0001:af:1f.7",
		"10001:AF:1f.7":    "10001:af:1f.7",
		"":                 "",
		"3b":               "",
		"00.0":             "",
		"0000:3b:00":       "",
		"0:0:3b:00.0":      "",
		"0000:xx:00.0":     "",
		"0000:-1:00.0":     "",
	} {
		id, ok := ParsePCIBusID(in)
		if id.PCIBusID != want || ok != (want != "") || id.String() != want && ok {
			t.Errorf("%q is %q, want %q", in, id.PCIBusID, want)
		}
	}
}

func TestParseIDType(t *testing.T) {
	for in, want := range map[string]IDType{"": IDTypeUID, "uid": IDTypeUID, "device-name": IDTypeDeviceName} {
		if got, err := ParseIDType(in); err != nil || got != want {
			t.Errorf("ParseIDType(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := ParseIDType("UID"); err == nil || !strings.Contains(err.Error(), "device-name") {
		t.Errorf("ParseIDType(UID): error %v does not list the choices", err)
	}
}

func TestCompareProfiles(t *testing.T) {
	for _, tc := range []struct {
		a, b          string
		same, exactly bool
	}{
		{"1g.10gb", "1g.10gb", true, true},
		{"1g.10GB", "1g.10gb", true, true},
		{"1g.10gb+me", "1g.10gb.me", true, true},
		{"1g.10gb+me", "1g.10gb-me", true, false}, // with, and without, media engines
		{"1g.10gb", "1g.10gb+gfx", true, false},
		{"1g.10gb", "1g.20gb", false, false},
		{"1g.10gb", "2g.10gb", false, false},
		{"1c.2g.10gb", "2g.10gb", false, false},
		{"", "", false, false},
	} {
		if same, exactly := compareProfiles(tc.a, tc.b); same != tc.same || exactly != tc.exactly {
			t.Errorf("%q and %q: same %v, exactly %v", tc.a, tc.b, same, exactly)
		}
	}
}
