// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/xid"
)

// addXIDs adds the XID counters. increase() misses the first event of a counter that
// starts at 1, so the codes that call for action start at 0. The counters of GPUs and
// GPU instances that are gone remain.
func (p *page) addXIDs() {
	action := p.cfg.XIDs.CallsForAction()
	for i := range p.layout.entities {
		l := &p.layout.entities[i]
		if !l.device {
			continue
		}
		key := model.KeyOf(p.v.Inventory, i)
		for _, code := range seenOr(action, p.v.XIDs, key) {
			p.addXID(xid.Key{EntityKey: key, Code: code}, p.labels(&gpuXIDErrors, i, l.identity, decimal(code)))
		}
	}
	for _, gpu := range p.goneGPUs() {
		key := model.EntityKey{UUID: gpu.UUID, Instance: model.Unknown}
		for _, code := range seenOr(action, p.v.XIDs, key) {
			p.addXID(xid.Key{EntityKey: key, Code: code}, with(p.cfg.gpuIdentity(gpu), "xid", decimal(code)))
		}
	}
	for _, key := range formerInstances(p.v) {
		identity := p.cfg.instanceIdentity(p.v.GPU(key.UUID), key.Profile, key.Instance)
		p.addXID(key, with(identity, "xid", decimal(key.Code)))
	}
	p.addXIDInfo(action)
}

func (p *page) addXID(key xid.Key, labels []*dto.LabelPair) {
	count := p.v.XIDs[key]
	p.add(&gpuXIDErrors, labels, float64(count.Total))
	if !count.Last.IsZero() {
		p.add(&gpuXIDLastTimestamp, labels, seconds(count.Last))
	}
}

// formerInstances returns the keys of XIDs on instances that a GPU no longer has, in
// order.
func formerInstances(v state.View) []xid.Key {
	var keys []xid.Key
	for key := range v.XIDs {
		if key.Instance == model.Unknown || v.GPU(key.UUID) == nil {
			continue
		}
		exists := slices.ContainsFunc(v.Inventory.Entities, func(e model.Entity) bool {
			return e.Kind == model.KindGPUInstance && e.InstanceID == key.Instance && e.Profile == key.Profile &&
				v.Inventory.Entities[e.Parent].UUID == key.UUID
		})
		if !exists {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b xid.Key) int {
		return cmp.Or(cmp.Compare(a.UUID, b.UUID), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Code, b.Code))
	})
	return keys
}

// addXIDInfo adds the catalogue entries of the codes that call for action or occurred,
// which join on (instance, xid). The whole catalogue would be three times as many.
func (p *page) addXIDInfo(action []int64) {
	codes := slices.Clone(action)
	for k := range p.v.XIDs {
		codes = append(codes, k.Code)
	}
	slices.Sort(codes)
	for _, code := range slices.Compact(codes) {
		p.addInfo(&gpuXIDInfo, model.Unknown, int(code), func() []*dto.LabelPair {
			entry, ok := p.cfg.XIDs.Lookup(code)
			if !ok {
				return with(nil, "severity", "unknown", "xid", decimal(code))
			}
			return nonEmpty(with(nil, "action", entry.Action, "name", entry.Name, "severity", entry.Severity.String(), "xid", decimal(code)))
		})
	}
}

// seenOr returns the codes of always, and those in the map of the entity, sorted.
func seenOr[V any](always []int64, seen map[xid.Key]V, key model.EntityKey) []int64 {
	codes := always
	for k := range seen {
		if k.EntityKey == key && !slices.Contains(always, k.Code) {
			codes = append(codes[:len(codes):len(codes)], k.Code)
		}
	}
	if len(codes) > len(always) {
		slices.Sort(codes)
	}
	return codes
}
