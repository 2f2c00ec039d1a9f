// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"strings"

	"gpu_exporter/collector"
)

const fieldXID = uint16(collector.FieldXID)

// plan says what is to be watched and read for one inventory. It is made at a
// change of topology; the readings follow it without allocating.
type plan struct {
	inv   *collector.Inventory
	types [kinds][]collector.ValueType // of the columns
	// read says which entities have a row; events, which ones have their XIDs heard.
	read, events []bool
	// fixed holds, for each row, the cells that need no reading, because the
	// entity is lost or cannot have the field; StatusOK is to be read.
	fixed [][]collector.Status
	// evidence are the fields that are read of a GPU, by its row, to judge its
	// profiling by; round is when its profiling was last watched anew, by its id.
	evidence map[int][]uint16
	round    map[uint32]int
}

// kinds is the number of entity kinds that have columns here.
const kinds = len(collector.Inventory{}.Columns)

// newPlan says what to read. capabilities has the profiling capability of each
// GPU that is up, by DCGM's id.
func newPlan(inv *collector.Inventory, selector collector.Selector, capabilities map[uint32]capability) *plan {
	n := len(inv.Entities)
	p := &plan{inv: inv, read: make([]bool, n), events: make([]bool, n), fixed: make([][]collector.Status, n)}
	for kind, fields := range inv.Columns {
		for _, f := range fields {
			field, _ := collector.FieldByID(f)
			p.types[kind] = append(p.types[kind], field.Type)
		}
	}

	split := make([]bool, n) // GPUs that have instances
	for _, e := range inv.Entities {
		if e.Kind == collector.KindGPUInstance {
			split[e.Parent] = true
		}
	}
	for i, e := range inv.Entities {
		switch e.Kind {
		case collector.KindGPU:
			p.read[i] = selector.GPU(e.ID) && !(selector.Flex() && split[i])
		case collector.KindGPUInstance:
			p.read[i] = selector.GPUInstance(e.ID)
		case collector.KindComputeInstance:
			p.read[i] = p.read[e.Parent]
		}
		// An XID of a selected entity may be recorded on what it is part of, or on a part of it.
		if p.read[i] {
			p.events[i] = true
			for up := e.Parent; up != collector.Unknown; up = inv.Entities[up].Parent {
				p.events[up] = true
			}
		}
		if e.Parent != collector.Unknown && p.read[e.Parent] {
			p.events[i] = true
		}
		p.read[i] = p.read[i] && len(inv.Columns[e.Kind]) > 0
	}
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Parent != collector.Unknown && e.Kind == collector.KindComputeInstance {
			p.events[i] = p.events[i] || p.events[e.Parent]
		}
	}

	for i, e := range inv.Entities {
		if !p.read[i] {
			continue
		}
		p.fixed[i] = make([]collector.Status, len(inv.Columns[e.Kind]))
		gpu, _ := inv.GPU(i)
		for j, f := range inv.Columns[e.Kind] {
			switch {
			case e.State != collector.EntityUp:
				p.fixed[i][j] = collector.StatusEntityLost
			case profiling(uint16(f)) && gpu != nil:
				p.fixed[i][j] = capabilities[gpu.ID].of(uint16(f))
			}
		}
	}
	return p
}

// targets are the watches that the plan needs.
func (p *plan) targets() []target {
	var targets []target
	add := func(t target, rows []int) {
		if len(t.fields) == 0 || len(rows) == 0 {
			return
		}
		t.what = fmt.Sprintf("%v %v %v %d", t.profiling, t.events, t.fields, t.round)
		for _, i := range rows {
			e := &p.inv.Entities[i]
			gpu, _ := p.inv.GPU(i)
			t.entities = append(t.entities, pairOf(e.Kind, e.ID))
			// An instance's id alone does not say which instance it is.
			t.identities = append(t.identities, fmt.Sprintf("%d/%d=%s/%d/%s", e.Kind, e.ID, gpu.UUID, e.InstanceID, e.Profile))
		}
		t.key = t.what + " " + strings.Join(t.identities, " ")
		targets = append(targets, t)
	}

	// Events first: what happens from here on is heard.
	var rows []int
	for i, e := range p.inv.Entities {
		if p.events[i] && e.State == collector.EntityUp {
			rows = append(rows, i)
		}
	}
	add(target{fields: []uint16{fieldXID}, events: true}, rows)

	for kind, columns := range p.inv.Columns {
		var fields []uint16
		if collector.EntityKind(kind) == collector.KindGPU {
			fields = append(fields, fieldMIGMode)
			fields = append(fields, p.unlistedEvidence()...)
		}
		for _, f := range columns {
			// The XID's own watch keeps its samples for longer, and a connection has
			// one watch for each field of an entity: the last one counts.
			if field := uint16(f); !profiling(field) && field != fieldXID && field != fieldMIGMode {
				fields = append(fields, field)
			}
		}
		rows = rows[:0]
		// GPUs that differ in what they can profile, or in when they had trouble with
		// it, go in groups of their own.
		byFields := make(map[string][]int)
		var order []string
		for i, e := range p.inv.Entities {
			if int(e.Kind) != kind || !p.read[i] || e.State != collector.EntityUp {
				continue
			}
			rows = append(rows, i)
			k := fmt.Sprint(p.profilingFields(i), p.roundOf(i))
			if byFields[k] == nil {
				order = append(order, k)
			}
			byFields[k] = append(byFields[k], i)
		}
		add(target{fields: fields}, rows)
		for _, k := range order {
			first := byFields[k][0]
			add(target{fields: p.profilingFields(first), profiling: true, round: p.roundOf(first)}, byFields[k])
		}
	}
	p.evidenceTargets(add)
	return targets
}

