// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// The families of integrals: counters of ours that are right over any window and
// with any scrape interval.
var (
	gpuBusySeconds         = definition{"gpu_busy_seconds_total", field.MetricCounter, "Time in which the GPU or GPU instance was busy, since the exporter started; gpu_busy_source_info says by what measure.", nil}
	gpuEngineActiveSeconds = definition{"gpu_engine_active_seconds_total", field.MetricCounter, "Time in which an engine or pipe was active, since the exporter started; half active for two seconds is one second.", []string{"engine"}}
	gpuEnergyJoules        = definition{"gpu_energy_joules_total", field.MetricCounter, "Energy that the board has drawn since the exporter started; gpu_energy_source_info says by what measure.", nil}
	gpuNVLinkBytes         = definition{"gpu_nvlink_bytes_total", field.MetricCounter, "Data moved over all NVLinks of the GPU, headers included, since the exporter started.", []string{"direction"}}
	gpuPCIeBytes           = definition{"gpu_pcie_bytes_total", field.MetricCounter, "Data moved over PCIe, headers included, since the exporter started.", []string{"direction"}}

	gpuBusySource = definition{"gpu_busy_source_info", field.MetricGauge, "What gpu_busy_seconds_total is made of: gr_engine (the graphics and compute engine's cycles) or driver_utilization (the driver's percentage, where there is no profiling); always 1.", []string{"source"}}
	gpuEnergySrc  = definition{"gpu_energy_source_info", field.MetricGauge, "What gpu_energy_joules_total is made of: counter (the GPU's own) or integrated_power (readings of the power); always 1.", []string{"source"}}

	integratedGap = definition{"gpu_exporter_integrated_gap_seconds_total", field.MetricCounter, "Time without values that was bridged by their mean on both sides, summed over devices and series, by family. Longer gaps are left out of the family.", []string{"family"}}
)

// integralFamilies are the families of the quantities, and those that say from which
// source an integral comes.
var (
	integralFamilies = [state.QuantityCount]*definition{
		state.BusyTime: &gpuBusySeconds, state.Energy: &gpuEnergyJoules, state.EngineTime: &gpuEngineActiveSeconds,
		state.NVLinkBytes: &gpuNVLinkBytes, state.PCIeBytes: &gpuPCIeBytes,
	}
	integralSources = [state.QuantityCount]*definition{state.BusyTime: &gpuBusySource, state.Energy: &gpuEnergySrc}
)

// appendIntegrals appends the integrals. They are counters, and stay while no
// sample comes.
func (f *Families) appendIntegrals(families []Family, v state.View) []Family {
	if v.Tracks == nil || v.Tracks.Count == 0 {
		return families
	}
	view := &v.Tracks.IntegralView
	for j := range view.All {
		if j == 0 || view.All[j].Quantity != view.All[j-1].Quantity {
			families = append(families, integralFamilies[view.All[j].Quantity].family())
			families[len(families)-1].Series = f.buffer(families[len(families)-1].Name)
		}
		family := &families[len(families)-1]
		for i := range v.Inventory.Devices() {
			l := &f.layout.entities[i]
			if total := view.Totals[i*view.Count+j]; l.own != nil && !math.IsNaN(total) {
				family.Series = append(family.Series, Series{l.integral(view.All, j), Number(total)})
			}
		}
		for i := range v.Gone {
			gone := &v.Gone[i]
			totals := view.Gone[gone.UUID]
			if totals == nil || math.IsNaN(totals[j]) || model.FindGPU(v.Inventory, gone.UUID) != nil {
				continue
			}
			labels := NewLabelSet(integralLabels(&view.All[j], f.cfg.goneIdentity(gone))...)
			family.Series = append(family.Series, Series{labels, Number(totals[j])})
		}
	}
	for j := range view.All {
		definition := integralSources[view.All[j].Quantity]
		if definition == nil {
			continue
		}
		info := definition.family()
		for i := range v.Inventory.Devices() {
			l := &f.layout.entities[i]
			if l.own == nil || math.IsNaN(view.Totals[i*view.Count+j]) {
				continue
			}
			source := view.All[j].Sources[view.Sources[i*view.Count+j]].Name
			labels := f.layout.render(renderedKey{i, info.Name, int64(view.Sources[i*view.Count+j]), 0}, func() []Label {
				return append(slices.Clone(l.identity), Label{"source", source})
			})
			info.Series = append(info.Series, Series{labels, Number(1)})
		}
		families = append(families, info)
	}
	gaps := make(map[string]float64, state.QuantityCount)
	for i, seconds := range view.Gaps {
		gaps[integralFamilies[i].Name] = seconds
	}
	return append(families, counts(f, &integratedGap, gaps))
}

