// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// View is a consistent snapshot of a [Node]. Its parts are immutable.
type View struct {
	Inventory    *model.Inventory // nil before the first
	Sample       *model.Sample    // of Inventory; nil before the first
	Processes    *model.Processes // of Inventory; nil if it has none
	Profiling    ProfilingState   // of Inventory
	Age          time.Duration    // of Sample
	Gone         []model.Entity   // known GPUs that Inventory does not list
	GoneSwitches []model.Entity   // likewise
	GoneLinks    []SwitchPort     // of GoneSwitches
	XIDs         map[xid.Key]xid.Count
	XIDSource    xid.Source
	StrayXIDs    uint64             // XIDs of the kernel log that matched no known GPU
	RecentXIDs   map[xid.Key]uint64 // in the window of [Node.KeepXIDs]

	ClockEvents map[model.EntityKey]ClockEvents
	Tracks      *TrackView  // nil before the first sample
	Health      HealthState // of Inventory
	Peers       PeersState  // of Inventory
}

// GPU returns the GPU with the UUID, including one that DCGM no longer lists, or nil.
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

// View returns the current state.
func (n *Node) View() View {
	n.mu.Lock()
	defer n.unlock()
	now := n.Clock()
	n.expireKernelXIDs(now)
	v := n.newest(now)
	v.Gone, v.GoneSwitches = unlisted(n.gone, v.Inventory), unlisted(n.goneSwitches, v.Inventory)
	v.GoneLinks, v.Tracks = n.links.ofSwitches(v.GoneSwitches), n.tracks
	v.Health, v.Peers = n.health.at(v.Inventory), n.peers.at(v.Inventory)
	v.XIDs, v.RecentXIDs, v.StrayXIDs = n.xids.Totals(), n.xids.Recent(now), n.kernel.strays
	v.XIDSource = n.arbiter.Source()
	v.ClockEvents = n.clockEvents.copy()
	v.Profiling = n.profiling.at(v.Inventory)
	return v
}

// newest returns a view of the newest sample only, without copies. The mutex must be held.
func (n *Node) newest(now time.Time) View {
	v := View{Inventory: n.shown, Sample: n.sample}
	if v.Sample == nil {
		v.Inventory = n.latest
	} else {
		v.Age = n.received.age(n.sample.Time, now)
	}
	if v.Inventory == n.processesOf {
		v.Processes = n.processes
	}
	return v
}

func (n *Node) glance() View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newest(n.Clock())
}

// Newest returns the newest inventory and its newest sample; each may be nil.
func (n *Node) Newest() (*model.Inventory, *model.Sample) {
	v := n.glance()
	return v.Inventory, v.Sample
}

// Processes returns the newest processes on the devices, or nil.
func (n *Node) Processes() *model.Processes { return n.glance().Processes }

// Freshness reports whether a sample exists that is no older than maxAge, and for how much
// longer.
func (n *Node) Freshness(maxAge time.Duration) (left time.Duration, fresh bool) {
	v := n.glance()
	if v.Sample == nil || v.Age > maxAge {
		return 0, false
	}
	return maxAge - v.Age, true
}

// Staleness describes the age of the newest sample.
func (n *Node) Staleness() string {
	v := n.glance()
	if v.Sample == nil {
		return "no sample yet"
	}
	return fmt.Sprintf("the newest sample is %v old", v.Age.Round(time.Second))
}
