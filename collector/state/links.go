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

// linkLead is how much older than the sample the link states may be. The sampler reads them
// before the sample, at most once per second.
const linkLead = 3 * time.Second

// LinksFresh reports whether the sample and its link states are fresh, and for how much
// longer.
func (v *View) LinksFresh(maxAge time.Duration) (left time.Duration, fresh bool) {
	if v.Sample == nil || v.Sample.LinksRead.IsZero() {
		return 0, false
	}
	age := v.Age + v.Sample.Time.Sub(v.Sample.LinksRead)
	left = min(maxAge-v.Age, maxAge+linkLead-age)
	return left, left >= 0
}

// LinksFreshness is [Node.Freshness] for the link states.
func (n *Node) LinksFreshness(maxAge time.Duration) (left time.Duration, fresh bool) {
	v := n.glance()
	return v.LinksFresh(maxAge)
}

// linkParent identifies a GPU by its UUID or an NVSwitch by its number.
type linkParent struct {
	gpu      string
	nvswitch uint32
}

// linkMemory holds the ports that have had a link, and whether the link is selected. A
// sampler that starts while a link is down cannot detect that it was once up.
type linkMemory map[linkParent]map[int]bool

// add adds the links of an inventory. Known links remain: a GPU may return, or leave MIG
// mode, in which it has no links.
func (m linkMemory) add(inv *model.Inventory) {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind != model.KindLink {
			continue
		}
		var parent linkParent
		switch p := &inv.Entities[e.Parent]; {
		case p.Kind == model.KindGPU && p.UUID != "":
			parent.gpu = p.UUID
		case p.Kind == model.KindSwitch:
			parent.nvswitch = p.ID
		default:
			continue
		}
		if m[parent] == nil {
			m[parent] = map[int]bool{}
		}
		m[parent][e.Port] = e.Selected
	}
}

// SwitchPort is a port of an NVSwitch.
type SwitchPort struct {
	Switch uint32
	Port   int
}

// ofSwitches returns the selected links of the switches.
func (m linkMemory) ofSwitches(switches []model.Entity) []SwitchPort {
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

// Links returns the known links for the next sampler, in a fixed order.
func (n *Node) Links() []model.KnownLinks {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]model.KnownLinks, 0, len(n.links))
	for parent, ports := range n.links {
		all = append(all, model.KnownLinks{GPU: parent.gpu, Switch: parent.nvswitch, Ports: slices.Sorted(maps.Keys(ports))})
	}
	slices.SortFunc(all, func(a, b model.KnownLinks) int {
		return cmp.Or(cmp.Compare(a.GPU, b.GPU), cmp.Compare(a.Switch, b.Switch))
	})
	return all
}
