// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

const (
	fieldXID     = uint16(field.XIDErrors)
	fieldMIGMode = uint16(67) // dcgm_fields.h
)

// plan is what to watch and read for one inventory. All slices have one element per
// entity.
type plan struct {
	inv          *model.Inventory
	capabilities map[uint32]capability // of the GPUs that are up, by DCGM's ID
	models       modelRules
	// selected entities are sampled or watched for events. read ones have a row;
	// events are the ones whose XIDs are reported.
	selected, read, events []bool
	// fixed and derived are the statuses of the columns and of the derived fields.
	// A cell that is not StatusOK needs no reading: its entity is lost, or has no
	// such field.
	fixed, derived [][]model.Status
	// tracked are the fields that are also read between samples.
	tracked [][]trackedField
	// tracksProfiling are the GPUs, by ID, with a tracked profiling field.
	tracksProfiling map[uint32]bool
	// attempts is the number of retries of each GPU's profiling fields, by its ID.
	attempts map[uint32]int
}

// trackedField is a field whose every value is reported.
type trackedField struct {
	field uint16
	every time.Duration // 0: it is only read with the samples
}

// selectors are the devices and models of the configuration.
type selectors struct {
	gpus, switches, cpus model.Selector
	models               modelRules
}

// newPlan plans the samples of an inventory. track adds the fields to read between samples.
func newPlan(inv *model.Inventory, selected selectors, capabilities map[uint32]capability) *plan {
	n := len(inv.Entities)
	p := &plan{
		inv: inv, capabilities: capabilities, models: selected.models,
		selected: make([]bool, n), read: make([]bool, n), events: make([]bool, n),
		fixed: make([][]model.Status, n), derived: make([][]model.Status, n), tracked: make([][]trackedField, n),
		tracksProfiling: map[uint32]bool{},
	}
	p.selectEntities(selected)
	for i, e := range inv.Entities {
		if p.read[i] {
			p.fixed[i] = make([]model.Status, len(inv.Columns[e.Kind]))
			for j, f := range inv.Columns[e.Kind] {
				p.fixed[i][j] = p.statusOf(i, f)
			}
		}
		if e.Kind == model.KindGPU && p.events[i] && len(inv.Derived) > 0 {
			p.derived[i] = make([]model.Status, len(inv.Derived))
			if e.State != model.EntityUp {
				for j := range p.derived[i] {
					p.derived[i][j] = model.StatusEntityLost
				}
			}
		}
	}
	return p
}

// selectEntities decides which entities are selected, read and watched for events.
func (p *plan) selectEntities(selected selectors) {
	inv, gpus := p.inv, selected.gpus
	partitioned := make([]bool, len(inv.Entities)) // GPUs that have or may have instances
	for i, e := range inv.Entities {
		if e.Kind == model.KindGPUInstance {
			partitioned[e.Parent] = true
		}
		if inv.InstancesUnknownOf(i) {
			partitioned[i] = true
			// A selected instance would select its GPU.
			p.events[i] = gpus.GPU(e.ID) || gpus.Instances()
		}
	}
	for i, e := range inv.Entities {
		switch e.Kind {
		case model.KindGPU:
			p.read[i] = gpus.GPU(e.ID) && !(gpus.Flex() && partitioned[i])
		case model.KindGPUInstance:
			p.read[i] = gpus.GPUInstance(e.ID)
		case model.KindComputeInstance:
			p.read[i] = p.read[e.Parent]
		default:
			p.selected[i] = selected.selects(inv, i)
			p.read[i] = p.selected[i] && len(inv.Columns[e.Kind]) > 0
			continue
		}
		// DCGM may record an XID of a selected entity on its parents or parts.
		if p.read[i] {
			p.events[i] = true
			for up := e.Parent; up != model.Unknown; up = inv.Entities[up].Parent {
				p.events[up] = true
			}
		}
		if e.Parent != model.Unknown && p.read[e.Parent] {
			p.events[i] = true
		}
	}
	for i, e := range inv.Entities {
		p.read[i] = p.read[i] && len(inv.Columns[e.Kind]) > 0 // only now: parts follow their parent's selection
		if e.Kind == model.KindComputeInstance {
			p.events[i] = p.events[i] || p.events[e.Parent]
		}
		p.selected[i] = p.selected[i] || p.events[i]
	}
}

