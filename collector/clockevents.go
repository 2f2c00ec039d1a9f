// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"time"
)

var gpuClockEventSeconds = definition{"gpu_clock_event_seconds_total", MetricCounter, "Time that the reason held the clocks down: the driver's own count since it was loaded (fields 1420 to 1424), or, for reasons and GPUs that it does not count, what the exporter saw from sample to sample (field 112).", []string{"reason"}}

// clockEventCounters are the driver's own counts of the time with a reason, in ns,
// in the order of clockEventReasons; 0 where it has none. The violation counters
// (240 to 247) are no substitute: they are by policy, not by reason.
var clockEventCounters = [clockEventReasons]FieldID{2: 1420, 4: 1421, 5: 1422, 6: 1423, 7: 1424}

// clockEventCounter returns the field that is the driver's own count of the time with
// the reason, in ns, or 0.
func clockEventCounter(bit int) FieldID { return clockEventCounters[bit] }

// maxClockEventGap is the longest time between two samples of which it is taken
// that the reasons at its ends held in between. Restarts of a sampler are shorter.
const maxClockEventGap = 5 * time.Minute

// clockEventSource says where a reason's time on one GPU comes from. It is decided
// once: a counter that goes over to another source would jump.
type clockEventSource uint8

const (
	sourceUndecided clockEventSource = iota
	sourceDriver
	sourceSamples
)

// clockEventState is what the samples of one GPU have told of its clocks so far.
type clockEventState struct {
	at      time.Time // of the newest sample that had the reasons; zero if the last one did not
	reasons int64     // in it
	sources [clockEventReasons]clockEventSource
	seconds [clockEventReasons]float64 // from samples
	samples [clockEventReasons]uint64  // with the reason
	window  [clockEventReasons]uint64  // of those, the ones of recent
	recent  []reasonsFrom              // as long as the window, oldest first
}

// reasonsFrom counts the samples with each reason in a part of the window.
type reasonsFrom struct {
	at      time.Time // of the first of them
	samples [clockEventReasons]uint32
}

// windowParts is into how many parts a window is divided at the most, so that long
// ones of short intervals stay small.
const windowParts = 600

// clockEvents accumulates the reasons of each GPU over samples and samplers.
type clockEvents struct {
	gpus map[entityKey]*clockEventState
	// window is how long samples are kept to be counted; 0 keeps none.
	window time.Duration
	// columns are those of field 112 and of clockEventCounters in the inventory of.
	of      *Inventory
	reasons int
	counter [clockEventReasons]int
}

// add takes the next sample. It is of inv.
func (c *clockEvents) add(inv *Inventory, s *Sample) {
	if c.of != inv {
		c.of = inv
		c.reasons = slices.Index(inv.Derived, fieldClockEvents)
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
		key := instanceKey(inv, i)
		state := c.gpus[key]
		if row[c.reasons].Status != StatusOK {
			if state != nil {
				state.at = time.Time{}
				state.forget(s.Time.Add(-c.window))
			}
			continue
		}
		if state == nil {
			if c.gpus == nil {
				c.gpus = map[entityKey]*clockEventState{}
			}
			state = &clockEventState{}
			c.gpus[key] = state
		}
		state.decide(c, row)
		state.add(s.Time, row[c.reasons].Int64(), c.window)
	}
}

// decide chooses the sources that are not chosen yet.
func (state *clockEventState) decide(c *clockEvents, row []Cell) {
	for i := range state.sources {
		if state.sources[i] != sourceUndecided {
			continue
		}
		status := StatusNotSupported
		if c.counter[i] >= 0 {
			status = row[c.counter[i]].Status
		}
		switch status {
		case StatusOK:
			state.sources[i] = sourceDriver
		case StatusNoData, StatusStale, StatusError, StatusEntityLost: // it may come yet
		default:
			state.sources[i] = sourceSamples
		}
	}
}

// add accounts for the time since the last sample: the whole of it to a reason
// that is there at both ends, half of it to one that is there at one.
func (state *clockEventState) add(at time.Time, reasons int64, window time.Duration) {
	since := at.Sub(state.at)
	counts := !state.at.IsZero() && since > 0 && since <= maxClockEventGap
	for bit := range clockEventReasons {
		now := reasons >> bit & 1
		if state.at.IsZero() || since > 0 {
			state.samples[bit] += uint64(now)
		}
		if counts && state.sources[bit] == sourceSamples {
			state.seconds[bit] += since.Seconds() * float64(now+state.reasons>>bit&1) / 2
		}
	}
	if !state.at.IsZero() && since < 0 { // the clock was set back: what is of later would never leave the window
		state.recent, state.window = nil, [clockEventReasons]uint64{}
	}
	if window > 0 && (state.at.IsZero() || since > 0) {
		if n := len(state.recent); n == 0 || at.Sub(state.recent[n-1].at) >= window/windowParts {
			state.recent = append(state.recent, reasonsFrom{at: at})
		}
		newest := &state.recent[len(state.recent)-1]
		for bit := range clockEventReasons {
			state.window[bit] += uint64(reasons >> bit & 1)
			newest.samples[bit] += uint32(reasons >> bit & 1)
		}
	}
	state.forget(at.Add(-window))
	if state.at.IsZero() || since != 0 {
		state.at, state.reasons = at, reasons
	}
}

// forget takes the samples out of the window that are not from after limit.
func (state *clockEventState) forget(limit time.Time) {
	old := 0
	for old < len(state.recent) && !state.recent[old].at.After(limit) {
		for bit := range clockEventReasons {
			state.window[bit] -= uint64(state.recent[old].samples[bit])
		}
		old++
	}
	state.recent = slices.Delete(state.recent, 0, old)
}

// copy returns the states as they are now.
func (c *clockEvents) copy() map[entityKey]clockEventState {
	states := make(map[entityKey]clockEventState, len(c.gpus))
	for key, state := range c.gpus {
		s := *state
		s.recent = nil // goes on changing
		states[key] = s
	}
	return states
}

// appendClockEvents appends the time by reason. What samples told stays; what the
// driver counts is there while a sample has it.
func (f *Families) appendClockEvents(families []Family, v nodeView, fresh bool) []Family {
	family := gpuClockEventSeconds.family()
	for i := range v.inventory.Entities {
		if v.inventory.Entities[i].Kind != KindGPU || f.layout.entities[i].own == nil {
			continue
		}
		state, ok := v.clockEvents[instanceKey(v.inventory, i)]
		if !ok {
			continue
		}
		for bit := range clockEventReasons {
			// The first of derivedRows are the reasons, with the same labels.
			switch state.sources[bit] {
			case sourceUndecided:
			case sourceSamples:
				family.Series = append(family.Series, Series{f.derivedLabels(i, bit), Number(state.seconds[bit])})
			case sourceDriver:
				column := slices.Index(v.inventory.Derived, clockEventCounter(bit))
				if !fresh || column < 0 || len(v.sample.Derived) == 0 || len(v.sample.Derived[i]) == 0 {
					continue
				}
				if c := v.sample.Derived[i][column]; c.Status == StatusOK && c.Type == ValueInt64 {
					if value, ok := nanoseconds(c.Int64()); ok {
						family.Series = append(family.Series, Series{f.derivedLabels(i, bit), value})
					}
				}
			}
		}
	}
	return append(families, family)
}
