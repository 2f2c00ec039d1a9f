// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"slices"
)

// KindByName returns the kind with the name that [EntityKind.String] returns.
func KindByName(name string) (EntityKind, bool) {
	kind := slices.Index(kindNames[:], name)
	if name == "" || kind < 0 {
		return 0, false
	}
	return EntityKind(kind), true
}

// KindNames returns the names of all kinds that can be read.
func KindNames() []string {
	names := slices.Clone(kindNames[KindGPU:])
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// EntityKind says what an entity is. The numbers are those of
// dcgm_field_entity_group_t in dcgm_fields.h, so that they need no translation.
type EntityKind uint8

// The kinds of entities that are read. DCGM never lists kind 2, a vGPU.
const (
	KindGlobal          EntityKind = 0 // the node itself
	KindGPU             EntityKind = 1
	KindSwitch          EntityKind = 3
	KindGPUInstance     EntityKind = 4
	KindComputeInstance EntityKind = 5
	KindLink            EntityKind = 6
	KindCPU             EntityKind = 7
	KindCPUCore         EntityKind = 8
	KindConnectX        EntityKind = 9

	KindCount = 10
)

var kindNames = [KindCount]string{
	"global", "gpu", "", "nvswitch", "gpu_instance", "compute_instance",
	"link", "cpu", "cpu_core", "connectx",
}

func (k EntityKind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
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

// MIGDevice is what NVML says of one MIG device: the pair of a GPU instance and
// a compute instance that carries the MIG-… UUID.
type MIGDevice struct {
	UUID              string
	ParentUUID        string
	GPUInstanceID     int
	ComputeInstanceID int
	PlacementStart    int // of the GPU instance, as in [Entity]
}
