// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"math"
	"time"

	"gpu_exporter/collector"
)

// leastStale is how much older than the newest value one may be at the least
// and still count: DCGM polls some fields seldom, whatever the watch says (the
// InfoROM's checks every 30 s, DcgmCacheManager.cpp, AddEntityFieldWatch).
const leastStale = 2 * time.Minute

// reading follows a plan: it reads everything once and makes it a sample. All
// that it needs is made once and used for each sample.
type reading struct {
	lib    *library
	plan   *plan
	blocks []block
	cells  []nativeCell
	rows   [][]collector.Cell
	texts  []string // of the newest sample; kept, as they hardly ever change
	sample collector.Sample
	// derived goes with the rest: same time, same sample.
	derived derivedReading
	// stale is how much older than the newest value no value may be, in µs.
	stale int64
	// appeared is, for each row, when its entity did, in the engine's time: what
	// DCGM has from before is of an earlier entity with the same id.
	appeared []int64
	// xidAt is, for each row, the time of the newest XID that DCGM has.
	xidAt []int64
	// newest is the time of the newest value in the newest sample. XIDs do not count,
	// nor do switches: a module of DCGM reads these in a thread of its own, and they
	// would hide that the one which reads the GPUs is stuck.
	newest int64
	// values is the number of values in it, those aside that do not tell
	// whether the entity answers.
	values int
}

func newReading(lib *library, p *plan, appeared []int64, interval time.Duration) *reading {
	n := len(p.inv.Entities)
	r := &reading{
		lib:      lib,
		plan:     p,
		rows:     make([][]collector.Cell, n),
		stale:    max(leastStale, 6*interval).Microseconds(),
		appeared: appeared,
		xidAt:    make([]int64, n),
	}
	for i, e := range p.inv.Entities {
		if !p.read[i] {
			continue
		}
		r.rows[i] = make([]collector.Cell, len(p.inv.Columns[e.Kind]))
		for j, s := range p.fixed[i] {
			r.rows[i][j] = collector.NoValue(s)
		}
	}
	var cells int
	r.blocks, cells = p.blocks()
	r.cells = make([]nativeCell, cells)
	return r
}

// rowField names a field of the entity of a row.
type rowField struct {
	row   int
	field uint16
}

// places returns where the cells of the last reading are.
func (r *reading) places() map[rowField]int {
	places := make(map[rowField]int, len(r.cells))
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			for f, field := range b.fields {
				places[rowField{row, field}] = int(b.base[e]) + f
			}
		}
	}
	return places
}

// news is what a reading found besides values.
type news struct {
	xids       bool // some entity has a newer XID than before
	migChanged bool // a GPU's MIG mode is not what the inventory says
}

// take reads everything. The sample and its rows are valid until the next call.
func (r *reading) take() (*collector.Sample, news, code) {
	start := time.Now()
	r.lib.resetStrings()
	for i := range r.blocks {
		if c := r.lib.read(&r.blocks[i].request, false, r.cells); c != codeOK {
			return nil, news{}, c
		}
	}
	if c := r.derived.read(r.lib); c != codeOK {
		return nil, news{}, c
	}
	found := r.fill()
	texts := r.derived.fill(r.lib, r.texts, r.newest-r.stale)
	r.texts = texts[:len(r.texts)] // with the room for all of them
	end := time.Now()
	r.sample = collector.Sample{
		Generation: r.plan.inv.Generation,
		Time:       end,
		Duration:   end.Sub(start),
		Rows:       r.rows,
		Derived:    r.derived.rows,
		Strings:    texts,
	}
	return &r.sample, found, codeOK
}

