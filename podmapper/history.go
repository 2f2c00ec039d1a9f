// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"slices"
	"time"
)

// Bounds of the history. A sample is joined with the owners of its time when it is
// exposed, which is a few intervals after it was taken.
const (
	minHistory       = 2 * time.Minute
	maxTables        = 64
	maxHeldInHistory = 2 * maxAssignments
)

// history contains the tables and when they were valid, oldest first. It is
// immutable.
type history []epoch

// epoch is a table, and the start of the last refresh that returned it.
type epoch struct {
	table     *Table
	confirmed time.Time
}

// last returns the newest epoch; its table is nil before the first.
func (h history) last() epoch {
	if len(h) == 0 {
		return epoch{}
	}
	return h[len(h)-1]
}

// at returns the table that was valid at t, unless it was older than maxAge then.
// Before the first table, that one counts.
func (h history) at(t time.Time, maxAge time.Duration) *Table {
	for i, e := range slices.Backward(h) {
		if i > 0 && e.table.Time.After(t) {
			continue
		}
		if t.Sub(e.confirmed) > maxAge {
			return nil
		}
		return e.table
	}
	return nil
}

// confirm returns the history after a refresh at now that changed nothing.
func (h history) confirm(now time.Time) history {
	h = slices.Clone(h)
	h[len(h)-1].confirmed = now
	return h
}

// add returns the history with a new table, without what is older than age.
func (h history) add(t *Table, now time.Time, age time.Duration) history {
	h = append(slices.Clone(h), epoch{table: t, confirmed: now})
	held := 0
	for i, e := range slices.Backward(h) {
		held += len(e.table.Assignments)
		newest := i == len(h)-1
		if !newest && (len(h)-i > maxTables || held > maxHeldInHistory || now.Sub(h[i+1].table.Time) > age) {
			return slices.Clone(h[i+1:])
		}
	}
	return h
}
