// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"maps"
	"slices"

	"gpu_exporter/collector"
)

// eachProfiled calls f for each profiling field of the GPU, and of the instances
// of it, that is asked for: row and column.
func (p *plan) eachProfiled(gpu *collector.Entity, f func(row, column int)) {
	for i, e := range p.inv.Entities {
		if of, ok := p.inv.GPU(i); !ok || of != gpu || p.fixed[i] == nil || e.State != collector.EntityUp {
			continue
		}
		for j, field := range p.inv.Columns[e.Kind] {
			if profiling(uint16(field)) && p.fixed[i][j] != collector.StatusExcluded {
				f(i, j)
			}
		}
	}
}

// profilingOf is what is watched of profiling on a GPU and on what lies in it.
func (p *plan) profilingOf(gpuRow int) (watches []string) {
	for row, e := range p.inv.Entities {
		if gpu, ok := p.inv.GPU(row); !ok || gpu != &p.inv.Entities[gpuRow] || e.State != collector.EntityUp {
			continue
		}
		of := p.watchesOf(row)
		if prof := of[len(of)-1]; len(prof.fields) > 0 {
			watches = append(watches, fmt.Sprint(p.identity(row), prof.every, prof.fields))
		}
	}
	return watches
}

// roundOf is when profiling of the GPU of a row was last watched anew.
func (p *plan) roundOf(row int) int {
	if gpu, ok := p.inv.GPU(row); ok {
		return p.round[gpu.ID]
	}
	return 0
}

// unlistedEvidence is the evidence that is not among the columns of GPUs, if any
// GPU that has a row is judged by it.
func (p *plan) unlistedEvidence() []uint16 {
	for row, evidence := range p.evidence {
		if !p.read[row] {
			continue
		}
		var columns []uint16
		for _, f := range p.inv.Columns[collector.KindGPU] {
			columns = append(columns, uint16(f))
		}
		return without(evidence, columns)
	}
	return nil
}

// evidenceTargets adds the watch of evidence on GPUs that have no row: those of
// which only instances are read.
func (p *plan) evidenceTargets(add func(target, []int)) {
	rows := slices.DeleteFunc(slices.Sorted(maps.Keys(p.evidence)), func(row int) bool { return p.read[row] })
	if len(rows) > 0 {
		add(target{fields: p.evidence[rows[0]]}, rows)
	}
}

// count says which profiling fields are counted: those of the columns, and of fields
// what comes with them for nothing, the lowest first, as these tell the most.
func (p *plan) count(fields []collector.TrackedField) {
	var wanted []uint16
	for _, f := range fields {
		if profiling(uint16(f.Field)) {
			wanted = append(wanted, uint16(f.Field))
		}
	}
	slices.Sort(wanted)
	for i := range p.inv.Entities {
		gpu := &p.inv.Entities[i]
		if gpu.Kind != collector.KindGPU {
			continue
		}
		var listed []uint16
		p.eachProfiled(gpu, func(row, column int) {
			if p.fixed[row][column] == collector.StatusOK {
				listed = append(listed, uint16(p.inv.Columns[p.inv.Entities[row].Kind][column]))
			}
		})
		p.counted[gpu.ID] = append(listed, p.capabilities[gpu.ID].besides(listed, without(wanted, listed))...)
	}
}

// has says whether an entity can have a field as far as profiling is concerned.
func (p *plan) has(row int, field collector.FieldID) bool {
	gpu, _ := p.inv.GPU(row)
	return gpu == nil || !profiling(uint16(field)) || slices.Contains(p.counted[gpu.ID], uint16(field))
}
