// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"testing"

	"gpu_exporter/collector/model"
)

// A GPU whose place another card has is no lost GPU.
func TestReplacedCardIsNotLost(t *testing.T) {
	gpu := func(uuid, bus string) *model.Inventory {
		return &model.Inventory{Entities: []model.Entity{{Kind: model.KindGPU, UUID: uuid, PCIBusID: bus, Selected: true, Parent: model.Unknown}}}
	}
	old := gpu("GPU-old", "00000000:18:00.0")
	for name, tc := range map[string]struct {
		next *model.Inventory
		gone int
	}{
		"another card at its address": {gpu("GPU-new", "00000000:18:00.0"), 0},
		"another card elsewhere":      {gpu("GPU-new", "00000000:3B:00.0"), 1},
		"no card":                     {&model.Inventory{}, 1},
		"the card without a UUID":     {gpu("", "00000000:18:00.0"), 1},
	} {
		if gone := absent(model.KindGPU, nil, old, tc.next); len(gone) != tc.gone {
			t.Errorf("%s: %d GPUs are gone, want %d", name, len(gone), tc.gone)
		}
	}
}
