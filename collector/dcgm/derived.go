// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"

	"gpu_exporter/collector"
)

// derivedTargets are the watches of the derived fields. Where a GPU's own fields
// are read, those among them are watched already, maybe more finely, and a
// connection has one watch for each field of an entity: the last one counts.
func (p *plan) derivedTargets(add func(t target, rows []int)) {
	var whole, split []int
	for i, e := range p.inv.Entities {
		switch {
		case e.Kind != collector.KindGPU || !p.events[i] || e.State != collector.EntityUp:
		case p.read[i]:
			whole = append(whole, i)
		default:
			split = append(split, i)
		}
	}
	var rest, all []uint16
	for _, f := range p.inv.Derived {
		all = append(all, uint16(f))
		if !slices.Contains(p.inv.Columns[collector.KindGPU], f) {
			rest = append(rest, uint16(f))
		}
	}
	add(target{fields: rest}, whole)
	add(target{fields: all}, split)
}

// derivedReading reads the derived fields of the GPUs, beside what the columns
// ask for: of a GPU whose instances are read in its place, too.
type derivedReading struct {
	blocks []block
	cells  []nativeCell
	rows   [][]collector.Cell
	texts  []string // of the newest sample by cell; kept, as they hardly ever change
}

// newDerivedReading returns the reading of what p derives from. units are the
// watches: what the engine refused to watch is not asked for.
func newDerivedReading(p *plan, units []*unit) derivedReading {
	if len(p.inv.Derived) == 0 {
		return derivedReading{}
	}
	d := derivedReading{rows: make([][]collector.Cell, len(p.inv.Entities))}
	types := make([]collector.ValueType, len(p.inv.Derived))
	for j, f := range p.inv.Derived {
		field, _ := collector.FieldByID(f)
		types[j] = field.Type
	}
	byShape := make(map[string]int)
	cells := 0
	for i, e := range p.inv.Entities {
		if e.Kind != collector.KindGPU || !p.events[i] {
			continue
		}
		d.rows[i] = make([]collector.Cell, len(p.inv.Derived))
		b := block{xid: -1, mig: -1}
		for j, f := range p.inv.Derived {
			status := collector.StatusEntityLost
			if e.State == collector.EntityUp {
				status = refusedStatus(units, pairOf(e.Kind, e.ID), uint16(f))
			}
			if d.rows[i][j] = collector.NoValue(status); status == collector.StatusOK {
				b.column = append(b.column, uint16(len(b.fields)))
				b.fields = append(b.fields, uint16(f))
				b.to = append(b.to, column{column: j, want: types[j]})
			}
		}
		if len(b.fields) == 0 {
			continue
		}
		shape := fmt.Sprint(b.fields)
		at, ok := byShape[shape]
		if !ok {
			at = len(d.blocks)
			byShape[shape] = at
			d.blocks = append(d.blocks, b)
		}
		t := &d.blocks[at]
		t.entities = append(t.entities, pairOf(e.Kind, e.ID))
		t.base = append(t.base, uint32(cells))
		t.rows = append(t.rows, i)
		cells += len(t.fields)
	}
	d.cells, d.texts = make([]nativeCell, cells), make([]string, cells)
	return d
}

// refusedStatus says why the field is not watched on the entity; StatusOK if it is.
func refusedStatus(units []*unit, entity pair, field uint16) collector.Status {
	for _, u := range units {
		for _, r := range u.refused {
			if r.entity == entity && u.watchesField(field) && r.covers(field) {
				return r.status()
			}
		}
	}
	return collector.StatusOK
}

// read makes the bulk reads.
func (d *derivedReading) read(lib *library) code {
	for i := range d.blocks {
		if c := lib.read(&d.blocks[i].request, false, d.cells); c != codeOK {
			return c
		}
	}
	return codeOK
}

// fill makes rows of the cells and appends their texts to texts. No value may be
// from before limit.
func (d *derivedReading) fill(lib *library, texts []string, limit int64) []string {
	for i := range d.blocks {
		b := &d.blocks[i]
		for e, row := range b.rows {
			cells, out := d.cells[b.base[e]:][:len(b.fields)], d.rows[row]
			kept := d.texts[b.base[e]:][:len(b.fields)]
			for f, to := range b.to {
				c := &cells[f]
				switch {
				case c.status == codeOK && c.ts < limit:
					out[to.column] = collector.NoValue(collector.StatusStale)
				case c.status == codeOK && c.typ == 'i' && to.want == collector.ValueInt64 && uint64(c.bits) < int32Blank:
					out[to.column] = collector.Int64Cell(c.bits) // as numberCell, for nearly all values
				case c.status == codeOK && c.typ == 's' && to.want == collector.ValueString:
					text := lib.bytes(c)
					if s := stringStatus(text); s != collector.StatusOK {
						out[to.column] = collector.NoValue(s)
						continue
					}
					if kept[f] != string(text) {
						kept[f] = string(text)
					}
					out[to.column], texts = collector.StringCell(len(texts)), append(texts, kept[f])
				default:
					out[to.column] = numberCell(c, to.want)
				}
			}
		}
	}
	return texts
}
