// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"cmp"
	"slices"
	"strings"

	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
)

// Device describes one device of the node to Table.Match.
type Device struct {
	podmapper.Device
	// ID is DCGM's number of the GPU; of the parent GPU for an instance.
	ID int
	// MIG says that the GPU, or the parent GPU, is in MIG mode.
	MIG bool
}

// Match joins a table with the devices of the node.
type Match struct {
	// Jobs[i] hold devices[i]: sorted, each once.
	Jobs [][]Job
	// Unknown says of each device that it may have other jobs, too: see Table.
	Unknown []bool
	// Unmatched are the holds of no device. On a node with MIG those by Slurm's
	// numbers and by device files are among them, as they do not say which
	// instance is meant; the jobs' processes may.
	Unmatched []Hold
}

// Match finds the jobs that hold devices. Give it every device of the node, also
// those that are not exported. running[i] are the Slurm jobs of the processes
// on devices[i], see cgroup.Reader; nil if it is not known.
//
// A file's number means what it means to dcgm-exporter: the GPU itself, in MIG
// mode too, and not its instances; with an instance, the GPU instance, and here
// the compute instances in it. A job that is known from a file and from Slurm
// is one, with what both say and the file as its source.
//
// A nil table has no holds.
func (t *Table) Match(devices []Device, running [][]cgroup.SlurmJob) Match {
	m := Match{Jobs: make([][]Job, len(devices)), Unknown: make([]bool, len(devices))}
	mig := slices.ContainsFunc(devices, func(d Device) bool { return d.MIG })
	var holds []Hold
	if t != nil {
		holds = t.Holds
	}
	for _, h := range holds {
		found := false
		for i := range devices {
			if devices[i].is(h.Device, mig) {
				m.Jobs[i] = append(m.Jobs[i], h.Job)
				found = true
			}
		}
		if !found {
			m.Unmatched = append(m.Unmatched, h)
		}
	}
	for i := range devices {
		m.Unknown[i] = t != nil && (t.Incomplete || slices.ContainsFunc(t.Unknown, func(ref DeviceRef) bool { return devices[i].is(ref, mig) }))
	}
	for i := range min(len(running), len(devices)) {
		for _, j := range running[i] {
			if j.ID != "" || j.SLUID != "" {
				m.Jobs[i] = append(m.Jobs[i], t.Job(j))
			}
		}
	}
	for i := range m.Jobs {
		m.Jobs[i] = merge(m.Jobs[i])
	}
	return m
}

// is says whether a reference means the device. mig: some GPU of the node is in
// MIG mode.
func (d *Device) is(ref DeviceRef, mig bool) bool {
	gpu := d.Kind == podmapper.KindGPU
	instance := d.Kind == podmapper.KindGPUInstance || d.Kind == podmapper.KindComputeInstance
	switch ref.Kind {
	case RefDCGM:
		if d.ID != ref.Number {
			return false
		}
		if ref.Instance == NoInstance {
			return gpu
		}
		return instance && d.GPUInstance == ref.Instance
	case RefSlurm:
		return gpu && !mig && d.Index == ref.Number
	case RefID:
		switch id := ref.ID; id.Form {
		case podmapper.FormDeviceName:
			// The jobs on all instances of a GPU have its file.
			return gpu && !d.MIG && d.Minor == id.Number
		case podmapper.FormGPUUUID:
			return gpu && strings.EqualFold(d.GPUUUID, id.UUID)
		case podmapper.FormMIGUUID:
			return instance && slices.ContainsFunc(d.MIGUUIDs, func(uuid string) bool { return strings.EqualFold(uuid, id.UUID) })
		case podmapper.FormMIGPath:
			return instance && strings.EqualFold(d.GPUUUID, id.UUID) && d.GPUInstance == id.GPUInstance &&
				(d.Kind == podmapper.KindGPUInstance || d.ComputeInstance == id.ComputeInstance)
		}
	}
	return false
}

// merge sorts the jobs of a device, and makes one job of what the sources know
// of it.
func merge(jobs []Job) []Job {
	slices.SortFunc(jobs, compareJobs) // file before slurm
	var merged []Job
	for _, j := range jobs {
		if n := len(merged); n > 0 && merged[n-1].ID == j.ID {
			last := &merged[n-1]
			last.UID = cmp.Or(last.UID, j.UID)
			last.User = cmp.Or(last.User, j.User)
			last.Account = cmp.Or(last.Account, j.Account)
			last.Partition = cmp.Or(last.Partition, j.Partition)
			last.Name = cmp.Or(last.Name, j.Name)
			continue
		}
		merged = append(merged, j)
	}
	return merged
}
