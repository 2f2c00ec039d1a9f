// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
)

// EntityKind is the kind of an entity. The numbers equal those of
// dcgm_field_entity_group_t in dcgm_fields.h.
type EntityKind uint8

// The kinds of entities that are collected. DCGM never lists kind 2, a vGPU.
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

var kindNames = []string{
	"global", "gpu", "", "nvswitch", "gpu_instance", "compute_instance",
	"link", "cpu", "cpu_core", "connectx",
}

func (k EntityKind) String() string { return NameOf(kindNames, k, "kind") }

// KindByName returns the kind whose [EntityKind.String] is name.
func KindByName(name string) (EntityKind, bool) {
	kind := slices.Index(kindNames, name)
	return EntityKind(max(kind, 0)), kind >= 0 && name != ""
}

// KindNames returns the names of all kinds except the node.
func KindNames() []string {
	return slices.DeleteFunc(slices.Clone(kindNames[KindGPU:]), func(name string) bool { return name == "" })
}

// OfGPU reports whether entities of the kind are GPUs or parts of GPUs.
func (k EntityKind) OfGPU() bool {
	return Kinds(KindGPU, KindGPUInstance, KindComputeInstance).Has(k)
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

// Has reports whether the set contains the kind.
func (s KindSet) Has(k EntityKind) bool { return s&(1<<k) != 0 }

// EntityState is the availability of an entity. Only entities that are up have values.
type EntityState uint8

// The states of an entity.
const (
	EntityUp       EntityState = iota
	EntityLost                 // fell off the bus, or the driver cannot reach it
	EntityDetached             // unbound from the driver
)

func (s EntityState) String() string {
	return NameOf([]string{"up", "lost", "detached"}, s, "state")
}

// Unknown is the value of a numeric identity field of [Entity] that is not known.
const Unknown = -1

// Entity is a GPU, a part of a GPU, or another device of the node. Fields that do not
// apply to its kind are empty or [Unknown].
type Entity struct {
	Kind  EntityKind
	State EntityState
	// Selected: --devices.gpus selects the entity, or an instance in it.
	Selected bool
	// ID is DCGM's entity ID. It may differ from NVML's index and from the minor number.
	// IDs of instances are reused after a MIG repartition.
	ID uint32
	// Parent is the position of the parent in [Inventory.Entities], or Unknown: the GPU
	// of an instance, the GPU instance of a compute instance, the GPU or switch of a
	// link, the CPU of a core.
	Parent int
	// UUID is GPU-… for a GPU and MIG-… for a compute instance. GPU instances have no
	// UUID: NVML identifies the MIG device, which is a pair of instances.
	UUID string

	// Fields of a GPU.
	PCIBusID string
	Model    string
	Brand    string
	Serial   string
	VBIOS    string
	Index    int // NVML's index; of a compute instance: that of the MIG device in its GPU
	Minor    int // N of /dev/nvidiaN
	MIGMode  bool

	// Fields of a GPU instance or compute instance.
	InstanceID int    // NVML's ID, unique in the parent
	Profile    string // such as 1g.10gb

	// PlacementStart is the first memory slice of a GPU instance, as in
	// nvmlGpuInstancePlacement_t.
	PlacementStart int

	// Fields of a link.
	Port     int  // 0-based
	LinkDown bool // the link exists, but was inactive at the time of the inventory
}

// MIGDevice is NVML's view of a MIG device: the pair of a GPU instance and a compute
// instance that has the MIG-… UUID.
type MIGDevice struct {
	UUID              string
	ParentUUID        string
	GPUInstanceID     int
	ComputeInstanceID int
	PlacementStart    int // of the GPU instance, as in [Entity]
	Index             int // of nvmlDeviceGetMigDeviceHandleByIndex; there are gaps
}