// profilingFields are those that the entity of a row has.
func (p *plan) profilingFields(row int) []uint16 {
	var fields []uint16
	for j, f := range p.inv.Columns[p.inv.Entities[row].Kind] {
		if profiling(uint16(f)) && p.fixed[row][j] == collector.StatusOK {
			fields = append(fields, uint16(f))
		}
	}
	return fields
}

// refuse takes out of the readings what the engine does not watch.
func (p *plan) refuse(units []*unit) {
	rows := make(map[pair]int, len(p.inv.Entities))
	for i, e := range p.inv.Entities {
		rows[pairOf(e.Kind, e.ID)] = i
	}
	for _, u := range units {
		for _, r := range u.refused {
			row, ok := rows[r.entity]
			if !ok || p.fixed[row] == nil {
				continue
			}
			for j, f := range p.inv.Columns[r.entity.kind] {
				if p.fixed[row][j] == collector.StatusOK && u.watchesField(uint16(f)) && r.covers(uint16(f)) {
					p.fixed[row][j] = r.status()
				}
			}
		}
	}
}

func (u *unit) watchesField(field uint16) bool {
	for _, f := range u.fields {
		if f == field {
			return true
		}
	}
	return false
}

// block is one request and what its cells become.
type block struct {
	request
	rows []int // of the entities
	// to says where the values of the first fields go; the others are read for us.
	to       []column
	xid, mig int // positions of these two in fields, or -1
}

// column is where the values of a field go, and of what type they must be.
type column struct {
	column int
	want   collector.ValueType
	// silent says that a value does not tell whether the entity answers: it is one
	// of the node as a whole, or the last XID, which DCGM keeps.
	silent bool
	// global says that it is a value of the node, whatever entity it is asked of.
	global bool
}

// blocks are the requests that read everything, and the number of cells they
// fill: one for all entities of a kind that have the same fields.
func (p *plan) blocks() (blocks []block, cells int) {
	byShape := make(map[string]int)
	for i, e := range p.inv.Entities {
		if !p.read[i] && !p.events[i] {
			continue
		}
		b := block{xid: -1, mig: -1}
		for j, f := range p.inv.Columns[e.Kind] {
			if p.fixed[i] == nil || p.fixed[i][j] != collector.StatusOK {
				continue
			}
			switch uint16(f) {
			case fieldXID:
				b.xid = len(b.fields)
			case fieldMIGMode:
				b.mig = len(b.fields)
			}
			b.fields = append(b.fields, uint16(f))
			field, _ := collector.FieldByID(f)
			global := field.Level == collector.KindGlobal
			b.to = append(b.to, column{j, p.types[e.Kind][j], global || f == collector.FieldXID, global})
		}
		// XIDs are read even of a lost GPU: the one that says why it was lost may come late.
		if p.events[i] && b.xid < 0 {
			b.xid = len(b.fields)
			b.fields = append(b.fields, fieldXID)
		}
		if e.Kind == collector.KindGPU && p.read[i] && e.State == collector.EntityUp && b.mig < 0 {
			b.mig = len(b.fields)
			b.fields = append(b.fields, fieldMIGMode)
		}
		b.fields = append(b.fields, without(p.evidence[i], b.fields)...)
		if len(b.fields) == 0 {
			continue
		}
		shape := fmt.Sprint(e.Kind, b.fields, b.to)
		at, ok := byShape[shape]
		if !ok {
			at = len(blocks)
			byShape[shape] = at
			for j := range b.fields {
				b.column = append(b.column, uint16(j))
			}
			blocks = append(blocks, b)
		}
		t := &blocks[at]
		t.entities = append(t.entities, pairOf(e.Kind, e.ID))
		t.base = append(t.base, uint32(cells))
		t.rows = append(t.rows, i)
		cells += len(t.fields)
	}
	return blocks, cells
}
