// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// clockEventCounters are the driver's own counts of the time with a reason, in ns,
// by the bit of the reason; 0 where it has none. The violation counters
// (240 to 247) are no substitute: they are by policy, not by reason.
var clockEventCounters = [field.ClockEventReasonCount]model.FieldID{2: 1420, 4: 1421, 5: 1422, 6: 1423, 7: 1424}

// ClockEventCounter returns the field that is the driver's own count of the time with
// the reason, in ns, or 0.
func ClockEventCounter(bit int) model.FieldID { return clockEventCounters[bit] }

// maxClockEventGap is the longest time between two samples of which it is taken
// that the reasons at its ends held in between. Restarts of a sampler are shorter.
const maxClockEventGap = 5 * time.Minute

// ClockEventSource says where a reason's time on one GPU comes from. It is decided
// once: a counter that goes over to another source would jump.
type ClockEventSource uint8

// The sources of a reason's time.
const (
	SourceUndecided ClockEventSource = iota
	SourceDriver                     // the driver's own counter
	SourceSamples                    // the reasons (field 112) of each sample
)

// ClockEvents is what the samples of one GPU have told of its clocks so far.
type ClockEvents struct {
	at      time.Time // of the newest sample that had the reasons; zero if the last one did not
	reasons int64     // in it
	Sources [field.ClockEventReasonCount]ClockEventSource
	Seconds [field.ClockEventReasonCount]float64 // from samples
	Samples [field.ClockEventReasonCount]uint64  // with the reason
	Window  [field.ClockEventReasonCount]uint64  // of those, the ones of recent
	recent  []reasonsFrom                        // as long as the window, oldest first
}

// reasonsFrom counts the samples with each reason in a part of the window.
type reasonsFrom struct {
	at      time.Time // of the first of them
	samples [field.ClockEventReasonCount]uint32
}

// windowParts is into how many parts a window is divided at the most, so that long
// ones of short intervals stay small.
const windowParts = 600

// clockEventCounts accumulates the reasons of each GPU over samples and samplers.
type clockEventCounts struct {
	gpus map[model.EntityKey]*ClockEvents
	// window is how long samples are kept to be counted; 0 keeps none.
	window time.Duration
	// columns are those of field 112 and of clockEventCounters in the inventory of.
	of      *model.Inventory
	reasons int
	counter [field.ClockEventReasonCount]int
}

// add takes the next sample. It is of inv.
func (c *clockEventCounts) add(inv *model.Inventory, s *model.Sample) {
	if c.of != inv {
		c.of = inv
		c.reasons = slices.Index(inv.Derived, field.ClocksEventReasons)
		for i, field := range clockEventCounters {
			c.counter[i] = slices.Index(inv.Derived, field)
		}
	}
	if c.reasons < 0 {
		return
	}
	for i, row := range s.Derived {
		if len(row) == 0 || inv.Entities[i].UUID == "" {
			continue
		}
		key := model.KeyOf(inv, i)
		state := c.gpus[key]
		if row[c.reasons].Status != model.StatusOK {
			if state != nil {
				state.at = time.Time{}
				state.forget(s.Time.Add(-c.window))
			}
			continue
		}
		if state == nil {
			if c.gpus == nil {
				c.gpus = map[model.EntityKey]*ClockEvents{}
			}
			state = &ClockEvents{}
			c.gpus[key] = state
		}
		state.decide(c, row)
		state.add(s.Time, row[c.reasons].Int64(), c.window)
	}
}

// decide chooses the sources that are not chosen yet.
func (state *ClockEvents) decide(c *clockEventCounts, row []model.Cell) {
	for i := range state.Sources {
		if state.Sources[i] != SourceUndecided {
			continue
		}
		status := model.StatusNotSupported
		if c.counter[i] >= 0 {
			status = row[c.counter[i]].Status
		}
		switch status {
		case model.StatusOK:
			state.Sources[i] = SourceDriver
		case model.StatusNoData, model.StatusStale, model.StatusError, model.StatusEntityLost: // it may come yet
		default:
			state.Sources[i] = SourceSamples
		}
	}
}

// add accounts for the time since the last sample: the whole of it to a reason
// that is there at both ends, half of it to one that is there at one.
func (state *ClockEvents) add(at time.Time, reasons int64, window time.Duration) {
	since := at.Sub(state.at)
	counts := !state.at.IsZero() && since > 0 && since <= maxClockEventGap
	for bit := range field.ClockEventReasonCount {
		now := reasons >> bit & 1
		if state.at.IsZero() || since > 0 {
			state.Samples[bit] += uint64(now)
		}
		if counts && state.Sources[bit] == SourceSamples {
			state.Seconds[bit] += since.Seconds() * float64(now+state.reasons>>bit&1) / 2
		}
	}
	if !state.at.IsZero() && since < 0 { // the clock was set back: what is of later would never leave the window
		state.recent, state.Window = nil, [field.ClockEventReasonCount]uint64{}
	}
	if window > 0 && (state.at.IsZero() || since > 0) {
		if n := len(state.recent); n == 0 || at.Sub(state.recent[n-1].at) >= window/windowParts {
			state.recent = append(state.recent, reasonsFrom{at: at})
		}
		newest := &state.recent[len(state.recent)-1]
		for bit := range field.ClockEventReasonCount {
			state.Window[bit] += uint64(reasons >> bit & 1)
			newest.samples[bit] += uint32(reasons >> bit & 1)
		}
	}
	state.forget(at.Add(-window))
	if state.at.IsZero() || since != 0 {
		state.at, state.reasons = at, reasons
	}
}

// forget takes the samples out of the window that are not from after limit.
func (state *ClockEvents) forget(limit time.Time) {
	old := 0
	for old < len(state.recent) && !state.recent[old].at.After(limit) {
		for bit := range field.ClockEventReasonCount {
			state.Window[bit] -= uint64(state.recent[old].samples[bit])
		}
		old++
	}
	state.recent = slices.Delete(state.recent, 0, old)
}

// copy returns the states as they are now.
func (c *clockEventCounts) copy() map[model.EntityKey]ClockEvents {
	states := make(map[model.EntityKey]ClockEvents, len(c.gpus))
	for key, state := range c.gpus {
		s := *state
		s.recent = nil // goes on changing
		states[key] = s
	}
	return states
}
