// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// futureTolerance is how far ahead of our clock a sample may be. Both processes
// read the same clock, so only a step of it between writing and reading counts.
const futureTolerance = time.Second

// Node is what the exporter knows of the node: the newest inventory, sample and
// reading of processes, every GPU ever seen, and the events counted so far. It outlives any sampler.
type Node struct {
	Clock  func() time.Time
	report report

	mu       sync.Mutex
	latest   *model.Inventory // as received; the next sample belongs to it
	shown    *model.Inventory // of sample: replaced with it, so that no scrape sees half a change
	sample   *model.Sample
	received time.Time // of sample, with the monotonic clock
	// processes is the newest reading of the devices of processesOf. Another
	// sampler's inventory may have the same generation, hence the pointer.
	processes   *model.Processes
	processesOf *model.Inventory
	profiling   ProfilingState
	gone        []model.Entity // GPUs that an earlier inventory had and the latest lacks
	// GoneSwitches are such NVSwitches: another engine may not find one that is lost.
	goneSwitches []model.Entity
	links        linkMemory
	goneLinks    []SwitchPort // of GoneSwitches
	// reused are the positions in latest, until its first sample, of instances whose ids
	// were other ones' before a sampler that does not know it: what it tells before that
	// may have happened before it came. Times tell nothing: an engine may have a clock of
	// its own.
	reused      map[int]bool
	xids        xid.Ledger
	kernel      kernelXIDs
	clockEvents clockEventCounts
	tracking    tracking
	tracks      *TrackView // what it had come to at sample
	health      HealthState
	peers       PeersState
	changed     chan struct{}
}

// NewNode returns a node of which nothing is known yet. It logs GPUs that come
// and go, and XIDs, which it describes by the catalogue.
func NewNode(logger *slog.Logger, xids *xid.Catalogue) *Node {
	return &Node{
		Clock:   time.Now,
		report:  newReport(logger, xids),
		links:   linkMemory{},
		xids:    xid.NewLedger(),
		changed: make(chan struct{}, 1),
	}
}

// KeepClockEvents says for how long the clock event reasons of each sample are kept.
func (n *Node) KeepClockEvents(window time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clockEvents.window = window
}

// unlock ends what may have found something to say, and says it.
func (n *Node) unlock() {
	said := n.report.said
	n.report.said = nil
	n.mu.Unlock()
	n.report.write(said)
}

// Changed delivers after every accepted sample, at most one notice at a time.
func (n *Node) Changed() <-chan struct{} { return n.changed }

// Deliver takes the next frame of a sampler. An error, always a [*model.RejectError],
// means that the frame was not used.
func (n *Node) Deliver(f wire.Frame) error {
	switch {
	case f.Inventory != nil:
		return n.setInventory(f.Inventory)
	case f.Sample != nil:
		return n.setSample(f.Sample)
	case f.Processes != nil:
		return n.setProcesses(f.Processes)
	case f.Tracks != nil:
		return n.setTracks(f.Tracks)
	case f.Profiling != nil:
		return n.setProfiling(f.Profiling)
	case f.Health != nil:
		return n.setHealth(f.Health)
	case f.Peers != nil:
		return n.setPeers(f.Peers)
	case f.Events != nil:
		return n.addEvents(f.Events)
	default: // a failure concerns the supervisor only
		return nil
	}
}

func (n *Node) setInventory(inv *model.Inventory) error {
	if err := inv.Validate(); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	n.mu.Lock()
	defer n.unlock()
	n.recallIdentities(inv)
	n.reused = nil
	if n.latest != nil && inv.Generation <= n.latest.Generation {
		n.reused = reusedIDs(n.latest, inv)
	}
	n.gone = gpusGone(n.gone, n.latest, inv)
	n.goneSwitches = switchesGone(n.goneSwitches, n.latest, inv)
	n.links.learn(inv)
	n.goneLinks = n.links.of(n.goneSwitches)
	n.latest = inv
	n.placeKernelXIDs()
	n.tracking.keep(inv)
	return nil
}

// recallIdentities fills in who a lost GPU or NVSwitch was. DCGM blanks what it has
// of a lost one, so a sampler that starts after the loss cannot tell.
func (n *Node) recallIdentities(inv *model.Inventory) {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind == model.KindSwitch && n.latest != nil {
			if known := model.FindSwitch(n.latest, e.ID); known != nil && e.UUID == "" && e.PCIBusID == "" {
				e.UUID, e.PCIBusID = known.UUID, known.PCIBusID
			}
		}
		if e.Kind != model.KindGPU || e.UUID != "" {
			continue
		}
		for _, known := range slices.Backward(n.known()) { // the last that had the id
			if known.ID == e.ID && known.UUID != "" && model.FindGPU(inv, known.UUID) == nil {
				known.State, known.Selected = e.State, e.Selected
				*e = known
				break
			}
		}
	}
}

