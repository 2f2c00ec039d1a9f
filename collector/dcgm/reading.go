// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"math"
	"slices"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

const (
	// inforomInterval is how often DCGM updates the InfoROM checks at most, whatever the
	// watch requests (DcgmCacheManager.cpp, AddEntityFieldWatch).
	inforomInterval = 30 * time.Second
	// defaultMaxAge is the default of [wire.SamplerConfig.MaxAge].
	defaultMaxAge = 30 * time.Second
	// minSilence is how much older than its newest blank the values of a GPU may be.
	minSilence = 5 * time.Second
)

// staleAge is the age, relative to the newest value, at which a value of the field is
// stale. Its status is no proof: DCGM repeats values with their old time and status 0.
func staleAge(field uint16, interval, maxAge time.Duration) time.Duration {
	if field == 83 || field == 84 {
		interval = max(interval, inforomInterval)
	}
	return max(3*interval, maxAge)
}

// reading reads all values of a plan and makes samples. It reuses its memory.
type reading struct {
	lib           *native.Library
	plan          *plan
	blocks        []block
	cells         []native.Cell
	rows, derived [][]model.Cell
	texts         []string // of the newest sample; reused because they rarely change
	sample        model.Sample
	staleAge      int64 // the least one of all fields, in µs
	silence       int64 // [staleAge] of the MIG mode for minSilence, in µs
	// gpuOf is, for each entity, the row of its GPU, or -1.
	gpuOf []int
	// tried is, for each GPU, the time of its newest reading, which may be blank, and
	// answered is until when a reading needs no newer value.
	tried, answered []int64
	// appeared is, for each entity, the engine's time at which it was found. An older
	// value belongs to an earlier entity with the same ID.
	appeared []int64
	// xidAt is, for each entity, the time of the newest XID that newXIDs returned.
	xidAt []int64
	// times are the times of the cells at the last reading.
	times []int64
	// newest is the time of the newest value, by the engine's clock at the newest
	// update: if the clock is set back, values from before have later times. XIDs do
	// not count, and switches do not either: another thread of DCGM reads them, and
	// would hide that the thread which reads the GPUs is stuck.
	newest int64
	// proofs is the number of values that would prove that GPUs answer; answers is
	// how many of them the newest sample has.
	proofs, answers int
}

func newReading(lib *native.Library, p *plan, appeared []int64, interval, maxAge time.Duration) *reading {
	n := len(p.inv.Entities)
	r := &reading{
		lib: lib, plan: p, rows: make([][]model.Cell, n), appeared: appeared, xidAt: make([]int64, n),
		staleAge: staleAge(0, interval, maxAge).Microseconds(), silence: staleAge(fieldMIGMode, interval, minSilence).Microseconds(),
		gpuOf: make([]int, n), tried: make([]int64, n), answered: make([]int64, n),
	}
	if len(p.inv.Derived) > 0 {
		r.derived = make([][]model.Cell, n)
	}
	for i := range p.inv.Entities {
		r.gpuOf[i] = p.inv.GPUAt(i)
		r.rows[i] = fixedCells(p.fixed[i])
		if p.derived[i] != nil {
			r.derived[i] = fixedCells(p.derived[i])
		}
	}
	var cells int
	r.blocks, cells = p.blocks()
	r.cells, r.times = make([]native.Cell, cells), make([]int64, cells)
	for _, b := range r.blocks {
		if b.mig >= 0 {
			r.proofs += len(b.rows)
		}
		for i := range b.to {
			to := &b.to[i]
			to.staleAge = staleAge(b.Fields[to.cell], interval, maxAge).Microseconds()
			to.silence = staleAge(b.Fields[to.cell], interval, minSilence).Microseconds()
			if to.proof {
				r.proofs += len(b.rows)
			}
		}
	}
	return r
}

func fixedCells(statuses []model.Status) []model.Cell {
	if statuses == nil {
		return nil
	}
	cells := make([]model.Cell, len(statuses))
	for i, s := range statuses {
		cells[i] = model.NoValue(s)
	}
	return cells
}

