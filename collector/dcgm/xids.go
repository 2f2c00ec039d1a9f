// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"time"

	"gpu_exporter/collector"
)

// xids turns the samples of field 230 into events. The newest XID of each entity
// comes with every reading and costs nothing more; only when one is new, DCGM is
// asked for all since the last time, as several may have come.
type xids struct {
	since   int64 // when to begin; 0 is now
	started bool
	next    int64 // when to ask from next, by the engine's clock
	failed  bool  // the last time; what it gave may come again
	watches []watch
	rows    map[pair]int
	// heard is the time of the newest XID that was taken from each entity.
	heard   map[pair]int64
	pending []event
}

// listen sets the watches to ask and the inventory that events refer to. The
// first time it also takes note of what happened before.
func (x *xids) listen(lib *library, units []*unit, inv *collector.Inventory) code {
	x.watches = x.watches[:0]
	for _, u := range units {
		if u.events {
			x.watches = append(x.watches, u.watches...)
		}
	}
	x.rows = make(map[pair]int, len(inv.Entities))
	for i, e := range inv.Entities {
		x.rows[pairOf(e.Kind, e.ID)] = i
	}
	if x.started {
		return codeOK
	}
	x.started = true
	x.heard = make(map[pair]int64)
	old, c := x.ask(lib)
	if c.lost() {
		return c
	}
	for _, e := range old {
		x.heard[e.entity] = max(x.heard[e.entity], e.ts)
		if x.since != 0 && e.ts >= x.since {
			x.pending = append(x.pending, e)
		}
	}
	return codeOK
}

// ask returns what came since the last time.
func (x *xids) ask(lib *library) ([]event, code) {
	var all []event
	result, next := codeOK, int64(0)
	for _, w := range x.watches {
		events, n, c := lib.valuesSince(w, x.next)
		if c.lost() {
			return nil, c
		}
		for _, e := range events {
			if !x.failed || e.ts > x.heard[e.entity] {
				all = append(all, e)
			}
		}
		if c != codeOK {
			result = c
		} else if next == 0 || n < next {
			next = n
		}
	}
	x.failed = result != codeOK
	if !x.failed && next != 0 {
		x.next = next
	}
	return all, result
}

// collect returns the events since the last call. A code other than those of a
// lost engine means that it had to do with the newest XID of each entity.
func (x *xids) collect(lib *library, r *reading) ([]collector.Event, code) {
	raw, c := x.ask(lib)
	if c.lost() {
		return nil, c
	}
	raw = append(x.pending, raw...)
	x.pending = nil
	for _, e := range raw {
		x.heard[e.entity] = max(x.heard[e.entity], e.ts)
	}
	// A lost GPU can be in no group, DCGM may refuse the question, and its clock
	// may have been set back: whatever the reason, the newest XID is not missed.
	for _, e := range r.newXIDs() {
		if x.heard[e.entity] != e.ts && !contains(raw, e) {
			raw = append(raw, e)
			x.heard[e.entity] = e.ts
		}
	}
	var events []collector.Event
	for _, e := range raw {
		row, ok := x.rows[e.entity]
		if !ok || int64Status(e.code) != collector.StatusOK {
			continue
		}
		events = append(events, collector.Event{
			Kind:   collector.EventXID,
			Entity: row,
			Time:   time.UnixMicro(e.ts),
			Code:   e.code,
		})
	}
	return events, c
}

func contains(events []event, e event) bool {
	for _, x := range events {
		if x.entity == e.entity && x.ts == e.ts {
			return true
		}
	}
	return false
}
