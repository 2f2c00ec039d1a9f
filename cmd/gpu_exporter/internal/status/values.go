// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// Reasons of missing values in addition to those of [model.Status].
const (
	notRead  = "not_read"  // the counters and families do not need the field
	noSample = "no_sample" // no sample yet
)

// value returns the value of a field on the entity at position i.
func (b *builder) value(i int, id model.FieldID) Value {
	switch {
	case b.Inventory.Entities[i].State != model.EntityUp:
		return Value{Missing: model.StatusEntityLost.String()}
	case b.Sample == nil:
		return Value{Missing: noSample}
	case !b.Fresh:
		return Value{Missing: model.StatusStale.String()}
	}
	cell, found := b.cell(i, id)
	switch {
	case !found && b.partitioned(i):
		return b.ofInstances(i, id)
	case !found:
		return Value{Missing: notRead}
	case cell.Status != model.StatusOK:
		return Value{Missing: cell.Status.String()}
	case !cell.Type.Numeric():
		return Value{Missing: model.StatusUnexpectedType.String()}
	}
	return Value{Value: new(cell.Float64())}
}

// cell returns the cell of a field on the entity at position i, and whether it is read.
func (b *builder) cell(i int, id model.FieldID) (model.Cell, bool) {
	if column, ok := b.columns[b.Inventory.Entities[i].Kind][id]; ok && len(b.Sample.Rows[i]) > 0 {
		return b.Sample.Rows[i][column], true
	}
	if column, ok := b.derived[id]; ok && i < len(b.Sample.Derived) && len(b.Sample.Derived[i]) > 0 {
		return b.Sample.Derived[i][column], true
	}
	return model.Cell{}, false
}

// partitioned reports whether the instances of the GPU at position i are read in its place.
func (b *builder) partitioned(i int) bool {
	e := &b.Inventory.Entities[i]
	return e.Kind == model.KindGPU && e.MIGMode && len(b.Sample.Rows[i]) == 0
}

// ofInstances returns the value of a GPU whose instances are read in its place. Fields of
// GPUs, such as the temperature, have the same value on each instance.
func (b *builder) ofInstances(gpu int, id model.FieldID) Value {
	result := Value{Missing: notRead}
	f, _ := field.ByID(id)
	for i := gpu + 1; i < len(b.Inventory.Entities); i++ {
		if e := &b.Inventory.Entities[i]; e.Kind != model.KindGPUInstance || e.Parent != gpu {
			continue
		}
		if _, found := b.cell(i, id); !found {
			continue
		}
		if f.Level != model.KindGPU {
			return Value{Missing: perInstance}
		}
		if result = b.value(i, id); result.Value != nil {
			return result
		}
	}
	return result
}

// scaled multiplies a value.
func (v Value) scaled(factor float64) Value {
	if v.Value != nil {
		v.Value = new(*v.Value * factor)
	}
	return v
}

const mebibyte = 1 << 20

// Fields of the framebuffer, in MiB.
const (
	memoryTotal    model.FieldID = 250
	memoryFree     model.FieldID = 251
	memoryReserved model.FieldID = 253
)

// engineActive is the share of time in which the graphics engine was active. Instances have
// it, too.
const engineActive model.FieldID = 1001

// readings returns the values of the GPU or GPU instance at position i.
func (b *builder) readings(i int) Readings {
	r := Readings{Load: b.value(i, engineActive), MemoryUsed: b.value(i, field.FBUsed).scaled(mebibyte), MemoryTotal: b.memoryTotal(i)}
	if r.Load.Value != nil {
		r.LoadField = b.fieldName(engineActive)
		return r
	}
	switch util := b.value(i, field.GPUUtil); {
	case util.Value != nil:
		*util.Value /= 100
		r.Load, r.LoadField = util, b.fieldName(field.GPUUtil)
	case r.Load.Missing == notRead:
		r.Load = util
	}
	return r
}

// memoryTotal returns the field of that name, or else the sum of its parts. The reserved
// part may not exist.
func (b *builder) memoryTotal(i int) Value {
	total := b.value(i, memoryTotal)
	if total.Value != nil || total.Missing != notRead {
		return total.scaled(mebibyte)
	}
	used, unused, reserved := b.value(i, field.FBUsed), b.value(i, memoryFree), b.value(i, memoryReserved)
	for _, part := range []Value{used, unused} {
		if part.Value == nil {
			return part
		}
	}
	sum := *used.Value + *unused.Value
	if reserved.Value != nil {
		sum += *reserved.Value
	} else if reserved.Missing != model.StatusNotSupported.String() && reserved.Missing != notRead {
		return reserved
	}
	return Value{Value: &sum}.scaled(mebibyte)
}
