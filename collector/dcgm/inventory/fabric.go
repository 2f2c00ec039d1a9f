// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// fabric identifies the devices besides GPUs and instances.
type fabric struct {
	devices native.Fabric
	// switches are the known identities by ID. DCGM never removes a failed switch
	// from its list, but blanks its fields.
	switches map[uint32]model.Entity
	// links are the existing links by entity ID.
	links map[uint32]model.Entity
	// ports are the ports that ever had a link, in this sampler or an earlier one.
	ports map[port]bool
}

// port is a port of a GPU or switch. A GPU is identified by UUID, so that a
// replacement does not inherit its links.
type port struct {
	gpu    string
	parent native.Pair // of a switch, or of a GPU without a known UUID
	number int
}

func newFabric(known []model.KnownLinks) fabric {
	f := fabric{switches: make(map[uint32]model.Entity), ports: make(map[port]bool)}
	for _, k := range known {
		p := port{gpu: k.GPU}
		if k.GPU == "" {
			p.parent = native.PairOf(model.KindSwitch, k.Switch)
		}
		for _, p.number = range k.Ports {
			f.ports[p] = true
		}
	}
	return f
}

// update replaces the devices and decides which links exist.
//
// DCGM reports ports without a link as down. A link that is down exists if its port
// had a link before, or if another link of the same GPU or switch is up.
func (f *fabric) update(devices native.Fabric, gpus map[uint32]*gpu) {
	f.devices = devices
	hasMIG := false
	for _, g := range gpus {
		hasMIG = hasMIG || g.entity.MIGMode
	}
	isUp := func(id uint32) bool { return gpus[id] != nil && gpus[id].entity.State == model.EntityUp }
	linked := make(map[native.Pair]bool) // parents with a link that is up
	for _, l := range devices.Links {
		linked[l.Parent] = linked[l.Parent] || l.State == native.LinkUp
	}
	links := make(map[uint32]model.Entity, len(devices.Links))
	for _, l := range devices.Links {
		p := port{parent: l.Parent, number: l.Port}
		if l.Parent.Kind == uint32(model.KindGPU) {
			if !isUp(l.Parent.ID) {
				continue // DCGM's link states of a lost GPU are wrong
			}
			if uuid := gpus[l.Parent.ID].entity.UUID; uuid != "" {
				p.gpu, p.parent = uuid, native.Pair{}
			}
		}
		exists := l.State == native.LinkUp || f.ports[p] || l.State == native.LinkDown && linked[l.Parent]
		if !exists || l.State == native.LinkDisabled && !hasMIG {
			continue
		}
		f.ports[p] = true
		e := newEntity(model.KindLink, native.LinkID(l.Parent, l.Port))
		e.Port, e.LinkDown = l.Port, l.State != native.LinkUp
		links[e.ID] = e
	}
	for id, e := range f.links {
		parent := native.ParentOfLink(id)
		if parent.Kind == uint32(model.KindGPU) && !isUp(parent.ID) {
			links[id] = e
		}
	}
	f.links = links
}

// UpdateFabric replaces the devices besides GPUs, and reports whether devices or links
// appeared or disappeared. The state of a link is no part of its identity.
func (d *Discovery) UpdateFabric(devices native.Fabric) (changed bool) {
	old, links := d.fabric.devices, d.fabric.links
	d.fabric.update(devices, d.gpus)
	return !slices.Equal(old.Switches, devices.Switches) || !slices.Equal(old.ConnectX, devices.ConnectX) ||
		!slices.EqualFunc(old.CPUs, devices.CPUs, func(a, b native.CPU) bool { return a.ID == b.ID && slices.Equal(a.Cores, b.Cores) }) ||
		!maps.EqualFunc(links, d.fabric.links, func(a, b model.Entity) bool { return true })
}

// LinksChanged returns the positions in inv of the links whose state changed after it.
func (d *Discovery) LinksChanged(inv *model.Inventory) (changed []int) {
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Kind == model.KindLink {
			if now, ok := d.fabric.links[e.ID]; ok && now.LinkDown != e.LinkDown {
				changed = append(changed, i)
			}
		}
	}
	return changed
}

// readSwitches reads the identity of the switches.
func (d *Discovery) readSwitches() native.Code {
	var switches []native.Pair
	for _, id := range d.fabric.devices.Switches {
		switches = append(switches, native.PairOf(model.KindSwitch, id))
	}
	read, c := d.read(switches, fieldUUID, fieldSwitchDomain, fieldSwitchBus, fieldSwitchDevice, fieldSwitchFunction)
	if c != native.OK {
		return c
	}
	for i, s := range switches {
		v := read[i]
		e := newEntity(model.KindSwitch, s.ID)
		e.UUID = v.text(fieldUUID)
		if bus := v.number(fieldSwitchBus); bus != model.Unknown {
			e.PCIBusID = fmt.Sprintf("%08X:%02X:%02X.%X", max(v.number(fieldSwitchDomain), 0), bus,
				max(v.number(fieldSwitchDevice), 0), max(v.number(fieldSwitchFunction), 0))
		}
		if known, ok := d.fabric.switches[s.ID]; ok {
			e = merge(known, e)
		}
		d.fabric.switches[s.ID] = e
	}
	return native.OK
}

// switchEntities returns the switches in the order of an inventory.
func (f *fabric) switchEntities() []model.Entity {
	var all []model.Entity
	for _, id := range f.devices.Switches {
		if known, ok := f.switches[id]; ok {
			all = append(all, known)
		}
	}
	slices.SortFunc(all, func(a, b model.Entity) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// otherEntities returns the links, CPUs, cores and ConnectX devices in the order of
// an inventory, in which they follow the entities of before.
func (f *fabric) otherEntities(before []model.Entity) []model.Entity {
	positions := make(map[native.Pair]int, len(before))
	for i, e := range before {
		positions[native.PairOf(e.Kind, e.ID)] = i
	}
	var all []model.Entity
	for id, e := range f.links {
		if at, ok := positions[native.ParentOfLink(id)]; ok { // a forgotten GPU has none
			e.Parent, e.State = at, before[at].State
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b model.Entity) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Port, b.Port))
	})
	firstCPU := len(before) + len(all)
	for _, c := range f.devices.CPUs {
		all = append(all, newEntity(model.KindCPU, c.ID))
	}
	for i, c := range f.devices.CPUs {
		for _, id := range c.Cores {
			e := newEntity(model.KindCPUCore, id)
			e.Parent = firstCPU + i
			all = append(all, e)
		}
	}
	for _, id := range f.devices.ConnectX {
		all = append(all, newEntity(model.KindConnectX, id))
	}
	return all
}
