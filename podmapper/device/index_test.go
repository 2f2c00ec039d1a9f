// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"slices"
	"strings"
	"testing"
)

// node is a GPU without MIG, whose minor number differs from its index, and a GPU
// in MIG mode with a 3g instance of two compute instances and a 1g instance.
// DCGM's IDs are 4 and 5.
func node() []Device {
	part := Device{GPUUUID: gpuB, Index: 1, Minor: 0, DCGMID: 5, MIGMode: true, PCIBusID: "00000000:AF:00.0", MIGIndex: Unknown, PlacementStart: Unknown}
	with := func(kind Kind, gi, ci, migIndex int, uuids ...string) Device {
		d := part
		d.Kind, d.GPUInstance, d.ComputeInstance, d.MIGIndex, d.MIGUUIDs = kind, gi, ci, migIndex, uuids
		return d
	}
	return []Device{
		{Kind: KindGPU, GPUUUID: gpuA, Index: 0, Minor: 1, DCGMID: 4, PCIBusID: "00000000:3B:00.0"},
		with(KindGPU, Unknown, Unknown, Unknown),
		with(KindGPUInstance, 2, Unknown, Unknown, migA, migB),
		with(KindComputeInstance, 2, 0, 0, migA),
		with(KindComputeInstance, 2, 1, 1, migB),
		with(KindGPUInstance, 9, Unknown, Unknown),
		{}, // an entity that cannot have an owner
	}
}

// plain is a node without MIG.
func plain() []Device {
	return []Device{
		{Kind: KindGPU, GPUUUID: gpuA, Index: 0, Minor: 1, DCGMID: 4},
		{Kind: KindGPU, GPUUUID: gpuB, Index: 1, Minor: 0, DCGMID: 5},
	}
}

func parsed(text string) ID {
	id, _ := ParseID(text)
	return id
}

