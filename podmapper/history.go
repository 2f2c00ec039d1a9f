// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"slices"
	"time"
)

// Limits of what is remembered. A sample is looked up when it is exposed, a few
// intervals after it was taken at most.
const (
	minHistory       = 2 * time.Minute
	maxTables        = 64
	maxHeldInHistory = 2 * maxAssignments
)

// history is what the kubelet said and when, oldest first. It is immutable.
type history []epoch

// epoch is a table and when the last of the refreshes that gave it began.
type epoch struct {
	table     *Table
	confirmed time.Time
}

// last gives the newest epoch; its table is nil before the first.
func (h history) last() epoch {
	if len(h) == 0 {
		return epoch{}
	}
	return h[len(h)-1]
}

// at gives the table that was true at t, if it was not older than maxAge then.
func (h history) at(t time.Time, maxAge time.Duration) *Table {
	if len(h) == 0 {
		return nil
	}
	i := len(h) - 1
	for i > 0 && h[i].table.Time.After(t) {
		i--
	}
	if t.Sub(h[i].confirmed) > maxAge {
		return nil
	}
	return h[i].table
}

// confirm gives the history after a refresh at now that changed nothing.
func (h history) confirm(now time.Time) history {
	h = slices.Clone(h)
	h[len(h)-1].confirmed = now
	return h
}

// add gives the history with a new table, without what is older than age.
func (h history) add(t *Table, now time.Time, age time.Duration) history {
	h = append(slices.Clip(h), epoch{table: t, confirmed: now})
	held := 0
	for _, e := range h {
		held += len(e.table.Assignments)
	}
	first := 0
	for first < len(h)-1 && (len(h)-first > maxTables || held > maxHeldInHistory || now.Sub(h[first+1].table.Time) > age) {
		held -= len(h[first].table.Assignments)
		first++
	}
	return slices.Clone(h[first:])
}