// known returns the GPUs that are gone, and then those of the current inventory.
func (n *Node) known() []model.Entity {
	all := append([]model.Entity(nil), n.gone...)
	if n.latest != nil {
		for _, e := range n.latest.Entities {
			if e.Kind == model.KindGPU {
				all = append(all, e)
			}
		}
	}
	return all
}

// gpusGone returns the GPUs of earlier inventories that inv lacks, so that
// gpu_up can say 0 for them instead of saying nothing.
func gpusGone(gone []model.Entity, old, inv *model.Inventory) []model.Entity {
	var still []model.Entity
	keep := func(e model.Entity) {
		if e.Kind == model.KindGPU && e.Selected && e.UUID != "" && model.FindGPU(inv, e.UUID) == nil {
			e.State = model.EntityLost
			still = append(still, e)
		}
	}
	for _, e := range gone {
		keep(e)
	}
	if old != nil {
		for _, e := range old.Entities {
			keep(e)
		}
	}
	return still
}

// reusedIDs returns the positions of the instances in inv whose ids others have in old.
func reusedIDs(old, inv *model.Inventory) map[int]bool {
	type id struct {
		kind model.EntityKind
		id   uint32
	}
	before := make(map[id]model.EntityKey)
	for i := range old.Entities {
		e := &old.Entities[i]
		before[id{e.Kind, e.ID}] = model.KeyOf(old, i)
	}
	reused := make(map[int]bool)
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind != model.KindGPUInstance && e.Kind != model.KindComputeInstance {
			continue
		}
		if key, known := before[id{e.Kind, e.ID}]; known && key != model.KeyOf(inv, i) {
			reused[i] = true
		}
	}
	return reused
}

// switchesGone returns the NVSwitches of earlier inventories that inv lacks.
func switchesGone(gone []model.Entity, old, inv *model.Inventory) []model.Entity {
	all := slices.Clone(gone)
	if old != nil {
		all = slices.Concat(all, old.Entities)
	}
	return slices.DeleteFunc(all, func(e model.Entity) bool {
		return e.Kind != model.KindSwitch || !e.Selected || model.FindSwitch(inv, e.ID) != nil
	})
}

func (n *Node) setSample(s *model.Sample) error {
	n.mu.Lock()
	defer n.unlock()
	now := n.Clock()
	if n.latest == nil {
		return &model.RejectError{Reason: model.RejectInventory, Err: errors.New("sample before any inventory")}
	}
	if s.Generation != n.latest.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("sample of inventory %d, current is %d", s.Generation, n.latest.Generation)}
	}
	if err := s.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	if ahead := s.Time.Sub(now); ahead > futureTolerance {
		return &model.RejectError{Reason: model.RejectFuture, Err: fmt.Errorf("sample is %v ahead of the clock", ahead.Round(time.Millisecond))}
	}
	n.shown, n.sample, n.received = n.latest, s, now
	n.profiling.sampled(n.latest)
	n.decideXIDs()
	n.reused = nil
	n.clockEvents.add(n.latest, s)
	n.tracks = n.tracking.close(n.latest, s, n.gone)
	n.report.gpus(View{Inventory: n.latest, Sample: s, Gone: n.gone})
	select {
	case n.changed <- struct{}{}:
	default:
	}
	return nil
}

// setProcesses takes a reading of processes. It is no reason to publish anew: the
// sample that follows it is.
func (n *Node) setProcesses(p *model.Processes) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != p.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("processes of inventory %d", p.Generation)}
	}
	if err := p.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	if ahead := p.Time.Sub(n.Clock()); ahead > futureTolerance {
		return &model.RejectError{Reason: model.RejectFuture, Err: fmt.Errorf("processes are %v ahead of the clock", ahead.Round(time.Millisecond))}
	}
	n.processes, n.processesOf = p, n.latest
	return nil
}

func (n *Node) addEvents(events *model.Events) error {
	n.mu.Lock()
	defer n.unlock()
	if n.latest == nil || n.latest.Generation != events.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("events of inventory %d", events.Generation)}
	}
	if err := events.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	for _, e := range events.List {
		now, key := n.Clock(), model.KeyOf(n.latest, e.Entity)
		if n.reused[e.Entity] {
			key.Instance, key.Profile = model.Unknown, "" // it may be of either
		}
		if n.xids.AddSample(key, e.Code, e.Time, now) {
			gpu, _ := n.latest.GPU(e.Entity)
			n.report.xid(gpu, xid.Key{EntityKey: key, Code: e.Code}, now)
		}
	}
	return nil
}

// KeepXIDs keeps, from now on, the times of XIDs for as long as window; 0 is not
// at all.
func (n *Node) KeepXIDs(window time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.xids.Counts.Window = window
}
