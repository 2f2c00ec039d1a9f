// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// futureTolerance is how far ahead of our clock a sample may be. Both processes
// read the same clock, so only a step of it between writing and reading counts.
const futureTolerance = time.Second

// Node is what the exporter knows of the node: the newest inventory, sample and
// reading of processes, every GPU ever seen, and the events counted so far. It outlives any sampler.
type Node struct {
	now    func() time.Time
	report report

	mu       sync.Mutex
	latest   *Inventory // as received; the next sample belongs to it
	shown    *Inventory // of sample: replaced with it, so that no scrape sees half a change
	sample   *Sample
	received time.Time // of sample, with the monotonic clock
	// processes is the newest reading of the devices of processesOf. Another
	// sampler's inventory may have the same generation, hence the pointer.
	processes   *Processes
	processesOf *Inventory
	profiling   profilingState
	gone        []Entity // GPUs that an earlier inventory had and the latest lacks
	// goneSwitches are such NVSwitches: another engine may not find one that is lost.
	goneSwitches []Entity
	links        linkMemory
	goneLinks    []switchPort // of goneSwitches
	// reused are the positions in latest, until its first sample, of instances whose ids
	// were other ones' before a sampler that does not know it: what it tells before that
	// may have happened before it came. Times tell nothing: an engine may have a clock of
	// its own.
	reused      map[int]bool
	xids        xidLedger
	kernel      kernelXIDs
	clockEvents clockEvents
	tracking    tracking
	tracks      *trackView // what it had come to at sample
	health      healthState
	peers       peersState
	changed     chan struct{}
}

// NewNode returns a node of which nothing is known yet. It logs GPUs that come
// and go, and XIDs, which it describes by the catalogue.
func NewNode(logger *slog.Logger, xids *XIDCatalogue) *Node {
	return &Node{
		now:     time.Now,
		report:  newReport(logger, xids),
		links:   linkMemory{},
		xids:    newXIDLedger(),
		changed: make(chan struct{}, 1),
	}
}

// keepClockEvents says for how long the clock event reasons of each sample are kept.
func (n *Node) keepClockEvents(window time.Duration) {
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

// Deliver takes the next frame of a sampler. An error, always a [*RejectError],
// means that the frame was not used.
func (n *Node) Deliver(f Frame) error {
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
	case f.Failure != nil:
		return nil
	default:
		return n.addEvents(f.Generation, f.Events)
	}
}

func (n *Node) setInventory(inv *Inventory) error {
	if err := inv.validate(); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
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
func (n *Node) recallIdentities(inv *Inventory) {
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind == KindSwitch && n.latest != nil {
			if known := findSwitch(n.latest, e.ID); known != nil && e.UUID == "" && e.PCIBusID == "" {
				e.UUID, e.PCIBusID = known.UUID, known.PCIBusID
			}
		}
		if e.Kind != KindGPU || e.UUID != "" {
			continue
		}
		for _, known := range slices.Backward(n.known()) { // the last that had the id
			if known.ID == e.ID && known.UUID != "" && findGPU(inv, known.UUID) == nil {
				known.State, known.Selected = e.State, e.Selected
				*e = known
				break
			}
		}
	}
}

// known returns the GPUs that are gone, and then those of the current inventory.
func (n *Node) known() []Entity {
	all := append([]Entity(nil), n.gone...)
	if n.latest != nil {
		for _, e := range n.latest.Entities {
			if e.Kind == KindGPU {
				all = append(all, e)
			}
		}
	}
	return all
}

func findGPU(inv *Inventory, uuid string) *Entity {
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Kind == KindGPU && e.UUID == uuid {
			return e
		}
	}
	return nil
}

