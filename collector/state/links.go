// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

// linkAge returns how long ago it was read which links are up, if it ever was by the
// sampler of the newest sample.
func (v *View) linkAge() (time.Duration, bool) {
	if v.Sample == nil || v.Sample.LinksRead.IsZero() {
		return 0, false
	}
	return v.Age + v.Sample.Time.Sub(v.Sample.LinksRead), true
}

// linkLead is how much older it may be which links are up than a sample: they are
// looked at before it, and once a second at the most.
const linkLead = 3 * time.Second

// LinksFresh says whether there is a sample, and it is known which links are up, neither
// older than it may be, and for how much longer.
func (v *View) LinksFresh(maxAge time.Duration) (left time.Duration, fresh bool) {
	age, read := v.linkAge()
	left = min(maxAge-v.Age, maxAge+linkLead-age)
	return left, read && left >= 0
}

// LinksFreshness is [Node.Freshness] of which links are up.
func (n *Node) LinksFreshness(maxAge time.Duration) (left time.Duration, fresh bool) {
	v := n.glance()
	return v.LinksFresh(maxAge)
}

// linkParent names what has links for as long as it is remembered: a GPU by its UUID,
// an NVSwitch by its number.
type linkParent struct {
	gpu      string
	nvswitch uint32
}

func linkParentOf(e *model.Entity) (parent linkParent, ok bool) {
	switch e.Kind {
	case model.KindGPU:
		return linkParent{gpu: e.UUID}, e.UUID != ""
	case model.KindSwitch:
		return linkParent{nvswitch: e.ID}, true
	}
	return linkParent{}, false
}

// linkMemory has the ports with a link, and whether that is selected. A sampler that
// starts while a link is down cannot tell that it was ever up.
type linkMemory map[linkParent]map[int]bool

// learn takes in what an inventory tells. What was known stays: the GPU may come back,
// or leave MIG mode, in which it has no links.
func (m linkMemory) learn(inv *model.Inventory) {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind != model.KindLink {
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
func (m linkMemory) all() []model.KnownLinks {
	all := make([]model.KnownLinks, 0, len(m))
	for parent, ports := range m {
		all = append(all, model.KnownLinks{GPU: parent.gpu, Switch: parent.nvswitch, Ports: slices.Sorted(maps.Keys(ports))})
	}
	slices.SortFunc(all, func(a, b model.KnownLinks) int {
		return cmp.Or(cmp.Compare(a.GPU, b.GPU), cmp.Compare(a.Switch, b.Switch))
	})
	return all
}

// SwitchPort is a port of an NVSwitch.
type SwitchPort struct {
	Switch uint32
	Port   int
}

// of returns the selected links of the switches.
func (m linkMemory) of(switches []model.Entity) []SwitchPort {
	var all []SwitchPort
	for _, e := range switches {
		ports := m[linkParent{nvswitch: e.ID}]
		for _, port := range slices.Sorted(maps.Keys(ports)) {
			if ports[port] {
				all = append(all, SwitchPort{e.ID, port})
			}
		}
	}
	return all
}

// Links returns the links that are known, for the next sampler.
func (n *Node) Links() []model.KnownLinks {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links.all()
}
