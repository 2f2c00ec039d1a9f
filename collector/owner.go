// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import "time"

// Owner is a container that holds a device or a share of it.
type Owner struct {
	Namespace, Pod, Container string
	// Replica tells the shares of one device apart; empty for a whole device.
	Replica string
}

// sameContainer says whether two owners are shares of one container.
func (o Owner) sameContainer(p Owner) bool {
	return o.Namespace == p.Namespace && o.Pod == p.Pod && o.Container == p.Container
}

// Ownership says who holds the entities of one inventory at one moment. It is
// immutable; a nil Ownership knows of no owner.
type Ownership struct {
	// Owners stand in the order of [Inventory.Entities]. Those of one entity are
	// sorted, so that nothing flips between scrapes.
	Owners [][]Owner
	// Unmatched is the number of allocated device IDs that are none of the
	// inventory's devices.
	Unmatched int
}

func (o *Ownership) of(i int) []Owner {
	if o == nil || i >= len(o.Owners) {
		return nil
	}
	return o.Owners[i]
}

// single returns the only container that holds the entity, if there is just one.
func (o *Ownership) single(i int) (Owner, bool) {
	owners := o.of(i)
	if len(owners) == 0 {
		return Owner{}, false
	}
	for _, other := range owners[1:] {
		if !other.sameContainer(owners[0]) {
			return Owner{}, false
		}
	}
	return owners[0], true
}

// MappingStatus is how the mapping of devices to owners is doing.
type MappingStatus struct {
	Up          bool      // the last refresh succeeded
	LastSuccess time.Time // zero before the first
	Duration    time.Duration
	// Failures counts failed refreshes by reason, all reasons present.
	Failures map[string]uint64
}

// OwnerSource knows who holds the devices of this node. Its methods must not
// block: they are called for every exposition.
type OwnerSource interface {
	// Ownership returns the same pointer for the same inventory as long as
	// nothing changed, and nil when the owners are not known.
	Ownership(*Inventory) *Ownership
	MappingStatus() MappingStatus
}
