// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/state"
)

// The families of the integrated quantities, and those that name the source of one.
var (
	integralFamilies = [state.QuantityCount]*definition.Family{
		state.BusyTime: &definition.GPUBusySeconds, state.Energy: &definition.GPUEnergyJoules, state.EngineTime: &definition.GPUEngineActiveSeconds,
		state.NVLinkBytes: &definition.GPUNVLinkBytes, state.PCIeBytes: &definition.GPUPCIeBytes,
	}
	integralData = [state.QuantityCount]string{state.BusyTime: "busy", state.Energy: "energy"} // in gpu_exporter_source_info
)

// addIntegrals adds the integrals. As counters, they remain without a fresh sample,
// and those of a GPU after it is gone.
func (p *page) addIntegrals() {
	if p.v.Tracks == nil || p.v.Tracks.Count == 0 {
		return
	}
	view := &p.v.Tracks.IntegralView
	for j := range view.All {
		integral := &view.All[j]
		d := integralFamilies[integral.Quantity]
		if !p.cfg.Selected.Has(d) {
			continue
		}
		used := make([]bool, len(integral.Sources))
		var labels []string
		if integral.Label != "" {
			labels = []string{integral.Label}
		}
		for i := range p.v.Inventory.Devices() {
			at := i*view.Count + j
			if !p.layout.entities[i].device || math.IsNaN(view.Totals[at]) {
				continue
			}
			p.addEntity(d, i, view.Totals[at], labels...)
			used[view.Sources[at]] = true
		}
		if data := integralData[integral.Quantity]; data != "" {
			for n, is := range used {
				if is {
					p.addOwn(&definition.SourceInfo, 1, data, integral.Sources[n].Name)
				}
			}
		}
		for i := range p.v.Gone {
			gpu := &p.v.Gone[i]
			if totals := view.Gone[gpu.UUID]; totals != nil && !math.IsNaN(totals[j]) {
				identity := p.cfg.gpuIdentity(gpu)
				if integral.Label != "" {
					identity = with(identity, d.Labels[0], integral.Label)
				}
				p.add(d, identity, totals[j])
			}
		}
	}
	for i, seconds := range view.Gaps {
		if d := integralFamilies[i]; p.cfg.Selected.Has(d) {
			p.addOwn(&definition.IntegratedGap, seconds, d.Name)
		}
	}
}

// addStatistics adds the minimum, maximum and mean between the last two samples, with
// the labels of the field's own series. It also adds the histograms, which remain
// without a fresh sample.
func (p *page) addStatistics() {
	if p.v.Tracks == nil {
		return
	}
	for _, c := range p.cfg.Counters {
		if !c.Tracked() || !c.Statistics && !c.Histogram {
			continue
		}
		lowest := p.newFamily(c.Name+field.SuffixMin, c.Help+" Lowest value since the last sample.", field.MetricGauge)
		highest := p.newFamily(c.Name+field.SuffixMax, c.Help+" Highest value since the last sample.", field.MetricGauge)
		mean := p.newFamily(c.Name+field.SuffixMean, c.Help+" Mean since the last sample, weighted by time.", field.MetricGauge)
		distribution := p.newFamily(c.Name+field.SuffixHistogram, c.Help+" Distribution of the values since the exporter started.", field.MetricHistogram)
		for e := range p.v.Inventory.Entities {
			l := &p.layout.entities[e]
			if l.identity == nil || !c.On(p.v.Inventory.Entities[e].Kind) {
				continue
			}
			at := state.TrackAt{Entity: e, Field: c.Field.ID}
			if w, ok := p.v.Tracks.Statistics[at]; ok && c.Statistics && p.fresh {
				for n := range l.variants {
					labels := l.variants[n].series
					lowest.add(labels, w.Min*c.Factor())
					highest.add(labels, w.Max*c.Factor())
					mean.add(labels, w.Mean()*c.Factor())
				}
			}
			// A histogram covers all owners that the device ever had, so it has no owner.
			if h := p.v.Tracks.Histograms[at]; h != nil && c.Histogram {
				distribution.addHistogram(l.identity, h)
			}
		}
	}
}
