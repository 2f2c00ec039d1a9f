// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"testing"
)

func TestPositionsInAnotherInventory(t *testing.T) {
	gpu := func(id uint32, uuid string) Entity {
		return Entity{Kind: KindGPU, ID: id, UUID: uuid, Parent: Unknown}
	}
	sw := Entity{Kind: KindSwitch, ID: 0, Parent: Unknown}
	lost := gpu(2, "GPU-c")
	lost.State = EntityLost
	of := &Inventory{Entities: []Entity{gpu(0, "GPU-a"), gpu(1, "GPU-b"), gpu(2, "GPU-c"), gpu(3, "GPU-d"), sw}}
	other := &Inventory{Entities: []Entity{sw, gpu(0, "GPU-b"), gpu(1, "GPU-a"), lost}}
	if got, want := of.PositionsIn(other), []int{2, 1, Unknown, Unknown, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
