// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"strings"
	"testing"

	"gpu_exporter/podmapper/device"
)

// testNode has GPU 0 without MIG, GPU 1 (/dev/nvidia3) in MIG mode with two MIG
// devices in one GPU instance and one in a second one, and GPU 2 in MIG mode
// without an instance.
func testNode() *device.Index {
	gpu := func(index, minor int, mig bool) device.Device {
		return device.Device{Kind: device.KindGPU, MIGMode: mig, MIGIndex: device.Unknown, DCGMID: index,
			GPUUUID: fmt.Sprintf("GPU-0000000%d", index), Index: index, Minor: minor}
	}
	part := func(kind device.Kind, gi, ci, migIndex int, uuids ...string) device.Device {
		d := gpu(1, 3, true)
		d.Kind, d.GPUInstance, d.ComputeInstance, d.MIGIndex, d.MIGUUIDs = kind, gi, ci, migIndex, uuids
		return d
	}
	return device.NewIndex([]device.Device{
		gpu(0, 0, false),
		gpu(1, 3, true),
		part(device.KindGPUInstance, 2, 0, device.Unknown, "MIG-a", "MIG-b"),
		part(device.KindComputeInstance, 2, 0, 0, "MIG-a"),
		part(device.KindComputeInstance, 2, 1, 1, "MIG-b"),
		part(device.KindGPUInstance, 5, 0, device.Unknown, "MIG-c"),
		part(device.KindComputeInstance, 5, 0, 2, "MIG-c"),
		{Kind: device.KindOther},
		gpu(2, 1, true),
	}, device.IDTypeUID)
}

func index(n int) device.ID { return device.ID{Form: device.FormIndex, Number: n} }

func migIndex(gpu, mig int) device.ID {
	return device.ID{Form: device.FormMIGIndex, Number: gpu, MIGIndex: mig}
}

func capability(minor, gi, ci int) device.ID {
	return device.ID{Form: device.FormMIGCapability, Number: minor, GPUInstance: gi, ComputeInstance: ci}
}

func TestMatch(t *testing.T) {
	ids := func(all ...device.ID) Devices { return Devices{IDs: all} }
	text := func(text string) Devices {
		id, _ := device.ParseID(text)
		return ids(id)
	}
	for _, tc := range []struct {
		name      string
		devices   Devices
		held      []int  // positions in testNode
		unmatched string // request
	}{
		{"all usable devices", Devices{All: true}, []int{0, 2, 3, 4, 5, 6}, ""},
		{"NVML index", ids(index(0)), []int{0}, ""},
		{"missing NVML index", ids(index(7)), nil, "7"},
		{"device file by minor number", text("nvidia0"), []int{0}, ""},
		{"GPU in MIG mode by index", ids(index(1)), nil, "1"},
		{"GPU in MIG mode by device file", text("nvidia3"), nil, "nvidia3"},
		{"UUID", text("GPU-00000000"), []int{0}, ""},
		{"UUID of a different node", text("GPU-ffffffff"), nil, "GPU-ffffffff"},
		{"MIG device and its GPU instance, UUID in upper case", text("MIG-B"), []int{2, 4}, ""},
		{"MIG device by path", text("MIG-GPU-00000001/5/0"), []int{5, 6}, ""},
		{"MIG device by index", ids(migIndex(1, 2)), []int{5, 6}, ""},
		{"MIG index of a GPU without MIG", ids(migIndex(0, 0)), nil, "0:0"},
		{"MIG device by its files", ids(capability(3, 2, 1)), []int{2, 4}, ""},
		{"files of a removed MIG device", ids(capability(3, 9, 0)), nil, "gpu3/gi9/ci0"},
		{"several devices, one missing", ids(index(0), index(8), migIndex(1, 0), migIndex(1, 1)), []int{0, 2, 3, 4},
			"8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table := &Table{Holds: []Hold{{Devices: tc.devices, Container: Container{ID: "1", Name: "train"}}}}
			m := table.Match(testNode())
			var held []int
			for i, all := range m.Containers {
				if len(all) > 1 {
					t.Errorf("device %d has the holders %v", i, all)
				}
				if len(all) > 0 {
					held = append(held, i)
				}
			}
			if fmt.Sprint(held) != fmt.Sprint(tc.held) {
				t.Errorf("held devices %v, want %v", held, tc.held)
			}
			var unmatched []string
			for _, u := range m.Unmatched {
				if u.Name != "train" || u.ID != "1" || u.Reason == "" || u.Hint == "" {
					t.Errorf("unmatched: %+v", u)
				}
				for _, id := range tc.devices.IDs {
					if _, miss := testNode().FindUsable(id); id.String() == u.Request && u.Reason != miss.Reason {
						t.Errorf("reason %q, want %q", u.Reason, miss.Reason)
					}
				}
				unmatched = append(unmatched, u.Request)
			}
			if got := strings.Join(unmatched, "\n"); got != tc.unmatched {
				t.Errorf("unmatched %q, want %q", got, tc.unmatched)
			}
		})
	}
}

func TestMatchSeveralContainers(t *testing.T) {
	all := Devices{All: true}
	table := &Table{
		Holds:      []Hold{{Devices: all, Container: Container{ID: "1", Name: "a"}}, {Devices: all, Container: Container{ID: "2", Name: "b"}}},
		Unresolved: []Unresolved{{ID: "3", Name: "c", Request: "odd", Reason: "the name has an unknown form"}},
	}
	m := table.Match(testNode())
	if c := m.Containers[0]; len(c) != 2 || c[0].Name != "a" || c[1].Name != "b" {
		t.Errorf("holders of GPU 0: %v", c)
	}
	if len(m.Unmatched) != 1 || m.Unmatched[0].Name != "c" {
		t.Errorf("unmatched: %v", m.Unmatched)
	}
	var none *Table
	if m := none.Match(testNode()); len(m.Containers) != testNode().Len() || len(m.Unmatched) != 0 {
		t.Errorf("Match of a nil table: %+v", m)
	}
}