// selects reports whether an entity outside of GPUs is selected.
func (s selectors) selects(inv *model.Inventory, i int) bool {
	e := &inv.Entities[i]
	switch e.Kind {
	case model.KindSwitch:
		return s.switches.GPU(e.ID)
	case model.KindLink:
		if parent := &inv.Entities[e.Parent]; parent.Kind == model.KindGPU {
			return s.gpus.GPU(parent.ID)
		}
		return s.switches.GPUInstance(uint32(e.Port))
	case model.KindCPU:
		return s.cpus.GPU(e.ID)
	case model.KindCPUCore:
		return s.cpus.GPUInstance(e.ID)
	}
	return true
}

// statusOf returns StatusOK if a column of an entity is to be read.
func (p *plan) statusOf(row int, f model.FieldID) model.Status {
	e := &p.inv.Entities[row]
	gpu, _ := p.inv.GPU(row)
	switch {
	case e.State != model.EntityUp:
		return model.StatusEntityLost
	case p.excluded(row, f):
		return model.StatusExcluded
	case e.Kind == model.KindLink && gpu != nil && f >= 700 && f < 900:
		return model.StatusNotSupported // dcgm_fields.h: only NVSwitches and their links have these
	case gpu != nil && isProfiling(uint16(f)):
		return p.capabilities[gpu.ID].of(uint16(f))
	}
	return model.StatusOK
}

// excluded reports whether the configuration excludes a field of an entity.
func (p *plan) excluded(row int, field model.FieldID) bool {
	gpu, _ := p.inv.GPU(row)
	return gpu != nil && p.models.exclude(field, gpu.Model)
}

// track adds the fields to read between samples. Profiling fields are left out during
// a pause. The alternative to a profiling field ([model.TrackedField.Unless]) is read
// with the samples only, because it is used only while the profiling field has no values.
func (p *plan) track(fields []model.TrackedField, interval time.Duration, paused bool) {
	partitioned := make([]bool, len(p.inv.Entities)) // GPUs with selected instances
	for i, e := range p.inv.Entities {
		if e.Kind == model.KindGPUInstance && p.selected[i] {
			partitioned[e.Parent] = true
		}
		if p.inv.InstancesUnknownOf(i) {
			partitioned[i] = p.selected[i]
		}
	}
	for i, e := range p.inv.Entities {
		if e.State != model.EntityUp {
			continue
		}
		gpu, _ := p.inv.GPU(i)
		// A selected entity without columns has no row, but may have tracked fields.
		wanted := p.read[i] || p.selected[i] && !partitioned[i] && len(p.inv.Columns[e.Kind]) == 0
		for _, f := range fields {
			if !(wanted || f.Parents && partitioned[i]) || !f.Kinds.Has(e.Kind) || !p.trackable(i, f.Field) {
				continue
			}
			if gpu != nil && isProfiling(uint16(f.Field)) {
				p.tracksProfiling[gpu.ID] = true
				if paused {
					continue
				}
			}
			every := f.Every
			if every >= interval || f.Unless != 0 && p.trackable(i, f.Unless) {
				every = 0
			}
			p.tracked[i] = append(p.tracked[i], trackedField{uint16(f.Field), every})
		}
	}
}

// trackable reports whether a field of an entity can be tracked.
func (p *plan) trackable(row int, field model.FieldID) bool {
	gpu, _ := p.inv.GPU(row)
	supported := gpu == nil || !isProfiling(uint16(field)) || p.capabilities[gpu.ID].of(uint16(field)) == model.StatusOK
	return supported && !p.excluded(row, field)
}

// eachProfilingColumn calls f for each profiling column of the GPU and its instances.
func (p *plan) eachProfilingColumn(gpu *model.Entity, f func(row, column int)) {
	for i, e := range p.inv.Entities {
		if of, ok := p.inv.GPU(i); !ok || of != gpu || p.fixed[i] == nil || e.State != model.EntityUp {
			continue
		}
		for j, field := range p.inv.Columns[e.Kind] {
			if isProfiling(uint16(field)) && p.fixed[i][j] != model.StatusExcluded {
				f(i, j)
			}
		}
	}
}

// awaitsProfiling reports whether a profiling field of a sample has no first value yet.
func (p *plan) awaitsProfiling(s *model.Sample) bool {
	for i, row := range s.Rows {
		for j := range row {
			if status := row[j].Status; p.fixed[i][j] == model.StatusOK && (status == model.StatusNoData || status == model.StatusBlank) &&
				isProfiling(uint16(p.inv.Columns[p.inv.Entities[i].Kind][j])) {
				return true
			}
		}
	}
	return false
}