// gpusGone returns the GPUs of earlier inventories that inv lacks, so that
// gpu_up can say 0 for them instead of saying nothing.
func gpusGone(gone []Entity, old, inv *Inventory) []Entity {
	var still []Entity
	keep := func(e Entity) {
		if e.Kind == KindGPU && e.Selected && e.UUID != "" && findGPU(inv, e.UUID) == nil {
			e.State = EntityLost
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
func reusedIDs(old, inv *Inventory) map[int]bool {
	type id struct {
		kind EntityKind
		id   uint32
	}
	before := make(map[id]entityKey)
	for i := range old.Entities {
		e := &old.Entities[i]
		before[id{e.Kind, e.ID}] = instanceKey(old, i)
	}
	reused := make(map[int]bool)
	for i := range inv.Entities {
		e := &inv.Entities[i]
		if e.Kind != KindGPUInstance && e.Kind != KindComputeInstance {
			continue
		}
		if key, known := before[id{e.Kind, e.ID}]; known && key != instanceKey(inv, i) {
			reused[i] = true
		}
	}
	return reused
}

// findSwitch looks for an NVSwitch by its number, which is that of its place.
func findSwitch(inv *Inventory, id uint32) *Entity {
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Kind == KindSwitch && e.ID == id {
			return e
		}
	}
	return nil
}

// switchesGone returns the NVSwitches of earlier inventories that inv lacks.
func switchesGone(gone []Entity, old, inv *Inventory) []Entity {
	all := slices.Clone(gone)
	if old != nil {
		all = slices.Concat(all, old.Entities)
	}
	return slices.DeleteFunc(all, func(e Entity) bool {
		return e.Kind != KindSwitch || !e.Selected || findSwitch(inv, e.ID) != nil
	})
}

func (n *Node) setSample(s *Sample) error {
	n.mu.Lock()
	defer n.unlock()
	now := n.now()
	if n.latest == nil {
		return &RejectError{Reason: rejectInventory, Err: errors.New("sample before any inventory")}
	}
	if s.Generation != n.latest.Generation {
		return &RejectError{Reason: rejectInventory, Err: fmt.Errorf("sample of inventory %d, current is %d", s.Generation, n.latest.Generation)}
	}
	if err := s.validate(n.latest); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
	}
	if ahead := s.Time.Sub(now); ahead > futureTolerance {
		return &RejectError{Reason: rejectFuture, Err: fmt.Errorf("sample is %v ahead of the clock", ahead.Round(time.Millisecond))}
	}
	n.shown, n.sample, n.received = n.latest, s, now
	n.profiling.sampled(n.latest)
	n.decideXIDs()
	n.reused = nil
	n.clockEvents.add(n.latest, s)
	n.tracks = n.tracking.close(n.latest, s, n.gone)
	n.report.gpus(nodeView{inventory: n.latest, sample: s, gone: n.gone})
	select {
	case n.changed <- struct{}{}:
	default:
	}
	return nil
}

// setProcesses takes a reading of processes. It is no reason to publish anew: the
// sample that follows it is.
func (n *Node) setProcesses(p *Processes) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != p.Generation {
		return &RejectError{Reason: rejectInventory, Err: fmt.Errorf("processes of inventory %d", p.Generation)}
	}
	if err := p.validate(n.latest); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
	}
	if ahead := p.Time.Sub(n.now()); ahead > futureTolerance {
		return &RejectError{Reason: rejectFuture, Err: fmt.Errorf("processes are %v ahead of the clock", ahead.Round(time.Millisecond))}
	}
	n.processes, n.processesOf = p, n.latest
	return nil
}

func (n *Node) addEvents(generation uint64, events []Event) error {
	n.mu.Lock()
	defer n.unlock()
	if n.latest == nil || n.latest.Generation != generation {
		return &RejectError{Reason: rejectInventory, Err: fmt.Errorf("events of inventory %d", generation)}
	}
	for _, e := range events { // all or none: a frame that is rejected may be told again
		if e.Kind != EventXID || e.Entity < 0 || e.Entity >= len(n.latest.Entities) {
			return &RejectError{Reason: rejectInvalid, Err: fmt.Errorf("event of kind %d on entity %d", e.Kind, e.Entity)}
		}
	}
	for _, e := range events {
		now, key := n.now(), instanceKey(n.latest, e.Entity)
		if n.reused[e.Entity] {
			key.instance, key.profile = Unknown, "" // it may be of either
		}
		if n.xids.addSample(key, e.Code, e.Time, now) {
			gpu, _ := n.latest.GPU(e.Entity)
			n.report.xid(gpu, xidKey{key, e.Code}, now)
		}
	}
	return nil
}

