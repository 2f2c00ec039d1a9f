// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// futureTolerance bounds how far ahead of our clock a frame may be. Both processes read the
// same clock, so only a clock step between writing and reading causes a difference.
const futureTolerance = time.Second

// Node is the state of the node. It is safe for concurrent use.
type Node struct {
	Clock  func() time.Time
	report report

	mu       sync.Mutex
	latest   *model.Inventory // as received; the next sample belongs to it
	shown    *model.Inventory // of sample: replaced with it, so that a scrape sees no half of a change
	sample   *model.Sample
	received receipt // of sample
	// processes belongs to processesOf. Generations are not unique across samplers,
	// hence the pointer.
	processes    *model.Processes
	processesOf  *model.Inventory
	gone         []model.Entity // GPUs of earlier inventories that are absent from latest
	goneSwitches []model.Entity // likewise: another engine may not find a lost NVSwitch
	links        linkMemory
	// reused holds the positions in latest, until its first sample, of instances whose id
	// belonged to another instance under the previous sampler. An event of the new sampler
	// may concern either. Timestamps cannot decide, because the clocks may differ.
	reused      map[int]bool
	xids        xid.Counts
	arbiter     xid.Arbiter
	kernel      kernelXIDs
	clockEvents clockEventCounts
	tracking    tracking
	tracks      *TrackView // at sample
	health      HealthState
	profiling   ProfilingState
	peers       PeersState
	changed     chan struct{}
}

// NewNode returns an empty node. It logs GPUs that stop or start to answer, and XIDs with
// their meaning in the catalogue.
func NewNode(logger *slog.Logger, xids *xid.Catalogue) *Node {
	return &Node{
		Clock:   time.Now,
		report:  newReport(logger, xids),
		links:   linkMemory{},
		xids:    xid.NewCounts(),
		arbiter: xid.NewArbiter(),
		changed: make(chan struct{}, 1),
	}
}

// KeepClockEvents sets how long the clock event reasons of each sample are kept.
func (n *Node) KeepClockEvents(window time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clockEvents.window = window
}

// DescribeXIDs sets the catalogue for the log of further XIDs.
func (n *Node) DescribeXIDs(xids *xid.Catalogue) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.report.xids = xids
}

// KeepXIDs sets how long the times of XIDs are kept; 0 keeps none.
func (n *Node) KeepXIDs(window time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.xids.Window = window
}

// unlock releases the mutex, and then logs, because a log may block.
func (n *Node) unlock() {
	pending := n.report.pending
	n.report.pending = nil
	n.mu.Unlock()
	for _, log := range pending {
		log()
	}
}

// Changed delivers a notice after accepted samples. Notices that wait are merged.
func (n *Node) Changed() <-chan struct{} { return n.changed }

// Deliver takes the next frame of a sampler. An error is a [*model.RejectError]: the frame
// was not used. Only a sample causes a notice of Changed. All other frames precede the
// sample that they belong to.
func (n *Node) Deliver(f wire.Frame) (err error) {
	n.mu.Lock()
	defer n.unlock()
	switch {
	case f.Inventory != nil:
		if err := f.Inventory.Validate(); err != nil {
			return &model.RejectError{Reason: model.RejectInvalid, Err: err}
		}
		n.setInventory(f.Inventory)
	case f.Sample != nil:
		if err = n.check("sample", f.Sample, f.Sample.Generation, f.Sample.Time); err == nil {
			n.setSample(f.Sample)
		}
	case f.Processes != nil:
		if err = n.check("processes", f.Processes, f.Processes.Generation, f.Processes.Time); err == nil {
			n.processes, n.processesOf = f.Processes, n.latest
		}
	case f.Tracks != nil:
		if err = n.check("tracks", f.Tracks, f.Tracks.Generation, time.Time{}); err == nil {
			n.tracking.add(n.latest, f.Tracks)
		}
	case f.Profiling != nil:
		if err = n.check("profiling", f.Profiling, f.Profiling.Generation, time.Time{}); err == nil {
			n.profiling.set(f.Profiling, n.latest)
			n.tracking.interrupt()
		}
	case f.Health != nil && f.Health.Failure != "":
		n.health.Failed = true
		n.health.Failures++
	case f.Health != nil:
		if err = n.check("health", f.Health, f.Health.Generation, f.Health.Time); err == nil {
			n.health.set(f.Health, n.latest, n.Clock())
		}
	case f.Peers != nil:
		if err = n.check("topology", f.Peers, f.Peers.Generation, time.Time{}); err == nil {
			n.peers = PeersState{dated[model.Peers]{f.Peers, n.latest}, received(n.Clock())}
		}
	case f.Events != nil:
		if err = n.check("events", f.Events, f.Events.Generation, time.Time{}); err == nil {
			n.addEvents(f.Events.List)
		}
	}
	return err // nil for a failure, which concerns the supervisor only
}

// check validates a frame that belongs to the inventory with a generation. at is zero for
// a frame without a time.
func (n *Node) check(name string, frame interface {
	Validate(inv *model.Inventory) error
}, generation uint64, at time.Time,
) error {
	if n.latest == nil {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("%s before any inventory", name)}
	}
	if generation != n.latest.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("%s of inventory %d, current is %d", name, generation, n.latest.Generation)}
	}
	if err := frame.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	if ahead := at.Sub(n.Clock()); ahead > futureTolerance {
		return &model.RejectError{Reason: model.RejectFuture, Err: fmt.Errorf("%s ahead of the clock by %v", name, ahead.Round(time.Millisecond))}
	}
	return nil
}

func (n *Node) setSample(s *model.Sample) {
	n.shown, n.sample, n.received = n.latest, s, received(n.Clock())
	if n.profiling.of != n.latest { // the sampler has no GPU with profiling
		n.profiling.dated = dated[model.Profiling]{}
	}
	n.placeKernelXIDs()
	n.reused = nil
	n.clockEvents.add(n.latest, s)
	n.tracks = n.tracking.close(n.latest, s, n.gone)
	n.report.gpus(View{Inventory: n.latest, Sample: s, Gone: n.gone})
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func (n *Node) addEvents(events []model.Event) {
	for _, e := range events {
		now, key := n.Clock(), model.KeyOf(n.latest, e.Entity)
		if n.reused[e.Entity] {
			key.Instance, key.Profile = model.Unknown, "" // either instance
		}
		if n.arbiter.Reported(key.UUID, e.Code, e.Time, now) {
			at := e.Time
			if at.After(now) { // the engine's clock is ahead, or the time is damaged
				at = now
			}
			n.xids.Add(key, e.Code, at, now)
			gpu, _ := n.latest.GPU(e.Entity)
			n.report.xid(gpu, xid.Key{EntityKey: key, Code: e.Code}, now)
		}
	}
}
