// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Inventory is the list of the node's entities and of the fields that are read on them.
// It is immutable once published.
type Inventory struct {
	// Generation grows with each inventory of one sampler. A sample belongs to the
	// inventory with the same generation.
	Generation uint64
	// Revision is the revision of the sampler's configuration.
	Revision      uint64
	Time          time.Time
	DriverVersion string
	DCGMVersion   string
	// InstancesUnknown: DCGM has failed for too long to list the instances of MIG GPUs,
	// so the inventory omits them.
	InstancesUnknown bool
	// Entities are ordered by kind, parent and ID. Parents precede their children.
	Entities Entities
	// Columns are the fields of the rows of each kind.
	Columns [KindCount][]FieldID
	// Derived are the fields of the rows of [Sample.Derived].
	Derived []FieldID
}

// Devices returns the number of entities up to and including the last GPU or GPU
// instance. A container cannot hold any of the entities after it.
func (inv *Inventory) Devices() int {
	for i := len(inv.Entities) - 1; i >= 0; i-- {
		if kind := inv.Entities[i].Kind; kind == KindGPU || kind == KindGPUInstance {
			return i + 1
		}
	}
	return 0
}

// InstancesUnknownOf reports whether the entity at position i is a GPU whose instances
// are omitted. Fields that are read on instances must not be read on such a GPU instead.
func (inv *Inventory) InstancesUnknownOf(i int) bool {
	e := &inv.Entities[i]
	return inv.InstancesUnknown && e.Kind == KindGPU && e.MIGMode
}

// GPU returns the entity at position i, or its ancestor, that is a GPU. It returns false
// if the entity is not part of a GPU.
func (inv *Inventory) GPU(i int) (*Entity, bool) {
	if i = inv.GPUAt(i); i == Unknown {
		return nil, false
	}
	return &inv.Entities[i], true
}

// GPUAt returns the position of the GPU that [Inventory.GPU] returns, or Unknown.
func (inv *Inventory) GPUAt(i int) int {
	for i >= 0 && i < len(inv.Entities) { // ends, because parents precede their children
		if inv.Entities[i].Kind == KindGPU {
			return i
		}
		i = inv.Entities[i].Parent
	}
	return Unknown
}

// PositionsIn returns the position of each entity in the other inventory, or Unknown if
// the entity is absent or not up.
func (inv *Inventory) PositionsIn(other *Inventory) []int {
	up := make(map[FieldKey]int, len(other.Entities))
	for i := range other.Entities {
		if other.Entities[i].State == EntityUp {
			up[FieldKeyOf(other, i, 0)] = i
		}
	}
	positions := make([]int, len(inv.Entities))
	for i := range positions {
		at, ok := up[FieldKeyOf(inv, i, 0)]
		if !ok {
			at = Unknown
		}
		positions[i] = at
	}
	return positions
}

// Validate checks the kinds, parents and placements of the entities.
func (inv *Inventory) Validate() error {
	parentKinds := map[EntityKind]KindSet{
		KindGPUInstance:     Kinds(KindGPU),
		KindComputeInstance: Kinds(KindGPUInstance),
		KindLink:            Kinds(KindGPU, KindSwitch),
		KindCPUCore:         Kinds(KindCPU),
	}
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if int(e.Kind) >= KindCount {
			return fmt.Errorf("entity %d has unknown kind %d", i, e.Kind)
		}
		if e.Parent < Unknown || e.Parent >= i {
			return fmt.Errorf("parent %d does not precede entity %d", e.Parent, i)
		}
		kinds, isPart := parentKinds[e.Kind]
		if isPart && (e.Parent == Unknown || !kinds.Has(inv.Entities[e.Parent].Kind)) {
			return fmt.Errorf("entity %d of kind %v has no parent of the right kind", i, e.Kind)
		}
		if e.PlacementStart < Unknown {
			return fmt.Errorf("entity %d starts at memory slice %d", i, e.PlacementStart)
		}
	}
	return nil
}

const anyKind = KindSet(1<<KindCount - 1)

// checkEntity checks a reference to the entity at a position. The entity must be of one of
// the kinds and follow the entity at position last.
func (inv *Inventory) checkEntity(what string, entity, last int, kinds KindSet) error {
	if entity <= last || entity >= len(inv.Entities) {
		return fmt.Errorf("%s of entity %d after that of %d, of %d entities", what, entity, last, len(inv.Entities))
	}
	if kind := inv.Entities[entity].Kind; !kinds.Has(kind) {
		return fmt.Errorf("%s of entity %d, a %v", what, entity, kind)
	}
	return nil
}

// KnownLinks are the ports of a GPU or NVSwitch that have a link, up or down.
type KnownLinks struct {
	GPU    string // UUID; empty for a switch
	Switch uint32 // DCGM's ID
	Ports  []int
}

// FindGPU returns the GPU with the UUID, or nil.
func FindGPU(inv *Inventory, uuid string) *Entity {
	return inv.find(func(e *Entity) bool { return e.Kind == KindGPU && e.UUID == uuid })
}

// FindSwitch returns the NVSwitch with the ID, or nil. The ID identifies the slot.
func FindSwitch(inv *Inventory, id uint32) *Entity {
	return inv.find(func(e *Entity) bool { return e.Kind == KindSwitch && e.ID == id })
}

func (inv *Inventory) find(match func(*Entity) bool) *Entity {
	for i := range inv.Entities {
		if match(&inv.Entities[i]) {
			return &inv.Entities[i]
		}
	}
	return nil
}

// ReadAsInstances returns the positions of the GPUs whose instances are read in place of
// the GPU, including GPUs whose instances are unknown.
func (inv *Inventory) ReadAsInstances(s *Sample) map[int]bool {
	gpus := map[int]bool{}
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if inv.InstancesUnknownOf(i) && len(s.Rows[i]) == 0 {
			gpus[i] = true
		}
		if e.Kind == KindGPUInstance && e.Selected && len(s.Rows[e.Parent]) == 0 {
			gpus[e.Parent] = true
		}
	}
	return gpus
}
