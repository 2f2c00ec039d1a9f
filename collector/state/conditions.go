// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

// HealthState is what a Node knows of health checks.
type HealthState struct {
	Newest   *model.Health // the newest that was made
	of       *model.Inventory
	received time.Time // with the monotonic clock
	Failed   bool      // the one after it
	Failures uint64
}

// set takes the outcome of a check on the entities of inv.
func (s *HealthState) set(h *model.Health, inv *model.Inventory, now time.Time) error {
	if h.Failure != "" {
		s.Failed = true
		s.Failures++
		return nil
	}
	if inv == nil || inv.Generation != h.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("health of inventory %d", h.Generation)}
	}
	if err := h.Validate(inv); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	if ahead := h.Time.Sub(now); ahead > futureTolerance {
		return &model.RejectError{Reason: model.RejectFuture, Err: fmt.Errorf("health is %v ahead of the clock", ahead.Round(time.Millisecond))}
	}
	s.Newest, s.of, s.received, s.Failed = h, inv, now, false
	return nil
}

// Age returns how old the newest outcome is.
func (s *HealthState) Age(now time.Time) time.Duration {
	return max(0, s.received.Sub(s.Newest.Time)) + now.Sub(s.received)
}

func (n *Node) setHealth(h *model.Health) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health.set(h, n.latest, n.Clock())
}

// at returns the state of those entities of its inventory that are up in another: not
// each inventory has been checked yet, and what stayed goes on.
func (s HealthState) at(inv *model.Inventory) HealthState {
	if s.Newest == nil || s.of == inv || inv == nil {
		return s
	}
	positions := s.of.PositionsIn(inv)
	moved := *s.Newest
	moved.Checked, moved.Incidents = nil, nil
	for _, c := range s.Newest.Checked {
		if c.Entity = positions[c.Entity]; c.Entity != model.Unknown {
			moved.Checked = append(moved.Checked, c)
		}
	}
	slices.SortFunc(moved.Checked, func(a, b model.CheckedEntity) int { return cmp.Compare(a.Entity, b.Entity) })
	for _, i := range s.Newest.Incidents {
		if i.Entity != model.Unknown {
			if i.Entity = positions[i.Entity]; i.Entity == model.Unknown {
				continue
			}
		}
		moved.Incidents = append(moved.Incidents, i)
	}
	s.Newest, s.of = &moved, inv
	return s
}

// setProfiling takes over how profiling stands. It is no reason to publish anew:
// the sample that follows it is.
func (n *Node) setProfiling(p *model.Profiling) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != p.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("profiling of inventory %d", p.Generation)}
	}
	if err := p.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	n.profiling.Newest, n.profiling.of = p, n.latest
	n.tracking.interrupt()
	for _, g := range p.GPUs {
		if uuid := n.latest.Entities[g.Entity].UUID; uuid != "" && g.Rewatches > 0 {
			if n.profiling.Rewatches == nil {
				n.profiling.Rewatches = make(map[string]uint64)
			}
			n.profiling.Rewatches[uuid] += uint64(g.Rewatches)
		}
	}
	return nil
}

// ProfilingState is what is known of profiling on the GPUs of an inventory.
type ProfilingState struct {
	Newest    *model.Profiling  // nil if no sampler has said
	of        *model.Inventory  // of newest
	Rewatches map[string]uint64 // by UUID; nil until there is one
}

// sampled takes note that the newest inventory has a sample. A sampler that has said
// nothing of profiling by then has no GPU to say it of.
func (s *ProfilingState) sampled(latest *model.Inventory) {
	if s.of != latest {
		s.Newest, s.of = nil, nil
	}
}

// at returns the state of the GPUs of its inventory that are up in another: that of
// the next sample may be known before that sample comes.
func (s ProfilingState) at(inv *model.Inventory) ProfilingState {
	s.Rewatches = maps.Clone(s.Rewatches)
	if s.Newest == nil || s.of == inv || inv == nil {
		return s
	}
	positions := s.of.PositionsIn(inv)
	moved := &model.Profiling{Generation: inv.Generation}
	for _, g := range s.Newest.GPUs {
		if g.Entity = positions[g.Entity]; g.Entity != model.Unknown {
			moved.GPUs = append(moved.GPUs, g)
		}
	}
	slices.SortFunc(moved.GPUs, func(a, b model.GPUProfiling) int { return cmp.Compare(a.Entity, b.Entity) })
	s.Newest, s.of = moved, inv
	return s
}

// Profiling returns how profiling stands on the GPUs of the inventory; nil if the
// sampler has not said so, which it does not if there are none to say it of.
func (n *Node) Profiling() (*model.Profiling, *model.Inventory) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.profiling.of != n.latest {
		return nil, nil
	}
	return n.profiling.Newest, n.profiling.of
}

// PeersState is what a Node knows of the topology between GPUs.
type PeersState struct {
	Newest   *model.Peers
	of       *model.Inventory
	Received time.Time
}

func (n *Node) setPeers(p *model.Peers) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != p.Generation {
		return &model.RejectError{Reason: model.RejectInventory, Err: fmt.Errorf("topology of inventory %d", p.Generation)}
	}
	if err := p.Validate(n.latest); err != nil {
		return &model.RejectError{Reason: model.RejectInvalid, Err: err}
	}
	n.peers = PeersState{p, n.latest, n.Clock()}
	return nil
}

// at is as that of HealthState.
func (s PeersState) at(inv *model.Inventory) PeersState {
	if s.Newest == nil || s.of == inv || inv == nil {
		return s
	}
	positions := s.of.PositionsIn(inv)
	moved := *s.Newest
	moved.Pairs = nil
	for _, pair := range s.Newest.Pairs {
		pair.Entity, pair.Peer = positions[pair.Entity], positions[pair.Peer]
		if pair.Entity != model.Unknown && pair.Peer != model.Unknown {
			moved.Pairs = append(moved.Pairs, pair)
		}
	}
	s.Newest, s.of = &moved, inv
	return s
}
