// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// View is a consistent reading of a Node. Its parts are immutable.
type View struct {
	Inventory *model.Inventory // nil until the first
	Sample    *model.Sample    // nil until the first; of inventory
	Processes *model.Processes // nil if none was read; of inventory
	Profiling ProfilingState   // of inventory
	Age       time.Duration
	Gone      []model.Entity
	// GoneSwitches are as gone, of NVSwitches, and GoneLinks the links of these.
	GoneSwitches []model.Entity
	GoneLinks    []SwitchPort
	XIDs         map[xid.Key]xid.Count
	StrayXIDs    uint64 // of the kernel log, on no known GPU
	// RecentXIDs are those of the window that was asked for.
	RecentXIDs map[xid.Key]uint64

	ClockEvents map[model.EntityKey]ClockEvents
	Tracks      *TrackView  // nil until the first sample
	Health      HealthState // of inventory
	Peers       PeersState  // of inventory
}

// GPU returns the GPU with the UUID, be it there or gone; nil if it is not known.
func (v *View) GPU(uuid string) *model.Entity {
	if gpu := model.FindGPU(v.Inventory, uuid); gpu != nil {
		return gpu
	}
	for i := range v.Gone {
		if v.Gone[i].UUID == uuid {
			return &v.Gone[i]
		}
	}
	return nil
}

// View returns all of it.
func (n *Node) View() View {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.Clock()
	n.xids.Settle(now)
	v := n.newest(now)
	v.GoneSwitches, v.GoneLinks = n.goneSwitches, n.goneLinks
	v.Gone, v.Tracks = n.gone, n.tracks
	v.Health, v.Peers = n.health.at(v.Inventory), n.peers.at(v.Inventory)
	v.XIDs, v.RecentXIDs, v.StrayXIDs = n.xids.Counts.Totals(), n.xids.Counts.Recent(now), n.kernel.strays
	v.ClockEvents = n.clockEvents.copy()
	v.Profiling = n.profiling.at(v.Inventory)
	return v
}

// newest returns what a view has of the newest sample. The mutex must be held.
func (n *Node) newest(now time.Time) View {
	v := View{Inventory: n.shown, Sample: n.sample}
	if v.Sample == nil {
		v.Inventory = n.latest
	} else {
		// The sample's own time says how old it was on arrival; from then on the
		// monotonic clock counts, which a step of the wall clock cannot fool.
		v.Age = max(0, n.received.Sub(n.sample.Time)) + now.Sub(n.received)
	}
	if v.Inventory == n.processesOf {
		v.Processes = n.processes
	}
	return v
}

// glance is a view of the newest sample alone: it copies nothing.
func (n *Node) glance() View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newest(n.Clock())
}

// Newest returns the newest inventory and the newest sample of it; nil where
// there is none.
func (n *Node) Newest() (*model.Inventory, *model.Sample) {
	v := n.glance()
	return v.Inventory, v.Sample
}

// Processes returns the newest reading of the processes on the devices, or nil.
func (n *Node) Processes() *model.Processes { return n.glance().Processes }

// Freshness says whether a sample exists that is no older than maxAge, and for
// how much longer.
func (n *Node) Freshness(maxAge time.Duration) (left time.Duration, fresh bool) {
	v := n.glance()
	if v.Sample == nil || v.Age > maxAge {
		return 0, false
	}
	return maxAge - v.Age, true
}

// Staleness says in words how old the newest sample is.
func (n *Node) Staleness() string {
	v := n.glance()
	if v.Sample == nil {
		return "no sample yet"
	}
	return fmt.Sprintf("the newest sample is %v old", v.Age.Round(time.Second))
}
