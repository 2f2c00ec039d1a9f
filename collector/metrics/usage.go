// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// usage is what each container uses of each device that it holds, by the
// processes of one reading.
type usage struct {
	processes *model.Processes
	places    map[uint32]ProcessPlace // of processes
	old       bool                    // the reading is too old to be shown
	inventory *model.Inventory
	ownership *Ownership
	// owners are, for each entity, what its owners use, in their order; nil for an
	// entity of which that is not known.
	owners [][]ownerUsage
	// troubles counts the processes that are nobody's use.
	troubles map[ProcessTrouble]int
}

// ownerUsage is what one container uses of one device.
type ownerUsage struct {
	known       bool // false: a process may be this container's or another's
	processes   int
	memory      uint64 // bytes
	memoryKnown bool
	kinds       [model.ProcessKindCount]uint64 // memory by kind of process

	rated              bool    // the three are known
	sm, encode, decode float64 // ratios of the whole device
}

// attribute finds out whose the processes are, unless that is known already.
func (f *Families) attribute(v state.View, ownership *Ownership) {
	if !f.cfg.Owners.Usage || f.owners == nil || v.Processes == nil || v.Inventory == nil {
		f.usage = usage{}
		return
	}
	switch places, found := f.owners.Places(v.Processes); {
	case found && (f.usage.processes != v.Processes || f.usage.ownership != ownership):
		f.usage = newUsage(v.Inventory, v.Processes, ownership, places)
	case !found && f.usage.inventory != v.Inventory:
		f.usage = usage{}
	case !found && f.usage.ownership != ownership:
		f.usage = newUsage(v.Inventory, f.usage.processes, ownership, f.usage.places)
	}
	f.usage.old = f.usage.processes == nil || f.node.Clock().Sub(f.usage.processes.Time) > f.cfg.MaxAge
}

// newUsage sums up the processes of each owner. A GPU instance has the processes
// of the compute instances in it.
func newUsage(inv *model.Inventory, p *model.Processes, ownership *Ownership, places map[uint32]ProcessPlace) usage {
	u := usage{
		inventory: inv, processes: p, places: places, ownership: ownership,
		owners:   make([][]ownerUsage, len(inv.Entities)),
		troubles: map[ProcessTrouble]int{},
	}
	for _, t := range processTroubles() {
		u.troubles[t] = 0
	}
	for i := range p.Devices {
		d := &p.Devices[i]
		at := d.Entity
		if inv.Entities[at].Kind == model.KindComputeInstance {
			at = inv.Entities[at].Parent
		}
		owners := ownership.of(at).Owners
		u.add(at, d, owners)
	}
	return u
}

// add counts the processes on one device for the owners of the entity at a
// position.
func (u *usage) add(at int, d *model.DeviceProcesses, owners []Owner) {
	first := u.owners[at] == nil
	if first {
		u.owners[at] = make([]ownerUsage, len(owners))
	}
	all := u.owners[at]
	for i := range all {
		listed, rated := d.Listed == model.StatusOK, d.Listed == model.StatusOK && d.Utilization == model.StatusOK
		// An instance with several devices is known if all of them are.
		all[i].known = listed && (first || all[i].known)
		all[i].memoryKnown = listed && (first || all[i].memoryKnown)
		all[i].rated = rated && (first || all[i].rated)
	}
	for _, process := range d.Processes {
		where := u.places[process.PID]
		i, trouble := ownerOf(where, owners)
		if trouble != "" {
			u.troubles[trouble]++
			markUnknown(all, owners, where, trouble)
			continue
		}
		all[i].count(process)
	}
}

// ownerOf finds the first of the owners that is the container of a process.
func ownerOf(where ProcessPlace, owners []Owner) (int, ProcessTrouble) {
	if where.Trouble != "" {
		return 0, where.Trouble
	}
	found := model.Unknown
	for i, o := range owners {
		if o.Namespace != where.Namespace || o.Pod != where.Pod || where.Container != "" && where.Container != o.Container {
			continue
		}
		switch {
		case found == model.Unknown:
			found = i
		case !o.sameContainer(owners[found]):
			return 0, processContainer // only the pod is known, and two of its containers hold the device
		}
	}
	if found == model.Unknown {
		return 0, processNoOwner
	}
	return found, ""
}

// markUnknown takes back what is known of the owners that a process might be of.
func markUnknown(all []ownerUsage, owners []Owner, where ProcessPlace, trouble ProcessTrouble) {
	for i := range all {
		switch trouble {
		case ProcessGone, ProcessOutside, processNoOwner: // none of them
		case processContainer:
			if owners[i].Namespace == where.Namespace && owners[i].Pod == where.Pod {
				all[i].known = false
			}
		default:
			all[i].known = false
		}
	}
}

func (o *ownerUsage) count(p model.Process) {
	o.processes++
	if p.MemoryKnown {
		o.memory += p.MemoryBytes
		o.kinds[p.Kind] += p.MemoryBytes
	} else {
		o.memoryKnown = false
	}
	o.sm += p.SM
	o.encode += p.Encoder
	o.decode += p.Decoder
}

// perProcess says whether dcgm-exporter splits a field by the owners' processes.
func perProcess(id model.FieldID) bool { return id == field.GPUUtil || id == field.FBUsed }

// appendPerProcess appends dcgm-exporter's form of a value that is split by
// processes: that of the device, and one for each owner. Where dcgm-exporter
// writes 0 for what it cannot tell, nothing is written.
func (f *Families) appendPerProcess(series []Series, entity int, id model.FieldID, cell model.Cell) []Series {
	l := &f.layout.entities[entity]
	series = append(series, Series{l.device, fieldValue(cell)})
	if f.usage.old || f.usage.owners == nil || f.usage.owners[entity] == nil {
		return series
	}
	owners := f.layout.ownership.of(entity).Owners
	for n, v := range l.variants {
		used := f.usage.owners[entity][firstInContainer(owners, v.owner)]
		switch {
		case id == field.GPUUtil && used.known && used.rated:
			series = append(series, Series{f.perProcessLabels(entity, n), Integer(uint64(used.sm*100 + 0.5))})
		case id == field.FBUsed && used.known && used.memoryKnown:
			series = append(series, Series{f.perProcessLabels(entity, n), Integer(used.memory >> 20)})
		}
	}
	return series
}

// perProcessLabels returns the labels of a variant with the pod's UID, which
// dcgm-exporter always writes where it splits by processes.
func (f *Families) perProcessLabels(entity, n int) *LabelSet {
	return f.layout.render(renderedKey{entity, "per_process", 0, n}, func() []Label {
		e := &f.layout.entities[entity]
		v := &e.variants[n]
		attributes := slices.Clone(v.attributes)
		if m := f.layout.ownership.of(entity).Owners[v.owner].Metadata; m != nil && m.UID != "" && !f.cfg.Owners.UID {
			attributes = append(attributes, Label{"pod_uid", m.UID})
			slices.SortFunc(attributes, byName)
		}
		return slices.Concat(e.identity, v.fields, attributes)
	})
}

// firstInContainer returns the first owner in the container of the owner at
// position i, which has the container's usage.
func firstInContainer(owners []Owner, i int) int {
	for i > 0 && owners[i].sameContainer(owners[i-1]) {
		i--
	}
	return i
}
