// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// layout is what samples of one inventory share while no owner and no label field
// changes: the labels, and the column of each counter.
type layout struct {
	inventory *model.Inventory
	ownership *Ownership
	entities  []entityLayout
	// columns are, for each counter and kind, the column of the counter's field, or -1.
	columns [][model.KindCount]int
	// hardware are the columns of hardwareRows, or -1 for a family that is not selected.
	hardware      []int
	derived       map[model.FieldID]int // columns of the derived fields
	labelCounters []int                 // positions of the counters of type label
	podLabels     [][]*dto.LabelPair
}

// entityLayout is the labels of one entity.
type entityLayout struct {
	identity []*dto.LabelPair // nil if the entity is not selected
	device   bool             // it is a selected GPU or GPU instance, which the gpu_* families are about
	// fieldValues are the values of the counters of type label, and fields the labels
	// of those that are not empty, sorted by name.
	fieldValues []string
	fields      []*dto.LabelPair
	variants    []variant // usually one; see [Config.variants]
}

// variant is one of the label sets of an entity's values.
type variant struct {
	fields     []*dto.LabelPair // values of the counters of type label, and pod labels
	attributes []*dto.LabelPair // owner and job
	series     []*dto.LabelPair // identity, fields and attributes
	owner      int              // position among the owners, or Unknown
}

func newLayout(cfg *Config, v state.View, ownership *Ownership) layout {
	l := layout{
		inventory: v.Inventory,
		ownership: ownership,
		entities:  make([]entityLayout, len(v.Inventory.Entities)),
		columns:   make([][model.KindCount]int, len(cfg.Counters)),
		hardware:  make([]int, len(hardwareRows)),
		derived:   make(map[model.FieldID]int, len(v.Inventory.Derived)),
	}
	for column, f := range v.Inventory.Derived {
		l.derived[f] = column
	}
	for i, c := range cfg.Counters {
		if c.Type == field.MetricLabel {
			l.labelCounters = append(l.labelCounters, i)
		}
		for kind := range l.columns[i] {
			l.columns[i][kind] = -1 // even if another counter reads the field on this kind
			if c.On(model.EntityKind(kind)) {
				l.columns[i][kind] = slices.Index(v.Inventory.Columns[kind], c.Field.ID)
			}
		}
	}
	for i, r := range hardwareRows {
		l.hardware[i] = -1
		if cfg.Selected.Has(r.family) {
			l.hardware[i] = slices.Index(v.Inventory.Derived, r.field)
		}
	}
	taken := cfg.takenNames()
	for i := range l.entities {
		l.setEntity(cfg, v, i, taken)
	}
	l.podLabels = l.podLabelRows(cfg)
	return l
}

func (l *layout) setEntity(cfg *Config, v state.View, i int, taken func(string) bool) {
	e, kind := &l.entities[i], v.Inventory.Entities[i].Kind
	e.identity = cfg.identity(v.Inventory, i)
	if e.identity == nil {
		return
	}
	// The remaining entities are held by the owners of their GPU.
	e.device = kind == model.KindGPU || kind == model.KindGPUInstance
	for _, c := range l.labelCounters {
		value := l.labelValue(cfg.Counters, v.Sample, c, i)
		e.fieldValues = append(e.fieldValues, value)
		e.fields = append(e.fields, pair(cfg.Counters[c].Name, value))
	}
	e.fields = sortedByName(nonEmpty(e.fields))
	e.variants = cfg.variants(e.fields, l.ownership.of(holderOf(v.Inventory, i)), taken)
	for n := range e.variants {
		variant := &e.variants[n]
		variant.series = slices.Concat(e.identity, variant.fields, variant.attributes)
	}
}

// covers reports whether the layout is valid for the view.
func (l *layout) covers(v state.View, ownership *Ownership, counters []field.Counter) bool {
	if l.inventory != v.Inventory || l.ownership != ownership {
		return false
	}
	for i := range l.entities {
		for n, value := range l.entities[i].fieldValues {
			if l.labelValue(counters, v.Sample, l.labelCounters[n], i) != value {
				return false
			}
		}
	}
	return true
}

// labelValue returns the text of a label counter on an entity, or "" without one. A
// field of the node is read on GPUs; the remaining entities, GPUs whose instances are
// read in their place, and lost ones take the first value. Without it, the counters of a GPU
// would become other series when it is lost.
func (l *layout) labelValue(counters []field.Counter, s *model.Sample, counter, entity int) string {
	cell, ok := l.cell(s, counter, entity)
	kind := l.inventory.Entities[entity].Kind
	partitioned := kind == model.KindGPU && s != nil && len(s.Rows[entity]) == 0
	lost := l.inventory.Entities[entity].State != model.EntityUp
	if !ok && counters[counter].Field.Level == model.KindGlobal && (!kind.OfGPU() || kind == model.KindComputeInstance || partitioned || lost) {
		for i := 0; i < l.inventory.Devices() && !ok; i++ {
			cell, ok = l.cell(s, counter, i)
		}
	}
	switch {
	case !ok:
		return ""
	case cell.Type == model.ValueInt64:
		return decimal(cell.Int64())
	case cell.Type == model.ValueDouble:
		return strconv.FormatFloat(cell.Float64(), 'f', 6, 64) // as dcgm-exporter does
	}
	return s.String(cell)
}

// cell returns the value of a counter's field on an entity, and false without one.
func (l *layout) cell(s *model.Sample, counter, entity int) (model.Cell, bool) {
	kind := l.inventory.Entities[entity].Kind
	column := l.columns[counter][kind]
	if s == nil || column < 0 || len(s.Rows[entity]) == 0 {
		return model.Cell{}, false
	}
	cell := s.Rows[entity][column]
	return cell, cell.Status == model.StatusOK
}
