// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/model"
)

// targets returns all watches of the plan. The events come first, so that later
// watches delay no XID. Profiling comes last. Entities with the same watch share a
// target, but each GPU has its own for profiling: a re-watch interrupts no other GPU.
func (p *plan) targets() []watch.Target {
	var targets []watch.Target
	positions := make(map[string]int)
	add := func(row int, t watch.Target) {
		if len(t.Fields) == 0 {
			return
		}
		e := &p.inv.Entities[row]
		key := fmt.Sprint(e.Kind, t)
		if t.Events {
			key = "events" // of all kinds
		}
		if gpu, ok := p.inv.GPU(row); ok && t.Profiling {
			key = fmt.Sprint(key, gpu.ID)
		}
		at, ok := positions[key]
		if !ok || len(targets[at].Entities) == watch.MaxEntities {
			at = len(targets)
			positions[key] = at
			targets = append(targets, t)
		}
		targets[at].Entities = append(targets[at].Entities, native.PairOf(e.Kind, e.ID))
		targets[at].Identities = append(targets[at].Identities, p.identity(row))
	}
	for i, e := range p.inv.Entities {
		if p.events[i] && e.State == model.EntityUp {
			add(i, watch.Target{Fields: []uint16{fieldXID}, Events: true})
		}
	}
	for i, e := range p.inv.Entities {
		if e.State == model.EntityUp {
			for _, t := range p.targetsOf(i) {
				add(i, t)
			}
		}
	}
	slices.SortStableFunc(targets, func(a, b watch.Target) int {
		switch {
		case a.Profiling == b.Profiling:
			return 0
		case b.Profiling:
			return -1
		}
		return 1
	})
	return targets
}

// targetsOf returns the watches of an entity except its events: fields at the interval
// of the samples, fields at shorter intervals, and last the profiling fields. The
// latter have one interval, so that a GPU has one set of counters to multiplex. No
// field is in two watches: a connection has one watch for each field of an entity,
// and the last one would replace the others.
func (p *plan) targetsOf(row int) []watch.Target {
	e := &p.inv.Entities[row]
	ordinary, profiling := watch.Target{}, watch.Target{Profiling: true}
	if gpu, ok := p.inv.GPU(row); ok {
		profiling.Attempt = p.attempts[gpu.ID]
	}
	faster := make(map[time.Duration][]uint16)
	every := make(map[uint16]time.Duration)
	for _, t := range p.tracked[row] {
		every[t.field] = t.every
	}
	added := map[uint16]bool{fieldXID: true} // its watch keeps samples for longer
	add := func(field uint16) {
		if added[field] {
			return
		}
		added[field] = true
		switch interval := every[field]; {
		case isProfiling(field):
			profiling.Fields = append(profiling.Fields, field)
			if interval > 0 && (profiling.Every == 0 || interval < profiling.Every) {
				profiling.Every = interval
			}
		case interval > 0:
			faster[interval] = append(faster[interval], field)
		default:
			ordinary.Fields = append(ordinary.Fields, field)
		}
	}
	if p.read[row] && e.Kind == model.KindGPU {
		ordinary.Fields, added[fieldMIGMode] = append(ordinary.Fields, fieldMIGMode), true
	}
	for j, status := range p.fixed[row] {
		field := uint16(p.inv.Columns[e.Kind][j])
		if status != model.StatusExcluded && (status == model.StatusOK || !isProfiling(field)) {
			add(field)
		}
	}
	for _, t := range p.tracked[row] {
		add(t.field)
	}
	for j := range p.derived[row] {
		add(uint16(p.inv.Derived[j]))
	}
	targets := []watch.Target{ordinary}
	for _, interval := range slices.Sorted(maps.Keys(faster)) {
		targets = append(targets, watch.Target{Fields: faster[interval], Every: interval})
	}
	return append(targets, profiling)
}

// identity distinguishes an entity from all others, including earlier instances
// with the same ID.
func (p *plan) identity(row int) string {
	e := &p.inv.Entities[row]
	uuid := e.UUID
	if gpu, ok := p.inv.GPU(row); ok {
		uuid = gpu.UUID
	}
	return fmt.Sprintf("%d/%d=%s/%d/%s", e.Kind, e.ID, uuid, e.InstanceID, e.Profile)
}