// fill makes rows of the cells.
func (r *reading) fill() news {
	var (
		found  news
		newest int64
		oldest int64 = math.MaxInt64
		values int
	)
	texts := r.texts[:0]
	for i := range r.blocks {
		b := &r.blocks[i]
		apart := b.entities[0].kind == uint32(collector.KindSwitch)
		for e, row := range b.rows {
			cells := r.cells[b.base[e]:][:len(b.fields)]
			out := r.rows[row]
			appeared := r.appeared[row]
			for f, to := range b.to {
				c := &cells[f]
				if c.status != codeOK {
					out[to.column] = collector.NoValue(c.status.status())
					continue
				}
				if c.ts <= appeared && !to.global {
					out[to.column] = collector.NoValue(collector.StatusNoData)
					continue
				}
				if f != b.xid {
					oldest = min(oldest, c.ts)
					if !apart {
						newest = max(newest, c.ts)
					}
				}
				// The first two do what numberCell does, for nearly all values.
				switch {
				case c.typ == 'i' && to.want == collector.ValueInt64 && uint64(c.bits) < int32Blank:
					out[to.column] = collector.Int64Cell(c.bits)
				case c.typ == 'd' && to.want == collector.ValueDouble && math.Float64frombits(uint64(c.bits)) < doubleBlank:
					out[to.column] = collector.DoubleCell(math.Float64frombits(uint64(c.bits)))
				case c.typ == 's' && to.want == collector.ValueString:
					out[to.column], texts = r.text(texts, c)
				default:
					out[to.column] = numberCell(c, to.want)
				}
				if !to.silent && out[to.column].Status == collector.StatusOK {
					values++
				}
			}
			if b.xid >= 0 {
				if c := &cells[b.xid]; c.status == codeOK && c.ts != r.xidAt[row] && int64Status(c.bits) == collector.StatusOK {
					found.xids = true
				}
			}
			if b.mig >= 0 {
				if c := &cells[b.mig]; c.status == codeOK {
					newest = max(newest, c.ts)
					if (c.bits == 0 || c.bits == 1) && (c.bits == 1) != r.plan.inv.Entities[row].MIGMode {
						found.migChanged = true
					}
				}
			}
		}
	}
	r.texts, r.newest, r.values = texts, newest, values
	if oldest < newest-r.stale {
		r.withhold(newest - r.stale)
	}
	return found
}

// withhold takes out the values that are from before limit. The last XID is as
// old as it is.
func (r *reading) withhold(limit int64) {
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			for f, to := range b.to {
				out := &r.rows[row][to.column]
				if f == b.xid || out.Status != collector.StatusOK || r.cells[b.base[e]:][f].ts >= limit {
					continue
				}
				*out = collector.NoValue(collector.StatusStale)
				if !to.silent {
					r.values--
				}
			}
		}
	}
}

// text appends the text of a cell to texts. Where the last sample had the same
// at that place, its string is taken again.
func (r *reading) text(texts []string, c *nativeCell) (collector.Cell, []string) {
	b := r.lib.bytes(c)
	if s := stringStatus(b); s != collector.StatusOK {
		return collector.NoValue(s), texts
	}
	n := len(texts)
	if n < len(r.texts) && r.texts[n] == string(b) {
		return collector.StringCell(n), texts[:n+1]
	}
	return collector.StringCell(n), append(texts, string(b))
}

// newXIDs returns what each entity's newest XID is where it is not what it was
// at the last call, and remembers it.
func (r *reading) newXIDs() []event {
	var events []event
	for i := range r.blocks {
		b := &r.blocks[i]
		if b.xid < 0 {
			continue
		}
		for e, row := range b.rows {
			c := &r.cells[b.base[e]:][:len(b.fields)][b.xid]
			if c.status != codeOK || c.ts == r.xidAt[row] || int64Status(c.bits) != collector.StatusOK {
				continue
			}
			r.xidAt[row] = c.ts
			events = append(events, event{b.entities[e], c.ts, c.bits})
		}
	}
	return events
}

// toldXIDs takes out of entities those of which the reading says what their
// newest XID is, or that they had none.
func (r *reading) toldXIDs(entities map[pair]bool) {
	for i := range r.blocks {
		b := &r.blocks[i]
		if b.xid < 0 || len(entities) == 0 {
			continue
		}
		for e := range b.rows {
			switch r.cells[b.base[e]:][:len(b.fields)][b.xid].status {
			case codeOK, codeNoData, codeNotWatched:
				delete(entities, b.entities[e])
			}
		}
	}
}
