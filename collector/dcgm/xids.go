// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/model"
)

// xidOverlap is how far back each query repeats the time range of the last one, in
// µs. The engine stamps an XID before it returns it, so an XID may appear that is
// older than the last result.
const xidOverlap = int64(5 * time.Second / time.Microsecond)

// xids receives XIDs from the engine and emits each once, as an event. Every reading
// has the newest XID of each entity. Several may have come since the last reading, so
// a new one causes a query of the watches.
type xids struct {
	// eventsSince is [native.Library.EventsSince].
	eventsSince func(w native.Watch, since int64) ([]native.Event, int64, native.Code)
	// since is the time of the oldest XID to emit, by the engine's clock; 0: none
	// that the engine has at the start.
	since   int64
	started bool
	// next is where to continue the query of each watch; newWatch where to begin
	// that of a new watch.
	next     map[native.Watch]int64
	newWatch int64
	entities map[native.Pair]xidEntity
	// unread are the entities whose newest XID no reading has contained yet. That
	// XID may have happened before the start.
	unread map[native.Pair]bool
	// received counts the XIDs of the last xidOverlap; newest is the time of the newest
	// one of each entity. Both outlive the watches: a new watch repeats the XIDs of
	// the old one.
	received map[xidKey]int
	newest   map[native.Pair]int64
	pending  []native.Event // received and not emitted yet
}

// xidKey is the properties of an XID. Several XIDs can have equal ones: the engine gives
// the same time to XIDs that it receives at once.
type xidKey = native.Event

// xidEntity is an entity of the inventory that events refer to.
type xidEntity struct {
	row, gpu int // gpu is the row of its GPU, or its own
	// identity differs between entities that have the same ID at different times.
	identity string
}

func xidEntities(inv *model.Inventory) map[native.Pair]xidEntity {
	entities := make(map[native.Pair]xidEntity, len(inv.Entities))
	for i, e := range inv.Entities {
		x := xidEntity{row: i, gpu: i}
		for up := i; up != model.Unknown; up = inv.Entities[up].Parent {
			part := &inv.Entities[up]
			if x.gpu = up; part.Kind == model.KindGPU {
				x.identity += part.UUID
				break
			}
			x.identity += fmt.Sprintf("%v/%d/%s ", part.Kind, part.InstanceID, part.Profile)
		}
		entities[native.PairOf(e.Kind, e.ID)] = x
	}
	return entities
}

// watch sets the watches to query and the inventory that events refer to. The first
// call also receives the XIDs that the engine has from before.
func (x *xids) watch(units []*watch.Unit, inv *model.Inventory) native.Code {
	next := make(map[native.Watch]int64)
	for _, u := range units {
		for _, w := range u.Watches {
			if !u.Events {
				continue
			}
			from, ok := x.next[w]
			if !ok {
				from = x.newWatch
			}
			next[w] = from
		}
	}
	x.next = next
	before := x.entities
	x.entities = xidEntities(inv)
	x.unread = make(map[native.Pair]bool)
	for _, e := range inv.Entities {
		p := native.PairOf(e.Kind, e.ID)
		if _, ok := before[p]; !ok && e.Selected && e.Kind.OfGPU() {
			x.unread[p] = true
		}
	}
	if x.started {
		return native.OK
	}
	x.started = true
	x.received, x.newest = make(map[xidKey]int), make(map[native.Pair]int64)
	if c := x.query(); c.EngineLost() {
		return c
	}
	x.pending = slices.DeleteFunc(x.pending, x.beforeStart)
	return native.OK
}

// beforeStart reports whether an XID that the engine had at the start is not to be emitted.
func (x *xids) beforeStart(e native.Event) bool { return x.since == 0 || e.Time < x.since }

// query receives the XIDs that came since the last query.
func (x *xids) query() native.Code {
	result, oldest := native.OK, int64(math.MaxInt64)
	for w, from := range x.next {
		from = max(0, from-xidOverlap)
		oldest = min(oldest, from)
		events, next, c := x.eventsSince(w, from)
		if c.EngineLost() {
			return c
		}
		repeated := make(map[xidKey]int)
		for _, e := range events {
			if repeated[e]++; repeated[e] > x.received[e] {
				x.record(e)
				x.pending = append(x.pending, e)
			}
		}
		if c == native.OK {
			x.next[w] = next
		} else {
			result = c
		}
	}
	if len(x.next) > 0 { // otherwise a later watch continues here
		x.newWatch = slices.Min(slices.Collect(maps.Values(x.next)))
		maps.DeleteFunc(x.received, func(k xidKey, _ int) bool { return k.Time < oldest })
	}
	return result
}

func (x *xids) record(e native.Event) {
	x.received[e]++
	x.newest[e.Entity] = max(x.newest[e.Entity], e.Time)
}

// poll receives new XIDs from the watches and from a reading. Any error except a
// lost engine means that only the newest XID of each entity was received.
func (x *xids) poll(r *reading) native.Code {
	c := x.query()
	if c.EngineLost() {
		return c
	}
	// The query may miss an XID: a lost GPU cannot be in a group, DCGM may refuse the
	// query, and its clock may have been set back.
	for _, e := range r.newXIDs() {
		if x.newest[e.Entity] == e.Time || x.received[e] > 0 {
			continue
		}
		x.record(e)
		x.newest[e.Entity] = e.Time // also if the clock was set back
		if !x.unread[e.Entity] || !x.beforeStart(e) {
			x.pending = append(x.pending, e)
		}
	}
	r.forgetRead(x.unread)
	return c
}

// hasInstances reports whether a pending XID is of an instance: its ID may belong to
// another instance by now.
func (x *xids) hasInstances() bool {
	return slices.ContainsFunc(x.pending, func(e native.Event) bool { return e.Entity.Kind != uint32(model.KindGPU) })
}

// emit returns the pending XIDs as events of the inventory. If the inventory is not
// current, an instance's XID is an event of its GPU.
func (x *xids) emit(current bool) []model.Event {
	var events []model.Event
	for _, e := range x.pending {
		at, ok := x.entities[e.Entity]
		if !ok {
			continue
		}
		row := at.gpu
		if current {
			row = at.row
		}
		events = appendXID(events, e, row)
	}
	x.pending = nil
	return events
}

// emitBefore returns the pending XIDs as events of the inventory, before next replaces
// it. If an ID belongs to another entity in next, the XID may be of either and becomes
// an event of the GPU. XIDs of entities that only next has stay pending.
func (x *xids) emitBefore(next *model.Inventory) []model.Event {
	var events []model.Event
	var kept []native.Event
	nextEntities := xidEntities(next)
	for _, e := range x.pending {
		now, known := x.entities[e.Entity]
		then, stays := nextEntities[e.Entity]
		switch {
		case !known:
			kept = append(kept, e)
		case stays && then.identity != now.identity, !stays && next.InstancesUnknown:
			events = appendXID(events, e, now.gpu)
		default:
			events = appendXID(events, e, now.row)
		}
	}
	x.pending = kept
	return events
}

func appendXID(events []model.Event, e native.Event, row int) []model.Event {
	if !e.Valid() {
		return events
	}
	return append(events, model.Event{Kind: model.EventXID, Entity: row, Time: time.UnixMicro(e.Time), Code: e.Code})
}
