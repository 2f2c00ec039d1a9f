// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/collector/dcgm/native"
)

// target is fields to watch on a set of entities.
type target struct {
	// key changes with the entities, their identity and the fields: a changed key
	// needs a new watch. It consists of kind and identities.
	key        string
	kind       string
	identities []string
	entities   []native.Pair
	fields     []uint16
	profiling  bool
	events     bool
	round      int           // separates watches that differ in nothing else
	every      time.Duration // between values; 0 means the interval of the samples
}

// targets returns all watches of the plan. The events come first, so that later
// watches delay no XID. Profiling comes last.
func (p *plan) targets() []target {
	var targets []target
	add := func(t target, rows []int) {
		if len(t.fields) == 0 {
			return
		}
		t.kind = fmt.Sprintf("%v %v %v %v %d", t.profiling, t.events, t.every, t.fields, t.round)
		for some := range slices.Chunk(rows, maxEntities) {
			t.entities, t.identities = nil, nil
			for _, i := range some {
				e := &p.inv.Entities[i]
				t.entities = append(t.entities, native.PairOf(e.Kind, e.ID))
				t.identities = append(t.identities, p.identity(i))
			}
			t.key = t.kind + " " + strings.Join(t.identities, " ")
			targets = append(targets, t)
		}
	}
	var rows []int
	for i, e := range p.inv.Entities {
		if p.events[i] && e.State == collector.EntityUp {
			rows = append(rows, i)
		}
	}
	add(target{fields: []uint16{fieldXID}, events: true}, rows)
	for kind := range p.inv.Columns {
		p.addTargets(collector.EntityKind(kind), add)
	}
	return targets
}

// addTargets adds the watches of the entities of a kind. Entities with the same
// watch share a target.
func (p *plan) addTargets(kind collector.EntityKind, add func(target, []int)) {
	var shared []target
	var rows [][]int // of each of shared
	positions := make(map[string]int)
	for i, e := range p.inv.Entities {
		if e.Kind != kind || e.State != collector.EntityUp {
			continue
		}
		for n, t := range p.targetsOf(i) {
			key := fmt.Sprint(n, t.every, t.fields, t.round)
			at, ok := positions[key]
			if !ok {
				at = len(shared)
				positions[key] = at
				shared, rows = append(shared, t), append(rows, nil)
			}
			rows[at] = append(rows[at], i)
		}
	}
	for _, profiling := range []bool{false, true} {
		for at, t := range shared {
			if t.profiling == profiling {
				add(t, rows[at])
			}
		}
	}
}

// targetsOf returns the watches of an entity except its events: fields at the interval
// of the samples, fields at shorter intervals, and last the profiling fields. The
// latter have one interval, so that a GPU has one set of counters to multiplex. No
// field is in two watches: a connection has one watch for each field of an entity,
// and the last one would replace the others.
func (p *plan) targetsOf(row int) []target {
	e := &p.inv.Entities[row]
	ordinary, profiling := target{}, target{profiling: true, round: p.roundOf(row)}
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
			profiling.fields = append(profiling.fields, field)
			if interval > 0 && (profiling.every == 0 || interval < profiling.every) {
				profiling.every = interval
			}
		case interval > 0:
			faster[interval] = append(faster[interval], field)
		default:
			ordinary.fields = append(ordinary.fields, field)
		}
	}
	if p.read[row] && e.Kind == collector.KindGPU {
		ordinary.fields, added[fieldMIGMode] = append(ordinary.fields, fieldMIGMode), true
	}
	for j, status := range p.fixed[row] {
		field := uint16(p.inv.Columns[e.Kind][j])
		if status != collector.StatusExcluded && (status == collector.StatusOK || !isProfiling(field)) {
			add(field)
		}
	}
	for _, t := range p.tracked[row] {
		add(t.field)
	}
	for j := range p.derived[row] {
		add(uint16(p.inv.Derived[j]))
	}
	targets := []target{ordinary}
	for _, interval := range slices.Sorted(maps.Keys(faster)) {
		targets = append(targets, target{fields: faster[interval], every: interval})
	}
	return append(targets, profiling)
}

// profilingWatches identifies the profiling watches of a GPU and its instances.
func (p *plan) profilingWatches(gpuRow int) (watches []string) {
	for row, e := range p.inv.Entities {
		if gpu, ok := p.inv.GPU(row); !ok || gpu != &p.inv.Entities[gpuRow] || e.State != collector.EntityUp {
			continue
		}
		targets := p.targetsOf(row)
		if t := targets[len(targets)-1]; len(t.fields) > 0 {
			watches = append(watches, fmt.Sprint(p.identity(row), t.every, t.fields))
		}
	}
	return watches
}

// roundOf returns the round in which the profiling of an entity's GPU was re-watched.
func (p *plan) roundOf(row int) int {
	if gpu, ok := p.inv.GPU(row); ok {
		return p.round[gpu.ID]
	}
	return 0
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
