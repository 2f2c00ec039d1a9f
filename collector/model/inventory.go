// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Inventory is what the node consists of and which fields are read on it. It is
// immutable once published.
type Inventory struct {
	// Generation grows with each inventory of one sampler; a sample belongs to
	// the inventory with the same generation.
	Generation uint64
	// Revision is that of the configuration that the sampler was given.
	Revision      uint64
	Time          time.Time
	DriverVersion string
	DCGMVersion   string
	// InstancesUnknown says that the instances of GPUs in MIG mode could not be listed
	// for too long. They are left out then.
	InstancesUnknown bool
	// Entities are ordered by kind, parent and id; parents stand before children.
	Entities []Entity
	// Columns are, for each kind, the fields that a row of that kind holds.
	Columns [KindCount][]FieldID
	// Derived are the fields that a row of [Sample.Derived] holds.
	Derived []FieldID
}

// Devices returns how many entities stand before the last GPU instance, or the last
// GPU where there are no instances, that one included: the others are no devices
// that somebody can hold.
func (inv *Inventory) Devices() int {
	for i := len(inv.Entities) - 1; i >= 0; i-- {
		if kind := inv.Entities[i].Kind; kind == KindGPU || kind == KindGPUInstance {
			return i + 1
		}
	}
	return 0
}

// InstancesUnknownOf says whether the entity at position i is a GPU whose instances are
// left out: what is read of instances in a GPU's place is not to be read of it.
func (inv *Inventory) InstancesUnknownOf(i int) bool {
	e := &inv.Entities[i]
	return inv.InstancesUnknown && e.Kind == KindGPU && e.MIGMode
}

// GPU returns the GPU that the entity at position i is or belongs to, and
// whether there is one.
func (inv *Inventory) GPU(i int) (*Entity, bool) {
	for range inv.Entities {
		if i < 0 || i >= len(inv.Entities) {
			return nil, false
		}
		e := &inv.Entities[i]
		if e.Kind == KindGPU {
			return e, true
		}
		i = e.Parent
	}
	return nil, false
}

// PositionsIn returns, for each entity, where it is in the other inventory, or Unknown
// if it is not there or not up.
func (inv *Inventory) PositionsIn(other *Inventory) []int {
	there := make(map[FieldKey]int, len(other.Entities))
	for i := range other.Entities {
		if other.Entities[i].State == EntityUp {
			there[FieldKeyOf(other, i, 0)] = i
		}
	}
	positions := make([]int, len(inv.Entities))
	for i := range positions {
		at, ok := there[FieldKeyOf(inv, i, 0)]
		if !ok {
			at = Unknown
		}
		positions[i] = at
	}
	return positions
}

// Validate checks what the rest of the package relies on.
func (inv *Inventory) Validate() error {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if int(e.Kind) >= KindCount {
			return fmt.Errorf("entity %d has unknown kind %d", i, e.Kind)
		}
		if e.Parent != Unknown && (e.Parent < 0 || e.Parent >= i) {
			return fmt.Errorf("entity %d has parent %d, which does not stand before it", i, e.Parent)
		}
		if !inv.hasParent(e) {
			return fmt.Errorf("entity %d, of kind %v, has no parent of the right kind", i, e.Kind)
		}
		if e.PlacementStart < Unknown {
			return fmt.Errorf("entity %d starts at memory slice %d", i, e.PlacementStart)
		}
	}
	return nil
}

// hasParent says whether an entity that is part of another one is so, and of the
// right kind.
func (inv *Inventory) hasParent(e *Entity) bool {
	is := func(kinds ...EntityKind) bool {
		return e.Parent != Unknown && Kinds(kinds...).Has(inv.Entities[e.Parent].Kind)
	}
	switch e.Kind {
	case KindGPUInstance:
		return is(KindGPU)
	case KindComputeInstance:
		return is(KindGPUInstance)
	case KindLink:
		return is(KindGPU, KindSwitch)
	case KindCPUCore:
		return is(KindCPU)
	}
	return true
}

// KnownLinks are the ports of a GPU or NVSwitch that have a link, be that up or down.
type KnownLinks struct {
	GPU    string // its UUID; empty for a switch
	Switch uint32 // DCGM's id
	Ports  []int
}

// FindGPU returns the GPU with the UUID, or nil.
func FindGPU(inv *Inventory, uuid string) *Entity {
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Kind == KindGPU && e.UUID == uuid {
			return e
		}
	}
	return nil
}

// FindSwitch looks for an NVSwitch by its number, which is that of its place.
func FindSwitch(inv *Inventory, id uint32) *Entity {
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Kind == KindSwitch && e.ID == id {
			return e
		}
	}
	return nil
}

// ReadAsInstances says of which GPUs, by position, the instances are read in the GPU's place, or
// would be if they were known.
func (inv *Inventory) ReadAsInstances(s *Sample) map[int]bool {
	split := map[int]bool{}
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if inv.InstancesUnknownOf(i) && len(s.Rows[i]) == 0 {
			split[i] = true
		}
		if e.Kind == KindGPUInstance && e.Selected && len(s.Rows[e.Parent]) == 0 {
			split[e.Parent] = true
		}
	}
	return split
}
