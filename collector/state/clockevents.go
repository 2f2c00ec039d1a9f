// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// clockEventCounters are the driver's counters of the time with a reason, in ns, by the bit
// of the reason; 0 if the driver has none. The violation counters (240 to 247) are no
// substitute: they count by policy, not by reason.
var clockEventCounters = [field.ClockEventReasonCount]model.FieldID{2: 1420, 4: 1421, 5: 1422, 6: 1423, 7: 1424}

// ClockEventCounter returns the driver's counter of the time with the reason, in ns, or 0.
func ClockEventCounter(bit int) model.FieldID { return clockEventCounters[bit] }

// maxClockEventGap is the longest time between two samples during which the reasons are
// assumed to hold. It exceeds the duration of a sampler restart.
const maxClockEventGap = 5 * time.Minute

// ClockEventSource is the source of a reason's time on one GPU. It never changes once it is
// decided, because a change would make the counter jump.
type ClockEventSource uint8

// The sources of a reason's time.
const (
	SourceUndecided ClockEventSource = iota
	SourceDriver                     // the driver's counter
	SourceSamples                    // the reasons (field 112) of each sample
)

// ClockEvents holds what the samples of one GPU have accumulated.
type ClockEvents struct {
	at      time.Time // [model.Sample.Steady] of the newest sample with reasons; zero if the last sample had none
	reasons int64     // at that time
	Sources [field.ClockEventReasonCount]ClockEventSource
	Seconds [field.ClockEventReasonCount]float64 // from samples
	Samples [field.ClockEventReasonCount]uint64  // with the reason
	Window  [field.ClockEventReasonCount]uint64  // likewise, within the window
	recent  []reasonCounts                       // the parts of the window, oldest first
}

// reasonCounts counts the samples with each reason in a part of the window.
type reasonCounts struct {
	at      time.Time // of the first sample
	samples [field.ClockEventReasonCount]uint32
}

// windowParts bounds the parts of a window, so that long windows of short intervals remain
// small.
const windowParts = 600

// clockEventCounts accumulates the reasons of each GPU.
type clockEventCounts struct {
	gpus   map[model.EntityKey]*ClockEvents
	window time.Duration // 0 disables [ClockEvents.Window]
}

// add takes the next sample, which belongs to inv.
func (c *clockEventCounts) add(inv *model.Inventory, s *model.Sample) {
	column := slices.Index(inv.Derived, field.ClocksEventReasons)
	if column < 0 {
		return
	}
	for i, row := range s.Derived {
		if len(row) == 0 || inv.Entities[i].UUID == "" {
			continue
		}
		key := model.KeyOf(inv, i)
		events := c.gpus[key]
		if row[column].Status != model.StatusOK {
			if events != nil {
				events.at = time.Time{}
				events.expire(s.Steady().Add(-c.window))
			}
			continue
		}
		if events == nil {
			if c.gpus == nil {
				c.gpus = map[model.EntityKey]*ClockEvents{}
			}
			events = &ClockEvents{}
			c.gpus[key] = events
		}
		events.decide(inv.Derived, row)
		events.add(s.Steady(), row[column].Int64(), c.window)
	}
}

// decide chooses the sources that are undecided.
func (e *ClockEvents) decide(columns []model.FieldID, row []model.Cell) {
	for i, counter := range clockEventCounters {
		if e.Sources[i] != SourceUndecided {
			continue
		}
		status := model.StatusNotSupported
		if column := slices.Index(columns, counter); column >= 0 {
			status = row[column].Status
		}
		switch status {
		case model.StatusOK:
			e.Sources[i] = SourceDriver
		case model.StatusNoData, model.StatusStale, model.StatusError, model.StatusEntityLost: // a value may follow
		default:
			e.Sources[i] = SourceSamples
		}
	}
}

// add attributes the time since the last sample: all of it to a reason at both ends, half of
// it to a reason at one end.
func (e *ClockEvents) add(at time.Time, reasons int64, window time.Duration) {
	since := at.Sub(e.at)
	first := e.at.IsZero()
	if !first && since == 0 {
		e.expire(at.Add(-window))
		return
	}
	if !first && since < 0 { // the clock was set back; later samples would never expire
		e.recent, e.Window = nil, [field.ClockEventReasonCount]uint64{}
	}
	for bit := range field.ClockEventReasonCount {
		now := reasons >> bit & 1
		if first || since > 0 {
			e.Samples[bit] += uint64(now)
		}
		if !first && since > 0 && since <= maxClockEventGap && e.Sources[bit] == SourceSamples {
			e.Seconds[bit] += since.Seconds() * float64(now+e.reasons>>bit&1) / 2
		}
	}
	if window > 0 && (first || since > 0) {
		if n := len(e.recent); n == 0 || at.Sub(e.recent[n-1].at) >= window/windowParts {
			e.recent = append(e.recent, reasonCounts{at: at})
		}
		newest := &e.recent[len(e.recent)-1]
		for bit := range field.ClockEventReasonCount {
			e.Window[bit] += uint64(reasons >> bit & 1)
			newest.samples[bit] += uint32(reasons >> bit & 1)
		}
	}
	e.expire(at.Add(-window))
	e.at, e.reasons = at, reasons
}

// expire removes the parts of the window that began at or before limit.
func (e *ClockEvents) expire(limit time.Time) {
	old := 0
	for old < len(e.recent) && !e.recent[old].at.After(limit) {
		for bit := range field.ClockEventReasonCount {
			e.Window[bit] -= uint64(e.recent[old].samples[bit])
		}
		old++
	}
	e.recent = slices.Delete(e.recent, 0, old)
}

// copy returns the current state.
func (c *clockEventCounts) copy() map[model.EntityKey]ClockEvents {
	events := make(map[model.EntityKey]ClockEvents, len(c.gpus))
	for key, e := range c.gpus {
		copied := *e
		copied.recent = nil // shared with e
		events[key] = copied
	}
	return events
}
