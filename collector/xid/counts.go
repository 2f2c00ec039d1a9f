// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import (
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

// Key is an XID code on one GPU or GPU instance.
type Key struct {
	model.EntityKey
	Code int64
}

// Count is how often an XID occurred, and when last.
type Count struct {
	Total uint64
	Last  time.Time
}

// Counts counts XIDs since the exporter started. They outlive samplers, and
// an instance that goes and comes back goes on counting.
type Counts struct {
	total map[Key]Count
	// Window is how long the times of XIDs are kept, in times.
	Window time.Duration
	times  map[Key][]second
}

// second is how many XIDs came within a second from at, which is of the monotonic
// clock, as the other may be set.
type second struct {
	at    time.Time
	count uint64
}

func newCounts() Counts {
	return Counts{total: map[Key]Count{}, times: map[Key][]second{}}
}

// add counts an XID that happened at a time and of which we were told at another.
func (c *Counts) add(e model.EntityKey, code int64, at, told time.Time) {
	k := Key{e, code}
	count := c.total[k]
	count.Total++
	if at.After(count.Last) {
		count.Last = at
	}
	c.total[k] = count
	if c.Window == 0 {
		return
	}
	times, came := c.times[k], told.Add(-max(0, told.Sub(at)))
	for i := range slices.Backward(times) {
		if since := came.Sub(times[i].at); since >= 0 && since < time.Second {
			times[i].count++
			return
		}
	}
	c.times[k] = append(times, second{came, 1})
}

// Recent returns how many XIDs came within the window before now, of those that
// have some.
func (c *Counts) Recent(now time.Time) map[Key]uint64 {
	if c.Window == 0 {
		return nil
	}
	recent := make(map[Key]uint64, len(c.times))
	for k, times := range c.times {
		times = slices.DeleteFunc(times, func(s second) bool { return now.Sub(s.at) > c.Window })
		if len(times) == 0 {
			delete(c.times, k)
			continue
		}
		c.times[k] = times
		for _, s := range times {
			recent[k] += s.count
		}
	}
	return recent
}

// Totals returns a copy of all counts.
func (c *Counts) Totals() map[Key]Count {
	if len(c.total) == 0 {
		return nil
	}
	return maps.Clone(c.total)
}