// TestFind checks every form: the positions, or a reason.
func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name    string
		devices []Device
		idType  IDType
		id      ID
		want    []int
		reason  string
	}{
		{"GPU UUID", node(), "", parsed(gpuA), []int{0}, ""},
		{"GPU UUID in capitals", node(), "", GPUUUID("GPU-" + strings.ToUpper(gpuA[4:])), []int{0}, ""},
		{"UUID of a GPU in MIG mode", node(), "", parsed(gpuB), []int{1}, ""},
		{"lost GPU", node(), "", parsed("GPU-gone"), nil, "no GPU on this node has the UUID GPU-gone"},
		{"number as index", node(), IDTypeUID, parsed("0"), []int{0}, ""},
		{"number as minor", node(), IDTypeDeviceName, parsed("0"), []int{1}, ""},
		{"number of no index", node(), IDTypeUID, parsed("9"), nil, "no GPU has the index 9; the node has 2 GPUs"},
		{"number of no minor", node(), IDTypeDeviceName, parsed("9"), nil, "no GPU has the device file /dev/nvidia9; the node has 2 GPUs"},
		{"index, whatever numbers mean", node(), IDTypeDeviceName, ID{Form: FormIndex, Number: 0}, []int{0}, ""},
		{"device file", node(), IDTypeUID, parsed("nvidia1"), []int{0}, ""},
		{"no device file", node(), IDTypeUID, parsed("nvidia9"), nil, "no GPU has the device file /dev/nvidia9"},
		{"instance below a file", node(), "", parsed("nvidia0/gi2"), []int{2, 3, 4}, ""},
		{"instance below no file", node(), "", parsed("nvidia9/gi2"), nil, "no GPU has the device file /dev/nvidia9"},
		{"no instance below a file", node(), "", parsed("nvidia0/gi3"), nil, "the GPU at /dev/nvidia0 has no instance gi3"},
		{"MIG UUID", node(), "", parsed(migB), []int{2, 4}, ""},
		{"no MIG UUID", node(), "", parsed("MIG-gone"), nil, "no MIG device on this node has the UUID MIG-gone"},
		{"MIG path", node(), "", parsed("MIG-" + gpuB + "/2/1"), []int{2, 4}, ""},
		{"MIG path, compute instance not listed", node(), "", parsed("MIG-" + gpuB + "/9/0"), []int{5}, ""},
		{"MIG path of a lost GPU", node(), "", parsed("MIG-GPU-gone/1/0"), nil, "no GPU on this node has the UUID GPU-gone"},
		{"MIG path of no instance", node(), "", parsed("MIG-" + gpuB + "/3/0"), nil, "has no GPU instance 3"},
		{"MIG index", node(), "", ID{Form: FormMIGIndex, Number: 1, MIGIndex: 1}, []int{2, 4}, ""},
		{"no MIG index", node(), "", ID{Form: FormMIGIndex, Number: 1, MIGIndex: 7}, nil, "GPU 1 has no MIG device with the index 7"},
		{"MIG index of no GPU", node(), "", ID{Form: FormMIGIndex, Number: 8}, nil, "no GPU has the index 8"},
		{"MIG capability", node(), "", ID{Form: FormMIGCapability, Number: 0, GPUInstance: 2, ComputeInstance: 1}, []int{2, 4}, ""},
		{"MIG capability of a compute instance that is gone", node(), "", ID{Form: FormMIGCapability, Number: 0, GPUInstance: 2, ComputeInstance: 3}, nil, "has no instance gi2/ci3"},
		{"DCGM", node(), "", ID{Form: FormDCGM, Number: 4}, []int{0}, ""},
		{"DCGM, in MIG mode", node(), "", ID{Form: FormDCGM, Number: 5}, []int{1}, ""},
		{"DCGM, no GPU", node(), "", ID{Form: FormDCGM, Number: 0}, nil, "no GPU has the DCGM ID 0"},
		{"DCGM instance", node(), "", ID{Form: FormDCGMInstance, Number: 5, GPUInstance: 2}, []int{2, 3, 4}, ""},
		{"DCGM instance of another GPU", node(), "", ID{Form: FormDCGMInstance, Number: 4, GPUInstance: 2}, nil, "GPU 4 has no GPU instance 2"},
		{"Slurm", plain(), "", ID{Form: FormSlurm, Number: 1}, []int{1}, ""},
		{"Slurm, no GPU", plain(), "", ID{Form: FormSlurm, Number: 7}, nil, "no GPU has the index 7"},
		{"Slurm on a node with MIG", node(), "", ID{Form: FormSlurm, Number: 0}, nil, "Slurm numbers MIG devices as well"},
		{"Tegra", plain()[:1], "", parsed("tegra"), []int{0}, ""},
		{"Tegra on a node with two GPUs", plain(), "", parsed("tegra"), nil, "the only GPU of a node; the node has 2 GPUs"},
		{"unknown form", node(), "", ID{}, nil, "it has no known form"},

		// Names that two devices have match none.
		{"two GPUs with one UUID", append(plain(), plain()[0]), "", parsed(gpuA), nil, "several devices of this node match"},
		{"minor number of one, index of another without", []Device{
			{Kind: KindGPU, GPUUUID: gpuA, Index: 0, Minor: 1}, {Kind: KindGPU, GPUUUID: gpuB, Index: 1, Minor: Unknown},
		}, "", parsed("nvidia1"), nil, "several devices of this node match nvidia1"},
		{"one MIG UUID in two instances", []Device{
			{Kind: KindGPUInstance, GPUUUID: gpuA, GPUInstance: 1, MIGUUIDs: []string{migA}},
			{Kind: KindGPUInstance, GPUUUID: gpuA, GPUInstance: 2, MIGUUIDs: []string{migA}},
		}, "", parsed(migA), nil, "several devices of this node match"},
		{"index instead of an unknown minor", []Device{
			{Kind: KindGPU, GPUUUID: gpuA, Index: 0, Minor: Unknown}, {Kind: KindGPU, GPUUUID: gpuB, Index: 1, Minor: Unknown},
		}, "", parsed("nvidia1"), []int{1}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at, miss := NewIndex(tc.devices, tc.idType).Find(tc.id)
			if !slices.Equal(at, tc.want) {
				t.Errorf("found %v, want %v", at, tc.want)
			}
			if !strings.Contains(miss.Reason, tc.reason) || (miss.Reason == "") != (tc.reason == "") || (miss.Hint == "") != (tc.reason == "") {
				t.Errorf("miss %+v, want a reason with %q", miss, tc.reason)
			}
		})
	}
}

