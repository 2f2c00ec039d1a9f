// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"reflect"
	"slices"
	"testing"

	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
)

func gpu(id, index, minor int, uuid string, mig bool) Device {
	return Device{ID: id, MIG: mig, Device: podmapper.Device{
		Kind: podmapper.KindGPU, GPUUUID: uuid, Index: index, Minor: minor, GPUInstance: -1, ComputeInstance: -1,
	}}
}

func instance(parent Device, kind podmapper.DeviceKind, gi, ci int, migs ...string) Device {
	d := parent
	d.Kind, d.GPUInstance, d.ComputeInstance, d.MIGUUIDs = kind, gi, ci, migs
	return d
}

func ref(kind RefKind, number, instance int) DeviceRef {
	return DeviceRef{Kind: kind, Number: number, Instance: instance}
}

func id(text string) DeviceRef {
	d, _ := podmapper.ParseDeviceID(text)
	return DeviceRef{Kind: RefID, ID: d}
}

func TestMatch(t *testing.T) {
	const (
		gpuA = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
		gpuB = "GPU-bbbbbbbb-0000-0000-0000-000000000000"
		gpuC = "GPU-cccccccc-0000-0000-0000-000000000000"
		mig3 = "MIG-33333333-0000-0000-0000-000000000000"
		mig4 = "MIG-44444444-0000-0000-0000-000000000000"
	)
	// DCGM's numbers, NVML's indexes and the minor numbers all differ.
	a, b := gpu(0, 1, 2, gpuA, false), gpu(1, 0, 3, gpuB, false)
	plain := []Device{a, b, {}}
	c := gpu(2, 2, 5, gpuC, true)
	mig := []Device{a, b, c,
		instance(c, podmapper.KindGPUInstance, 3, -1, mig3, mig4),
		instance(c, podmapper.KindComputeInstance, 3, 0, mig3),
		instance(c, podmapper.KindComputeInstance, 3, 1, mig4),
		instance(c, podmapper.KindGPUInstance, 5, -1),
	}
	for _, tt := range []struct {
		name    string
		devices []Device
		ref     DeviceRef
		want    []int
	}{
		{"a file is called by DCGM's number", plain, ref(RefDCGM, 1, NoInstance), []int{1}},
		{"a file of no GPU", plain, ref(RefDCGM, 7, NoInstance), nil},
		{"a file of a GPU in MIG mode is not its instances'", mig, ref(RefDCGM, 2, NoInstance), []int{2}},
		{"a file of an instance", mig, ref(RefDCGM, 2, 3), []int{3, 4, 5}},
		{"a file of an instance of another GPU", mig, ref(RefDCGM, 0, 3), nil},
		{"Slurm counts as NVML does", plain, ref(RefSlurm, 1, 0), []int{0}},
		{"Slurm counts MIG devices too", mig, ref(RefSlurm, 1, 0), nil},
		{"a device file", plain, id("nvidia3"), []int{1}},
		{"a device file beside MIG", mig, id("nvidia3"), []int{1}},
		{"a device file of a GPU in MIG mode", mig, id("nvidia5"), nil},
		{"UUID", mig, id(gpuB), []int{1}},
		{"UUID of a MIG device", mig, id(mig4), []int{3, 5}},
		{"MIG device before R470", mig, id("MIG-" + gpuC + "/3/1"), []int{3, 5}},
		{"UUID that is gone", plain, id(gpuC), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := Job{ID: "42", Source: SourceSlurm}
			hold := Hold{tt.ref, job}
			m := (&Table{Holds: []Hold{hold}}).Match(tt.devices, nil)
			var got []int
			for i, jobs := range m.Jobs {
				if len(jobs) == 0 {
					continue
				}
				if !slices.Equal(jobs, []Job{job}) {
					t.Errorf("device %d has %v", i, jobs)
				}
				got = append(got, i)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("devices %v, want %v", got, tt.want)
			}
			if unmatched := slices.Equal(m.Unmatched, []Hold{hold}); unmatched != (len(tt.want) == 0) || len(m.Jobs) != len(tt.devices) {
				t.Errorf("unmatched %v", m.Unmatched)
			}
		})
	}
}

// TestMatchUnknown: a file that cannot be read leaves its own device in doubt, jobs
// without a device leave all.
func TestMatchUnknown(t *testing.T) {
	devices := []Device{gpu(0, 0, 0, "GPU-a", false), gpu(1, 1, 1, "GPU-b", false)}
	for name, tt := range map[string]struct {
		table *Table
		want  []bool
	}{
		"no table":   {nil, []bool{false, false}},
		"one file":   {&Table{Unknown: []DeviceRef{ref(RefDCGM, 1, NoInstance)}}, []bool{false, true}},
		"any device": {&Table{Incomplete: true}, []bool{true, true}},
	} {
		if got := tt.table.Match(devices, nil).Unknown; !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestMatchMerges: a job that two sources know is one.
func TestMatchMerges(t *testing.T) {
	devices := []Device{gpu(0, 0, 0, "GPU-a", false), gpu(1, 1, 1, "GPU-b", false)}
	known := Job{ID: "42", UID: "1000", User: "ada", Account: "physics", Source: SourceSlurm}
	table := &Table{
		Holds: []Hold{
			{ref(RefDCGM, 0, NoInstance), Job{ID: "42", Source: SourceFile}},
			{ref(RefDCGM, 0, NoInstance), Job{ID: "9", Source: SourceFile}},
			{ref(RefSlurm, 0, 0), known},
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

	// Without a table there are the processes.
	m = (*Table)(nil).Match(devices, running[:1])
	if want := [][]Job{{{ID: "42", Source: SourceSlurm}}, nil}; !reflect.DeepEqual(m.Jobs, want) {
		t.Errorf("no table: got %+v, want %+v", m.Jobs, want)
	}
}
