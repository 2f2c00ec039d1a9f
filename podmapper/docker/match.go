// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"slices"
	"strings"

	"gpu_exporter/podmapper"
)

// Device describes one device of the node to Table.Match.
type Device struct {
	podmapper.Device
	// MIG says that the GPU, or the parent GPU, is in MIG mode.
	MIG bool
	// MIGIndex is that of the MIG device which a compute instance is, as in the
	// type MIGIndex; NoIndex if it is not known, and for other kinds.
	MIGIndex int
}

// NoIndex is the Device.MIGIndex of a device that has none.
const NoIndex = -1

// Match joins a table with the devices of the node.
type Match struct {
	// Containers[i] hold devices[i]: sorted by name and ID, each once.
	Containers [][]Container
	// Unmatched are what the table could not resolve, and what it resolved to no
	// device of the node. Sorted.
	Unmatched []Unresolved
}

// Match finds the containers that hold devices. Give it every device of the
// node, also those that are not exported.
//
// A GPU in MIG mode is held by nobody: what can be used are its MIG devices. The
// holders of a compute instance also hold the GPU instance around it. A nil
// table has no holds.
func (t *Table) Match(devices []Device) Match {
	m := Match{Containers: make([][]Container, len(devices))}
	if t == nil {
		return m
	}
	m.Unmatched = slices.Clone(t.Unresolved)
	for i := range t.Holds {
		h := &t.Holds[i]
		s := search{devices: devices, held: make([]bool, len(devices))}
		for _, id := range h.Devices.IDs {
			s.mark(id.String(), func(d *Device) bool { return d.is(id) })
		}
		for _, id := range h.Devices.MIGIndexes {
			s.mark(id.String(), func(d *Device) bool {
				return d.Kind == podmapper.KindComputeInstance && d.Index == id.GPU && d.MIGIndex == id.MIG
			})
		}
		for _, id := range h.Devices.MIGInstances {
			s.mark(id.String(), func(d *Device) bool {
				return d.Kind == podmapper.KindComputeInstance && d.Minor == id.Minor &&
					d.GPUInstance == id.GPUInstance && d.ComputeInstance == id.ComputeInstance
			})
		}
		for i := range devices {
			if s.held[i] || h.Devices.All && devices[i].holdable() {
				m.Containers[i] = append(m.Containers[i], h.Container)
			}
		}
		for _, u := range s.unmatched {
			u.ID, u.Name = h.Container.ID, h.Container.Name
			m.Unmatched = append(m.Unmatched, u)
		}
	}
	slices.SortFunc(m.Unmatched, compareUnresolved)
	return m
}

// search finds the devices of one container.
type search struct {
	devices   []Device
	held      []bool
	unmatched []Unresolved // without the container
}

// mark marks the devices that is picks, and with a compute instance the GPU
// instance around it.
func (s *search) mark(request string, is func(*Device) bool) {
	found, inMIGMode := false, false
	for i := range s.devices {
		d := &s.devices[i]
		switch {
		case !is(d):
		case !d.holdable():
			inMIGMode = true
		default:
			found = true
			s.held[i] = true
			if d.Kind == podmapper.KindComputeInstance {
				s.markAround(d)
			}
		}
	}
	switch {
	case found:
	case inMIGMode:
		s.unmatched = append(s.unmatched, Unresolved{Request: request,
			Reason: "the GPU is in MIG mode, and this is none of its MIG devices",
			Hint:   "give the container a MIG device, such as 0:0"})
	default:
		s.unmatched = append(s.unmatched, Unresolved{Request: request,
			Reason: "no device of this node is that",
			Hint:   "see whether the device has been lost (gpu_up) or the MIG layout was changed, and whether the exporter may see all GPUs (NVIDIA_VISIBLE_DEVICES=all)"})
	}
}

func (s *search) markAround(compute *Device) {
	for i := range s.devices {
		d := &s.devices[i]
		if d.Kind == podmapper.KindGPUInstance && d.GPUUUID == compute.GPUUUID && d.GPUInstance == compute.GPUInstance {
			s.held[i] = true
		}
	}
}

func (d *Device) instance() bool {
	return d.Kind == podmapper.KindGPUInstance || d.Kind == podmapper.KindComputeInstance
}

func (d *Device) holdable() bool {
	return d.Kind == podmapper.KindGPU && !d.MIG || d.instance()
}

// is says whether an ID means the device.
func (d *Device) is(id podmapper.DeviceID) bool {
	gpu := d.Kind == podmapper.KindGPU
	switch id.Form {
	case podmapper.FormNumber:
		return gpu && d.Index == id.Number
	case podmapper.FormDeviceName:
		return gpu && d.Minor == id.Number
	case podmapper.FormGPUUUID:
		return gpu && strings.EqualFold(d.GPUUUID, id.UUID)
	case podmapper.FormMIGUUID:
		return d.instance() && slices.ContainsFunc(d.MIGUUIDs, func(uuid string) bool { return strings.EqualFold(uuid, id.UUID) })
	case podmapper.FormMIGPath:
		return d.Kind == podmapper.KindComputeInstance && strings.EqualFold(d.GPUUUID, id.UUID) &&
			d.GPUInstance == id.GPUInstance && d.ComputeInstance == id.ComputeInstance
	}
	return false
}
