// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/collector/dcgm/native"
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
func pollInterval(cfg collector.SamplerConfig) time.Duration {
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
	blocks []trackedBlock
	cells  []native.Cell
	sample *reading
	// inSample is, for each cell, its position in the cells of the sample, or -1.
	inSample  []int
	tracks    collector.Tracks // one for each cell
	seen      []int64          // for each cell, the time of its newest value
	points    int              // not written yet
	lastWrite time.Time
	out       collector.Tracks // the tracks that have points
}

// trackedBlock is a request whose cells are contiguous.
type trackedBlock struct {
	native.Request
	first    int // position of its first cell
	appeared []int64
	fast     bool // polled between samples
	separate bool // the samples do not read all of it
}

// newTracker returns a tracker of the plan. It takes values from the cells of sample
// where possible.
func newTracker(lib *native.Library, p *plan, sample *reading, appeared []int64) *tracker {
	t := &tracker{lib: lib, sample: sample, lastWrite: time.Now()}
	t.tracks.Generation = p.inv.Generation
	positions := sample.positions()
	type shape struct {
		fields []uint16
		fast   bool
		rows   []int
	}
	var shapes []shape
	shapeAt := make(map[string]int)
	for i, e := range p.inv.Entities {
		fast, slow := shape{fast: true}, shape{}
		for _, f := range p.tracked[i] {
			if f.every > 0 {
				fast.fields = append(fast.fields, f.field)
			} else {
				slow.fields = append(slow.fields, f.field)
			}
		}
		for _, s := range []shape{fast, slow} {
			if len(s.fields) == 0 {
				continue
			}
			key := fmt.Sprint(e.Kind, s.fast, s.fields)
			at, ok := shapeAt[key]
			if !ok {
				at = len(shapes)
				shapeAt[key] = at
				shapes = append(shapes, s)
			}
			shapes[at].rows = append(shapes[at].rows, i)
		}
	}
	for _, s := range shapes {
		b := trackedBlock{first: len(t.tracks.List), fast: s.fast}
		b.Fields = s.fields
		for j := range s.fields {
			b.Column = append(b.Column, uint16(j))
		}
		for _, row := range s.rows {
			e := &p.inv.Entities[row]
			b.Entities = append(b.Entities, native.PairOf(e.Kind, e.ID))
			b.Base = append(b.Base, uint32(len(t.tracks.List)))
			b.appeared = append(b.appeared, appeared[row])
			for _, f := range s.fields {
				t.tracks.List = append(t.tracks.List, collector.Track{Entity: row, Field: collector.FieldID(f)})
				at, ok := positions[fieldOf{row, f}]
				if !ok {
					at, b.separate = -1, true
				}
				t.inSample = append(t.inSample, at)
			}
		}
		t.blocks = append(t.blocks, b)
	}
	t.cells = make([]native.Cell, len(t.tracks.List))
	t.seen = make([]int64, len(t.tracks.List))
	return t
}

// poll collects new values: of all tracked fields with a sample, otherwise of the
// fast ones.
func (t *tracker) poll(withSample bool) native.Code {
	for i := range t.blocks {
		b := &t.blocks[i]
		switch {
		case withSample && !b.separate:
			t.collect(b, func(i int) *native.Cell { return &t.sample.cells[t.inSample[i]] })
		case withSample || b.fast:
			if c := t.lib.Read(&b.Request, false, t.cells); c != native.OK {
				return c
			}
			t.collect(b, func(i int) *native.Cell { return &t.cells[i] })
		}
	}
	return native.OK
}

// collect adds the new values in the cells of a block to the tracks.
func (t *tracker) collect(b *trackedBlock, cell func(i int) *native.Cell) {
	n := len(b.Fields)
	for e := range b.Entities {
		for i := b.first + e*n; i < b.first+(e+1)*n; i++ {
			c := cell(i)
			if c.Status != native.OK || c.Time == t.seen[i] || c.Time <= b.appeared[e] {
				continue
			}
			t.seen[i] = c.Time
			if v, ok := c.Number(); ok && t.points < maxPoints {
				t.points++
				t.tracks.List[i].Points = append(t.tracks.List[i].Points, collector.Point{At: c.Time, Value: v})
			}
		}
	}
}

// take returns the collected values, valid until the next poll, and forgets them.
func (t *tracker) take() *collector.Tracks {
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
		return s.failed(c, collector.FailureHostengineLost, "reading values between samples")
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
	return s.cfg.Frames.WriteTracks(s.tracker.take())
}
