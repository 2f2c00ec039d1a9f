// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package health makes DCGM's health checks and reads how the GPUs reach each other.
//
// Its calls are slow and may hang: they must not run in the goroutine that samples.
package health

import (
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"strings"
	"time"

	"gpu_exporter/collector/dcgm/inventory"
	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// Checker checks the health of the selected devices. It belongs to one goroutine.
type Checker struct {
	lib *native.Library
	log *slog.Logger
	h   *native.Health
	// name is a prefix of group names that is unique among the engine's clients.
	name  string
	count int
	// group holds the watched entities; 0 means none. key identifies them.
	group   uintptr
	key     string
	members map[native.Pair]bool
	// since is the start of the uninterrupted watch of each entity, by its key.
	since map[string]time.Time
}

// NewChecker returns a checker that watches nothing yet.
func NewChecker(lib *native.Library, log *slog.Logger) (*Checker, error) {
	h, err := lib.NewHealth()
	if err != nil {
		return nil, err
	}
	return &Checker{lib: lib, log: log, h: h, name: fmt.Sprintf("gpu_exporter-health-%08x", rand.Uint32()), since: map[string]time.Time{}}, nil
}

// Check checks the entities of inv that are selected and up. If it fails, the
// result holds the failure as well.
func (c *Checker) Check(inv *model.Inventory) (*model.Health, error) {
	start := time.Now()
	health := &model.Health{Generation: inv.Generation}
	err := c.check(inv, health)
	if err != nil {
		health.Failure = err.Error()
	}
	health.Time = time.Now()
	health.Duration = health.Time.Sub(start)
	return health, err
}

func (c *Checker) check(inv *model.Inventory, health *model.Health) error {
	if err := c.watch(inv); err != nil || c.group == 0 {
		return err
	}
	incidents, code := c.h.Check(c.group)
	if code != native.OK {
		c.reset()
		return c.lib.Err(code, "checking the health")
	}
	positions := make(map[native.Pair]int, len(inv.Entities))
	for i := range inv.Entities {
		e := &inv.Entities[i]
		p := native.PairOf(e.Kind, e.ID)
		positions[p] = i
		if c.members[p] {
			health.Checked = append(health.Checked, model.CheckedEntity{Entity: i, Since: c.since[inventory.Key(e)]})
		}
	}
	for _, found := range incidents {
		incident := model.HealthIncident{Entity: model.Unknown, System: system(found.System), Result: result(found.Result), Code: found.Code}
		// DCGM keeps only the number of the GPU with an incident of all systems, so that an
		// XID 79 of GPU 3 is an incident of NVSwitch 3 and CPU 3 too (DcgmHealthWatch.cpp, 4.6).
		if kind := model.EntityKind(found.Entity.Kind); incident.System == model.HealthDevice && (kind == model.KindSwitch || kind == model.KindCPU) {
			continue
		}
		if at, ok := positions[found.Entity]; ok {
			for inv.Entities[at].Parent != model.Unknown { // an instance's or link's incident counts for its device
				at = inv.Entities[at].Parent
			}
			incident.Entity = at
		} else if found.Entity.Kind != 0 {
			c.log.Debug("a health incident of an unknown entity is ignored", "kind", found.Entity.Kind, "id", found.Entity.ID, "message", found.Message)
			continue
		}
		health.Incidents = append(health.Incidents, incident)
	}
	return nil
}

// system returns the system of a dcgmHealthSystems_t. Several systems at once are an
// incident of the device.
func system(mask uint32) model.HealthSystem {
	if bits.OnesCount32(mask) != 1 || bits.TrailingZeros32(mask) >= int(model.HealthDevice) {
		return model.HealthDevice
	}
	return model.HealthSystem(bits.TrailingZeros32(mask))
}

// result returns the result of a dcgmHealthWatchResults_t.
func result(v int32) model.HealthResult {
	switch {
	case v >= 20:
		return model.HealthFail
	case v > 0:
		return model.HealthWarn
	}
	return model.HealthPass
}

// watch makes the watched group the entities of inv that are selected and up. It
// does not affect health watches of other clients.
func (c *Checker) watch(inv *model.Inventory) error {
	var key strings.Builder
	var entities []*model.Entity
	for i := range inv.Entities {
		e := &inv.Entities[i]
		checkable := e.Kind == model.KindGPU || e.Kind == model.KindSwitch || e.Kind == model.KindCPU
		if checkable && e.Selected && e.State == model.EntityUp {
			entities = append(entities, e)
			key.WriteString(inventory.Key(e) + "\n")
		}
	}
	if key.String() == c.key && c.group != 0 {
		return nil
	}
	old := c.group
	group, members, err := c.newGroup(entities)
	if err != nil {
		c.key = "" // retried at the next check
		return err
	}
	c.group, c.key, c.members = group, key.String(), members
	now := time.Now()
	since := make(map[string]time.Time, len(entities))
	for _, e := range entities {
		k := inventory.Key(e)
		if since[k] = now; !c.since[k].IsZero() {
			since[k] = c.since[k]
		}
	}
	c.since = since
	if old != 0 {
		if code := c.lib.DestroyGroup(old); code != native.OK {
			c.log.Debug("a group was not destroyed", "err", c.lib.Err(code, "destroying a group"))
		}
	}
	return nil
}

// newGroup makes and watches a group of the entities that still exist. It returns
// group 0 for no entities.
func (c *Checker) newGroup(entities []*model.Entity) (group uintptr, members map[native.Pair]bool, err error) {
	members = map[native.Pair]bool{}
	if len(entities) == 0 {
		return 0, members, nil
	}
	c.count++
	group, code := c.lib.CreateGroup(fmt.Sprintf("%s-%d", c.name, c.count))
	if code != native.OK {
		return 0, nil, c.lib.Err(code, "creating a group for health checks")
	}
	for _, e := range entities {
		// An entity that was lost after the inventory cannot be added.
		if code := c.lib.AddToGroup(group, native.PairOf(e.Kind, e.ID)); code == native.OK {
			members[native.PairOf(e.Kind, e.ID)] = true
		} else {
			c.log.Debug("the health of an entity is not checked", "entity", e.Kind, "id", e.ID, "err", c.lib.Err(code, "adding to a group"))
		}
	}
	if code := c.h.Watch(group); code != native.OK {
		c.lib.DestroyGroup(group)
		return 0, nil, c.lib.Err(code, "watching the health")
	}
	return group, members, nil
}

// reset gives up the group; the next check makes a new one.
func (c *Checker) reset() {
	c.lib.DestroyGroup(c.group)
	c.group, c.key = 0, ""
	clear(c.since)
}

// Peers reads how the GPUs of inv reach each other. The result holds everything
// readable even if there is an error.
func (c *Checker) Peers(inv *model.Inventory) (*model.Peers, error) {
	positions := map[uint32]int{}
	for i, e := range inv.Entities {
		if e.Kind == model.KindGPU && e.Selected && e.State == model.EntityUp {
			positions[e.ID] = i
		}
	}
	type key struct{ from, to int }
	pairs := map[key]*model.Peer{}
	pair := func(from, to uint32) *model.Peer {
		i, ok := positions[from]
		j, found := positions[to]
		if !ok || !found || i == j {
			return nil
		}
		if pairs[key{i, j}] == nil {
			pairs[key{i, j}] = &model.Peer{Entity: i, Peer: j, P2P: model.Unknown, NVLinks: model.Unknown}
		}
		return pairs[key{i, j}]
	}
	statuses, code := c.h.P2P()
	err := c.lib.Err(code, "reading the P2P status")
	for _, s := range statuses {
		if p := pair(s.From, s.To); p != nil {
			p.P2P = int(s.Status)
		}
	}
	for id := range positions {
		if len(positions) < 2 {
			break // DCGM returns an error for a single GPU
		}
		paths, code := c.h.Paths(id)
		if err == nil { // one error is enough: all GPUs usually fail alike
			err = c.lib.Err(code, "reading the topology of a GPU")
		}
		for _, path := range paths {
			if p := pair(id, path.Peer); p != nil {
				p.Path, p.NVLinks = peerPath(path.Level)
			}
		}
	}
	peers := &model.Peers{Generation: inv.Generation, Time: time.Now()}
	for i := range inv.Entities {
		for j := range inv.Entities {
			if p := pairs[key{i, j}]; p != nil {
				peers.Pairs = append(peers.Pairs, *p)
			}
		}
	}
	return peers, err
}

// peerPath decodes a dcgmGpuTopologyLevel_t: one of the lowest eight bits is the PCIe
// path, and one of the higher bits is the number of NVLinks.
func peerPath(v uint64) (model.PeerPath, int) {
	links := bits.Len64(v >> 8 & -(v >> 8)) // position of the lowest bit
	pcie := v & 0xff
	if pcie == 0 || bits.TrailingZeros64(pcie) > 5 {
		return model.PeerPathUnknown, links
	}
	return model.PeerPath(bits.TrailingZeros64(pcie) + 1), links
}