// fieldOf names a field of an entity.
type fieldOf struct {
	row   int
	field uint16
}

// positions returns the position of each cell that a reading fills.
func (r *reading) positions() map[fieldOf]int {
	positions := make(map[fieldOf]int, len(r.cells))
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			for f, field := range b.Fields {
				positions[fieldOf{row, field}] = int(b.Base[e]) + f
			}
		}
	}
	return positions
}

// news is what a reading found in addition to values.
type news struct {
	xids       bool // an entity has a newer XID
	migChanged bool // a GPU's MIG mode differs from the inventory's
}

// take reads all values. The sample is valid until the next call.
func (r *reading) take() (*model.Sample, news, native.Code) {
	start := time.Now()
	r.lib.ResetStrings()
	for i := range r.blocks {
		if c := r.lib.Read(&r.blocks[i].Request, false, r.cells); c != native.OK {
			return nil, news{}, c
		}
	}
	found := r.fill()
	end := time.Now()
	r.sample = model.Sample{
		Generation: r.plan.inv.Generation,
		Time:       end,
		Duration:   end.Sub(start),
		Rows:       r.rows,
		Derived:    r.derived,
		Strings:    r.texts,
		Answers:    r.answering(),
	}
	return &r.sample, found, native.OK
}

// out returns the cell of a sample.
func (r *reading) out(row int, to *destination) *model.Cell {
	if to.derived {
		return &r.derived[row][to.column]
	}
	return &r.rows[row][to.column]
}

// fill fills the rows from the cells.
func (r *reading) fill() news {
	var found news
	updated, oldest, latest, answers := int64(0), int64(math.MaxInt64), int64(0), 0
	texts := r.texts[:0]
	clear(r.tried)
	clear(r.answered)
	for i := range r.blocks {
		b := &r.blocks[i]
		isSwitch := b.Entities[0].Kind == uint32(model.KindSwitch)
		for e, row := range b.rows {
			cells, times := r.cells[b.Base[e]:][:len(b.Fields)], r.times[b.Base[e]:][:len(b.Fields)]
			if r.setBackSince(r.appeared[row]) {
				r.appeared[row] = 0
			}
			appeared := r.appeared[row]
			for t := range b.to {
				to := &b.to[t]
				c, out := &cells[to.cell], r.out(row, to)
				if c.Status == native.OK && c.Time <= appeared && !to.global {
					*out = model.NoValue(model.StatusNoData)
					continue
				}
				if c.Status == native.OK && to.cell != b.xid {
					oldest, latest = min(oldest, c.Time), max(latest, c.Time)
					if !isSwitch && c.Time != times[to.cell] {
						updated = max(updated, c.Time)
						times[to.cell] = c.Time
					}
				}
				switch {
				case c.Status != native.OK || c.Type != 's':
					*out = c.Value(to.want, to.limits)
				case to.want == model.ValueString:
					*out, texts = r.text(texts, c)
				default: // field 526 of an unreachable GPU has the text of a blank
					*out = model.NoValue(cmp.Or(native.TextStatus(r.lib.Text(c)), model.StatusUnexpectedType))
				}
				if !to.proof {
					continue
				}
				gpu := r.gpuOf[row]
				if c.Status == native.OK {
					r.tried[gpu] = max(r.tried[gpu], c.Time)
				}
				if out.Status == model.StatusOK {
					answers++
					r.answered[gpu] = max(r.answered[gpu], c.Time+to.silence)
				}
			}
			found.xids = found.xids || r.hasNewXID(b, row, cells)
			if b.mig >= 0 && cells[b.mig].Status == native.OK {
				c := &cells[b.mig]
				if c.Time != times[b.mig] {
					updated = max(updated, c.Time)
					times[b.mig] = c.Time
				}
				r.tried[row] = max(r.tried[row], c.Time)
				if status := c.Value(model.ValueInt64, native.Range{High: 1}).Status; status == model.StatusOK || status == model.StatusNotSupported {
					answers++
					r.answered[row] = max(r.answered[row], c.Time+r.silence)
				}
				if (c.Bits == 0 || c.Bits == 1) && (c.Bits == 1) != r.plan.inv.Entities[row].MIGMode {
					found.migChanged = true
				}
			}
		}
	}
	if updated != 0 {
		r.newest = updated
	}
	r.texts, r.answers = texts, answers
	silent := slices.ContainsFunc(r.gpuOf, func(gpu int) bool { return gpu >= 0 && r.silent(gpu) })
	if silent || oldest < r.newest-r.staleAge || latest > r.newest+r.staleAge {
		r.withholdStale()
	}
	return found
}

