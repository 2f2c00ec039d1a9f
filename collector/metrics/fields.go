// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// addFields adds one family for each counter of the counters file.
func (p *page) addFields() {
	for i, c := range p.cfg.Counters {
		if c.Type == field.MetricLabel {
			continue
		}
		family := p.newFamily(c.Name, c.Help, c.Type)
		if c.Computed != 0 {
			p.addComputed(family, c.Computed)
			continue
		}
		for e := range p.v.Inventory.Entities {
			cell, ok := p.layout.cell(p.v.Sample, i, e)
			if c.ZeroXID && cell.Status == model.StatusNoData {
				cell, ok = model.Int64Cell(0), true
			}
			if !ok || !cell.Type.Numeric() {
				continue
			}
			l := &p.layout.entities[e]
			value := cell.Float64() * c.Factor()
			if p.addPerProcess(family, c, e, value) {
				continue
			}
			for n := range l.variants {
				labels := l.variants[n].series
				if c.Field.ID == field.XIDErrors {
					labels = p.lastXIDLabels(e, n, cell.Int64())
				}
				family.add(labels, value)
			}
		}
	}
}

// lastXIDLabels returns the labels of the last-XID gauge. dcgm-exporter adds the
// code and its text as attributes.
func (p *page) lastXIDLabels(entity, n int, code int64) []*dto.LabelPair {
	key := labelsKey{"last_xid", entity, n, [4]string{decimal(code)}}
	return p.cached(key, func() []*dto.LabelPair {
		e := &p.layout.entities[entity]
		v := &e.variants[n]
		errors := with(nil, "err_code", decimal(code), "err_msg", p.cfg.XIDs.Message(code))
		return append(with(e.identity), append(with(v.fields), sortedByName(v.attributes, errors)...)...)
	})
}
