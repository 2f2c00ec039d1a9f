// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"fmt"
	"slices"
	"strings"
)

// DeviceKind says what a Device is.
type DeviceKind uint8

// The kinds of device that can have an owner. The zero value is for anything
// else, such as a link, so that a description can hold the place of each entity.
const (
	KindOther DeviceKind = iota
	KindGPU
	KindGPUInstance
	KindComputeInstance
)

// NoMinor is the Device.Minor of a GPU whose minor number is not known.
const NoMinor = -1

// Device describes one device of the node to Table.Match.
type Device struct {
	Kind            DeviceKind
	GPUUUID         string   // of the GPU; of the parent GPU for an instance
	Index           int      // NVML index of that GPU
	Minor           int      // N of its /dev/nvidiaN, or NoMinor
	PCIBusID        string   // of that GPU, in any spelling; empty if not known
	GPUInstance     int      // NVML id, for both kinds of instance
	ComputeInstance int      // NVML id, for a compute instance
	MIGUUIDs        []string // MIG devices that lie in this instance
	Profile         string   // of an instance, such as 1g.10gb or 1g.10gb+me
	// PlacementStart is the first memory slice of the GPU instance in its GPU, for
	// both kinds of instance, or NotPublished.
	PlacementStart int
}

// Match joins a table with the devices of the node.
type Match struct {
	// Owners[i] are the owners of devices[i], sorted, each once.
	Owners [][]Owner
	// Resolutions are what became of the table's assignments, in their order.
	// Devices of claims that are no GPUs are left out.
	Resolutions []Resolution
	// Unmatched is the number of resolutions to no device.
	Unmatched int
}

// Resolution says which devices an assignment means. It must not be modified.
type Resolution struct {
	*Assignment
	// Devices are their positions; for an instance, those of all the devices that
	// get an owner by it.
	Devices []int
	// Reason says why Devices is empty, and Hint what to do about it. Both are
	// empty where it is not.
	Reason, Hint string
}

// Match finds the owners of devices. Give it every device of the node, also
// those that are not exported, or their IDs count as unmatched. The result
// stays valid for the same devices, table and published.
//
// An ID that names an instance never gives the GPU around it an owner. The
// owner of a whole GPU instance also owns the compute instances in it, and a
// GPU instance has the owners of all compute instances in it.
//
// Nothing is guessed: what can mean two devices is unmatched. A nil table has
// no assignments.
func (t *Table) Match(devices []Device, published *Published) Match {
	m := Match{Owners: make([][]Owner, len(devices))}
	if t == nil || len(t.Assignments) == 0 {
		return m
	}
	x := newIndex(devices, t.rules.idType)
	m.Resolutions = make([]Resolution, 0, len(t.Assignments))
	for i := range t.Assignments {
		a := &t.Assignments[i]
		owner := a.Owner
		r := Resolution{Assignment: a}
		if a.Known.Form == FormClaim {
			device, listed := published.device(owner.Claim.PublishedName)
			if !t.rules.concerns(&owner.Claim, device, listed) {
				continue
			}
			switch {
			case listed:
				r.Devices, r.Reason, r.Hint = x.findPublished(&owner.Claim, device, t, published)
			case published == nil:
				r.Reason, r.Hint = reasonNoSlices, hintNoSlices
			default:
				r.Reason, r.Hint = reasonNotInSlices, hintNotInSlices
			}
		} else if r.Devices = x.find(a.Known); len(r.Devices) == 0 {
			r.Reason, r.Hint = x.whyNot(a)
		}
		if len(r.Devices) == 0 {
			m.Unmatched++
		}
		for _, i := range r.Devices {
			m.Owners[i] = append(m.Owners[i], owner)
		}
		m.Resolutions = append(m.Resolutions, r)
	}
	for i := range m.Owners {
		slices.SortFunc(m.Owners[i], compareOwners)
		m.Owners[i] = slices.Compact(m.Owners[i])
	}
	return m
}

// index finds devices by what they are called.
type index struct {
	devices []Device
	idType  IDType
	byID    map[DeviceID][]int // positions; not modified once it is made
}

func newIndex(devices []Device, t IDType) *index {
	x := &index{devices: devices, idType: t, byID: make(map[DeviceID][]int, 3*len(devices))}
	var ids []DeviceID
	var gpus []int
	for i := range devices {
		ids = devices[i].appendIDs(ids[:0], t)
		for _, id := range ids {
			x.byID[id] = append(x.byID[id], i)
		}
		if devices[i].Kind == KindGPU {
			gpus = append(gpus, i)
		}
	}
	if len(gpus) == 1 {
		x.byID[DeviceID{Form: FormTegra}] = gpus
	}
	return x
}

// find gives the positions of the devices that get an owner by an ID.
func (x *index) find(id DeviceID) []int {
	at := x.byID[id] // FormUnknown is no device's ID
	if id.Form == FormMIGPath {
		id.ComputeInstance = anyComputeInstance
		if around := x.byID[id]; len(at) == 0 {
			at = around
		} else if len(around) > 0 {
			at = slices.Concat(at, around)
		}
	}
	return at
}

