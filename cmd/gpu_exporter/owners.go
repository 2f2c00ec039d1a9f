// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"

	"gpu_exporter/collector"
	"gpu_exporter/podmapper"
)

// podOwners joins the kubelet's table of owners with an inventory: the only
// place where collector and podmapper meet.
type podOwners struct {
	mapper *podmapper.Mapper

	mu        sync.Mutex
	inventory *collector.Inventory
	table     *podmapper.Table
	ownership *collector.Ownership // of inventory and table
}

// Ownership implements collector.OwnerSource.
func (o *podOwners) Ownership(inv *collector.Inventory) *collector.Ownership {
	table := o.mapper.Table()
	o.mu.Lock()
	defer o.mu.Unlock()
	if table == nil {
		o.inventory, o.table, o.ownership = nil, nil, nil
		return nil
	}
	same := o.table != nil && o.table.Version == table.Version
	if o.inventory != inv || !same {
		o.inventory, o.table = inv, table
		o.ownership = ownership(table.Match(devices(inv)))
	}
	return o.ownership
}

// MappingStatus implements collector.OwnerSource.
func (o *podOwners) MappingStatus() collector.MappingStatus {
	s := o.mapper.Status()
	failures := make(map[string]uint64, len(podmapper.Reasons()))
	for _, reason := range podmapper.Reasons() {
		failures[string(reason)] = s.Failures[reason]
	}
	return collector.MappingStatus{Up: s.Up, LastSuccess: s.LastSuccess, Duration: s.Duration, Failures: failures}
}

// devices describes the entities of an inventory that a container can hold, at
// the entities' positions.
func devices(inv *collector.Inventory) []podmapper.Device {
	all := make([]podmapper.Device, len(inv.Entities))
	for i := range inv.Entities {
		e := &inv.Entities[i]
		gpu, ok := inv.GPU(i)
		if !ok {
			continue
		}
		d := podmapper.Device{
			GPUUUID:         gpu.UUID,
			Index:           gpu.Index,
			Minor:           gpu.Minor,
			GPUInstance:     collector.Unknown,
			ComputeInstance: collector.Unknown,
		}
		switch e.Kind {
		case collector.KindGPU:
			d.Kind = podmapper.KindGPU
		case collector.KindGPUInstance:
			d.Kind, d.GPUInstance = podmapper.KindGPUInstance, e.InstanceID
			for _, child := range inv.Entities[i+1:] {
				if child.Kind == collector.KindComputeInstance && child.Parent == i && child.UUID != "" {
					d.MIGUUIDs = append(d.MIGUUIDs, child.UUID)
				}
			}
		case collector.KindComputeInstance:
			d.Kind, d.GPUInstance, d.ComputeInstance = podmapper.KindComputeInstance, inv.Entities[e.Parent].InstanceID, e.InstanceID
			if e.UUID != "" {
				d.MIGUUIDs = []string{e.UUID}
			}
		default:
			continue
		}
		all[i] = d
	}
	return all
}

func ownership(m podmapper.Match) *collector.Ownership {
	o := &collector.Ownership{Owners: make([][]collector.Owner, len(m.Owners)), Unmatched: len(m.Unmatched)}
	for i, owners := range m.Owners {
		for _, owner := range owners {
			o.Owners[i] = append(o.Owners[i], collector.Owner{
				Namespace: owner.Namespace, Pod: owner.Pod, Container: owner.Container, Replica: owner.Replica,
			})
		}
	}
	return o
}
