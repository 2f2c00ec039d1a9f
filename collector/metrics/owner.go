// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"gpu_exporter/collector/model"
)

// Owner is a container of a pod that holds a device or a share of it.
type Owner struct {
	Namespace, Pod, Container string
	// Replica tells the shares of one device apart; empty for a whole device.
	Replica string
	// Claim is zero for a device that no ResourceClaim gave.
	Claim Claim
	// Metadata is nil where it was not asked for or is not known.
	Metadata *PodMetadata
}

// sameContainer says whether two owners are shares of one container.
func (o Owner) sameContainer(p Owner) bool { return o.container() == p.container() }

func (o Owner) container() containerKey {
	return containerKey{o.Namespace, o.Pod, o.Container}
}

// containerKey names a container of a pod of this node.
type containerKey struct{ namespace, pod, container string }

// Claim is the ResourceClaim (DRA) by which a container holds a device.
type Claim struct {
	Namespace, Name      string
	Driver, Pool, Device string
	// Of a MIG device; empty otherwise.
	MIGProfile, MIGUUID string
}

// PodMetadata is what is known of a pod beside its name. Labels and annotations
// are those that the allowlists let through, with the names that they have in
// Kubernetes, sorted by name.
type PodMetadata struct {
	UID                 string
	Labels, Annotations []Label
	// The topmost object that the pod belongs to, such as a Deployment; empty for
	// a pod on its own.
	WorkloadKind, Workload string
}

// Job is a batch job that holds a device.
type Job struct {
	ID, Name, User, Account, Partition string
	Source                             string // where it is known from: JobFile or JobSlurm
}

// Where a job is known from.
const (
	JobFile  = "file"  // a file that the scheduler's prolog wrote
	JobSlurm = "slurm" // Slurm's cgroups
)

// Container is a container of an engine without Kubernetes.
type Container struct {
	ID, Name, Image string
	Project         string  // of docker compose
	Service         string  // of docker compose
	Labels          []Label // that the allowlist lets through, sorted by name
}

// Holders are those who hold one entity. They are sorted, so that nothing flips
// between scrapes.
type Holders struct {
	Owners     []Owner
	Jobs       []Job
	Containers []Container
	// Unknown says that there may be others: what would tell cannot be read.
	Unknown bool
}

// count says how many hold the entity; replicas in one container are one.
func (h *Holders) count() int {
	n := len(h.Jobs) + len(h.Containers)
	for i, o := range h.Owners {
		if i == 0 || !o.sameContainer(h.Owners[i-1]) {
			n++
		}
	}
	return n
}

// single returns the only container of a pod that holds the entity, if there is
// just one.
func (h *Holders) single() (Owner, bool) {
	if len(h.Owners) == 0 {
		return Owner{}, false
	}
	for _, other := range h.Owners[1:] {
		if !other.sameContainer(h.Owners[0]) {
			return Owner{}, false
		}
	}
	return h.Owners[0], true
}

// Ownership says who holds the entities of one inventory at one moment. It is
// immutable; a nil Ownership knows of no holder.
type Ownership struct {
	// Entities stand in the order of [model.Inventory.Entities].
	Entities []Holders
	// Known says that there are sources of holders, and that what all of them say is
	// known and not too old: an entity without a holder is then free.
	Known bool
	// Unmatched is the number of allocated device IDs that are none of the
	// inventory's devices, if Mapped; Strays, by source, that of devices held outside
	// Kubernetes that are none.
	Unmatched int
	Mapped    bool
	Strays    map[string]int
}

func (o *Ownership) of(i int) *Holders {
	if o == nil || i >= len(o.Entities) {
		return &Holders{}
	}
	return &o.Entities[i]
}

// Moment is what owners are asked for: the devices, the processes last seen on
// them (nil if none were read), and when.
type Moment struct {
	Inventory *model.Inventory
	Processes *model.Processes
	At        time.Time
}

// ProcessPlace says where a process runs.
type ProcessPlace struct {
	Namespace, Pod string
	Container      string // empty where only the pod is known
	// Trouble is why Pod is empty.
	Trouble ProcessTrouble
}

// ProcessTrouble is why no pod is known for a process; empty if one is.
type ProcessTrouble string

// The reasons why the usage of a process is nobody's.
const (
	ProcessGone       ProcessTrouble = "gone"        // it ended meanwhile
	ProcessNoHostPIDs ProcessTrouble = "no_host_pid" // the exporter does not see the host's process IDs
	ProcessForbidden  ProcessTrouble = "forbidden"   // its cgroup may not be read
	ProcessUnreadable ProcessTrouble = "unreadable"  // its cgroup could not be read for another reason
	ProcessOutside    ProcessTrouble = "outside"     // it is in no pod
	ProcessUnknownPod ProcessTrouble = "unknown_pod" // it is in a pod of which only the UID is known
	processNoOwner    ProcessTrouble = "no_owner"    // its pod does not hold the device
	processContainer  ProcessTrouble = "unknown_container"
)

// processTroubles lists them all, for metrics that start at 0.
func processTroubles() []ProcessTrouble {
	return []ProcessTrouble{ProcessGone, ProcessNoHostPIDs, ProcessForbidden, ProcessUnreadable, ProcessOutside, ProcessUnknownPod, processNoOwner, processContainer}
}

// SourceStatus is how one source of owners is doing.
type SourceStatus struct {
	Up          bool      // the last refresh succeeded
	LastSuccess time.Time // zero before the first
	Duration    time.Duration
	// Failures counts failed refreshes by reason, all reasons present.
	Failures map[string]uint64
	// Part says that it only counts failures, of a part of another source.
	Part bool
}

// OwnerSource knows who holds the devices of this node. Its methods must not
// block: they are called for every exposition.
type OwnerSource interface {
	// Ownership returns the same pointer for the same inventory as long as
	// nothing changed, and nil when the owners are not known.
	Ownership(Moment) *Ownership
	// Places says where the processes of a reading run, by PID, and false while
	// that is not found out yet.
	Places(*model.Processes) (map[uint32]ProcessPlace, bool)
	// MappingStatus is that of the kubelet's pod-resources API, and false where
	// it is not asked.
	MappingStatus() (SourceStatus, bool)
	// Sources are the other sources in use, by name.
	Sources() map[string]SourceStatus
}
