// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"reflect"
	"slices"
	"testing"

	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
)

func gpu(dcgmID, index, minor int, uuid string, mig bool) device.Device {
	return device.Device{
		Kind: device.KindGPU, DCGMID: dcgmID, MIGMode: mig, GPUUUID: uuid, Index: index, Minor: minor,
		GPUInstance: device.Unknown, ComputeInstance: device.Unknown, MIGIndex: device.Unknown,
	}
}

func instance(parent device.Device, kind device.Kind, gi, ci int, migs ...string) device.Device {
	d := parent
	d.Kind, d.GPUInstance, d.ComputeInstance, d.MIGUUIDs = kind, gi, ci, migs
	return d
}

func dcgm(gpu int) device.ID { return device.ID{Form: device.FormDCGM, Number: gpu} }

func dcgmInstance(gpu, gi int) device.ID {
	return device.ID{Form: device.FormDCGMInstance, Number: gpu, GPUInstance: gi}
}

func slurm(position int) device.ID { return device.ID{Form: device.FormSlurm, Number: position} }

func id(text string) device.ID {
	id, _ := device.ParseID(text)
	return id
}

func TestMatch(t *testing.T) {
	const (
		gpuA = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
		gpuB = "GPU-bbbbbbbb-0000-0000-0000-000000000000"
		gpuC = "GPU-cccccccc-0000-0000-0000-000000000000"
		mig3 = "MIG-33333333-0000-0000-0000-000000000000"
		mig4 = "MIG-44444444-0000-0000-0000-000000000000"
	)
	// DCGM IDs, NVML indexes and minor numbers all differ.
	a, b := gpu(0, 1, 2, gpuA, false), gpu(1, 0, 3, gpuB, false)
	plain := device.NewIndex([]device.Device{a, b, {}}, device.IDTypeUID)
	c := gpu(2, 2, 5, gpuC, true)
	mig := device.NewIndex([]device.Device{a, b, c,
		instance(c, device.KindGPUInstance, 3, -1, mig3, mig4),
		instance(c, device.KindComputeInstance, 3, 0, mig3),
		instance(c, device.KindComputeInstance, 3, 1, mig4),
		instance(c, device.KindGPUInstance, 5, -1),
	}, device.IDTypeUID)
	for _, tt := range []struct {
		name    string
		devices *device.Index
		id      device.ID
		want    []int
	}{
		{"job file of a DCGM ID", plain, dcgm(1), []int{1}},
		{"job file of a missing GPU", plain, dcgm(7), nil},
		{"job file of a GPU in MIG mode, without its instances", mig, dcgm(2), []int{2}},
		{"job file of an instance", mig, dcgmInstance(2, 3), []int{3, 4, 5}},
		{"job file of an instance on the wrong GPU", mig, dcgmInstance(0, 3), nil},
		{"Slurm position is NVML's index", plain, slurm(1), []int{0}},
		{"Slurm position on a node with MIG", mig, slurm(1), nil},
		{"device file", plain, id("nvidia3"), []int{1}},
		{"device file on a node with MIG", mig, id("nvidia3"), []int{1}},
		{"device file of a GPU in MIG mode", mig, id("nvidia5"), nil},
		{"UUID", mig, id(gpuB), []int{1}},
		{"UUID of a MIG device", mig, id(mig4), []int{3, 5}},
		{"MIG device before R470", mig, id("MIG-" + gpuC + "/3/1"), []int{3, 5}},
		{"missing UUID", plain, id(gpuC), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := Job{ID: "42", Source: SourceSlurm}
			hold := Hold{Device: tt.id, Job: job}
			m := (&Table{Holds: []Hold{hold}}).Match(tt.devices, nil)
			var got []int
			for i, jobs := range m.Jobs {
				if len(jobs) == 0 {
					continue
				}
				if !slices.Equal(jobs, []Job{job}) {
					t.Errorf("device %d has the jobs %v", i, jobs)
				}
				got = append(got, i)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("devices %v, want %v", got, tt.want)
			}
			if unmatched := slices.Equal(m.Unmatched, []Hold{hold}); unmatched != (len(tt.want) == 0) || len(m.Jobs) != tt.devices.Len() {
				t.Errorf("unmatched %v", m.Unmatched)
			}
		})
	}
}

// TestMatchUnknown: an unreadable job file makes the jobs of its device unknown. An
// incomplete table makes those of all devices unknown.
func TestMatchUnknown(t *testing.T) {
	devices := device.NewIndex([]device.Device{gpu(0, 0, 0, "GPU-a", false), gpu(1, 1, 1, "GPU-b", false)}, device.IDTypeUID)
	for name, tt := range map[string]struct {
		table *Table
		want  []bool
	}{
		"no table":   {nil, []bool{false, false}},
		"one file":   {&Table{Unknown: []device.ID{dcgm(1)}}, []bool{false, true}},
		"any device": {&Table{Incomplete: true}, []bool{true, true}},
		"a claim of a job, which no one else confirms": {&Table{Holds: []Hold{{Device: slurm(1), Claimed: true}}}, []bool{false, true}},
		"a claim of a device that does not exist":      {&Table{Holds: []Hold{{Device: slurm(7), Claimed: true}}}, []bool{true, true}},
		"a file of a GPU that does not exist":          {&Table{Holds: []Hold{{Device: dcgm(7)}}}, []bool{true, true}},
	} {
		m := tt.table.Match(devices, nil)
		if !slices.Equal(m.Unknown, tt.want) || len(m.Jobs[0])+len(m.Jobs[1]) != 0 {
			t.Errorf("%s: %v, jobs %v, want %v", name, m.Unknown, m.Jobs, tt.want)
		}
	}
}

// TestMatchMerges checks that a job from two sources is one job.
func TestMatchMerges(t *testing.T) {
	devices := device.NewIndex([]device.Device{gpu(0, 0, 0, "GPU-a", false), gpu(1, 1, 1, "GPU-b", false)}, device.IDTypeUID)
	known := Job{ID: "42", UID: "1000", User: "ada", Account: "physics", Source: SourceSlurm}
	table := &Table{
		Holds: []Hold{
			{Device: dcgm(0), Job: Job{ID: "42", Source: SourceFile}},
			{Device: dcgm(0), Job: Job{ID: "9", Source: SourceFile}},
			{Device: slurm(0), Job: known},
		},
		slurm: map[slurmKey]Job{{id: "42"}: known},
	}
	running := [][]cgroup.SlurmJob{
		{{ID: "42", Step: "0"}, {ID: "42", Step: "batch"}},
		{{ID: "42", Step: "1"}, {ID: "43", UID: "1001"}, {SLUID: "sEKNKTV3WPV500"}, {}},
	}
	m := table.Match(devices, running)
	want := [][]Job{
		{{ID: "9", Source: SourceFile}, {ID: "42", UID: "1000", User: "ada", Account: "physics", Source: SourceFile}},
		{known, {ID: "43", UID: "1001", Source: SourceSlurm}, {ID: "sEKNKTV3WPV500", Source: SourceSlurm}},
	}
	if !reflect.DeepEqual(m.Jobs, want) || len(m.Unmatched) != 0 {
		t.Errorf("got %+v\nwant %+v\nunmatched %v", m.Jobs, want, m.Unmatched)
	}

	// Without a table, the jobs of processes remain.
	m = (*Table)(nil).Match(devices, running[:1])
	if want := [][]Job{{{ID: "42", Source: SourceSlurm}}, nil}; !reflect.DeepEqual(m.Jobs, want) {
		t.Errorf("no table: got %+v, want %+v", m.Jobs, want)
	}
}