// TestFindUsable checks that a GPU in MIG mode does not match, while its instances
// do.
func TestFindUsable(t *testing.T) {
	x := NewIndex(node(), IDTypeUID)
	for _, id := range []ID{parsed("1"), parsed(gpuB), parsed("nvidia0")} {
		if at, miss := x.FindUsable(id); at != nil || !strings.Contains(miss.Reason, "GPU 1 is in MIG mode") || miss.Hint == "" {
			t.Errorf("%s: %v, %+v", id, at, miss)
		}
	}
	if at, _ := x.FindUsable(parsed("nvidia1")); !slices.Equal(at, []int{0}) {
		t.Errorf("a GPU without MIG: %v", at)
	}
	if at, _ := x.FindUsable(parsed("MIG-" + gpuB + "/9/0")); !slices.Equal(at, []int{5}) {
		t.Errorf("an instance: %v", at)
	}
	if at, miss := x.FindUsable(parsed("7")); at != nil || !strings.Contains(miss.Reason, "no GPU has the index 7") {
		t.Errorf("no GPU: %v, %+v", at, miss)
	}
	if at := x.Usable(); !slices.Equal(at, []int{0, 2, 3, 4, 5}) {
		t.Errorf("usable are %v", at)
	}
}

// TestFindText checks the explanations that need the text of the ID.
func TestFindText(t *testing.T) {
	x := NewIndex(node(), IDTypeUID)
	for text, reason := range map[string]string{
		gpuA + "-3":  "starts with the UUID of GPU 0",
		gpuA + "__1": "starts with the UUID of GPU 0",
		"0":          "IOMMU groups",
		"GPU-gone":   "no GPU on this node has the UUID",
	} {
		id := parsed(text)
		if text == "0" {
			id = ID{} // the resource is not one of GPUs
		}
		if at, miss := x.FindText(id, text); at != nil || !strings.Contains(miss.Reason, reason) || miss.Hint == "" {
			t.Errorf("%q: %v, %+v; want %q", text, at, miss, reason)
		}
	}
}

func TestCompare(t *testing.T) {
	ids := []ID{
		GPUUUID(gpuA), GPUUUID(gpuB), parsed("2"), parsed("10"), parsed("nvidia0/gi1"), parsed("nvidia0/gi2"),
		{Form: FormMIGIndex, MIGIndex: 1}, {Form: FormMIGIndex, MIGIndex: 2},
		{Form: FormMIGCapability, ComputeInstance: 1}, {Form: FormMIGCapability, ComputeInstance: 2}, {Form: FormDCGM}, {Form: FormSlurm},
	}
	ids[0], ids[1] = ids[1], ids[0]
	want := slices.Clone(ids)
	slices.Reverse(ids)
	slices.SortFunc(ids, ID.Compare)
	if !slices.Equal(ids, want) {
		t.Errorf("sorted %v, want %v", ids, want)
	}
}

// TestStrings checks the forms that ParseID does not return.
func TestStrings(t *testing.T) {
	for want, id := range map[string]ID{
		"0:1":              {Form: FormMIGIndex, MIGIndex: 1},
		"gpu3/gi9/ci1":     {Form: FormMIGCapability, Number: 3, GPUInstance: 9, ComputeInstance: 1},
		"GPU 2":            {Form: FormDCGM, Number: 2},
		"GPU 2 instance 3": {Form: FormDCGMInstance, Number: 2, GPUInstance: 3},
		"Slurm GPU 1":      {Form: FormSlurm, Number: 1},
		"unknown":          {Form: FormClaim},
	} {
		if got := id.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for form := FormUnknown + 1; form <= FormSlurm; form++ {
		if form.String() == FormUnknown.String() {
			t.Errorf("form %d has no description", form)
		}
	}
}
