// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"testing"
)

func TestParsePCIAddress(t *testing.T) {
	for text, want := range map[string]PCIAddress{
		"00000000:18:00.0": {0, 0x18, 0}, "0000B8D4:C1:1F.0": {0xb8d4, 0xc1, 0x1f}, "0:ff:1": {0, 0xff, 1},
	} {
		if got, ok := ParsePCIAddress(text); !ok || got != want {
			t.Errorf("%s: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "18:00.0", "0:100:0.0", "x:1:2.0", "1:2:3:4"} {
		if got, ok := ParsePCIAddress(text); ok {
			t.Errorf("%s: %v", text, got)
		}
	}
}
