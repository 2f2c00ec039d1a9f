// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"maps"
	"slices"
)

// KnownLinks are the ports of a GPU or NVSwitch that have a link, be that up or down.
type KnownLinks struct {
	GPU    string // its UUID; empty for a switch
	Switch uint32 // DCGM's id
	Ports  []int
}

// linkParent names what has links for as long as it is remembered: a GPU by its UUID,
// an NVSwitch by its number.
type linkParent struct {
	gpu      string
	nvswitch uint32
}

func linkParentOf(e *Entity) (parent linkParent, ok bool) {
	switch e.Kind {
	case KindGPU:
		return linkParent{gpu: e.UUID}, e.UUID != ""
	case KindSwitch:
		return linkParent{nvswitch: e.ID}, true
	}
	return linkParent{}, false
}

// linkMemory has the ports with a link, and whether that is selected. A sampler that
// starts while a link is down cannot tell that it was ever up.
type linkMemory map[linkParent]map[int]bool

// learn takes in what an inventory tells. What was known stays: the GPU may come back,
// or leave MIG mode, in which it has no links.
func (m linkMemory) learn(inv *Inventory) {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind != KindLink {
			continue
		}
		parent, ok := linkParentOf(&inv.Entities[e.Parent])
		if !ok {
			continue
		}
		if m[parent] == nil {
			m[parent] = map[int]bool{}
		}
		m[parent][e.Port] = e.Selected
	}
}

// all returns all of it, in an order of its own.
func (m linkMemory) all() []KnownLinks {
	all := make([]KnownLinks, 0, len(m))
	for parent, ports := range m {
		all = append(all, KnownLinks{parent.gpu, parent.nvswitch, slices.Sorted(maps.Keys(ports))})
	}
	slices.SortFunc(all, func(a, b KnownLinks) int {
		return cmp.Or(cmp.Compare(a.GPU, b.GPU), cmp.Compare(a.Switch, b.Switch))
	})
	return all
}

// switchPort is a port of an NVSwitch.
type switchPort struct {
	nvswitch uint32
	port     int
}

// of returns the selected links of the switches.
func (m linkMemory) of(switches []Entity) []switchPort {
	var all []switchPort
	for _, e := range switches {
		ports := m[linkParent{nvswitch: e.ID}]
		for _, port := range slices.Sorted(maps.Keys(ports)) {
			if ports[port] {
				all = append(all, switchPort{e.ID, port})
			}
		}
	}
	return all
}

// Links returns the links that are known, for the next sampler.
func (n *Node) Links() []KnownLinks {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links.all()
}
