// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"math"
	"slices"
	"time"

	"gpu_exporter/collector"
)

const (
	// leastLook is the shortest time between two looks between samples.
	leastLook = 10 * time.Millisecond
	// writeTracksEvery is how long values are held back at the most: what a sampler
	// that is killed has not written is lost.
	writeTracksEvery = time.Second
	// maxPoints bounds what is held back, far below what a frame can hold.
	maxPoints = 1 << 16
)

// trackedField is a field that is looked at between samples.
type trackedField struct {
	field uint16
	every time.Duration // 0: at the samples only
}

// track says which of the fields are tracked on which entities. While profiling is
// paused, none of its fields is; on GPUs of which it is silent, by id, what stands in
// for one is.
func (p *plan) track(fields []collector.TrackedField, interval time.Duration, paused bool, silent map[uint32]bool) {
	p.count(fields)
	split := make([]bool, len(p.inv.Entities)) // GPUs with instances that are asked for
	for i, e := range p.inv.Entities {
		if e.Kind == collector.KindGPUInstance && p.selected[i] {
			split[e.Parent] = true
		}
		if p.inv.InstancesUnknownOf(i) {
			split[i] = p.selected[i]
		}
	}
	for i, e := range p.inv.Entities {
		if e.State != collector.EntityUp {
			continue
		}
		for _, f := range fields {
			asked := p.read[i] || f.Parents && split[i]
			// An entity without columns has no row, but may be asked for all the same.
			asked = asked || p.selected[i] && !split[i] && len(p.inv.Columns[e.Kind]) == 0
			if !asked || !f.Kinds.Has(e.Kind) || !p.has(i, f.Field) || p.excluded(i, f.Field) {
				continue
			}
			gpu, _ := p.inv.GPU(i)
			if gpu != nil && profiling(uint16(f.Field)) {
				p.profiled[gpu.ID] = true
				if paused {
					continue
				}
			}
			better := f.Unless != 0 && p.has(i, f.Unless) && !p.excluded(i, f.Unless)
			if better && !(gpu != nil && silent[gpu.ID] && profiling(uint16(f.Unless))) {
				continue
			}
			every := f.Every
			if every >= interval {
				every = 0
			}
			p.tracked[i] = append(p.tracked[i], trackedField{uint16(f.Field), every})
		}
	}
}

// excluded says whether the configuration keeps a field from an entity.
func (p *plan) excluded(row int, field collector.FieldID) bool {
	gpu, _ := p.inv.GPU(row)
	return gpu != nil && p.models.exclude(field, gpu.Model)
}

// watchesOf are the watches of an entity, XIDs aside: what is read with the
// samples, what more often, and profiling, which has one interval, so that a GPU
// has one set of counters to multiplex.
func (p *plan) watchesOf(row int) []target {
	e := &p.inv.Entities[row]
	ordinary, prof := target{}, target{profiling: true, round: p.roundOf(row)}
	finer := make(map[time.Duration][]uint16)
	every := make(map[uint16]time.Duration)
	for _, t := range p.tracked[row] {
		every[t.field] = t.every
	}
	add := func(field uint16) {
		switch at := every[field]; {
		case profiling(field):
			prof.fields = append(prof.fields, field)
			if at > 0 && (prof.every == 0 || at < prof.every) {
				prof.every = at
			}
		case at > 0:
			finer[at] = append(finer[at], field)
		default:
			ordinary.fields = append(ordinary.fields, field)
		}
	}
	columns := p.inv.Columns[e.Kind]
	if p.read[row] {
		if e.Kind == collector.KindGPU {
			ordinary.fields = append(ordinary.fields, fieldMIGMode)
			for _, field := range p.unlistedEvidence() {
				if _, tracked := every[field]; !tracked {
					ordinary.fields = append(ordinary.fields, field)
				}
			}
		}
		for j, f := range columns {
			// The XID's own watch keeps its samples for longer, and a connection has
			// one watch for each field of an entity: the last one counts.
			field := uint16(f)
			fixed := p.fixed[row][j]
			if field == fieldXID || field == fieldMIGMode && e.Kind == collector.KindGPU || fixed == collector.StatusExcluded || profiling(field) && fixed != collector.StatusOK {
				continue
			}
			add(field)
		}
	}
	for _, t := range p.tracked[row] {
		if !p.read[row] || !slices.Contains(columns, collector.FieldID(t.field)) {
			add(t.field)
		}
	}
	targets := []target{ordinary}
	for _, at := range sortedKeys(finer) {
		targets = append(targets, target{fields: finer[at], every: at})
	}
	return append(targets, prof)
}

