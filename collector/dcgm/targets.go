// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"strings"

	"gpu_exporter/collector"
)

// targets are the watches that the plan needs.
func (p *plan) targets() []target {
	s := targetSet{plan: p, watched: make([][]uint16, len(p.inv.Entities))}
	s.addEvents() // first: what happens from here on is heard
	for kind := range p.inv.Columns {
		s.addColumns(collector.EntityKind(kind))
	}
	p.derivedTargets(s.addRest)
	p.evidenceTargets(s.addRest)
	return s.targets
}

// targetSet is how the targets of a plan come together.
type targetSet struct {
	plan    *plan
	targets []target
	watched [][]uint16 // fields, by row
}

// add adds a target of the entities of rows; more than one, if they are too many.
func (s *targetSet) add(t target, rows []int) {
	if len(t.fields) == 0 {
		return
	}
	t.what = fmt.Sprintf("%v %v %v %v %d", t.profiling, t.events, t.every, t.fields, t.round)
	for some := range slices.Chunk(rows, maxEntities) {
		t.entities, t.identities = nil, nil
		for _, i := range some {
			e := &s.plan.inv.Entities[i]
			t.entities = append(t.entities, pairOf(e.Kind, e.ID))
			t.identities = append(t.identities, s.plan.identity(i))
		}
		t.key = t.what + " " + strings.Join(t.identities, " ")
		s.targets = append(s.targets, t)
	}
}

func (s *targetSet) addEvents() {
	var rows []int
	for i, e := range s.plan.inv.Entities {
		if s.plan.events[i] && e.State == collector.EntityUp {
			rows = append(rows, i)
		}
	}
	s.add(target{fields: []uint16{fieldXID}, events: true}, rows)
}

// addColumns adds what the columns of a kind need. Entities that differ in what is
// watched on them, and how often, go in groups of their own: GPUs in what they can
// profile, for one.
func (s *targetSet) addColumns(kind collector.EntityKind) {
	var watches []target
	var rows [][]int // of each of watches
	at := make(map[string]int)
	for i, e := range s.plan.inv.Entities {
		if e.Kind != kind || e.State != collector.EntityUp {
			continue
		}
		for n, t := range s.plan.watchesOf(i) {
			s.watched[i] = append(s.watched[i], t.fields...)
			k := fmt.Sprint(n, t.every, t.fields, t.round)
			place, ok := at[k]
			if !ok {
				place = len(watches)
				at[k] = place
				watches, rows = append(watches, t), append(rows, nil)
			}
			rows[place] = append(rows[place], i)
		}
	}
	// What needs no profiling first, in the order of the rows.
	for _, profiling := range []bool{false, true} {
		for place, t := range watches {
			if t.profiling == profiling {
				s.add(t, rows[place])
			}
		}
	}
}

// addRest adds what of a target is not watched yet: a connection has one watch for
// each field of an entity, and another would end the one that is there, which may be
// a finer one.
func (s *targetSet) addRest(t target, rows []int) {
	var rest [][]uint16
	var rowsOf [][]int // of each of rest
	for _, i := range rows {
		fields := without(t.fields, s.watched[i])
		s.watched[i] = append(s.watched[i], fields...)
		place := slices.IndexFunc(rest, func(other []uint16) bool { return slices.Equal(other, fields) })
		if place < 0 {
			place = len(rest)
			rest, rowsOf = append(rest, fields), append(rowsOf, nil)
		}
		rowsOf[place] = append(rowsOf[place], i)
	}
	for place, fields := range rest {
		t.fields = fields
		s.add(t, rowsOf[place])
	}
}

// identity tells the entity of a row from all others, those of before included: an
// instance's id alone does not say which instance it is.
func (p *plan) identity(row int) string {
	e := &p.inv.Entities[row]
	uuid := e.UUID
	if gpu, ok := p.inv.GPU(row); ok {
		uuid = gpu.UUID
	}
	return fmt.Sprintf("%d/%d=%s/%d/%s", e.Kind, e.ID, uuid, e.InstanceID, e.Profile)
}
