// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

const (
	// minPollInterval is the shortest time between two polls of the tracked fields.
	minPollInterval = 10 * time.Millisecond
	// trackWriteInterval bounds how long values are held back. A killed sampler loses
	// the values that it has not written.
	trackWriteInterval = time.Second
	// maxPoints bounds the values held back, far below the limit of a frame.
	maxPoints = 1 << 16
)

// pollInterval returns the time between two polls of the tracked fields, or 0 if
// reading them with the samples suffices. It is half of the shortest interval, so that
// no value is overwritten before it is read.
func pollInterval(cfg wire.SamplerConfig) time.Duration {
	shortest := cfg.Interval
	for _, f := range cfg.Tracked {
		if f.Every > 0 {
			shortest = min(shortest, f.Every)
		}
	}
	if shortest >= cfg.Interval {
		return 0
	}
	return max(shortest/2, minPollInterval)
}

// tracker reads the tracked fields and collects each new value. It reuses its memory.
type tracker struct {
	lib    *native.Library
	sample *reading
	// fast are the requests of the fields that are polled between samples. Their cells
	// are fastCells; fastTracks has the track of each.
	fast       []native.Request
	fastCells  []native.Cell
	fastTracks []int
	tracks     model.Tracks
	// Of each track: the position in the sample's cells, the time at which its entity
	// appeared, and its newest value.
	inSample  []int
	appeared  []int64
	limits    []native.Range
	seen      []seenValue
	points    int // not written yet
	lastWrite time.Time
	out       model.Tracks // the tracks that have points
}

// newTracker returns a tracker of the plan of a reading.
func newTracker(sample *reading) *tracker {
	p := sample.plan
	t := &tracker{lib: sample.lib, sample: sample, lastWrite: time.Now()}
	t.tracks.Generation = p.inv.Generation
	positions := sample.positions()
	requests := make(map[string]int)
	for row, e := range p.inv.Entities {
		var fields []uint16
		var tracks []int
		for _, f := range p.tracked[row] {
			if f.every > 0 {
				fields, tracks = append(fields, f.field), append(tracks, len(t.tracks.List))
			}
			t.tracks.List = append(t.tracks.List, model.Track{Entity: row, Field: model.FieldID(f.field)})
			described, _ := field.ByID(model.FieldID(f.field))
			t.limits = append(t.limits, limits(described))
			t.inSample = append(t.inSample, positions[fieldOf{row, f.field}])
			t.appeared = append(t.appeared, sample.appeared[row])
		}
		if len(fields) == 0 {
			continue
		}
		key := fmt.Sprint(e.Kind, fields)
		at, ok := requests[key]
		if !ok {
			at = len(t.fast)
			requests[key] = at
			t.fast = append(t.fast, native.Request{Fields: fields})
		}
		r := &t.fast[at]
		r.Entities = append(r.Entities, native.PairOf(e.Kind, e.ID))
		r.Base = append(r.Base, uint32(len(t.fastTracks)))
		t.fastTracks = append(t.fastTracks, tracks...)
	}
	t.fastCells = make([]native.Cell, len(t.fastTracks))
	t.seen = make([]seenValue, len(t.tracks.List))
	return t
}

// poll collects new values: of all tracked fields from the newest sample, or else of
// the fast fields from DCGM.
func (t *tracker) poll(withSample bool) native.Code {
	if withSample {
		for i := range t.tracks.List {
			t.collect(i, &t.sample.cells[t.inSample[i]])
		}
		return native.OK
	}
	for i := range t.fast {
		if c := t.lib.Read(&t.fast[i], false, t.fastCells); c != native.OK {
			return c
		}
	}
	for i := range t.fastCells {
		t.collect(t.fastTracks[i], &t.fastCells[i])
	}
	return native.OK
}

// maxClockSkew is how much the time between two values may differ between the engine's
// clock and ours: DCGM may be late once. A larger difference is a step of its clock.
const maxClockSkew = 2 * time.Second

// seenValue is the newest value of a track.
type seenValue struct {
	at       int64 // by the engine's clock
	point    int64 // [model.Point.At]
	received time.Time
}

// next returns the value at a time of the engine's clock that was received now.
func (s seenValue) next(at int64, now time.Time) seenValue {
	next := seenValue{at, at, now}
	if s.at != 0 {
		since, elapsed := at-s.at, now.Sub(s.received)
		if (time.Duration(since)*time.Microsecond - elapsed).Abs() > maxClockSkew {
			since = elapsed.Microseconds()
		}
		next.point = s.point + since
	}
	return next
}

// collect adds the value of a cell to a track if it is new.
func (t *tracker) collect(i int, c *native.Cell) {
	if c.Status != native.OK || c.Time == t.seen[i].at || c.Time <= t.appeared[i] {
		return
	}
	t.seen[i] = t.seen[i].next(c.Time, time.Now())
	if v, ok := c.Number(t.limits[i]); ok && t.points < maxPoints {
		t.points++
		t.tracks.List[i].Points = append(t.tracks.List[i].Points, model.Point{At: t.seen[i].point, Value: v})
	}
}

// take returns the collected values, valid until the next poll, and forgets them.
func (t *tracker) take() *model.Tracks {
	t.out.Generation, t.out.List = t.tracks.Generation, t.out.List[:0]
	for i := range t.tracks.List {
		track := &t.tracks.List[i]
		if len(track.Points) > 0 {
			t.out.List = append(t.out.List, *track)
			track.Points = track.Points[:0]
		}
	}
	t.points, t.lastWrite = 0, time.Now()
	return &t.out
}

// pollTracked polls the tracked fields. It writes the new values with a sample, and
// between samples when enough time has passed.
func (s *sampler) pollTracked(withSample bool) error {
	if c := s.tracker.poll(withSample); c.EngineLost() {
		return s.failed(c, model.FailureHostengineLost, "reading values between samples")
	} else if c != native.OK {
		s.log.Debug("values between samples were not read", "err", s.lib.Err(c, "reading values between samples"))
	}
	if !withSample && s.tracker.points < maxPoints/2 && time.Since(s.tracker.lastWrite) < trackWriteInterval {
		return nil
	}
	return s.writeTracks()
}

func (s *sampler) writeTracks() error {
	if s.tracker == nil || s.tracker.points == 0 {
		return nil
	}
	return s.cfg.Frames.Write(wire.Frame{Tracks: s.tracker.take()})
}
