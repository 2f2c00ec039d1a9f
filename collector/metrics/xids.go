// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// addXIDs adds the XID counters. Those of a GPU by severity start at 0, because
// increase() misses the first event of a counter that starts at 1. The counters of GPUs
// and GPU instances that are gone remain.
func (p *page) addXIDs() {
	counts := map[model.EntityKey][]xidCount{}
	for key, count := range p.v.XIDs {
		counts[key.EntityKey] = append(counts[key.EntityKey], xidCount{key.Code, count})
	}
	for i := range p.layout.entities {
		if l := &p.layout.entities[i]; l.device {
			key := model.KeyOf(p.v.Inventory, i)
			p.addXIDsOf(i, l.identity, counts[key], key.Instance == model.Unknown)
			delete(counts, key)
		}
	}
	for i := range p.v.Gone {
		gpu := &p.v.Gone[i]
		key := model.EntityKey{UUID: gpu.UUID, Instance: model.Unknown}
		p.addXIDsOf(model.Unknown, p.cfg.gpuIdentity(gpu), counts[key], true)
		delete(counts, key)
	}
	for _, key := range formerInstances(p.v.Inventory, counts) {
		if gpu := p.v.GPU(key.UUID); gpu != nil {
			p.addXIDsOf(model.Unknown, p.cfg.instanceIdentity(gpu, key.Profile, key.Instance), counts[key], false)
		}
	}
}

// xidCount is the count of one code on a device.
type xidCount struct {
	code int64
	xid.Count
}

// addXIDsOf adds the XIDs of a device: by severity, and by code. The position of a device
// that is gone is Unknown.
func (p *page) addXIDsOf(entity int, identity []*dto.LabelPair, counts []xidCount, fromStart bool) {
	add := func(d *definition.Family, value float64, labels ...string) {
		if entity != model.Unknown {
			p.addEntity(d, entity, value, labels...)
			return
		}
		p.add(d, labelsOf(d, identity, labels...), value)
	}
	slices.SortFunc(counts, func(a, b xidCount) int { return cmp.Compare(a.code, b.code) })
	var totals [xid.SeverityCount]uint64
	for _, c := range counts {
		entry := p.cfg.XIDs.Describe(c.code)
		totals[entry.Severity] += c.Total
		labels := []string{decimal(c.code), entry.Name, entry.Severity.String(), entry.Action}
		add(&definition.GPUXIDCodeErrors, float64(c.Total), labels...)
		if !c.Last.IsZero() {
			add(&definition.GPUXIDCodeLastTimestamp, seconds(c.Last), labels...)
		}
	}
	for severity, total := range totals {
		if fromStart || total > 0 {
			add(&definition.GPUXIDErrors, float64(total), xid.Severity(severity).String())
		}
	}
}

// formerInstances returns the keys of XIDs on instances that a GPU no longer has, in
// order.
func formerInstances(inv *model.Inventory, counts map[model.EntityKey][]xidCount) []model.EntityKey {
	var keys []model.EntityKey
	for key := range counts {
		exists := slices.ContainsFunc(inv.Entities, func(e model.Entity) bool {
			return e.Kind == model.KindGPUInstance && e.InstanceID == key.Instance && e.Profile == key.Profile &&
				inv.Entities[e.Parent].UUID == key.UUID
		})
		if key.Instance != model.Unknown && !exists {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b model.EntityKey) int {
		return cmp.Or(cmp.Compare(a.UUID, b.UUID), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Profile, b.Profile))
	})
	return keys
}
