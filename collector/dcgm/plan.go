// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"

	"gpu_exporter/collector"
)

const fieldXID = uint16(collector.FieldXID)

// plan says what is to be watched and read for one inventory. It is made at a
// change of topology; the readings follow it without allocating.
type plan struct {
	inv   *collector.Inventory
	types [kinds][]collector.ValueType // of the columns
	// selected says which entities are asked for; read, which have a row; events,
	// which ones have their XIDs heard.
	selected, read, events []bool
	// fixed holds, for each row, the cells that need no reading, because the
	// entity is lost or cannot have the field; StatusOK is to be read.
	fixed [][]collector.Status
	// tracked holds, for each row, the fields that are looked at between samples,
	// and capabilities what each GPU can profile.
	tracked      [][]trackedField
	capabilities map[uint32]capability
	models       modelRules
	// profiled are the GPUs, by id, of which a profiling field is wanted between samples;
	// counted are the profiling fields that are watched, by the GPU's id.
	profiled map[uint32]bool
	counted  map[uint32][]uint16
	// evidence are the fields that are read of a GPU, by its row, to judge its
	// profiling by; round is when its profiling was last watched anew, by its id.
	evidence map[int][]uint16
	round    map[uint32]int
}

// kinds is the number of entity kinds that have columns here.
const kinds = len(collector.Inventory{}.Columns)

// newPlan says what to read. capabilities has the profiling capability of each
// GPU that is up, by DCGM's id.
func newPlan(inv *collector.Inventory, selected selectors, capabilities map[uint32]capability) *plan {
	n := len(inv.Entities)
	p := &plan{
		inv: inv, selected: make([]bool, n), read: make([]bool, n), events: make([]bool, n), fixed: make([][]collector.Status, n),
		tracked: make([][]trackedField, n), capabilities: capabilities, models: selected.models, profiled: map[uint32]bool{}, counted: map[uint32][]uint16{},
	}
	selector := selected.gpus
	for kind, fields := range inv.Columns {
		for _, f := range fields {
			field, _ := collector.FieldByID(f)
			p.types[kind] = append(p.types[kind], field.Type)
		}
	}

	split := make([]bool, n) // GPUs that have instances, or may have
	for i, e := range inv.Entities {
		if e.Kind == collector.KindGPUInstance {
			split[e.Parent] = true
		}
		if inv.InstancesUnknownOf(i) {
			split[i] = true
			// One of its instances may be asked for, which would select it.
			p.events[i] = selector.GPU(e.ID) || selector.Instances()
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
		default:
			p.selected[i] = selected.other(inv, i)
			p.read[i] = p.selected[i] && len(inv.Columns[e.Kind]) > 0
			continue
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
	}
	for i := range inv.Entities {
		p.read[i] = p.read[i] && len(inv.Columns[inv.Entities[i].Kind]) > 0 // now that its parts have followed it
		if e := &inv.Entities[i]; e.Parent != collector.Unknown && e.Kind == collector.KindComputeInstance {
			p.events[i] = p.events[i] || p.events[e.Parent]
		}
		p.selected[i] = p.selected[i] || p.events[i]
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
			case gpu != nil && p.models.exclude(f, gpu.Model):
				p.fixed[i][j] = collector.StatusExcluded
			case e.Kind == collector.KindLink && gpu != nil && ofSwitch(uint16(f)):
				p.fixed[i][j] = collector.StatusNotSupported
			case profiling(uint16(f)) && gpu != nil:
				p.fixed[i][j] = capabilities[gpu.ID].of(uint16(f))
			}
		}
	}
	return p
}

// ofSwitch says whether the field is one of the NVSwitches' ranges in
// dcgm_fields.h, which GPUs' links do not have.
func ofSwitch(field uint16) bool { return field >= 700 && field < 900 }

// selectors say what is asked for.
type selectors struct {
	gpus, switches, cpus collector.Selector
	models               modelRules
}

// other says whether an entity that is no GPU, nor in one, is asked for.
func (s selectors) other(inv *collector.Inventory, i int) bool {
	e := &inv.Entities[i]
	switch e.Kind {
	case collector.KindSwitch:
		return s.switches.GPU(e.ID)
	case collector.KindLink:
		parent := &inv.Entities[e.Parent]
		if parent.Kind == collector.KindGPU {
			return s.gpus.GPU(parent.ID)
		}
		return s.switches.GPUInstance(uint32(e.Port))
	case collector.KindCPU:
		return s.cpus.GPU(e.ID)
	case collector.KindCPUCore:
		return s.cpus.GPUInstance(e.ID)
	}
	return true
}

// warming says whether a profiling field that should have a value has none yet.
func (p *plan) warming(s *collector.Sample) bool {
	for i, row := range s.Rows {
		for j := range row {
			if status := row[j].Status; p.fixed[i][j] == collector.StatusOK && (status == collector.StatusNoData || status == collector.StatusBlank) &&
				profiling(uint16(p.inv.Columns[p.inv.Entities[i].Kind][j])) {
				return true
			}
		}
	}
	return false
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
	// silent says that a value does not tell whether a GPU answers: it is one of
	// something else, of the node as a whole, or the last XID, which DCGM keeps.
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
			b.to = append(b.to, column{j, p.types[e.Kind][j], global || f == collector.FieldXID || !e.Kind.OfGPU(), global})
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
