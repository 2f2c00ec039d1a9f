// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
)

// Source is the origin of a job.
type Source string

// The sources of jobs.
const (
	SourceFile  Source = "file"  // a file in Config.Dir
	SourceSlurm Source = "slurm" // Slurm's cgroups
)

// Job is a batch job. Unknown fields are empty.
type Job struct {
	// ID is a line of a job file, verbatim. For a Slurm job it is the number, or the
	// SLUID if the number is unknown.
	ID  string
	UID string // numeric user ID
	// User, Account, Partition and Name are from the environment of the job's
	// processes. Slurm sets them, but the job can change them.
	User, Account, Partition, Name string
	Source                         Source
}

func compareJobs(a, b Job) int {
	return cmp.Or(
		cmp.Compare(len(a.ID), len(b.ID)), // 10 follows 9
		strings.Compare(a.ID, b.ID),
		strings.Compare(string(a.Source), string(b.Source)),
		strings.Compare(a.UID, b.UID),
		strings.Compare(a.User, b.User),
		strings.Compare(a.Account, b.Account),
		strings.Compare(a.Partition, b.Partition),
		strings.Compare(a.Name, b.Name),
	)
}

// complete sets the empty fields from a second description of the job.
func (j *Job) complete(k Job) {
	j.ID = cmp.Or(j.ID, k.ID)
	j.UID = cmp.Or(j.UID, k.UID)
	j.User = cmp.Or(j.User, k.User)
	j.Account = cmp.Or(j.Account, k.Account)
	j.Partition = cmp.Or(j.Partition, k.Partition)
	j.Name = cmp.Or(j.Name, k.Name)
}

// Hold is a job and one of its devices. The forms of the device are FormDCGM and
// FormDCGMInstance for job files, and FormSlurm, FormDeviceName, FormGPUUUID,
// FormMIGUUID and FormMIGPath for Slurm.
type Hold struct {
	Device device.ID
	Job    Job
	// Claimed: only the environment of the job's processes has the device. The job can
	// change it, so the device's jobs are unknown until a process of the job uses it.
	Claimed bool
}

func compareHolds(a, b Hold) int {
	order := cmp.Or(a.Device.Compare(b.Device), compareJobs(a.Job, b.Job))
	if order == 0 && a.Claimed != b.Claimed {
		order = 1
		if b.Claimed {
			order = -1
		}
	}
	return order
}

// Table is an immutable list of jobs and their devices. The pointer changes if and
// only if the content does.
type Table struct {
	// Time is when this content was first read. It is zero before the first reading.
	Time time.Time
	// Holds are sorted by device and job, and unique. A shared device has several.
	Holds []Hold
	// Unknown are devices whose job files are unreadable.
	Unknown []device.ID
	// Incomplete: there are jobs with unknown devices, or too many jobs.
	Incomplete bool

	slurm map[slurmKey]Job // all Slurm jobs, including those without devices
}

// slurmKey identifies a Slurm job on this node.
type slurmKey struct{ node, id, sluid string }

func keyOf(j cgroup.SlurmJob) slurmKey { return slurmKey{j.Node, j.ID, j.SLUID} }

// newTable joins the readings of all sources.
func newTable(readings []*reading) *Table {
	t := &Table{slurm: make(map[slurmKey]Job)}
	for _, r := range readings {
		if r == nil {
			continue
		}
		t.Unknown = append(t.Unknown, r.unknown...)
		t.Incomplete = t.Incomplete || r.incomplete
		t.Holds = append(t.Holds, r.holds...)
		maps.Copy(t.slurm, r.slurm)
	}
	slices.SortFunc(t.Holds, compareHolds)
	t.Holds = slices.Compact(t.Holds)
	return t
}

func (t *Table) equal(u *Table) bool {
	return slices.Equal(t.Holds, u.Holds) && slices.Equal(t.Unknown, u.Unknown) && t.Incomplete == u.Incomplete && maps.Equal(t.slurm, u.slurm)
}

// Job returns what is known of the Slurm job of a process. It is never less than
// the process's cgroup contains.
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

// Match is the join of a table and the devices of the node.
type Match struct {
	// Jobs[i] hold device i of the index: sorted, unique.
	Jobs [][]Job
	// Unknown[i] reports whether device i may have further jobs.
	Unknown []bool
	// Unmatched are the holds of no device. On a node with MIG they include Slurm's
	// numbers and device files, which do not identify an instance.
	Unmatched []Hold
}

// Match finds the jobs that hold the devices of an index. running[i] has the Slurm
// jobs of the processes on device i, see cgroup.Reader; nil if they are unknown.
//
// The number of a job file has dcgm-exporter's meaning: the GPU itself, even in MIG
// mode, without its instances. A number with an instance is the GPU instance and,
// unlike there, the compute instances in it. A job from both sources is one job
// with the properties of both, and the file as its source. A nil table has no
// holds.
func (t *Table) Match(x *device.Index, running [][]cgroup.SlurmJob) Match {
	m := Match{Jobs: make([][]Job, x.Len()), Unknown: make([]bool, x.Len())}
	if t != nil {
		t.match(x, &m)
	}
	for i := range min(len(running), x.Len()) {
		for _, j := range running[i] {
			if j.ID != "" || j.SLUID != "" {
				m.Jobs[i] = append(m.Jobs[i], t.Job(j))
			}
		}
	}
	for i := range m.Jobs {
		m.Jobs[i] = mergeJobs(m.Jobs[i])
	}
	return m
}

func (t *Table) match(x *device.Index, m *Match) {
	anywhere := t.Incomplete // any device may have further jobs
	for _, h := range t.Holds {
		find := x.Find
		if h.Device.Form == device.FormDeviceName {
			find = x.FindUsable // the jobs on all instances of a GPU have its file
		}
		found, miss := find(h.Device)
		for _, at := range found {
			if h.Claimed {
				m.Unknown[at] = true
			} else {
				m.Jobs[at] = append(m.Jobs[at], h.Job)
			}
		}
		if len(found) > 0 {
			continue
		}
		m.Unmatched = append(m.Unmatched, h)
		for _, at := range miss.Maybe {
			m.Unknown[at] = true
		}
		anywhere = anywhere || miss.Maybe == nil
	}
	for i := range m.Unknown {
		m.Unknown[i] = m.Unknown[i] || anywhere
	}
	for _, id := range t.Unknown {
		found, _ := x.Find(id)
		for _, at := range found {
			m.Unknown[at] = true
		}
	}
}

// mergeJobs sorts the jobs of a device and joins the descriptions of the same job.
func mergeJobs(jobs []Job) []Job {
	slices.SortFunc(jobs, compareJobs) // file before slurm
	var merged []Job
	for _, j := range jobs {
		if n := len(merged); n > 0 && merged[n-1].ID == j.ID {
			merged[n-1].complete(j)
			continue
		}
		merged = append(merged, j)
	}
	return merged
}
