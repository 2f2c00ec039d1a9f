// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"strings"
	"testing"

	"gpu_exporter/podmapper"
)

// testNode has GPU 0 without MIG, GPU 1 (the file /dev/nvidia3) in MIG mode with
// two MIG devices in one GPU instance and one in another, and GPU 2 in MIG mode
// without an instance.
func testNode() []Device {
	gpu := func(index, minor int, mig bool) Device {
		return Device{MIG: mig, MIGIndex: NoIndex, Device: podmapper.Device{Kind: podmapper.KindGPU,
			GPUUUID: fmt.Sprintf("GPU-0000000%d", index), Index: index, Minor: minor}}
	}
	part := func(kind podmapper.DeviceKind, gi, ci, migIndex int, uuids ...string) Device {
		d := gpu(1, 3, true)
		d.Kind, d.GPUInstance, d.ComputeInstance, d.MIGIndex, d.MIGUUIDs = kind, gi, ci, migIndex, uuids
		return d
	}
	return []Device{
		gpu(0, 0, false),
		gpu(1, 3, true),
		part(podmapper.KindGPUInstance, 2, 0, NoIndex, "MIG-a", "MIG-b"),
		part(podmapper.KindComputeInstance, 2, 0, 0, "MIG-a"),
		part(podmapper.KindComputeInstance, 2, 1, 1, "MIG-b"),
		part(podmapper.KindGPUInstance, 5, 0, NoIndex, "MIG-c"),
		part(podmapper.KindComputeInstance, 5, 0, 2, "MIG-c"),
		{Device: podmapper.Device{Kind: podmapper.KindOther}},
		gpu(2, 1, true),
	}
}

func TestMatch(t *testing.T) {
	id := func(text string) Devices {
		id, _ := podmapper.ParseDeviceID(text)
		return Devices{IDs: []podmapper.DeviceID{id}}
	}
	for _, tc := range []struct {
		name      string
		devices   Devices
		held      []int  // positions in testNode
		unmatched string // request and reason
	}{
		{"all are what can be held", Devices{All: true}, []int{0, 2, 3, 4, 5, 6}, ""},
		{"an index is NVML's", id("0"), []int{0}, ""},
		{"an index that the node has not", id("7"), nil, "7: no device of this node is that"},
		{"a file is the minor number", Devices{IDs: []podmapper.DeviceID{{Form: podmapper.FormDeviceName, Number: 0}}}, []int{0}, ""},
		{"a GPU in MIG mode by index", id("1"), nil, "1: the GPU is in MIG mode, and this is none of its MIG devices"},
		{"a GPU in MIG mode by file", id("nvidia3"), nil, "nvidia3: the GPU is in MIG mode, and this is none of its MIG devices"},
		{"a UUID in any case", id("GPU-00000000"), []int{0}, ""},
		{"a UUID of another node", id("GPU-ffffffff"), nil, "GPU-ffffffff: no device of this node is that"},
		{"a MIG device is in its GPU instance", id("MIG-B"), []int{2, 4}, ""},
		{"a MIG device by path", id("MIG-GPU-00000001/5/0"), []int{5, 6}, ""},
		{"a MIG device by index", Devices{MIGIndexes: []MIGIndex{{1, 2}}}, []int{5, 6}, ""},
		{"a MIG device of a GPU without", Devices{MIGIndexes: []MIGIndex{{0, 0}}}, nil, "0:0: no device of this node is that"},
		{"a MIG device by its files", Devices{MIGInstances: []MIGInstance{{3, 2, 1}}}, []int{2, 4}, ""},
		{"a MIG device that is gone", Devices{MIGInstances: []MIGInstance{{3, 9, 0}}}, nil, "gpu3/gi9/ci0: no device of this node is that"},
		{"several, one of them gone", Devices{IDs: []podmapper.DeviceID{{Form: podmapper.FormNumber}, {Form: podmapper.FormNumber, Number: 8}}, MIGIndexes: []MIGIndex{{1, 0}, {1, 1}}},
			[]int{0, 2, 3, 4}, "8: no device of this node is that"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table := &Table{Holds: []Hold{{tc.devices, Container{ID: "1", Name: "train"}}}}
			m := table.Match(testNode())
			var held []int
			for i, all := range m.Containers {
				if len(all) > 1 {
					t.Errorf("device %d is held by %v", i, all)
				}
				if len(all) > 0 {
					held = append(held, i)
				}
			}
			if fmt.Sprint(held) != fmt.Sprint(tc.held) {
				t.Errorf("held are %v, want %v", held, tc.held)
			}
			var unmatched []string
			for _, u := range m.Unmatched {
				if u.Name != "train" || u.ID != "1" || u.Hint == "" {
					t.Errorf("unmatched: %+v", u)
				}
				unmatched = append(unmatched, u.Request+": "+u.Reason)
			}
			if got := strings.Join(unmatched, "\n"); got != tc.unmatched {
				t.Errorf("unmatched %q, want %q", got, tc.unmatched)
			}
		})
	}
}

func TestMatchSeveral(t *testing.T) {
	all := Devices{All: true}
	table := &Table{
		Holds:      []Hold{{all, Container{ID: "1", Name: "a"}}, {all, Container{ID: "2", Name: "b"}}},
		Unresolved: []Unresolved{{ID: "3", Name: "c", Request: "odd", Reason: "it has no known form"}},
	}
	m := table.Match(testNode())
	if c := m.Containers[0]; len(c) != 2 || c[0].Name != "a" || c[1].Name != "b" {
		t.Errorf("GPU 0 is held by %v", c)
	}
	if len(m.Unmatched) != 1 || m.Unmatched[0].Name != "c" {
		t.Errorf("unmatched: %v", m.Unmatched)
	}
	var none *Table
	if m := none.Match(testNode()); len(m.Containers) != len(testNode()) || len(m.Unmatched) != 0 {
		t.Errorf("without a table: %+v", m)
	}
	if _, ok := none.Container("1"); ok {
		t.Error("there is a container without a table")
	}
}
