// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// appendDevices appends the gpu_* families. They go on while samples do not
// come: who the GPUs are and what happened to them stays known.
func (f *Families) appendDevices(families []Family, v state.View, ownership *Ownership, fresh bool) []Family {
	if v.Inventory == nil {
		return families
	}
	up, info := gpuUp.family(), gpuInfo.family()
	for i := range v.Inventory.Entities {
		l := &f.layout.entities[i]
		if l.own == nil {
			continue
		}
		e := &v.Inventory.Entities[i]
		if e.Kind == model.KindGPU {
			up.Series = append(up.Series, Series{l.own, Bool(fresh && state.Answers(v, i))})
		}
		info.Series = append(info.Series, Series{f.layout.render(renderedKey{i, gpuInfo.Name, 0, 0}, func() []Label {
			return slices.Concat(l.identity, infoLabels(v.Inventory, i))
		}), Number(1)})
	}
	for i := range v.Gone {
		if gone := &v.Gone[i]; model.FindGPU(v.Inventory, gone.UUID) == nil {
			up.Series = append(up.Series, Series{NewLabelSet(f.cfg.goneIdentity(gone)...), Bool(false)})
		}
	}
	families = append(families, up, info)
	families = f.appendFabric(families, v, fresh)
	families = f.appendProfiling(families, v, fresh)
	families = f.appendHolders(families, v, ownership)
	families = f.appendStatistics(families, v, fresh)
	families = f.appendIntegrals(families, v)
	return f.appendXIDs(families, v)
}

func infoLabels(inv *model.Inventory, i int) []Label {
	gpu, _ := inv.GPU(i)
	var labels []Label
	add := func(name, value string) {
		if value != "" {
			labels = append(labels, Label{name, value})
		}
	}
	add("brand", gpu.Brand)
	add("driver_version", inv.DriverVersion)
	if gpu.Minor != model.Unknown {
		add("minor", strconv.Itoa(gpu.Minor))
	}
	if gpu.Index != model.Unknown {
		add("nvml_index", strconv.Itoa(gpu.Index))
	}
	add("serial", gpu.Serial)
	add("vbios_version", gpu.VBIOS)
	return labels
}
