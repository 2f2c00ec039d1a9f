// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
)

// switchFields are the fields that decide whether an NVSwitch answers: its temperature,
// and whether it needs a reset. DCGM has no status of switches and keeps listing a
// failed one. Its PCI address and last SXid do not help, because DCGM may remember them.
var switchFields = []model.FieldID{858, 864}

// SwitchFields returns the fields to read on NVSwitches in addition to those of the
// counters file.
func (cfg *Config) SwitchFields() []model.FieldID {
	if !cfg.Selected.Has(&definition.GPUNVSwitchUp) {
		return nil
	}
	return slices.Clone(switchFields)
}

// switchUp reports whether the newest sample has a value of the switch at position i.
// known is false if the switch or its library does not have the fields.
func (p *page) switchUp(i int) (up, known bool) {
	columns := p.v.Inventory.Columns[model.KindSwitch]
	for c, cell := range p.v.Sample.Rows[i] {
		if !slices.Contains(switchFields, columns[c]) {
			continue
		}
		switch cell.Status {
		case model.StatusOK:
			return true, true
		case model.StatusBlank, model.StatusStale, model.StatusEntityLost, model.StatusError:
			known = true
		}
	}
	return false, known
}

// addLinks adds the families of NVLinks and NVSwitches.
func (p *page) addLinks() {
	_, linksFresh := p.v.LinksFresh(p.cfg.MaxAge)
	up, down := map[int]int{}, map[int]int{} // links by their parent
	for i := range p.v.Inventory.Entities {
		l, e := &p.layout.entities[i], &p.v.Inventory.Entities[i]
		switch {
		case l.identity == nil:
		case e.Kind == model.KindLink && linksFresh && e.State == model.EntityUp:
			isDown := e.LinkDown != slices.Contains(p.v.Sample.LinksChanged, i)
			p.addLink(i, bit(!isDown))
			if isDown {
				down[e.Parent]++
			} else {
				up[e.Parent]++
			}
		case e.Kind == model.KindSwitch:
			up, known := false, true
			if p.fresh {
				up, known = p.switchUp(i)
			}
			if known {
				p.add(&definition.GPUNVSwitchUp, l.identity, bit(up))
			}
			p.addInfo(&definition.GPUNVSwitchInfo, i, 0, func() []*dto.LabelPair {
				return with(l.identity, "pci_bus_id", e.PCIBusID, "uuid", e.UUID)
			})
		}
	}
	for i := range p.layout.entities {
		if p.layout.entities[i].device && up[i]+down[i] > 0 {
			p.addEntity(&definition.GPUNVLinks, i, float64(down[i]), "down")
			p.addEntity(&definition.GPUNVLinks, i, float64(up[i]), "up")
		}
	}
	// A fresh sample may precede the first list of switches.
	if !p.fresh || p.v.Sample.SwitchesListed {
		for _, gone := range p.v.GoneSwitches {
			p.add(&definition.GPUNVSwitchUp, p.cfg.switchIdentity(gone.ID), 0)
		}
	}
	if linksFresh {
		for _, gone := range p.v.GoneLinks {
			p.add(&definition.GPUNVLinkUp, p.cfg.switchLinkIdentity(gone.Switch, gone.Port), 0)
		}
	}
}

// addLink adds whether the link at position i is up. Unlike the fields of links, which
// have dcgm-exporter's labels, it has the labels of its GPU.
func (p *page) addLink(i int, up float64) {
	f := p.selected(&definition.GPUNVLinkUp)
	if f == nil {
		return
	}
	f.add(p.cached(labelsKey{family: definition.GPUNVLinkUp.Name, entity: i}, func() []*dto.LabelPair {
		e := &p.v.Inventory.Entities[i]
		parent := &p.v.Inventory.Entities[e.Parent]
		if parent.Kind != model.KindGPU {
			return p.layout.entities[i].identity
		}
		return append(with(nil, "nvlink", p.cfg.linkNumber(e)), p.cfg.gpuIdentity(parent)...)
	}), up)
}