// refuse fixes the status of the cells that the engine does not watch.
func (p *plan) refuse(units []*watch.Unit) {
	rows := make(map[native.Pair]int, len(p.inv.Entities))
	for i, e := range p.inv.Entities {
		rows[native.PairOf(e.Kind, e.ID)] = i
	}
	for _, u := range units {
		for _, r := range u.Refused {
			row, ok := rows[r.Entity]
			if !ok {
				continue
			}
			refuse := func(statuses []model.Status, fields []model.FieldID) {
				for j := range statuses {
					if f := uint16(fields[j]); statuses[j] == model.StatusOK && slices.Contains(u.Fields, f) && r.Covers(f) {
						statuses[j] = r.Status()
					}
				}
			}
			refuse(p.fixed[row], p.inv.Columns[r.Entity.Kind])
			refuse(p.derived[row], p.inv.Derived)
		}
	}
}

// block is one request of a reading, and where its cells go.
type block struct {
	native.Request
	rows     []int // of the entities
	to       []destination
	xid, mig int // positions of these fields in the request, or -1
}

// destination is a cell of a sample.
type destination struct {
	cell    int // position of the field in the request
	column  int
	derived bool // column is of the derived fields
	want    model.ValueType
	limits  native.Range // of its values
	// proof marks a field whose value proves that its GPU answers: it is measured on
	// the GPU. DCGM keeps XIDs, and has node-wide fields without a GPU. The
	// state of profiling is separate.
	proof bool
	// global marks a node-wide field, whatever entity it is read on.
	global bool
	// staleAge is [staleAge] of the field in µs, and silence that for minSilence.
	staleAge, silence int64
}

// isUtilization reports whether the field is a utilization, which DCGM does not have of
// the instances of a GPU.
func isUtilization(id model.FieldID) bool { return id >= field.GPUUtil && id <= 207 }

func limits(f field.Field) native.Range {
	low, high := f.Range()
	return native.Range{Low: low, High: high}
}

// blocks returns the requests of a reading, and the number of their cells. Entities of
// a kind that have the same fields share a request.
func (p *plan) blocks() (blocks []block, cells int) {
	byShape := make(map[string]int)
	for i := range p.inv.Entities {
		b := p.blockOf(i)
		if len(b.Fields) == 0 {
			continue
		}
		e := &p.inv.Entities[i]
		shape := fmt.Sprint(e.Kind, b.Fields, b.to)
		at, ok := byShape[shape]
		if !ok {
			at = len(blocks)
			byShape[shape] = at
			blocks = append(blocks, b)
		}
		shared := &blocks[at]
		shared.Entities = append(shared.Entities, native.PairOf(e.Kind, e.ID))
		shared.Base = append(shared.Base, uint32(cells))
		shared.rows = append(shared.rows, i)
		cells += len(shared.Fields)
	}
	return blocks, cells
}

// blockOf returns the fields to read on one entity: columns, derived and tracked fields.
func (p *plan) blockOf(row int) block {
	e := &p.inv.Entities[row]
	b := block{xid: -1, mig: -1}
	add := func(field uint16) (position int) {
		if position = slices.Index(b.Fields, field); position < 0 {
			position = len(b.Fields)
			b.Fields = append(b.Fields, field)
		}
		return position
	}
	for _, part := range []struct {
		derived  bool
		statuses []model.Status
		fields   []model.FieldID
	}{{false, p.fixed[row], p.inv.Columns[e.Kind]}, {true, p.derived[row], p.inv.Derived}} {
		for j, status := range part.statuses {
			if status != model.StatusOK {
				continue
			}
			id := part.fields[j]
			described, _ := field.ByID(id)
			global := described.Level == model.KindGlobal
			b.to = append(b.to, destination{
				cell: add(uint16(id)), column: j, derived: part.derived, want: described.Type, limits: limits(described), global: global,
				proof: e.Kind.OfGPU() && !global && id != field.XIDErrors && !isProfiling(uint16(id)) && !(e.Kind != model.KindGPU && isUtilization(id)),
			})
		}
	}
	for _, t := range p.tracked[row] {
		add(t.field)
	}
	// The XID of a lost GPU is read too: the XID that explains the loss may come late.
	if p.events[row] {
		add(fieldXID)
	}
	if e.Kind == model.KindGPU && p.read[row] && e.State == model.EntityUp {
		add(fieldMIGMode)
	}
	b.xid = slices.Index(b.Fields, fieldXID)
	if e.Kind == model.KindGPU {
		b.mig = slices.Index(b.Fields, fieldMIGMode)
	}
	return b
}
