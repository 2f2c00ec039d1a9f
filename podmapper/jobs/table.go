// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
)

// Source says where a job is known from.
type Source string

// The sources of jobs.
const (
	SourceFile  Source = "file"  // a file in Config.Dir
	SourceSlurm Source = "slurm" // Slurm's cgroups
)

// Job is a batch job. What is not known is empty.
type Job struct {
	// ID is a line of a job file as it stands there; of a Slurm job its number,
	// or its SLUID where the number is not known.
	ID string
	// UID is the number of the job's user.
	UID string
	// User, Account, Partition and Name are what the environment says that Slurm
	// gave the job's processes. The job itself could have changed them.
	User, Account, Partition, Name string
	Source                         Source
}

func compareJobs(a, b Job) int {
	return cmp.Or(
		// Numbers of jobs: "10" comes after "9".
		cmp.Compare(len(a.ID), len(b.ID)),
		strings.Compare(a.ID, b.ID),
		strings.Compare(string(a.Source), string(b.Source)),
		strings.Compare(a.UID, b.UID),
		strings.Compare(a.User, b.User),
		strings.Compare(a.Account, b.Account),
		strings.Compare(a.Partition, b.Partition),
		strings.Compare(a.Name, b.Name),
	)
}

// RefKind says by what a DeviceRef names a device.
type RefKind uint8

// The kinds of DeviceRef.
const (
	// RefDCGM is DCGM's number of a GPU, which dcgm-exporter has in its label
	// gpu, or that and NVML's number of a GPU instance, in the label GPU_I_ID. A
	// job file's name is one.
	RefDCGM RefKind = iota
	// RefSlurm is a place in Slurm's list of the node's GPUs, which it puts into
	// SLURM_JOB_GPUS and SLURM_STEP_GPUS. The list is in the order of the PCI bus
	// (gres.conf(5)), as NVML's is; but where Slurm hands out MIG devices, each
	// of them has a place of its own.
	RefSlurm
	// RefID is one of the forms of a device plugin's IDs: FormDeviceName, for
	// /dev/nvidiaN, FormGPUUUID, FormMIGUUID or FormMIGPath.
	RefID
)

// NoInstance is the DeviceRef.Instance of a GPU.
const NoInstance = -1

// DeviceRef names a device. It can be compared.
type DeviceRef struct {
	Kind     RefKind
	Number   int                // RefDCGM, RefSlurm
	Instance int                // RefDCGM: of the GPU, or NoInstance
	ID       podmapper.DeviceID // RefID
}

// String names the device for people.
func (d DeviceRef) String() string {
	switch d.Kind {
	case RefDCGM:
		if d.Instance != NoInstance {
			return fmt.Sprintf("GPU %d instance %d", d.Number, d.Instance)
		}
		return fmt.Sprintf("GPU %d", d.Number)
	case RefSlurm:
		return fmt.Sprintf("Slurm's GPU %d", d.Number)
	}
	return d.ID.String()
}

func compareRefs(a, b DeviceRef) int {
	return cmp.Or(
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Number, b.Number),
		cmp.Compare(a.Instance, b.Instance),
		cmp.Compare(a.ID.Form, b.ID.Form),
		strings.Compare(a.ID.UUID, b.ID.UUID),
		cmp.Compare(a.ID.Number, b.ID.Number),
		cmp.Compare(a.ID.GPUInstance, b.ID.GPUInstance),
		cmp.Compare(a.ID.ComputeInstance, b.ID.ComputeInstance),
	)
}

// Hold is a job that has a device.
type Hold struct {
	Device DeviceRef
	Job    Job
}

func compareHolds(a, b Hold) int {
	return cmp.Or(compareRefs(a.Device, b.Device), compareJobs(a.Job, b.Job))
}

// Table says which jobs hold which devices. It must not be modified. Tables with
// the same content are the same one, so pointers tell whether anything is new.
type Table struct {
	// Version grows by one with each new content.
	Version uint64
	// Time is when this content was first seen.
	Time time.Time
	// Holds are sorted by device and job, each once. A device that several jobs
	// share has one for each.
	Holds []Hold
	// Unknown are devices whose job files cannot be read. Incomplete says that there
	// are jobs of which the devices cannot be told, or more than are looked at.
	Unknown    []DeviceRef
	Incomplete bool

	slurm map[slurmKey]Job // all jobs of Slurm on the node, also those without a device
}

// slurmKey tells Slurm's jobs on this node apart.
type slurmKey struct{ node, id, sluid string }

func keyOf(j cgroup.SlurmJob) slurmKey { return slurmKey{j.Node, j.ID, j.SLUID} }

// Job says what is known of the Slurm job that a process was found in: at least
// what the process's own cgroup says.
func (t *Table) Job(j cgroup.SlurmJob) Job {
	known := Job{ID: cmp.Or(j.ID, j.SLUID), Source: SourceSlurm}
	if t != nil {
		if found, ok := t.slurm[keyOf(j)]; ok {
			known = found
		}
	}
	known.UID = cmp.Or(j.UID, known.UID)
	return known
}

// same says whether two tables say the same.
func (t *Table) same(u *Table) bool {
	return slices.Equal(t.Holds, u.Holds) && slices.Equal(t.Unknown, u.Unknown) && t.Incomplete == u.Incomplete && maps.Equal(t.slurm, u.slurm)
}
