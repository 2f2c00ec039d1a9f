// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"maps"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// isProfiling reports whether the field is one of DCGM_FI_PROF_*.
func isProfiling(id uint16) bool {
	return field.Field{ID: model.FieldID(id)}.Profiling()
}

// capability is the profiling fields of a GPU, or the reason why it has none.
type capability struct {
	fields map[uint16]bool
	status model.Status
}

func (c capability) equal(other capability) bool {
	return c.status == other.status && maps.Equal(c.fields, other.fields)
}

func (c capability) of(field uint16) model.Status {
	if c.status != model.StatusOK {
		return c.status
	}
	if !c.fields[field] {
		return model.StatusNotSupported
	}
	return model.StatusOK
}
