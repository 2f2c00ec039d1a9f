// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"gpu_exporter/collector/model"
)

// Label is a name and a value, such as a label of a pod.
type Label struct{ Name, Value string }

// Owner is a container of a pod that holds a device or a share of it.
type Owner struct {
	Namespace, Pod, Container string
	// Replica distinguishes the shares of one device; empty for a whole device.
	Replica string
	// Claim is zero if no ResourceClaim allocated the device.
	Claim Claim
	// Metadata is nil if it is unknown or not requested.
	Metadata *PodMetadata
}

// sameContainer reports whether two owners are shares of one container.
func (o Owner) sameContainer(p Owner) bool {
	return o.Namespace == p.Namespace && o.Pod == p.Pod && o.Container == p.Container
}

// Claim is the ResourceClaim (DRA) by which a container holds a device.
type Claim struct {
	Namespace, Name      string
	Driver, Pool, Device string
	MIGProfile, MIGUUID  string // empty for a whole GPU
}

// PodMetadata describes a pod. Labels and annotations are those that the allowlists
// admit, with their names in Kubernetes, sorted by name.
type PodMetadata struct {
	UID                 string
	Labels, Annotations []Label
	// The topmost object that the pod belongs to, such as a Deployment; empty for
	// a pod without one.
	WorkloadKind, Workload string
}

// Job is a batch job that holds a device.
type Job struct {
	ID, Name, User, Account, Partition string
	Source                             string // JobFile, or slurm for its cgroups
}

// JobFile is the source of the jobs in files that the scheduler's prolog wrote.
const JobFile = "file"

// Container is a container of an engine without Kubernetes.
type Container struct {
	ID, Name, Image string
	Project         string  // of docker compose
	Service         string  // of docker compose
	Labels          []Label // those that the allowlist admits, sorted by name
}

// Holders are the owners, jobs and containers that hold one entity. They are sorted,
// so that their order is stable between scrapes.
type Holders struct {
	Owners     []Owner
	Jobs       []Job
	Containers []Container
	// Unknown reports that there may be more, because a source cannot be read.
	Unknown bool
}

// count returns the number of holders. Replicas in one container count once.
func (h *Holders) count() int {
	n := len(h.Jobs) + len(h.Containers)
	for i, o := range h.Owners {
		if i == 0 || !o.sameContainer(h.Owners[i-1]) {
			n++
		}
	}
	return n
}

// single returns the owner whose labels are on the series of the entity, and whether
// there is one: exactly one pod holds the entity. If several of its containers do, the
// owner has no container.
func (h *Holders) single() (Owner, bool) {
	if len(h.Owners) == 0 {
		return Owner{}, false
	}
	owner := h.Owners[0]
	for _, o := range h.Owners[1:] {
		if o.Namespace != owner.Namespace || o.Pod != owner.Pod {
			return Owner{}, false
		}
		if o.Container != owner.Container {
			owner.Container = ""
		}
		if o.Claim != owner.Claim {
			owner.Claim = Claim{}
		}
	}
	return owner, true
}

// Ownership is the holders of the entities of one inventory. It is immutable. A nil
// Ownership has no holders.
type Ownership struct {
	// Entities are in the order of [model.Inventory.Entities].
	Entities []Holders
	// Known reports that every source of holders answered recently and completely, so
	// an entity without a holder is free.
	Known bool
	// Unmatched is the number of allocated device IDs that match no device of the
	// inventory, if Mapped. Strays is, by source, the number of devices held outside
	// Kubernetes that match none.
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

// ProcessPlace is where a process runs.
type ProcessPlace struct {
	Namespace, Pod string
	Container      string // empty if only the pod is known
	// Trouble is why Pod is empty.
	Trouble ProcessTrouble
}

// ProcessTrouble is the reason why the pod of a process is unknown; empty if it is
// known.
type ProcessTrouble string

// The reasons why a process is attributed to no owner.
const (
	ProcessGone       ProcessTrouble = "gone"        // it ended
	ProcessNoHostPIDs ProcessTrouble = "no_host_pid" // the exporter does not see the host's process IDs
	ProcessForbidden  ProcessTrouble = "forbidden"   // permission to read its cgroup is missing
	ProcessUnreadable ProcessTrouble = "unreadable"  // its cgroup cannot be read for another reason
	ProcessOutside    ProcessTrouble = "outside"     // it is in no pod
	ProcessUnknownPod ProcessTrouble = "unknown_pod" // only the UID of its pod is known
	processNoOwner    ProcessTrouble = "no_owner"    // its pod does not hold the device
	processContainer  ProcessTrouble = "unknown_container"
)

// processTroubles returns all reasons, for metrics that start at 0.
func processTroubles() []ProcessTrouble {
	return []ProcessTrouble{ProcessGone, ProcessNoHostPIDs, ProcessForbidden, ProcessUnreadable, ProcessOutside, ProcessUnknownPod, processNoOwner, processContainer}
}

// SourceStatus is the state of one source of owners.
type SourceStatus struct {
	Up          bool      // the last refresh succeeded
	LastSuccess time.Time // zero before the first
	Duration    time.Duration
	// Failures counts failed refreshes by reason, all reasons present.
	Failures map[string]uint64
	// Part reports that only Failures is set: it counts those of a part of another
	// source.
	Part bool
}

// OwnerSource publishes the owners of the devices of this node. Its methods only
// read what is published: they are called for every exposition.
type OwnerSource interface {
	// Ownership returns the owners of an inventory at a time, or nil if they are
	// unknown. It returns the same pointer until the owners change.
	Ownership(*model.Inventory, time.Time) *Ownership
	// Places returns where the processes of a reading run, by PID. It returns
	// false until they are located.
	Places(*model.Processes) (map[uint32]ProcessPlace, bool)
	// MappingStatus returns the status of the kubelet's pod-resources API, and
	// false if it is not configured.
	MappingStatus() (SourceStatus, bool)
	// Sources returns the status of the remaining sources in use, by name.
	Sources() map[string]SourceStatus
}