func sortedKeys(m map[time.Duration][]uint16) []time.Duration {
	keys := make([]time.Duration, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// looks tells when to look between samples.
type looks struct {
	C      <-chan time.Time // nil: never
	ticker *time.Ticker
}

// newLooks returns the times of looks: twice for each value, so that none is
// overwritten before it was seen. It never delivers if the samples are enough.
func newLooks(cfg collector.SamplerConfig) *looks {
	finest := cfg.Interval
	for _, f := range cfg.Tracked {
		if f.Every > 0 {
			finest = min(finest, f.Every)
		}
	}
	if finest >= cfg.Interval {
		return &looks{}
	}
	t := time.NewTicker(max(finest/2, leastLook))
	return &looks{C: t.C, ticker: t}
}

// Stop ends the looks.
func (l *looks) Stop() {
	if l.ticker != nil {
		l.ticker.Stop()
	}
}

// tracker looks at the tracked fields and gathers each new value. All that it
// needs is made once, and used for each look.
type tracker struct {
	lib    *library
	blocks []trackedBlock
	cells  []nativeCell
	// due are the blocks that are looked at between samples.
	due    []int
	sample *reading
	// borrowed are, for each cell, its place in what the sample has read, or -1.
	borrowed []int
	tracks   collector.Tracks // one for each cell
	seen     []int64          // for each cell, the time of its newest value
	points   int
	wrote    time.Time
	out      collector.Tracks // those of tracks that have something to tell
}

// trackedBlock is a request; its cells follow one another.
type trackedBlock struct {
	request
	first    int // of its cells
	appeared []int64
	// own says that the samples do not read all of it.
	own bool
}

// newTracker makes a tracker of the plan that sample follows, too: what a sample
// has read is not read again.
func newTracker(lib *library, p *plan, sample *reading, appeared []int64) *tracker {
	t := &tracker{lib: lib, sample: sample, wrote: time.Now()}
	places := sample.places()
	t.tracks.Generation = p.inv.Generation
	type shaped struct {
		fields []uint16
		fine   bool
		rows   []int
	}
	var shapes []shaped
	at := make(map[string]int)
	for i, e := range p.inv.Entities {
		var fine, rest []uint16
		for _, f := range p.tracked[i] {
			if f.every > 0 {
				fine = append(fine, f.field)
			} else {
				rest = append(rest, f.field)
			}
		}
		for _, s := range []shaped{{fields: fine, fine: true}, {fields: rest}} {
			if len(s.fields) == 0 {
				continue
			}
			key := fmt.Sprint(e.Kind, s.fine, s.fields)
			place, ok := at[key]
			if !ok {
				place = len(shapes)
				at[key] = place
				shapes = append(shapes, s)
			}
			shapes[place].rows = append(shapes[place].rows, i)
		}
	}
	for _, s := range shapes {
		if s.fine {
			t.due = append(t.due, len(t.blocks))
		}
		b := trackedBlock{first: len(t.tracks.List)}
		b.fields = s.fields
		for j := range s.fields {
			b.column = append(b.column, uint16(j))
		}
		for _, row := range s.rows {
			e := &p.inv.Entities[row]
			b.entities = append(b.entities, pairOf(e.Kind, e.ID))
			b.base = append(b.base, uint32(len(t.tracks.List)))
			b.appeared = append(b.appeared, appeared[row])
			for _, f := range s.fields {
				t.tracks.List = append(t.tracks.List, collector.Track{Entity: row, Field: collector.FieldID(f)})
				place, ok := places[rowField{row, f}]
				if !ok {
					place, b.own = -1, true
				}
				t.borrowed = append(t.borrowed, place)
			}
		}
		t.blocks = append(t.blocks, b)
	}
	t.cells = make([]nativeCell, len(t.tracks.List))
	t.seen = make([]int64, len(t.tracks.List))
	return t
}

// look takes what is new; with all, also what is only looked at with the samples.
func (t *tracker) look(all bool) code {
	if !all {
		for _, i := range t.due {
			if c := t.read(&t.blocks[i]); c != codeOK {
				return c
			}
		}
		return codeOK
	}
	for i := range t.blocks {
		b := &t.blocks[i]
		if b.own {
			if c := t.read(b); c != codeOK {
				return c
			}
			continue
		}
		t.gather(b, func(i int) *nativeCell { return &t.sample.cells[t.borrowed[i]] })
	}
	return codeOK
}

func (t *tracker) read(b *trackedBlock) code {
	if c := t.lib.read(&b.request, false, t.cells); c != codeOK {
		return c
	}
	t.gather(b, func(i int) *nativeCell { return &t.cells[i] })
	return codeOK
}

// gather takes what is new in the cells of a block.
func (t *tracker) gather(b *trackedBlock, cell func(i int) *nativeCell) {
	n := len(b.fields)
	for e := range b.entities {
		for i := b.first + e*n; i < b.first+(e+1)*n; i++ {
			c := cell(i)
			if c.status != codeOK || c.ts == t.seen[i] || c.ts <= b.appeared[e] {
				continue
			}
			t.seen[i] = c.ts
			v, ok := number(c)
			if !ok || t.points >= maxPoints {
				continue
			}
			t.points++
			t.tracks.List[i].Points = append(t.tracks.List[i].Points, collector.Point{At: c.ts, Value: v})
		}
	}
}

// number returns a cell's value, if it is one.
func number(c *nativeCell) (float64, bool) {
	switch c.typ {
	case 'i':
		return float64(c.bits), int64Status(c.bits) == collector.StatusOK
	case 'd':
		v := math.Float64frombits(uint64(c.bits))
		return v, doubleStatus(v) == collector.StatusOK && !math.IsInf(v, 0)
	}
	return 0, false
}

// take returns what was gathered, until the next look, and forgets it.
func (t *tracker) take() *collector.Tracks {
	t.out.Generation = t.tracks.Generation
	t.out.List = t.out.List[:0]
	for i := range t.tracks.List {
		track := &t.tracks.List[i]
		if len(track.Points) > 0 {
			t.out.List = append(t.out.List, *track)
			track.Points = track.Points[:0]
		}
	}
	t.points, t.wrote = 0, time.Now()
	return &t.out
}

// look looks at the tracked fields, and writes what it finds: at a sample always,
// between samples when it is time.
func (s *sampler) look(atSample bool) error {
	if c := s.tracker.look(atSample); c.lost() {
		return s.failed(c, collector.FailureHostengineLost, "reading values between samples")
	} else if c != codeOK {
		s.log.Debug("values between samples not read", "err", s.lib.err(c, "reading values between samples"))
	}
	if !atSample && s.tracker.points < maxPoints/2 && time.Since(s.tracker.wrote) < writeTracksEvery {
		return nil
	}
	return s.writeTracks()
}

func (s *sampler) writeTracks() error {
	if s.tracker == nil || s.tracker.points == 0 {
		return nil
	}
	tracks := s.tracker.take()
	s.profiler.withhold(s.inv, tracks)
	return s.cfg.Frames.Write(collector.Frame{Tracks: tracks})
}
