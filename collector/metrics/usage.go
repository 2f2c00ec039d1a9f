// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// usage is what each container uses of each device that it holds, according to the
// processes of one reading.
type usage struct {
	processes *model.Processes
	places    map[uint32]ProcessPlace // of processes
	old       bool                    // the reading is too old to publish
	inventory *model.Inventory
	ownership *Ownership
	// owners are, for each entity, the usage of its owners in their order, or nil if
	// that is unknown.
	owners [][]ownerUsage
	// guests are, by entity, the containers whose processes use a device that they do not
	// hold, such as those of schedulers that share GPUs on their own.
	guests map[int][]guest
	// troubles counts the processes that were attributed to no owner.
	troubles map[ProcessTrouble]int
}

// guest is a container that uses a device without holding it.
type guest struct {
	place ProcessPlace
	ownerUsage
}

// ownerUsage is what one container uses of one device.
type ownerUsage struct {
	known       bool // false if some process may be this container's or another one's
	processes   int
	memory      uint64 // bytes
	memoryKnown bool
	kinds       [model.ProcessKindCount]uint64 // memory by kind of process

	rated              bool    // the three are known
	sm, encode, decode float64 // ratios of the whole device
}

// attribute attributes the newest processes to owners, unless it did so already.
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

// newUsage adds up the processes of each owner. The processes of a compute instance
// count for its GPU instance.
func newUsage(inv *model.Inventory, p *model.Processes, ownership *Ownership, places map[uint32]ProcessPlace) usage {
	u := usage{
		inventory: inv, processes: p, places: places, ownership: ownership,
		owners:   make([][]ownerUsage, len(inv.Entities)),
		guests:   map[int][]guest{},
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
		u.add(at, d, ownership.of(at).Owners)
	}
	return u
}

// add counts the processes on one device for the owners of the entity at a position.
func (u *usage) add(at int, d *model.DeviceProcesses, owners []Owner) {
	if u.owners[at] == nil {
		u.owners[at] = slices.Repeat([]ownerUsage{{known: true, memoryKnown: true, rated: true}}, len(owners))
	}
	all, listed := u.owners[at], d.Listed == model.StatusOK
	for i := range all {
		// The usage of an instance with several devices is known if that of each is.
		all[i].known = all[i].known && listed
		all[i].memoryKnown = all[i].memoryKnown && listed
		all[i].rated = all[i].rated && listed && d.Utilization == model.StatusOK
	}
	for _, process := range d.Processes {
		where := u.places[process.PID]
		i, trouble := ownerOf(where, owners)
		if trouble != "" {
			u.troubles[trouble]++
			markUnknown(all, owners, where, trouble)
			if trouble == processNoOwner {
				u.addGuest(at, d, where, process)
			}
			continue
		}
		all[i].count(process)
	}
}

// addGuest counts a process of a container that does not hold the device.
func (u *usage) addGuest(at int, d *model.DeviceProcesses, where ProcessPlace, process model.Process) {
	all := u.guests[at]
	i := slices.IndexFunc(all, func(g guest) bool { return g.place == where })
	if i < 0 {
		i = len(all)
		all = append(all, guest{where, ownerUsage{known: true, memoryKnown: true, rated: true}})
	}
	all[i].rated = all[i].rated && d.Utilization == model.StatusOK
	all[i].count(process)
	u.guests[at] = all
}

// ownerOf returns the first of the owners that is the container of a process.
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
			return 0, processContainer // only its pod is known, and two containers of that hold the device
		}
	}
	if found == model.Unknown {
		return 0, processNoOwner
	}
	return found, ""
}

// markUnknown marks the usage of the owners that a process may belong to as unknown.
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

// addUsage adds what each owner uses of each device. A reading that is too old is
// attributed to no owner.
func (p *page) addUsage() {
	if p.ownership == nil || p.usage.old {
		return
	}
	for i, all := range p.usage.owners {
		if !p.layout.entities[i].device {
			continue
		}
		owners := p.ownership.of(i).Owners
		for n, used := range all {
			if o := owners[n]; used.known && (n == 0 || !o.sameContainer(owners[n-1])) {
				p.addUsageOf(i, o.Container, o.Namespace, o.Pod, used)
			}
		}
		for _, g := range p.usage.guests[i] {
			p.addUsageOf(i, g.place.Container, g.place.Namespace, g.place.Pod, g.ownerUsage)
		}
	}
}

// addUsageOf adds what one container uses of the device at position i.
func (p *page) addUsageOf(i int, container, namespace, pod string, used ownerUsage) {
	add := func(d *definition.Family, value float64) { p.addEntity(d, i, value, container, namespace, pod) }
	add(&definition.GPUPodProcesses, float64(used.processes))
	if used.memoryKnown {
		add(&definition.GPUPodMemoryUsed, float64(used.memory))
		for kind, bytes := range used.kinds {
			if bytes > 0 {
				p.addEntity(&definition.GPUPodProcessMemoryUsed, i, float64(bytes), container, namespace, pod, model.ProcessKind(kind).String())
			}
		}
	}
	if used.rated {
		add(&definition.GPUPodSMUtilization, used.sm)
		add(&definition.GPUPodEncoderUtilization, used.encode)
		add(&definition.GPUPodDecoderUtilization, used.decode)
	}
}

// addPerProcess adds a value of a device as a whole and, from the processes, of each of
// its owners, as dcgm-exporter does for two fields. It returns false for a value in the
// usual form. dcgm-exporter publishes 0 for an unknown value; here it is omitted.
func (p *page) addPerProcess(family *family, c field.Counter, entity int, value float64) bool {
	l, owners := &p.layout.entities[entity], p.layout.ownership.of(entity).Owners
	id := c.Field.ID
	if !p.cfg.Owners.VirtualGPUs || len(owners) == 0 || l.identity == nil || id != field.GPUUtil && id != field.FBUsed {
		return false
	}
	family.add(p.cached(labelsKey{family: "whole", entity: entity}, func() []*dto.LabelPair { return slices.Concat(l.identity, l.fields) }), value)
	if p.usage.old || p.usage.owners == nil || p.usage.owners[entity] == nil {
		return true
	}
	for n, v := range l.variants {
		// The first owner in the container has the container's usage.
		first := v.owner
		for first > 0 && owners[first].sameContainer(owners[first-1]) {
			first--
		}
		labels := p.cached(labelsKey{family: "per_process", entity: entity, variant: n}, func() []*dto.LabelPair {
			attributes := v.attributes // dcgm-exporter always adds the pod's UID to these series
			if m := owners[v.owner].Metadata; m != nil && m.UID != "" && !p.cfg.Owners.UID {
				attributes = sortedByName(attributes, with(nil, "pod_uid", m.UID))
			}
			return slices.Concat(l.identity, v.fields, attributes)
		})
		used := p.usage.owners[entity][first]
		switch {
		case id == field.GPUUtil && used.known && used.rated:
			family.add(labels, math.Round(used.sm*100)*c.Factor())
		case id == field.FBUsed && used.known && used.memoryKnown:
			family.add(labels, float64(used.memory>>20)*c.Factor())
		}
	}
	return true
}
