// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// TestUpdateStates shows that a GPU is remembered while it may return, and exists once if
// it returns with another ID.
func TestUpdateStates(t *testing.T) {
	d := Discovery{gpus: map[uint32]*gpu{
		0: {entity: model.Entity{Kind: model.KindGPU, ID: 0, Parent: model.Unknown, UUID: "GPU-a"}},
		1: {entity: model.Entity{Kind: model.KindGPU, ID: 1, Parent: model.Unknown, UUID: "GPU-b"}, instances: []gpuInstance{{
			instance: instance{entity: model.Entity{Kind: model.KindGPUInstance, ID: 7}, appeared: 5},
			compute:  []instance{{entity: model.Entity{Kind: model.KindComputeInstance, ID: 7, UUID: "MIG-b"}, appeared: 6}},
		}}},
		2: {entity: model.Entity{Kind: model.KindGPU, ID: 2, Parent: model.Unknown, UUID: "GPU-c"}},
		3: {entity: model.Entity{Kind: model.KindGPU, ID: 3, Parent: model.Unknown, UUID: "GPU-a"}},
		4: {entity: model.Entity{Kind: model.KindGPU, ID: 4, Parent: model.Unknown, UUID: "GPU-d"}},
	}}
	d.updateStates(native.Topology{GPUs: []native.GPU{{ID: 1, Status: native.StatusLost}, {ID: 2, Status: native.StatusDetached}, {ID: 3, Status: native.StatusOK}}})
	var got []string
	entities, appeared := d.entities()
	for _, e := range entities {
		got = append(got, fmt.Sprintf("%v %d parent %d %v %s", e.Kind, e.ID, e.Parent, e.State, e.UUID))
	}
	want := []string{
		"gpu 1 parent -1 lost GPU-b",
		"gpu 2 parent -1 detached GPU-c",
		"gpu 3 parent -1 up GPU-a",
		"gpu 4 parent -1 detached GPU-d",
		"gpu_instance 7 parent 0 lost ",
		"compute_instance 7 parent 4 lost MIG-b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("entities:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := []int64{0, 0, 0, 0, 5, 6}; !slices.Equal(appeared, want) {
		t.Errorf("appeared at %v, want %v", appeared, want)
	}
}

func TestMergeKeepsBlankedValues(t *testing.T) {
	known := model.Entity{UUID: "GPU-a", Model: "H100", Serial: "1", VBIOS: "2", Brand: "NVIDIA", PCIBusID: "0:1:0.0", Index: 3, Minor: 4}
	blank := model.Entity{Index: model.Unknown, Minor: model.Unknown}
	if got := merge(known, blank); got != known {
		t.Errorf("merge with blanks: %+v, want %+v", got, known)
	}
	if got := merge(known, model.Entity{UUID: "GPU-a", Model: "H200", Index: 0, Minor: 0}); got.Model != "H200" || got.Index != 0 || got.Serial != "1" {
		t.Errorf("merge with new values: %+v", got)
	}
}

func TestProfile(t *testing.T) {
	for name, want := range map[string]string{
		"1g.10gb":                              "1g.10gb",
		"MIG 1g.10gb":                          "1g.10gb",
		"NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb": "1c.3g.40gb",
		"":                                     "",
	} {
		if got := profile(name); got != want {
			t.Errorf("profile(%q) = %q, want %q", name, got, want)
		}
	}
}

// TestLinksOfReplacedGPU shows that a GPU does not inherit the links of an earlier GPU with
// its ID, and has its own links when it returns.
func TestLinksOfReplacedGPU(t *testing.T) {
	f := newFabric([]model.KnownLinks{{GPU: "GPU-c", Ports: []int{5}}, {Switch: 0, Ports: []int{5}}})
	for _, step := range []struct {
		uuid  string
		mig   bool
		state native.LinkState // 0: not supported
		want  int
	}{
		{"GPU-a", false, native.LinkDown, 0},
		{"GPU-a", false, native.LinkUp, 1},
		{"GPU-a", false, native.LinkDown, 1},
		{"GPU-b", false, native.LinkDown, 0},
		{"GPU-a", false, native.LinkDown, 1},
		{"GPU-a", true, 0, 0},
		{"GPU-a", false, native.LinkDown, 1},
		{"GPU-c", false, native.LinkDown, 1},
		{"", false, native.LinkDown, 0},
		{"", false, native.LinkUp, 1},
		{"", false, native.LinkDown, 1},
	} {
		var now native.Fabric
		if step.state != 0 {
			now.Links = []native.Link{{Parent: native.PairOf(model.KindGPU, 0), Port: 5, State: step.state}}
		}
		f.update(now, map[uint32]*gpu{0: {entity: model.Entity{Kind: model.KindGPU, UUID: step.uuid, MIGMode: step.mig}}})
		if len(f.links) != step.want {
			t.Errorf("%+v: %d links", step, len(f.links))
		}
	}
}
