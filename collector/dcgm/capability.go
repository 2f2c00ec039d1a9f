// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// isProfiling reports whether the field is one of DCGM_FI_PROF_*.
func isProfiling(id uint16) bool {
	return field.Field{ID: model.FieldID(id)}.Profiling()
}

// capability is the profiling fields of a GPU, or the reason why it has none.
type capability struct {
	fields map[uint16]metricGroup
	status model.Status
}

// metricGroup is DCGM's group of a profiling field (dcgmProfMetricGroupInfo_t in
// dcgm_structs.h). The hardware counts groups of one major and different minors in
// turns, each for a part of the time, so each turn makes all of them less exact. GPUs
// before Hopper have such groups; an A10 has three of one major (NVIDIA/DCGM issue 144).
type metricGroup struct{ major, minor uint }

// turns returns how many turns the hardware needs to count the fields.
func (c capability) turns(fields []uint16) int {
	minors := make(map[uint][]uint)
	turns := 0
	for _, f := range fields {
		g, ok := c.fields[f]
		if !ok || slices.Contains(minors[g.major], g.minor) {
			continue
		}
		minors[g.major] = append(minors[g.major], g.minor)
		turns = max(turns, len(minors[g.major]))
	}
	return turns
}

// withoutMoreTurns returns the fields of extra that the hardware counts in addition
// to fields without more turns, or in one turn if fields is empty.
func (c capability) withoutMoreTurns(fields, extra []uint16) []uint16 {
	var free []uint16
	all := slices.Clone(fields)
	limit := max(1, c.turns(fields))
	for _, f := range extra {
		if c.of(f) == model.StatusOK && c.turns(append(all, f)) <= limit {
			all, free = append(all, f), append(free, f)
		}
	}
	return free
}

func (c capability) of(field uint16) model.Status {
	if c.status != model.StatusOK {
		return c.status
	}
	if _, ok := c.fields[field]; !ok {
		return model.StatusNotSupported
	}
	return model.StatusOK
}
