// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"gpu_exporter/podmapper/device"
)

// Owner is a container that holds a device.
type Owner struct {
	Namespace string
	Pod       string
	Container string
	Resource  string // such as nvidia.com/gpu.shared; empty with a Claim
	Replica   string // which share of the device; empty if it is not shared
	Claim     Claim  // zero for a device of a device plugin
}

// Claim is the ResourceClaim (DRA) by which a container holds a device.
type Claim struct {
	Namespace, Name      string // of the ResourceClaim
	device.PublishedName        // of the device
	Share                string // distinguishes the shares of a device; empty for a whole device
	// MIGProfile and MIGUUID are those of the MIG device. Only Match sets them.
	MIGProfile, MIGUUID string
}

// Assignment is one device of one container, as the kubelet lists it.
type Assignment struct {
	Owner Owner
	// ID is the device plugin's ID, or the published name of a claim's device.
	ID    string
	Known device.ID // the parsed ID

	since time.Time // when it was first listed
}

// Table is the state of the kubelet from one moment on. It is immutable. As long as
// the kubelet reports the same, it is the same Table.
type Table struct {
	// Time is that moment: the start of the refresh, or the time of the checkpoint
	// that announced the change.
	Time        time.Time
	Version     uint64       // different for each table of a Mapper
	Assignments []Assignment // sorted; no two are equal
	// Truncated counts the IDs and names that exceeded the bounds of a pod. With
	// truncated IDs, the table does not have all owners.
	Truncated int
	// Partial means that the kubelet has restarted and does not list the pods of the
	// API server yet, so further pods may hold devices.
	Partial bool

	idType    device.IDType
	places    *device.Places
	confirmed time.Time
}

// At returns the table with the history of the node's devices, and with the start of
// the last refresh that returned it. Without them, an ID that depends on the place of
// a device means the current one.
func (t *Table) At(places *device.Places, confirmed time.Time) *Table {
	if t == nil {
		return nil
	}
	at := *t
	at.places, at.confirmed = places, confirmed
	return &at
}

func compareOwners(a, b Owner) int {
	return cmp.Or(
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Pod, b.Pod),
		strings.Compare(a.Container, b.Container),
		strings.Compare(a.Resource, b.Resource),
		// Replicas are decimal: "10" comes after "9".
		cmp.Compare(len(a.Replica), len(b.Replica)),
		strings.Compare(a.Replica, b.Replica),
		strings.Compare(a.Claim.Namespace, b.Claim.Namespace),
		strings.Compare(a.Claim.Name, b.Claim.Name),
		strings.Compare(a.Claim.Driver, b.Claim.Driver),
		strings.Compare(a.Claim.Pool, b.Claim.Pool),
		strings.Compare(a.Claim.Device, b.Claim.Device),
		strings.Compare(a.Claim.Share, b.Claim.Share),
	)
}

func compareAssignments(a, b Assignment) int {
	return cmp.Or(compareOwners(a.Owner, b.Owner), strings.Compare(a.ID, b.ID))
}

// missing reports whether an assignment of before is absent from now. Both are sorted.
func missing(before, now []Assignment) bool {
	return slices.ContainsFunc(before, func(a Assignment) bool {
		_, found := slices.BinarySearchFunc(now, a, compareAssignments)
		return !found
	})
}

// pluginDevice is a device as a device plugin advertises it.
type pluginDevice struct{ resource, id string }

func (a *Assignment) plugin() pluginDevice { return pluginDevice{a.Owner.Resource, a.ID} }

// pluginHolders returns the owners of the devices of device plugins.
func pluginHolders(all []Assignment) map[pluginDevice]*Owner {
	holders := make(map[pluginDevice]*Owner, len(all))
	for i := range all {
		if a := &all[i]; a.Known.Form != device.FormClaim {
			holders[a.plugin()] = &a.Owner
		}
	}
	return holders
}

// handedOver reports whether a device of one pod in before is a different pod's in
// now. The kubelet gives an ID of a device plugin to one pod at a time, so it must
// know that the first pod ended.
func handedOver(before, now []Assignment) bool {
	holders := pluginHolders(before)
	return slices.ContainsFunc(now, func(a Assignment) bool {
		o := holders[a.plugin()]
		return o != nil && (o.Namespace != a.Owner.Namespace || o.Pod != a.Owner.Pod)
	})
}

// reuse replaces the assignments of now that before has as well, so that two tables
// share their strings and the time since which they are listed. It returns how many
// further ones now has. Both are sorted.
func reuse(before, now []Assignment) (added int) {
	for i := range now {
		if at, found := slices.BinarySearchFunc(before, now[i], compareAssignments); found {
			now[i] = before[at]
		} else {
			added++
		}
	}
	return added
}