// anyComputeInstance marks, in a FormMIGPath, the GPU instance itself.
const anyComputeInstance = -1

// appendIDs appends every DeviceID that means d.
func (d *Device) appendIDs(ids []DeviceID, t IDType) []DeviceID {
	switch d.Kind {
	case KindOther:
		return ids
	case KindGPU:
		number := d.Index
		if t == IDTypeDeviceName {
			number = d.file()
		}
		return append(ids,
			DeviceID{Form: FormGPUUUID, UUID: canonicalUUID(d.GPUUUID)},
			DeviceID{Form: FormNumber, Number: number},
			DeviceID{Form: FormDeviceName, Number: d.file()})
	}
	path := DeviceID{Form: FormMIGPath, UUID: canonicalUUID(d.GPUUUID), GPUInstance: d.GPUInstance, ComputeInstance: anyComputeInstance}
	if d.Kind == KindComputeInstance {
		path.ComputeInstance = d.ComputeInstance
	}
	ids = append(ids, path, DeviceID{Form: FormDeviceNameInstance, Number: d.file(), GPUInstance: d.GPUInstance})
	for _, uuid := range d.MIGUUIDs {
		ids = append(ids, DeviceID{Form: FormMIGUUID, UUID: canonicalUUID(uuid)})
	}
	return ids
}

// file is N of the GPU's /dev/nvidiaN.
func (d *Device) file() int {
	if d.Minor == NoMinor {
		return d.Index
	}
	return d.Minor
}

const (
	hintGone = "see whether the GPU has been lost (gpu_up), and whether the exporter may see all GPUs (NVIDIA_VISIBLE_DEVICES=all)"
	hintMIG  = "after a change of the MIG layout this passes with the next inventory; if it lasts, restart the device plugin, which still hands out MIG devices that are gone"
)

// whyNot explains an assignment of a device plugin that means no device.
func (x *index) whyNot(a *Assignment) (reason, hint string) {
	if i := x.shareOf(a.ID); i >= 0 {
		return fmt.Sprintf("it starts with the UUID of GPU %d, but what follows has no known form", x.devices[i].Index),
			"device plugins that share GPUs by a scheduler of their own do not tell the kubelet which GPU a pod got; use NVIDIA's or GKE's sharing"
	}
	switch id := a.Known; id.Form {
	case FormGPUUUID:
		return "no GPU on this node has this UUID", hintGone
	case FormNumber:
		if x.idType == IDTypeDeviceName {
			return fmt.Sprintf("no GPU is /dev/nvidia%d; %s", id.Number, x.gpus()), hintGone
		}
		return fmt.Sprintf("no GPU has the index %d; %s", id.Number, x.gpus()), hintGone
	case FormDeviceName:
		return fmt.Sprintf("no GPU is /dev/nvidia%d; %s", id.Number, x.gpus()), hintGone
	case FormDeviceNameInstance:
		if len(x.byID[DeviceID{Form: FormDeviceName, Number: id.Number}]) == 0 {
			return fmt.Sprintf("no GPU is /dev/nvidia%d; %s", id.Number, x.gpus()), hintGone
		}
		return fmt.Sprintf("the GPU at /dev/nvidia%d has no GPU instance %d", id.Number, id.GPUInstance), hintMIG
	case FormMIGUUID:
		return "no MIG device on this node has this UUID", hintMIG
	case FormMIGPath:
		if len(x.byID[DeviceID{Form: FormGPUUUID, UUID: id.UUID}]) == 0 {
			return "no GPU on this node has the UUID in it", hintGone
		}
		return fmt.Sprintf("its GPU has no GPU instance %d", id.GPUInstance), hintMIG
	case FormTegra:
		return "it means the only GPU of a node; " + x.gpus(), hintGone
	}
	if id, _ := ParseDeviceID(a.ID); id.Form == FormNumber {
		return "numbers in this resource are no GPUs: KubeVirt's and NVIDIA's sandbox device plugins use IOMMU groups",
			"if they are indexes of GPUs, name the resource with --nvidia-resource-names"
	}
	return "it has no known form", "report the form, and which device plugin gives it, to the exporter's developers"
}

// shareOf gives the position of the GPU with whose UUID the text starts, or -1.
func (x *index) shareOf(id string) int {
	for i := range x.devices {
		d := &x.devices[i]
		if d.Kind == KindGPU && len(id) > len(d.GPUUUID) && d.GPUUUID != "" && strings.EqualFold(id[:len(d.GPUUUID)], d.GPUUUID) {
			// GPU-1 is no share of a simulator's GPU-1, and GPU-12 none of GPU-1.
			if c := id[len(d.GPUUUID)]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return i
			}
		}
	}
	return -1
}

// gpus says which GPUs the node has.
func (x *index) gpus() string {
	n := 0
	for i := range x.devices {
		if x.devices[i].Kind == KindGPU {
			n++
		}
	}
	if n == 1 {
		return "the node has 1 GPU"
	}
	return fmt.Sprintf("the node has %d GPUs", n)
}
