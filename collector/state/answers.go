// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// Answers reports whether the GPU at position i answered the newest reading: the sampler
// reports it, or the sample has a value of the GPU, or of one of its instances if these are
// read instead. It excludes values of the node and the last
// XID, because DCGM has them for a dead GPU too. It includes derived fields, because new
// instances may have no value yet.
func Answers(v View, i int) bool {
	if v.Inventory.Entities[i].State != model.EntityUp {
		return false
	}
	if i < len(v.Sample.Answers) && v.Sample.Answers[i] {
		return true
	}
	read := false
	if i < len(v.Sample.Derived) {
		for _, c := range v.Sample.Derived[i] {
			if c.Status == model.StatusOK {
				return true
			}
			read = read || !c.Status.Lasting()
		}
	}
	for j := range v.Inventory.Entities {
		e := &v.Inventory.Entities[j]
		if row := v.Sample.Rows[j]; (j == i || e.Parent == i && e.Kind == model.KindGPUInstance) && len(row) > 0 {
			if read = true; hasValue(v.Inventory.Columns[e.Kind], row) {
				return true
			}
		}
	}
	return !read // without a row only the state is known
}

// GPUs returns how many GPUs the newest sample has, and how many of them answer.
func (n *Node) GPUs() (found, answer int) {
	v := n.glance()
	if v.Sample == nil {
		return 0, 0
	}
	for i := range v.Inventory.Entities {
		if e := &v.Inventory.Entities[i]; e.Kind == model.KindGPU && e.Selected {
			found++
			if Answers(v, i) {
				answer++
			}
		}
	}
	return found, answer
}

func hasValue(columns []model.FieldID, row []model.Cell) bool {
	for c, id := range columns {
		if row[c].Status != model.StatusOK || id == field.XIDErrors {
			continue
		}
		if field, ok := field.ByID(id); !ok || field.Level != model.KindGlobal {
			return true
		}
	}
	return false
}

// Silence returns why the GPU at position i does not answer, or "" if it does.
func Silence(v View, i int) string {
	if Answers(v, i) {
		return ""
	}
	if state := v.Inventory.Entities[i].State; state != model.EntityUp {
		return state.String()
	}
	var n [model.StatusCount]int
	most := model.StatusNoData
	for j, row := range v.Sample.Rows {
		if j != i && v.Inventory.Entities[j].Parent != i {
			continue
		}
		for _, c := range row {
			if n[c.Status]++; c.Status != model.StatusOK && n[c.Status] > n[most] {
				most = c.Status
			}
		}
	}
	return "no values, most are: " + most.String()
}
