// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"reflect"
	"testing"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// Links remain known if a new sampler does not find them.
func TestLinkMemory(t *testing.T) {
	node, _ := newTestNode(t)
	gpu := func(id uint32, uuid string, state model.EntityState) model.Entity {
		return model.Entity{Kind: model.KindGPU, ID: id, UUID: uuid, State: state, Selected: true, Parent: model.Unknown}
	}
	nvswitch := model.Entity{Kind: model.KindSwitch, ID: 1, Selected: true, Parent: model.Unknown}
	link := func(parent, port int) model.Entity {
		return model.Entity{Kind: model.KindLink, Parent: parent, Port: port, LinkDown: port%2 == 1}
	}
	a, b := model.KnownLinks{GPU: "GPU-a", Ports: []int{0, 1}}, model.KnownLinks{GPU: "GPU-b", Ports: []int{3}}
	ofSwitch := model.KnownLinks{Switch: 1, Ports: []int{40}}
	for _, step := range []struct {
		name     string
		entities []model.Entity
		want     []model.KnownLinks
	}{
		{"all are listed", []model.Entity{gpu(0, "GPU-a", model.EntityUp), gpu(1, "GPU-b", model.EntityUp), nvswitch, link(0, 0), link(0, 1), link(1, 3), link(2, 40)},
			[]model.KnownLinks{ofSwitch, a, b}},
		{"a new sampler finds neither the switch nor the UUID of the lost GPU", []model.Entity{gpu(0, "", model.EntityLost), gpu(1, "GPU-b", model.EntityUp), link(1, 3)},
			[]model.KnownLinks{ofSwitch, a, b}},
		{"the lost GPU is back, and the second GPU is in MIG mode", []model.Entity{gpu(0, "GPU-a", model.EntityUp), gpu(1, "GPU-b", model.EntityUp), link(0, 0)},
			[]model.KnownLinks{ofSwitch, a, b}},
		{"another GPU in its place", []model.Entity{gpu(0, "GPU-c", model.EntityUp), gpu(1, "GPU-b", model.EntityUp), nvswitch, link(0, 5), link(2, 41)},
			[]model.KnownLinks{{Switch: 1, Ports: []int{40, 41}}, a, b, {GPU: "GPU-c", Ports: []int{5}}}},
	} {
		deliver(t, node, wire.Frame{Inventory: &model.Inventory{Generation: 1, Entities: step.entities}})
		if got := node.Links(); !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
}
