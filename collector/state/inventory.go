// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"

	"gpu_exporter/collector/model"
)

func (n *Node) setInventory(inv *model.Inventory) {
	n.restoreIdentities(inv)
	n.reused = nil
	if n.latest != nil && inv.Generation <= n.latest.Generation { // of a new sampler
		n.reused = reusedIDs(n.latest, inv)
	}
	n.gone = absent(model.KindGPU, n.gone, n.latest, inv)
	n.goneSwitches = absent(model.KindSwitch, n.goneSwitches, n.latest, inv)
	n.links.add(inv)
	n.latest = inv
	n.matchKernelXIDs()
	n.tracking.keep(inv)
}

// restoreIdentities completes lost GPUs and NVSwitches from earlier inventories. DCGM blanks
// the attributes of a lost device, so a sampler that starts after the loss has none.
func (n *Node) restoreIdentities(inv *model.Inventory) {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		switch {
		case e.Kind == model.KindSwitch && e.UUID == "" && e.PCIBusID == "" && n.latest != nil:
			if known := model.FindSwitch(n.latest, e.ID); known != nil {
				e.UUID, e.PCIBusID = known.UUID, known.PCIBusID
			}
		case e.Kind == model.KindGPU && e.UUID == "":
			for _, known := range slices.Backward(n.knownGPUs()) { // the newest with the id
				if known.ID == e.ID && known.UUID != "" && model.FindGPU(inv, known.UUID) == nil {
					known.State, known.Selected = e.State, e.Selected
					*e = known
					break
				}
			}
		}
	}
}

// knownGPUs returns the GPUs that disappeared, followed by those of the latest inventory.
func (n *Node) knownGPUs() []model.Entity {
	all := slices.Clone(n.gone)
	if n.latest != nil {
		for _, e := range n.latest.Entities {
			if e.Kind == model.KindGPU {
				all = append(all, e)
			}
		}
	}
	return all
}

// absent returns the selected GPUs or NVSwitches of earlier inventories that inv does not
// list. They are lost: gpu_up is 0 for them.
func absent(kind model.EntityKind, before []model.Entity, old, inv *model.Inventory) []model.Entity {
	if old != nil {
		before = slices.Concat(before, old.Entities)
	}
	var gone []model.Entity
	for _, e := range before {
		listed := kind == model.KindSwitch && model.FindSwitch(inv, e.ID) != nil ||
			kind == model.KindGPU && (e.UUID == "" || model.FindGPU(inv, e.UUID) != nil || replaced(&e, inv))
		if e.Kind == kind && e.Selected && !listed {
			e.State = model.EntityLost
			gone = append(gone, e)
		}
	}
	return gone
}

// unlisted returns the devices that inv does not list. It may precede the inventory in
// which they are gone.
func unlisted(gone []model.Entity, inv *model.Inventory) []model.Entity {
	return slices.DeleteFunc(slices.Clone(gone), func(e model.Entity) bool {
		return e.Kind == model.KindGPU && model.FindGPU(inv, e.UUID) != nil ||
			e.Kind == model.KindSwitch && model.FindSwitch(inv, e.ID) != nil
	})
}

// replaced reports whether another GPU in inv has the bus address of the GPU: the card was
// swapped, and its absence is no fault.
func replaced(gpu *model.Entity, inv *model.Inventory) bool {
	return gpu.PCIBusID != "" && slices.ContainsFunc(inv.Entities, func(e model.Entity) bool {
		return e.Kind == model.KindGPU && e.State == model.EntityUp && e.PCIBusID == gpu.PCIBusID && e.UUID != "" && e.UUID != gpu.UUID
	})
}

// reusedIDs returns the positions of the instances in inv whose id belongs to another
// instance in old.
func reusedIDs(old, inv *model.Inventory) map[int]bool {
	type id struct {
		kind model.EntityKind
		id   uint32
	}
	before := make(map[id]model.EntityKey)
	for i, e := range old.Entities {
		before[id{e.Kind, e.ID}] = model.KeyOf(old, i)
	}
	reused := make(map[int]bool)
	for i, e := range inv.Entities {
		if e.Kind != model.KindGPUInstance && e.Kind != model.KindComputeInstance {
			continue
		}
		if key, known := before[id{e.Kind, e.ID}]; known && key != model.KeyOf(inv, i) {
			reused[i] = true
		}
	}
	return reused
}