// setBackSince reports whether the engine's clock was set back since a time of it. Then
// all values are later.
func (r *reading) setBackSince(at int64) bool { return r.newest != 0 && r.newest < at-2*r.staleAge }

// silent reports whether the GPU has no new value. If only the queries of a GPU fail,
// DCGM does not mark it as lost: fields that it reads one by one are blank, and those
// that it reads in bulk keep their last value.
func (r *reading) silent(gpu int) bool {
	return r.answered[gpu] != 0 && r.answered[gpu] < r.tried[gpu]
}

// answering returns which entities are GPUs that answer.
func (r *reading) answering() []bool {
	answers := make([]bool, len(r.gpuOf))
	for i, gpu := range r.gpuOf {
		answers[i] = gpu == i && r.answered[i] != 0 && !r.silent(i) && r.answered[i] >= r.newest-r.staleAge
	}
	return answers
}

// withholdStale removes the values that are too old, and those of silent GPUs. The last
// XID does not become stale.
func (r *reading) withholdStale() {
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			for t := range b.to {
				to := &b.to[t]
				out := r.out(row, to)
				if to.cell == b.xid || out.Status != model.StatusOK {
					continue
				}
				silent := r.gpuOf[row] >= 0 && r.silent(r.gpuOf[row]) && !to.global
				age := r.newest - r.cells[b.Base[e]:][to.cell].Time // negative: the clock was set back since
				if !silent && max(age, -age) <= to.staleAge {
					continue
				}
				*out = model.NoValue(model.StatusStale)
				if to.proof {
					r.answers--
				}
			}
		}
	}
}

// text appends the text of a cell to texts. It reuses the string that the last sample
// had at this position if it is equal.
func (r *reading) text(texts []string, c *native.Cell) (model.Cell, []string) {
	b := r.lib.Text(c)
	if s := native.TextStatus(b); s != model.StatusOK {
		return model.NoValue(s), texts
	}
	n := len(texts)
	if n < len(r.texts) && r.texts[n] == string(b) {
		return model.StringCell(n), texts[:n+1]
	}
	return model.StringCell(n), append(texts, string(b))
}

func (r *reading) hasNewXID(b *block, row int, cells []native.Cell) bool {
	if b.xid < 0 || cells[b.xid].Time == r.xidAt[row] {
		return false
	}
	_, ok := cells[b.xid].Int64()
	return ok
}

// newXIDs returns the newest XID of each entity if it is newer than at the last call.
func (r *reading) newXIDs() []native.Event {
	var events []native.Event
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			if cells := r.cells[b.Base[e]:][:len(b.Fields)]; r.hasNewXID(b, row, cells) {
				c := &cells[b.xid]
				r.xidAt[row] = c.Time
				events = append(events, native.Event{Entity: b.Entities[e], Time: c.Time, Code: c.Bits})
			}
		}
	}
	return events
}

// forgetRead removes from entities those whose newest XID the reading contains, or
// that have none.
func (r *reading) forgetRead(entities map[native.Pair]bool) {
	for i := range r.blocks {
		b := &r.blocks[i]
		if b.xid < 0 || len(entities) == 0 {
			continue
		}
		for e := range b.rows {
			switch r.cells[b.Base[e]:][b.xid].Status {
			case native.OK, native.NoData, native.NotWatched:
				delete(entities, b.Entities[e])
			}
		}
	}
}
