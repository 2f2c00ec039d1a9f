// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package native

// #include "fabric.h"
import "C"

import (
	"math/bits"
	"slices"
	"unsafe"

	"gpu_exporter/collector/model"
)

// EntityStatus is DcgmEntityStatus_t.
type EntityStatus int32

// The statuses that this package or its callers distinguish.
const (
	StatusUnknown  EntityStatus = 0
	StatusOK       EntityStatus = 1
	StatusLost     EntityStatus = 4
	StatusFake     EntityStatus = 5
	StatusDetached EntityStatus = 7
)

// Up reports whether DCGM can read the entity.
func (s EntityStatus) Up() bool { return s == StatusOK || s == StatusFake }

// GPU is a GPU that DCGM lists.
type GPU struct {
	ID     uint32
	Status EntityStatus
}

// Instance is a GPU instance or compute instance in DCGM's hierarchy.
type Instance struct {
	Entity, Parent                       Pair
	NVMLGPUInstance, NVMLComputeInstance uint32
}

// Topology is the GPUs and instances that DCGM lists.
type Topology struct {
	GPUs      []GPU
	Instances []Instance
}

// CheckTopology lists the GPUs and instances, and reports whether they changed.
// If instances is an error, the instances stay as they were.
func (l *Library) CheckTopology() (changed bool, instances, c Code) {
	var isChanged, ofInstances C.int
	c = Code(C.native_check_topology(l.n, &isChanged, &ofInstances))
	return isChanged != 0, Code(ofInstances), c
}

// Topology returns the result of the last [Library.CheckTopology].
func (l *Library) Topology() Topology {
	t := &l.n.topology
	var top Topology
	for _, g := range t.gpus[:t.gpu_count] {
		top.GPUs = append(top.GPUs, GPU{uint32(g.id), EntityStatus(g.status)})
	}
	for _, e := range t.instances[:t.instance_count] {
		top.Instances = append(top.Instances, Instance{
			Entity:              Pair{uint32(e.entity.kind), uint32(e.entity.id)},
			Parent:              Pair{uint32(e.parent.kind), uint32(e.parent.id)},
			NVMLGPUInstance:     uint32(e.nvml_gpu_instance),
			NVMLComputeInstance: uint32(e.nvml_compute_instance),
		})
	}
	return top
}

// LinkState is dcgmNvLinkLinkState_t.
type LinkState int32

// The states of a link.
const (
	LinkDisabled LinkState = 1
	LinkDown     LinkState = 2
	LinkUp       LinkState = 3
)

// Link is a port of a GPU or switch.
type Link struct {
	Parent Pair
	Port   int
	State  LinkState
}

// LinkID returns the entity id of a link: dcgm_link_t (dcgm_structs.h).
func LinkID(parent Pair, port int) uint32 {
	return parent.Kind | uint32(port)<<8 | parent.ID<<24
}

// ParentOfLink returns the GPU or switch of a link's entity id.
func ParentOfLink(id uint32) Pair { return Pair{id & 0xff, id >> 24} }

// CPU is a Grace CPU with the Linux numbers of its cores.
type CPU struct {
	ID    uint32
	Cores []uint32
}

// Fabric is the devices of a node besides GPUs and their instances. It omits
// links that do not exist, but not links that are down.
type Fabric struct {
	Switches, ConnectX []uint32
	Links              []Link
	CPUs               []CPU
}

// FabricLister lists the fabric. One goroutine at a time may use it.
type FabricLister struct{ f *C.struct_fabric }

// NewFabricLister returns a lister of the given kinds.
func (l *Library) NewFabricLister(kinds model.KindSet) FabricLister {
	return FabricLister{C.fabric_open(l.n, C.uint32_t(kinds))}
}

// LinksNotListed is the code of the links if the last list is younger than a second.
const LinksNotListed Code = C.FABRIC_NOT_LISTED

// Check lists the fabric, and reports whether it changed. links is the code of
// listing the links: if it is not [OK], they stay as they were.
func (l FabricLister) Check() (changed bool, links, c Code) {
	var isChanged, ofLinks C.int
	c = Code(C.fabric_check(l.f, &isChanged, &ofLinks))
	return isChanged != 0, Code(ofLinks), c
}

// SwitchesListed reports whether a check has listed the switches.
func (l FabricLister) SwitchesListed() bool { return C.fabric_switches_listed(l.f) != 0 }

// Fabric returns the result of the last check.
func (l FabricLister) Fabric() Fabric {
	t := C.fabric_current(l.f)
	ids := func(list *C.struct_fabric_ids) []uint32 {
		return slices.Clone(unsafe.Slice((*uint32)(&list.ids[0]), int(list.count)))
	}
	fabric := Fabric{Switches: ids(&t.switches), ConnectX: ids(&t.connectx)}
	for i := range int(t.link_count) {
		l := &t.links[i]
		fabric.Links = append(fabric.Links, Link{Pair{uint32(l.parent_kind), uint32(l.parent)}, int(l.port), LinkState(l.state)})
	}
	for i := range int(t.cpu_count) {
		c := &t.cpus[i]
		cpu := CPU{ID: uint32(c.id)}
		for word, mask := range c.cores {
			for m := uint64(mask); m != 0; m &= m - 1 {
				cpu.Cores = append(cpu.Cores, uint32(word*64+bits.TrailingZeros64(m)))
			}
		}
		fabric.CPUs = append(fabric.CPUs, cpu)
	}
	return fabric
}
