// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"slices"
	"strings"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// instance is a GPU instance or compute instance. A repartition gives its ID to
// another instance, and DCGM then still returns the values of the old one.
type instance struct {
	entity   model.Entity
	appeared int64  // by the engine's clock; 0 means before this sampler
	nvmlUUID string // preferred to DCGM's, which DCGM does not always know
}

type gpuInstance struct {
	instance
	compute []instance
}

// readInstances reads the instances of the GPUs that are up. The instances of all
// other GPUs stay as they were.
func (d *Discovery) readInstances(top native.Topology) native.Code {
	before := make(map[uint32][]gpuInstance) // of the GPUs that are up
	for _, g := range top.GPUs {
		if known := d.gpus[g.ID]; g.Status.Up() && known != nil {
			before[g.ID], known.instances = known.instances, nil
		}
	}
	var entities []native.Pair
	for _, e := range top.Instances {
		entities = append(entities, e.Entity)
	}
	read, c := d.read(entities, fieldName, fieldUUID)
	if c != native.OK {
		return c
	}
	type position struct {
		gpu   *gpu
		index int
	}
	positions := make(map[uint32]position) // of the GPU instances, by ID
	for i, listed := range top.Instances {
		old, up := before[listed.Parent.ID]
		if listed.Entity.Kind != uint32(model.KindGPUInstance) || !up {
			continue
		}
		g := d.gpus[listed.Parent.ID]
		positions[listed.Entity.ID] = position{g, len(g.instances)}
		gi := d.instance(model.KindGPUInstance, listed.Entity.ID, listed.NVMLGPUInstance, read[i])
		for _, o := range old {
			gi.continues(o.instance)
		}
		g.instances = append(g.instances, gpuInstance{instance: gi})
	}
	for i, listed := range top.Instances {
		at, ok := positions[listed.Parent.ID]
		if listed.Entity.Kind != uint32(model.KindComputeInstance) || !ok {
			continue
		}
		gi := &at.gpu.instances[at.index]
		ci := d.instance(model.KindComputeInstance, listed.Entity.ID, listed.NVMLComputeInstance, read[i])
		ci.entity.UUID = read[i].text(fieldUUID)
		for _, old := range before[at.gpu.entity.ID] {
			if !sameInstance(old.entity, gi.entity) || old.appeared != gi.appeared {
				continue
			}
			for _, o := range old.compute {
				ci.continues(o)
			}
		}
		gi.compute = append(gi.compute, ci)
	}
	for id := range before {
		slices.SortFunc(d.gpus[id].instances, func(a, b gpuInstance) int { return cmp.Compare(a.entity.ID, b.entity.ID) })
		for _, gi := range d.gpus[id].instances {
			slices.SortFunc(gi.compute, func(a, b instance) int { return cmp.Compare(a.entity.ID, b.entity.ID) })
		}
	}
	return native.OK
}

// instance returns an instance that did not exist before.
func (d *Discovery) instance(kind model.EntityKind, id, nvmlID uint32, v values) instance {
	n := instance{entity: newEntity(kind, id)}
	n.entity.InstanceID, n.entity.Profile = int(nvmlID), profile(v.text(fieldName))
	if d.started {
		n.appeared = d.now
	}
	return n
}

// continues copies the known data of old if n is the same instance.
func (n *instance) continues(old instance) {
	if sameInstance(old.entity, n.entity) {
		n.appeared, n.nvmlUUID = old.appeared, old.nvmlUUID
		n.entity = merge(old.entity, n.entity)
	}
}

// sameInstance reports whether two instances of a GPU, read at different times, are
// the same one.
func sameInstance(a, b model.Entity) bool {
	return a.ID == b.ID && a.InstanceID == b.InstanceID &&
		(a.Profile == b.Profile || a.Profile == "" || b.Profile == "")
}

// profile returns the profile in an instance's name: "1g.10gb" for "1g.10gb" and for
// NVML's "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
func profile(name string) string {
	if i := strings.LastIndex(name, "MIG "); i >= 0 {
		return name[i+len("MIG "):]
	}
	return name
}

// nameInstances sets the UUIDs and indexes of compute instances and the placements of
// GPU instances to NVML's.
func (d *Discovery) nameInstances() {
	type key struct {
		parent            string
		instance, compute int
	}
	named := make(map[key]model.MIGDevice)
	starts := make(map[key]int)
	for _, m := range d.listMIGDevices() {
		named[key{m.ParentUUID, m.GPUInstanceID, m.ComputeInstanceID}] = m
		starts[key{m.ParentUUID, m.GPUInstanceID, model.Unknown}] = m.PlacementStart
	}
	for _, g := range d.gpus {
		for i := range g.instances {
			gi := &g.instances[i]
			at := key{g.entity.UUID, gi.entity.InstanceID, model.Unknown}
			if start, ok := starts[at]; ok && start != model.Unknown {
				gi.entity.PlacementStart = start
			}
			for j := range gi.compute {
				ci := &gi.compute[j]
				at.compute = ci.entity.InstanceID
				m, ok := named[at]
				if ok {
					ci.entity.Index = m.Index
				}
				ci.nvmlUUID = cmp.Or(m.UUID, ci.nvmlUUID)
				ci.entity.UUID = cmp.Or(ci.nvmlUUID, ci.entity.UUID)
			}
		}
	}
}

func (d *Discovery) listMIGDevices() []model.MIGDevice {
	exist := false
	for _, g := range d.gpus {
		exist = exist || len(g.instances) > 0 && g.entity.State == model.EntityUp
	}
	if !exist || d.cfg.MIGDevices == nil {
		return nil
	}
	devices, err := d.cfg.MIGDevices()
	if err == nil {
		d.migFailure = ""
		return devices
	}
	if failure := err.Error(); failure != d.migFailure {
		d.migFailure = failure
		d.cfg.Logger.Warn("NVML does not list the MIG devices; their UUIDs may be missing", "err", err)
	}
	return nil
}
