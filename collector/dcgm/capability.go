// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"slices"

	"gpu_exporter/collector"
)

// profiling says whether the field is one of DCGM_FI_PROF_*.
func profiling(field uint16) bool {
	return collector.Field{ID: collector.FieldID(field)}.Profiling()
}

// capability is what a GPU can profile: the fields, or why it cannot at all.
type capability struct {
	fields map[uint16]metricGroup
	status collector.Status
}

// metricGroup names fields that the hardware counts together. It counts those of one
// major and different minors in turns (dcgmProfMetricGroupInfo_t in dcgm_structs.h):
// each for a part of the time, which makes all of them less exact. GPUs before Hopper
// have such groups; an A10 has three of one major (NVIDIA/DCGM issue 144).
type metricGroup struct{ major, minor uint }

// turns is how many turns the hardware takes to count the fields.
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

// besides returns those of extra that the hardware counts beside fields without
// taking more turns, or in one if there are no fields.
func (c capability) besides(fields, extra []uint16) []uint16 {
	var free []uint16
	all := slices.Clone(fields)
	limit := max(1, c.turns(fields))
	for _, f := range extra {
		if c.of(f) == collector.StatusOK && c.turns(append(all, f)) <= limit {
			all, free = append(all, f), append(free, f)
		}
	}
	return free
}

func (c capability) of(field uint16) collector.Status {
	if c.status != collector.StatusOK {
		return c.status
	}
	if _, ok := c.fields[field]; !ok {
		return collector.StatusNotSupported
	}
	return collector.StatusOK
}
