// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

// dated is the newest frame of a kind and the inventory that its positions refer to.
type dated[T any] struct {
	Newest *T // nil if there is none
	of     *model.Inventory
}

// at returns the frame with the positions of another inventory, which may not have a frame
// of its kind yet. move changes the positions; entities that are not up have none.
func (d dated[T]) at(inv *model.Inventory, move func(frame *T, positions []int)) dated[T] {
	if d.Newest == nil || d.of == inv || inv == nil {
		return d
	}
	frame := *d.Newest
	move(&frame, d.of.PositionsIn(inv))
	return dated[T]{&frame, inv}
}

// HealthState is the state of DCGM's health checks. Newest is the newest successful check.
type HealthState struct {
	dated[model.Health]
	received receipt
	Failed   bool // a later check failed
	Failures uint64
}

func (s *HealthState) set(h *model.Health, inv *model.Inventory, now time.Time) {
	s.dated, s.received, s.Failed = dated[model.Health]{h, inv}, received(now), false
}

// Age returns the age of the newest successful check.
func (s *HealthState) Age(now time.Time) time.Duration {
	return s.received.age(s.Newest.Time, now)
}

func (s HealthState) at(inv *model.Inventory) HealthState {
	s.dated = s.dated.at(inv, func(h *model.Health, positions []int) {
		checked, incidents := h.Checked, h.Incidents
		h.Checked, h.Incidents = nil, nil
		for _, c := range checked {
			if c.Entity = positions[c.Entity]; c.Entity != model.Unknown {
				h.Checked = append(h.Checked, c)
			}
		}
		slices.SortFunc(h.Checked, func(a, b model.CheckedEntity) int { return cmp.Compare(a.Entity, b.Entity) })
		for _, i := range incidents {
			if i.Entity != model.Unknown {
				if i.Entity = positions[i.Entity]; i.Entity == model.Unknown {
					continue
				}
			}
			h.Incidents = append(h.Incidents, i)
		}
	})
	return s
}

// ProfilingState is the state of profiling on the GPUs. Newest is nil if the sampler has no
// GPU with profiling.
type ProfilingState struct {
	dated[model.Profiling]
	Rewatches map[string]uint64 // by UUID; nil before the first
}

func (s *ProfilingState) set(p *model.Profiling, inv *model.Inventory) {
	s.dated = dated[model.Profiling]{p, inv}
	for _, g := range p.GPUs {
		if uuid := inv.Entities[g.Entity].UUID; uuid != "" && g.Rewatches > 0 {
			if s.Rewatches == nil {
				s.Rewatches = make(map[string]uint64)
			}
			s.Rewatches[uuid] += uint64(g.Rewatches)
		}
	}
}

func (s ProfilingState) at(inv *model.Inventory) ProfilingState {
	s.Rewatches = maps.Clone(s.Rewatches)
	s.dated = s.dated.at(inv, func(p *model.Profiling, positions []int) {
		gpus := p.GPUs
		p.Generation, p.GPUs = inv.Generation, nil
		for _, g := range gpus {
			if g.Entity = positions[g.Entity]; g.Entity != model.Unknown {
				p.GPUs = append(p.GPUs, g)
			}
		}
		slices.SortFunc(p.GPUs, func(a, b model.GPUProfiling) int { return cmp.Compare(a.Entity, b.Entity) })
	})
	return s
}

// Profiling returns the state of profiling on the GPUs of the latest inventory, and the
// inventory. Both are nil if the sampler has not reported it.
func (n *Node) Profiling() (*model.Profiling, *model.Inventory) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.profiling.of != n.latest {
		return nil, nil
	}
	return n.profiling.Newest, n.profiling.of
}

// PeersState is the topology between GPUs.
type PeersState struct {
	dated[model.Peers]
	received receipt
}

// Age returns the time since the newest topology was received.
func (s *PeersState) Age(now time.Time) time.Duration { return s.received.since(now) }

func (s PeersState) at(inv *model.Inventory) PeersState {
	s.dated = s.dated.at(inv, func(p *model.Peers, positions []int) {
		pairs := p.Pairs
		p.Pairs = nil
		for _, pair := range pairs {
			pair.Entity, pair.Peer = positions[pair.Entity], positions[pair.Peer]
			if pair.Entity != model.Unknown && pair.Peer != model.Unknown {
				p.Pairs = append(p.Pairs, pair)
			}
		}
	})
	return s
}
