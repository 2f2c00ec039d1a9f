// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"maps"
	"slices"
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
type xidCounts struct {
	total map[xidKey]xidCount
	// window is how long the times of XIDs are kept, in times.
	window time.Duration
	times  map[xidKey][]xidSecond
}

// xidSecond is how many XIDs came within a second from at, which is of the monotonic
// clock, as the other may be set.
type xidSecond struct {
	at    time.Time
	count uint64
}

func newXIDCounts() xidCounts {
	return xidCounts{total: map[xidKey]xidCount{}, times: map[xidKey][]xidSecond{}}
}

// add counts an XID that happened at a time and of which we were told at another.
func (c *xidCounts) add(e entityKey, code int64, at, told time.Time) {
	k := xidKey{e, code}
	count := c.total[k]
	count.total++
	if at.After(count.last) {
		count.last = at
	}
	c.total[k] = count
	if c.window == 0 {
		return
	}
	times, came := c.times[k], told.Add(-max(0, told.Sub(at)))
	for i := range slices.Backward(times) {
		if since := came.Sub(times[i].at); since >= 0 && since < time.Second {
			times[i].count++
			return
		}
	}
	c.times[k] = append(times, xidSecond{came, 1})
}

// recent returns how many XIDs came within the window before now, of those that
// have some.
func (c *xidCounts) recent(now time.Time) map[xidKey]uint64 {
	if c.window == 0 {
		return nil
	}
	recent := make(map[xidKey]uint64, len(c.times))
	for k, times := range c.times {
		times = slices.DeleteFunc(times, func(s xidSecond) bool { return now.Sub(s.at) > c.window })
		if len(times) == 0 {
			delete(c.times, k)
			continue
		}
		c.times[k] = times
		for _, s := range times {
			recent[k] += s.count
		}
	}
	return recent
}

func (c *xidCounts) copy() map[xidKey]xidCount {
	if len(c.total) == 0 {
		return nil
	}
	return maps.Clone(c.total)
}
