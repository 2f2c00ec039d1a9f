// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"gpu_exporter/collector"
)

// xids turns the samples of field 230 into events. The newest XID of each entity
// comes with every reading and costs nothing more; only when one is new, DCGM is
// asked for all since the last time, as several may have come.
type xids struct {
	// valuesSince is the library's.
	valuesSince func(w watch, since int64) ([]event, int64, code)
	since       int64 // when to begin; 0 is now
	started     bool
	// next is when to ask each watch from next, by the engine's clock; first is
	// where a new watch begins.
	next   map[watch]int64
	first  int64
	places map[pair]place
	// unread are entities of which no reading has yet told the newest XID: when it
	// does, that is what happened before.
	unread map[pair]bool
	// heard is the time of the newest XID that was taken from each entity.
	heard map[pair]int64
	// taken are the XIDs of the last time of overlap that were taken.
	taken map[taken]bool
	// pending are those that were heard and are not told yet.
	pending []event
}

// place is where an entity stands in an inventory.
type place struct {
	row, gpu int // gpu is the row of the GPU that it is part of, or is
	// who tells the entity from another one that has its id before or after it.
	who string
}

// placesIn returns the places of the entities of an inventory.
func placesIn(inv *collector.Inventory) map[pair]place {
	places := make(map[pair]place, len(inv.Entities))
	for i, e := range inv.Entities {
		at := place{row: i, gpu: i}
		for up := i; up != collector.Unknown; up = inv.Entities[up].Parent {
			part := &inv.Entities[up]
			if at.gpu = up; part.Kind == collector.KindGPU {
				at.who += part.UUID
				break
			}
			at.who += fmt.Sprintf("%v/%d/%s ", part.Kind, part.InstanceID, part.Profile)
		}
		places[pairOf(e.Kind, e.ID)] = at
	}
	return places
}

// taken names one XID: DCGM gives no two samples of an entity the same time.
type taken struct {
	entity pair
	ts     int64
}

// overlap is how far back, in µs, what was asked for already is asked for again:
// the engine stamps an XID before it shows it, so that one may appear that is older
// than the last answer.
const overlap = int64(5 * time.Second / time.Microsecond)

// listen sets the watches to ask and the inventory that events refer to. The
// first time it also takes note of what happened before.
func (x *xids) listen(units []*unit, inv *collector.Inventory) code {
	next := make(map[watch]int64)
	for _, u := range units {
		if !u.events {
			continue
		}
		for _, w := range u.watches {
			from, ok := x.next[w]
			if !ok {
				from = x.first
			}
			next[w] = from
		}
	}
	x.next = next
	before := x.places
	x.places = placesIn(inv)
	x.unread = make(map[pair]bool)
	for _, e := range inv.Entities {
		p := pairOf(e.Kind, e.ID)
		if _, ok := before[p]; !ok && e.Selected && e.Kind.OfGPU() {
			x.unread[p] = true
		}
	}
	if x.started {
		return codeOK
	}
	x.started = true
	x.heard = make(map[pair]int64)
	x.taken = make(map[taken]bool)
	old, c := x.ask()
	if c.lost() {
		return c
	}
	for _, e := range old {
		x.take(e)
		if !x.history(e) {
			x.pending = append(x.pending, e)
		}
	}
	return codeOK
}

// history says whether an XID that was there when we came is none of ours to tell.
func (x *xids) history(e event) bool { return x.since == 0 || e.ts < x.since }

// ask returns what came since the last time and was not taken yet: a watch may
// be asked again from where another one, or its own last success, left off.
func (x *xids) ask() ([]event, code) {
	var all []event
	result, first := codeOK, int64(0)
	oldest, told := int64(math.MaxInt64), make(map[taken]bool)
	for w, from := range x.next {
		from = max(0, from-overlap)
		oldest = min(oldest, from)
		events, next, c := x.valuesSince(w, from)
		if c.lost() {
			return nil, c
		}
		for _, e := range events {
			if t := (taken{e.entity, e.ts}); !x.taken[t] && !told[t] {
				told[t] = true
				all = append(all, e)
			}
		}
		if c == codeOK {
			x.next[w] = next
		} else {
			result = c
		}
		if n := x.next[w]; first == 0 || n < first {
			first = n
		}
	}
	if first != 0 {
		x.first = first
	}
	maps.DeleteFunc(x.taken, func(t taken, _ bool) bool { return t.ts < oldest })
	return all, result
}

// take notes that an XID was taken.
func (x *xids) take(e event) {
	x.heard[e.entity] = max(x.heard[e.entity], e.ts)
	x.taken[taken{e.entity, e.ts}] = true
}

// hear takes in what came since the last time. A code other than those of a lost
// engine means that it had to do with the newest XID of each entity.
func (x *xids) hear(r *reading) code {
	raw, c := x.ask()
	if c.lost() {
		return c
	}
	for _, e := range raw {
		x.take(e)
	}
	x.pending = append(x.pending, raw...)
	// A lost GPU can be in no group, DCGM may refuse the question, and its clock
	// may have been set back: whatever the reason, the newest XID is not missed.
	for _, e := range r.newXIDs() {
		if x.heard[e.entity] == e.ts || x.taken[taken{e.entity, e.ts}] {
			continue
		}
		x.heard[e.entity] = e.ts
		x.taken[taken{e.entity, e.ts}] = true
		// For the same reasons listen does not know of all that happened before.
		if !x.unread[e.entity] || !x.history(e) {
			x.pending = append(x.pending, e)
		}
	}
	r.toldXIDs(x.unread)
	return c
}

// ofInstances says whether an XID that was heard is one of an instance: its id may be
// another one's by now.
func (x *xids) ofInstances() bool {
	return slices.ContainsFunc(x.pending, func(e event) bool { return e.entity.kind != uint32(collector.KindGPU) })
}

// tell returns what was heard: of the entities of the inventory or, if it holds no more
// and no other will come, of their GPUs, as nobody knows of which instance it is.
func (x *xids) tell(holds bool) []collector.Event {
	var events []collector.Event
	for _, e := range x.pending {
		at, ok := x.places[e.entity]
		if !ok {
			continue
		}
		row := at.gpu
		if holds {
			row = at.row
		}
		events = e.appendTo(events, row)
	}
	x.pending = nil
	return events
}

// tellBefore returns what was heard, of the entities of the inventory, before another
// one takes its place. What was heard of an entity whose id is another one's there
// may be of either: it is told of the GPU. What is of an entity that only the next
// inventory has is kept for it.
func (x *xids) tellBefore(next *collector.Inventory) []collector.Event {
	var events []collector.Event
	var kept []event
	then := placesIn(next)
	for _, e := range x.pending {
		now, known := x.places[e.entity]
		other, stays := then[e.entity]
		switch {
		case !known:
			kept = append(kept, e)
		case stays && other.who != now.who, !stays && next.InstancesUnknown:
			events = e.appendTo(events, now.gpu)
		default:
			events = e.appendTo(events, now.row)
		}
	}
	x.pending = kept
	return events
}

// appendTo appends the XID of the entity at a row, unless it is none.
func (e event) appendTo(events []collector.Event, row int) []collector.Event {
	if int64Status(e.code) != collector.StatusOK {
		return events
	}
	return append(events, collector.Event{
		Kind:   collector.EventXID,
		Entity: row,
		Time:   time.UnixMicro(e.ts),
		Code:   e.code,
	})
}