// integral returns the labels of an integral, made by the first call.
func (l *entityLayout) integral(all []state.Integral, j int) *LabelSet {
	if all[j].Label == "" {
		return l.own
	}
	if l.integrals == nil {
		l.integrals = make([]*LabelSet, len(all))
	}
	if l.integrals[j] == nil {
		l.integrals[j] = NewLabelSet(integralLabels(&all[j], l.identity)...)
	}
	return l.integrals[j]
}

func integralLabels(in *state.Integral, identity []Label) []Label {
	if in.Label == "" {
		return identity
	}
	return append(slices.Clone(identity), Label{integralFamilies[in.Quantity].Labels[0], in.Label})
}

// statistic gives a number made of the counter's values the form that these have
// themselves: rounded another way, a value could lie outside of its own minimum and
// maximum.
func statistic(c field.Counter, v float64) Value {
	n := Number(v * c.Factor())
	if c.Field.Type == model.ValueDouble || c.Factor() != math.Trunc(c.Factor()) {
		n.form = formFixed
	}
	return n
}

// appendStatistics appends the minimum, maximum and mean of what was seen between
// the last two samples, with the labels of the field's own series, and the
// histograms, which are counters and stay while no sample comes.
func (f *Families) appendStatistics(families []Family, v state.View, fresh bool) []Family {
	if v.Tracks == nil {
		return families
	}
	for _, c := range f.cfg.Counters {
		if !c.Tracked() || !c.Statistics && !c.Histogram {
			continue
		}
		lowest := Family{Name: c.Name + field.SuffixMin, Help: c.Help + " Lowest value since the last sample.", Type: field.MetricGauge}
		highest := Family{Name: c.Name + field.SuffixMax, Help: c.Help + " Highest value since the last sample.", Type: field.MetricGauge}
		mean := Family{Name: c.Name + field.SuffixMean, Help: c.Help + " Mean since the last sample, weighted by time.", Type: field.MetricGauge}
		distribution := Family{Name: c.Name + field.SuffixHistogram, Help: c.Help + " Values seen since the exporter started.", Type: field.MetricHistogram}
		for e := range v.Inventory.Entities {
			l := &f.layout.entities[e]
			if l.self == nil || !c.On(v.Inventory.Entities[e].Kind) {
				continue
			}
			at := state.TrackAt{Entity: e, Field: c.Field.ID}
			if w, ok := v.Tracks.Statistics[at]; ok && c.Statistics && fresh {
				for n := range l.variants {
					labels := l.variants[n].series
					lowest.Series = append(lowest.Series, Series{labels, statistic(c, w.Min)})
					highest.Series = append(highest.Series, Series{labels, statistic(c, w.Max)})
					mean.Series = append(mean.Series, Series{labels, statistic(c, w.Mean())})
				}
			}
			// A histogram adds up over all owners that the device ever had, so it
			// carries none of them.
			if h := v.Tracks.Histograms[at]; h != nil && c.Histogram {
				distribution.Histograms = append(distribution.Histograms, HistogramSeries{l.self, h})
			}
		}
		families = append(families, lowest, highest, mean, distribution)
	}
	return families
}