// keepXIDs keeps, from now on, the times of XIDs for as long as window; 0 is not
// at all.
func (n *Node) keepXIDs(window time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.xids.counts.window = window
}

// nodeView is a consistent reading of a Node. Its parts are immutable.
type nodeView struct {
	inventory *Inventory     // nil until the first
	sample    *Sample        // nil until the first; of inventory
	processes *Processes     // nil if none was read; of inventory
	profiling profilingState // of inventory
	age       time.Duration
	gone      []Entity
	// goneSwitches are as gone, of NVSwitches, and goneLinks the links of these.
	goneSwitches []Entity
	goneLinks    []switchPort
	xids         map[xidKey]xidCount
	strayXIDs    uint64 // of the kernel log, on no known GPU
	// recentXIDs are those of the window that was asked for.
	recentXIDs map[xidKey]uint64

	clockEvents map[entityKey]clockEventState
	tracks      *trackView  // nil until the first sample
	health      healthState // of inventory
	peers       peersState  // of inventory
}

// gpu returns the GPU with the UUID, be it there or gone; nil if it is not known.
func (v *nodeView) gpu(uuid string) *Entity {
	if gpu := findGPU(v.inventory, uuid); gpu != nil {
		return gpu
	}
	for i := range v.gone {
		if v.gone[i].UUID == uuid {
			return &v.gone[i]
		}
	}
	return nil
}

// view returns all of it.
func (n *Node) view() nodeView {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	n.xids.settle(now)
	v := n.newest(now)
	v.goneSwitches, v.goneLinks = n.goneSwitches, n.goneLinks
	v.gone, v.tracks = n.gone, n.tracks
	v.health, v.peers = n.health.at(v.inventory), n.peers.at(v.inventory)
	v.xids, v.recentXIDs, v.strayXIDs = n.xids.counts.copy(), n.xids.counts.recent(now), n.kernel.strays
	v.clockEvents = n.clockEvents.copy()
	v.profiling = n.profiling.at(v.inventory)
	return v
}

// newest returns what a view has of the newest sample. The mutex must be held.
func (n *Node) newest(now time.Time) nodeView {
	v := nodeView{inventory: n.shown, sample: n.sample}
	if v.sample == nil {
		v.inventory = n.latest
	} else {
		// The sample's own time says how old it was on arrival; from then on the
		// monotonic clock counts, which a step of the wall clock cannot fool.
		v.age = max(0, n.received.Sub(n.sample.Time)) + now.Sub(n.received)
	}
	if v.inventory == n.processesOf {
		v.processes = n.processes
	}
	return v
}

// glance is a view of the newest sample alone: it copies nothing.
func (n *Node) glance() nodeView {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.newest(n.now())
}

// Newest returns the newest inventory and the newest sample of it; nil where
// there is none.
func (n *Node) Newest() (*Inventory, *Sample) {
	v := n.glance()
	return v.inventory, v.sample
}

// Processes returns the newest reading of the processes on the devices, or nil.
func (n *Node) Processes() *Processes { return n.glance().processes }

// Freshness says whether a sample exists that is no older than maxAge, and for
// how much longer.
func (n *Node) Freshness(maxAge time.Duration) (left time.Duration, fresh bool) {
	v := n.glance()
	if v.sample == nil || v.age > maxAge {
		return 0, false
	}
	return maxAge - v.age, true
}

// Staleness says in words how old the newest sample is.
func (n *Node) Staleness() string {
	v := n.glance()
	if v.sample == nil {
		return "no sample yet"
	}
	return fmt.Sprintf("the newest sample is %v old", v.age.Round(time.Second))
}
