// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"maps"
	"time"
)

// entityKey names a GPU, or an instance of it, across inventories and samplers.
// DCGM's entity ids cannot: they are reused after a MIG reconfiguration.
type entityKey struct {
	uuid     string // of the GPU
	instance int    // NVML's GPU instance id, or Unknown for the GPU itself
	profile  string
}

// instanceKey returns the key of the GPU or GPU instance that the entity at
// position i is or lies in.
func instanceKey(inv *Inventory, i int) entityKey {
	key := entityKey{instance: Unknown}
	for i >= 0 && i < len(inv.Entities) {
		switch e := &inv.Entities[i]; e.Kind {
		case KindGPU:
			key.uuid = e.UUID
			return key
		case KindGPUInstance:
			key.instance, key.profile = e.InstanceID, e.Profile
			i = e.Parent
		default:
			i = e.Parent
		}
	}
	return key
}

type xidKey struct {
	entityKey
	code int64
}

type xidCount struct {
	total uint64
	last  time.Time
}

// xidCounts counts XIDs since the exporter started. They outlive samplers, and
// an instance that goes and comes back goes on counting.
type xidCounts map[xidKey]xidCount

func (c xidCounts) add(e entityKey, code int64, at time.Time) {
	k := xidKey{e, code}
	count := c[k]
	count.total++
	if at.After(count.last) {
		count.last = at
	}
	c[k] = count
}

func (c xidCounts) copy() map[xidKey]xidCount {
	if len(c) == 0 {
		return nil
	}
	return maps.Clone(c)
}
