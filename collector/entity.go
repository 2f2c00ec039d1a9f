// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"fmt"
	"time"
)

// EntityKind says what an entity is. The numbers are those of
// dcgm_field_entity_group_t in dcgm_fields.h, so that they need no translation.
type EntityKind uint8

// The kinds of entities that DCGM knows.
const (
	KindGlobal          EntityKind = 0 // the node itself
	KindGPU             EntityKind = 1
	KindVGPU            EntityKind = 2
	KindSwitch          EntityKind = 3
	KindGPUInstance     EntityKind = 4
	KindComputeInstance EntityKind = 5
	KindLink            EntityKind = 6
	KindCPU             EntityKind = 7
	KindCPUCore         EntityKind = 8
	KindConnectX        EntityKind = 9

	kindCount = 10
)

var kindNames = [kindCount]string{
	"global", "gpu", "vgpu", "nvswitch", "gpu_instance", "compute_instance",
	"link", "cpu", "cpu_core", "connectx",
}

func (k EntityKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// OfGPU says whether an entity of the kind is a GPU or lies in one.
func (k EntityKind) OfGPU() bool {
	return k == KindGPU || k == KindGPUInstance || k == KindComputeInstance
}

// KindSet is a set of kinds.
type KindSet uint16

// Kinds returns the set of the given kinds.
func Kinds(kinds ...EntityKind) KindSet {
	var s KindSet
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

// Has says whether the kind is in the set.
func (s KindSet) Has(k EntityKind) bool { return s&(1<<k) != 0 }

// EntityState says whether an entity can be asked for values.
type EntityState uint8

// The states of an entity.
const (
	EntityUp       EntityState = iota
	EntityLost                 // fell off the bus, or the driver no longer answers for it
	EntityDetached             // unbound from the driver
)

func (s EntityState) String() string {
	switch s {
	case EntityUp:
		return "up"
	case EntityLost:
		return "lost"
	case EntityDetached:
		return "detached"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Unknown stands in an Entity's numeric identity fields for "not known".
const Unknown = -1

// Entity is one thing on the node with values of its own. Fields that do not
// apply to its kind are empty or [Unknown].
type Entity struct {
	Kind  EntityKind
	State EntityState
	// Selected says that --devices asks for the entity, or for an instance in it.
	Selected bool
	// ID is DCGM's entity id. It need not equal NVML's index or the minor, and
	// for instances it is reused after a MIG reconfiguration.
	ID uint32
	// Parent is the position of the parent in [Inventory.Entities]: the GPU of
	// an instance, the GPU instance of a compute instance, the GPU or switch of a
	// link, the CPU of a core; else Unknown.
	Parent int
	// UUID is GPU-… for a GPU and MIG-… for a compute instance. A GPU instance
	// has none of its own: NVML names the MIG device, which is the pair.
	UUID string

	// Of a GPU.
	PCIBusID string
	Model    string
	Brand    string
	Serial   string
	VBIOS    string
	Index    int // NVML's index
	Minor    int // of /dev/nvidiaN
	MIGMode  bool

	// Of a GPU instance or compute instance.
	InstanceID int    // NVML's id, unique in the parent
	Profile    string // such as 1g.10gb

	// Of a GPU instance: the first memory slice of the GPU that it has, as in
	// nvmlGpuInstancePlacement_t.
	PlacementStart int

	// Of a link.
	Port     int  // 0-based
	LinkDown bool // it exists, and carries nothing
}

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
	Columns [kindCount][]FieldID
	// Derived are the fields that a row of [Sample.Derived] holds.
	Derived []FieldID
}

// devices returns how many entities stand before the last GPU instance, or the last
// GPU where there are no instances, that one included: the others are no devices
// that somebody can hold.
func (inv *Inventory) devices() int {
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

// positionsIn returns, for each entity, where it is in the other inventory, or Unknown
// if it is not there or not up.
func (inv *Inventory) positionsIn(other *Inventory) []int {
	there := make(map[trackKey]int, len(other.Entities))
	for i := range other.Entities {
		if other.Entities[i].State == EntityUp {
			there[trackKeyOf(other, i, 0)] = i
		}
	}
	positions := make([]int, len(inv.Entities))
	for i := range positions {
		at, ok := there[trackKeyOf(inv, i, 0)]
		if !ok {
			at = Unknown
		}
		positions[i] = at
	}
	return positions
}

// validate checks what the rest of the package relies on.
func (inv *Inventory) validate() error {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if int(e.Kind) >= kindCount {
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

// MIGDevice is what NVML says of one MIG device: the pair of a GPU instance and
// a compute instance that carries the MIG-… UUID.
type MIGDevice struct {
	UUID              string
	ParentUUID        string
	GPUInstanceID     int
	ComputeInstanceID int
	PlacementStart    int // of the GPU instance, as in [Entity]
}
