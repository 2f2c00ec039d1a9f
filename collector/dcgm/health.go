// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

/*
#include "native_health.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"strings"
	"time"

	"gpu_exporter/collector"
)

// peersInterval is the time between two readings of the topology between GPUs; a
// new inventory has one at once.
const peersInterval = time.Minute

// healthReader makes health checks, and reads the topology between GPUs, beside the
// samples.
type healthReader struct {
	beside[healthRequest, healthResult]
	interval   time.Duration
	generation uint64 // of the inventory that the last check was of
	peersAt    time.Time
	failures   [2]string // why the last check, and the last reading of the topology, failed
}

type healthRequest struct {
	inv   *collector.Inventory
	peers bool
}

type healthResult struct {
	health   *collector.Health // with a failure if there is err
	peers    *collector.Peers  // nil if it was not asked for, or could not be read
	err      error
	peersErr error
}

// newHealthReader returns a reader, whose first check is due at once.
func newHealthReader(cfg Config, lib *library) *healthReader {
	var ask func(healthRequest) healthResult
	if cfg.Sampler.HealthInterval > 0 {
		ask = newHealthChecker(lib, cfg.Logger).answer
	}
	h := &healthReader{beside: newBeside("a health check", cfg.Logger, ask), interval: cfg.Sampler.HealthInterval}
	h.schedule(0)
	return h
}

// follow makes a check due at once if inv is another inventory than that of the last.
func (h *healthReader) follow(inv *collector.Inventory) {
	if !h.asking && inv.Generation != h.generation {
		h.schedule(0)
	}
}

// start starts a check of the entities of inv, unless one is under way.
func (h *healthReader) start(inv *collector.Inventory) {
	h.schedule(h.interval)
	now := time.Now()
	peers := inv.Generation != h.generation || now.Sub(h.peersAt) >= peersInterval
	if !h.beside.start(healthRequest{inv, peers}) {
		return
	}
	if peers {
		h.peersAt = now
	}
	h.generation = inv.Generation
}

// finish takes note of a check that has ended.
func (h *healthReader) finish(r healthResult) {
	h.beside.finish()
	for i, t := range []struct {
		what string
		err  error
	}{{"the health cannot be checked", r.err}, {"the topology between the GPUs cannot be read in full", r.peersErr}} {
		if i == 1 && r.peers == nil && r.peersErr == nil {
			continue // not read
		}
		failure := ""
		if t.err != nil {
			failure = t.err.Error()
		}
		if failure != h.failures[i] && failure != "" {
			h.log.Warn(t.what, "err", t.err)
		}
		h.failures[i] = failure
	}
}

// writeHealth writes a result, unless it is of another inventory by now. That a
// check failed is true of any.
func (s *sampler) writeHealth(r healthResult) error {
	if r.err != nil || r.health.Generation == s.inv.Generation {
		if err := s.cfg.Frames.Write(collector.Frame{Health: r.health}); err != nil {
			return err
		}
	}
	if r.peers == nil || r.peers.Generation != s.inv.Generation {
		return nil
	}
	return s.cfg.Frames.Write(collector.Frame{Peers: r.peers})
}

// healthChecker makes the native calls. It belongs to one goroutine, and shares with
// the others what does not change while the engine is connected.
type healthChecker struct {
	lib *library
	log *slog.Logger
	n   *C.struct_native_health
	// name makes the names of groups unique among all clients of an engine.
	name  string
	count int
	// group has the entities of key, all of whose systems are watched; 0 is none.
	group   uintptr
	key     string
	members map[pair]bool
	// since is since when each entity, by its key, has been watched without a break.
	since map[string]time.Time
}

func newHealthChecker(lib *library, log *slog.Logger) *healthChecker {
	return &healthChecker{
		lib:   lib,
		log:   log,
		n:     C.native_health_open(lib.n),
		name:  fmt.Sprintf("gpu_exporter-health-%08x", rand.Uint32()),
		since: map[string]time.Time{},
	}
}

func (h *healthChecker) answer(r healthRequest) healthResult {
	if h.n == nil {
		err := fmt.Errorf("checking the health: out of memory")
		return healthResult{health: &collector.Health{Generation: r.inv.Generation, Time: time.Now(), Failure: err.Error()}, err: err}
	}
	var result healthResult
	start := time.Now()
	result.health, result.err = h.check(r.inv)
	if result.err != nil {
		result.health = &collector.Health{Failure: result.err.Error()}
	}
	result.health.Generation, result.health.Time = r.inv.Generation, time.Now()
	result.health.Duration = result.health.Time.Sub(start)
	if r.peers {
		result.peers, result.peersErr = h.peers(r.inv)
	}
	return result
}

// check makes one health check of what is selected of inv and up.
func (h *healthChecker) check(inv *collector.Inventory) (*collector.Health, error) {
	if err := h.watch(inv); err != nil {
		return nil, err
	}
	health := &collector.Health{}
	if h.group == 0 {
		return health, nil // nothing is there to be checked
	}
	if c := code(C.native_health_check(h.lib.n, h.n, C.uintptr_t(h.group))); c != codeOK {
		h.forget()
		return nil, h.lib.err(c, "checking the health")
	}
	positions := make(map[pair]int, len(inv.Entities))
	for i, e := range inv.Entities {
		p := pairOf(e.Kind, e.ID)
		positions[p] = i
		if h.members[p] {
			health.Checked = append(health.Checked, collector.CheckedEntity{Entity: i, Since: h.since[entityName(&e)]})
		}
	}
	for _, found := range h.n.health.incidents[:h.n.health.count] {
		incident := collector.HealthIncident{
			Entity: collector.Unknown,
			System: healthSystem(uint32(found.system)),
			Result: healthResultOf(int32(found.result)),
			Code:   uint32(found.code),
		}
		if at, ok := positions[pair{uint32(found.entity.kind), uint32(found.entity.id)}]; ok {
			incident.Entity = of(inv, at)
		} else if found.entity.kind != 0 {
			h.log.Debug("a health incident is on an entity that is not known", "kind", uint32(found.entity.kind), "id", uint32(found.entity.id),
				"message", C.GoString(&found.message[0]))
			continue
		}
		health.Incidents = append(health.Incidents, incident)
	}
	return health, nil
}

// of returns the GPU that an instance or link is of, and any other entity itself: that
// is what has the health.
func of(inv *collector.Inventory, i int) int {
	for inv.Entities[i].Parent != collector.Unknown {
		i = inv.Entities[i].Parent
	}
	return i
}

// healthSystem returns the system of a dcgmHealthSystems_t. More than one is of none
// in particular.
func healthSystem(mask uint32) collector.HealthSystem {
	if bits.OnesCount32(mask) != 1 || bits.TrailingZeros32(mask) >= int(collector.HealthDevice) {
		return collector.HealthDevice
	}
	return collector.HealthSystem(bits.TrailingZeros32(mask))
}

// healthResultOf returns the result for a dcgmHealthWatchResults_t.
func healthResultOf(v int32) collector.HealthResult {
	switch {
	case v >= 20:
		return collector.HealthFail
	case v > 0:
		return collector.HealthWarn
	}
	return collector.HealthPass
}

// entityName says which entity it is, whatever id DCGM gives it.
func entityName(e *collector.Entity) string { return fmt.Sprint(e.Kind, " ", e.ID, " ", e.UUID) }

// watch makes the group that is checked the one of what is selected of inv and up.
// Watching the health of a group changes nothing for the groups of others.
func (h *healthChecker) watch(inv *collector.Inventory) error {
	var key strings.Builder
	var entities []*collector.Entity
	for i := range inv.Entities {
		e := &inv.Entities[i]
		switch e.Kind {
		case collector.KindGPU, collector.KindSwitch, collector.KindCPU:
		default:
			continue
		}
		if e.Selected && e.State == collector.EntityUp {
			entities = append(entities, e)
			key.WriteString(entityName(e) + "\n")
		}
	}
	if key.String() == h.key && h.group != 0 {
		return nil
	}
	old := h.group
	group, members, err := h.newGroup(entities)
	if err != nil {
		h.key = "" // to be tried again
		return err
	}
	h.group, h.key, h.members = group, key.String(), members
	now := time.Now()
	since := make(map[string]time.Time, len(entities))
	for _, e := range entities {
		name := entityName(e)
		if since[name] = now; !h.since[name].IsZero() {
			since[name] = h.since[name]
		}
	}
	h.since = since
	if old != 0 {
		if c := h.lib.destroyGroup(old); c != codeOK {
			h.log.Debug("a group was not given up", "err", h.lib.err(c, "destroying a group"))
		}
	}
	return nil
}

// newGroup makes a group of those entities that are still there, and has it watched. Of
// none it makes none.
func (h *healthChecker) newGroup(entities []*collector.Entity) (group uintptr, members map[pair]bool, err error) {
	members = map[pair]bool{}
	if len(entities) == 0 {
		return 0, members, nil
	}
	h.count++
	group, c := h.lib.createGroup(fmt.Sprintf("%s-%d", h.name, h.count))
	if c != codeOK {
		return 0, nil, h.lib.err(c, "creating a group for health checks")
	}
	for _, e := range entities {
		// One that was lost since the inventory is left out, and will be from the next one.
		if c := h.lib.addToGroup(group, pairOf(e.Kind, e.ID)); c == codeOK {
			members[pairOf(e.Kind, e.ID)] = true
		} else {
			h.log.Debug("the health of an entity is not checked", "entity", e.Kind, "id", e.ID, "err", h.lib.err(c, "adding to a group"))
		}
	}
	if c := code(C.native_health_set(h.lib.n, h.n, C.uintptr_t(group))); c != codeOK {
		h.lib.destroyGroup(group)
		return 0, nil, h.lib.err(c, "watching the health")
	}
	return group, members, nil
}

// forget gives up the group, for the next check to begin anew.
func (h *healthChecker) forget() {
	h.lib.destroyGroup(h.group)
	h.group, h.key = 0, ""
	clear(h.since) // it is watched anew
}

// peers reads how the GPUs of inv reach each other. What can be read is in the
// result even if there is an error.
func (h *healthChecker) peers(inv *collector.Inventory) (*collector.Peers, error) {
	positions := map[uint32]int{}
	for i, e := range inv.Entities {
		if e.Kind == collector.KindGPU && e.Selected && e.State == collector.EntityUp {
			positions[e.ID] = i
		}
	}
	type key struct{ from, to int }
	pairs := map[key]*collector.Peer{}
	pairOfGPUs := func(from, to uint32) *collector.Peer {
		i, ok := positions[from]
		j, found := positions[to]
		if !ok || !found || i == j {
			return nil
		}
		p := pairs[key{i, j}]
		if p == nil {
			p = &collector.Peer{Entity: i, Peer: j, P2P: collector.Unknown, NVLinks: collector.Unknown}
			pairs[key{i, j}] = p
		}
		return p
	}
	var failed error
	if c := code(C.native_health_p2p(h.lib.n, h.n)); c != codeOK {
		failed = h.lib.err(c, "reading the P2P status")
	}
	for _, from := range h.n.p2p.gpus[:h.n.p2p.count] {
		for to, status := range from.status {
			if p := pairOfGPUs(uint32(from.gpu), uint32(to)); p != nil {
				p.P2P = int(status)
			}
		}
	}
	for id := range positions {
		if len(positions) < 2 {
			break // a GPU alone has no topology, and DCGM says that as an error
		}
		if c := code(C.native_health_topology(h.lib.n, h.n, C.uint32_t(id))); c != codeOK {
			if failed == nil {
				failed = h.lib.err(c, "reading the topology of a GPU")
			}
			continue
		}
		for _, path := range h.n.topology.paths[:h.n.topology.count] {
			if p := pairOfGPUs(id, uint32(path.gpu)); p != nil {
				p.Path, p.NVLinks = peerPath(uint64(path.path))
			}
		}
	}
	result := &collector.Peers{Generation: inv.Generation, Time: time.Now()}
	for i := range inv.Entities {
		for j := range inv.Entities {
			if p := pairs[key{i, j}]; p != nil {
				result.Pairs = append(result.Pairs, *p)
			}
		}
	}
	return result, failed
}

// peerPath takes a dcgmGpuTopologyLevel_t apart: one bit of the lowest eight is the
// PCIe path, and one of those above the number of NVLinks.
func peerPath(v uint64) (collector.PeerPath, int) {
	links := 0
	if v>>8 != 0 {
		links = bits.TrailingZeros64(v>>8) + 1
	}
	pci := v & 0xff
	if pci == 0 || bits.TrailingZeros64(pci) > 5 {
		return collector.PeerPathUnknown, links
	}
	return collector.PeerPath(bits.TrailingZeros64(pci) + 1), links
}
