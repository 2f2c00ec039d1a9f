// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// layout is what stays the same between samples as long as nobody joins, leaves
// or changes owner: the rendered labels, and where each counter's cells are.
type layout struct {
	inventory *model.Inventory
	ownership *Ownership
	entities  []entityLayout
	// columns are, for each counter and kind, the column of the counter's field,
	// or -1.
	columns [][model.KindCount]int
	global  []bool // whether the counter's field is about the node
	// labelCounters are the positions of the counters of type label.
	labelCounters []int
	rendered      map[renderedKey]*LabelSet
	derived       derivedLayout
	// podLabels are the series of gpu_pod_labels; nil until they are asked for.
	podLabels []Series
}

// entityLayout is one entity's labels.
type entityLayout struct {
	identity []Label       // gpu, UUID, …, hostname
	fields   []Label       // values of the counters of type label, sorted by name
	variants []variant     // what the entity's values carry: one, unless a compatibility form repeats them
	device   *LabelSet     // of the device as a whole, where variants are its owners'; else nil
	self     *LabelSet     // identity alone
	own      *LabelSet     // the same of a GPU or GPU instance, nil of all else: what the gpu_* families carry
	owners   []ownerLayout // in the order of its owners
	xids     []xidLabelSet // in the order of the codes shown
	// integrals are those of each integral with a label; nil until they are asked for.
	integrals []*LabelSet
}

// xidLabelSet is the identity of an entity with an XID.
type xidLabelSet struct {
	code   int64
	labels *LabelSet
}

// variant is one of the label sets that the values of an entity are written with.
type variant struct {
	fields     []Label // values of the counters of type label, and pod labels
	attributes []Label // owner and job
	series     *LabelSet
	owner      int // position among the owners, or Unknown
}

// ownerLayout is the labels of one owner of an entity.
type ownerLayout struct {
	info  *LabelSet // of gpu_pod_info
	usage *LabelSet // of its container; nil for a replica after the first in one container
	kinds [model.ProcessKindCount]*LabelSet
}

// renderedKey names a label set that an entity needs beside its usual ones.
type renderedKey struct {
	entity  int
	family  string
	code    int64
	variant int
}

func newLayout(cfg *Config, v state.View, ownership *Ownership) layout {
	l := layout{
		inventory: v.Inventory,
		ownership: ownership,
		entities:  make([]entityLayout, len(v.Inventory.Entities)),
		columns:   make([][model.KindCount]int, len(cfg.Counters)),
		global:    make([]bool, len(cfg.Counters)),
		rendered:  map[renderedKey]*LabelSet{},
		derived:   newDerivedLayout(v.Inventory),
	}
	for i, c := range cfg.Counters {
		if c.Type == field.MetricLabel {
			l.labelCounters = append(l.labelCounters, i)
		}
		l.global[i] = c.Field.Level == model.KindGlobal
		for kind := range l.columns[i] {
			l.columns[i][kind] = -1 // also where the field is read there for another counter
			if c.On(model.EntityKind(kind)) {
				l.columns[i][kind] = slices.Index(v.Inventory.Columns[kind], c.Field.ID)
			}
		}
	}
	taken := cfg.takenNames()
	for i := range l.entities {
		e := &l.entities[i]
		e.identity = cfg.identity(v.Inventory, i)
		if e.identity == nil {
			continue
		}
		for _, c := range l.labelCounters {
			if value := l.labelValue(v.Sample, c, i); value != "" {
				e.fields = append(e.fields, Label{cfg.Counters[c].Name, value})
			}
		}
		slices.SortFunc(e.fields, byName)
		e.self = NewLabelSet(e.identity...)
		if kind := v.Inventory.Entities[i].Kind; kind == model.KindGPU || kind == model.KindGPUInstance {
			e.own = e.self
		}
		holders := ownership.of(holderOf(v.Inventory, i))
		e.variants = cfg.variants(e.fields, holders, taken)
		for v := range e.variants {
			e.variants[v].series = NewLabelSet(slices.Concat(e.identity, e.variants[v].fields, e.variants[v].attributes)...)
		}
		if cfg.Owners.VirtualGPUs && len(holders.Owners) > 0 {
			e.device = NewLabelSet(slices.Concat(e.identity, e.fields)...)
		}
		if e.own == nil {
			continue // it is held by its GPU's owners, and does not count by itself
		}
		e.owners = cfg.ownerLayouts(e.identity, holders.Owners)
	}
	return l
}

// covers says whether the layout is still right for the view.
func (l *layout) covers(v state.View, ownership *Ownership, counters []field.Counter) bool {
	if l.inventory != v.Inventory || l.ownership != ownership {
		return false
	}
	for i := range l.entities {
		fields, found := l.entities[i].fields, 0
		for _, c := range l.labelCounters {
			value := l.labelValue(v.Sample, c, i)
			if value == "" {
				continue
			}
			if !slices.Contains(fields, Label{counters[c].Name, value}) {
				return false
			}
			found++
		}
		if found != len(fields) {
			return false
		}
	}
	return true
}

// labelValue returns the text of a label counter on an entity, or "" where there
// is none.
func (l *layout) labelValue(s *model.Sample, counter, entity int) string {
	cell, ok := l.cell(s, counter, entity)
	if !ok {
		cell, ok = l.globalCell(s, counter, entity)
	}
	if !ok {
		return ""
	}
	if !cell.Type.Numeric() {
		return s.String(cell)
	}
	return string(fieldValue(cell).append(nil))
}

// cell returns the value of a counter's field on an entity, if there is one.
func (l *layout) cell(s *model.Sample, counter, entity int) (model.Cell, bool) {
	kind := l.inventory.Entities[entity].Kind
	column := l.columns[counter][kind]
	if s == nil || column < 0 || len(s.Rows[entity]) == 0 {
		return model.Cell{}, false
	}
	cell := s.Rows[entity][column]
	return cell, cell.Status == model.StatusOK
}

// globalCell returns the value of a label counter that is about the node, for an
// entity of a kind that is not asked for it.
func (l *layout) globalCell(s *model.Sample, counter, entity int) (model.Cell, bool) {
	if !l.global[counter] || l.inventory.Entities[entity].Kind.OfGPU() && l.inventory.Entities[entity].Kind != model.KindComputeInstance {
		return model.Cell{}, false
	}
	for i := range l.inventory.Devices() {
		if cell, ok := l.cell(s, counter, i); ok {
			return cell, true
		}
	}
	return model.Cell{}, false
}

// render returns the label set for key, made by the first call for it.
func (l *layout) render(key renderedKey, labels func() []Label) *LabelSet {
	set, ok := l.rendered[key]
	if !ok {
		set = NewLabelSet(labels()...)
		l.rendered[key] = set
	}
	return set
}
