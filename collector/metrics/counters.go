// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
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

// addComputed adds the series of a counter that is computed from several values, as
// dcgm-exporter's DCGM_EXP_* are. XIDs are those of GPUs and GPU instances. Unlike
// with dcgm-exporter, the remaining counters are those of GPUs only, and instances do not
// repeat them.
func (p *page) addComputed(family *family, computed field.ComputedCounter) {
	for i := range p.layout.entities {
		if !p.layout.entities[i].device || !computed.On(p.v.Inventory.Entities[i].Kind) {
			continue
		}
		for n := range p.layout.entities[i].variants {
			c := computedSeries{p, family, i, n}
			switch computed {
			case field.XIDErrorsCount:
				c.addXIDErrorsCount()
			case field.XIDErrorsTotal:
				c.addXIDErrorsTotal()
			case field.ClockEventsCount:
				c.addClockEventsCount()
			case field.ClockEventsTotal:
				c.addClockEventsTotal()
			case field.GPUHealthStatus:
				c.addHealthStatus()
			case field.P2PStatus:
				c.addP2PStatus()
			}
		}
	}
}

// computedSeries adds the series of a computed counter on one variant of an entity.
type computedSeries struct {
	*page
	family          *family
	entity, variant int
}

// add adds a series with the labels of the entity's fields and own labels, names and
// values in turn, of which the values are the key of the cache.
func (c *computedSeries) add(value float64, own ...string) {
	key := labelsKey{family: c.family.GetName(), entity: c.entity, variant: c.variant}
	for i := 1; i < len(own); i += 2 {
		key.values[i/2] = own[i]
	}
	c.family.add(c.cached(key, func() []*dto.LabelPair {
		e := &c.layout.entities[c.entity]
		v := &e.variants[c.variant]
		return slices.Concat(e.identity, sortedByName(v.fields, with(nil, own...)), v.attributes)
	}), value)
}

func (c *computedSeries) key() model.EntityKey { return model.KeyOf(c.v.Inventory, c.entity) }

func (c *computedSeries) addXIDErrorsCount() {
	window := decimal(c.cfg.XIDWindow.Milliseconds())
	codes := seenOr(nil, c.v.RecentXIDs, c.key())
	for _, code := range codes {
		c.add(float64(c.v.RecentXIDs[xid.Key{EntityKey: c.key(), Code: code}]), "window_size_in_ms", window, "xid", decimal(code))
	}
	if len(codes) == 0 {
		c.add(0, "window_size_in_ms", window)
	}
}

// addXIDErrorsTotal adds the codes that call for action, and those that occurred.
func (c *computedSeries) addXIDErrorsTotal() {
	for _, code := range seenOr(c.calling, c.v.XIDs, c.key()) {
		c.add(float64(c.v.XIDs[xid.Key{EntityKey: c.key(), Code: code}].Total), "xid", decimal(code))
	}
}

func (c *computedSeries) addClockEventsCount() {
	window := decimal(c.cfg.ClockEventsWindow.Milliseconds())
	for reason, n := range c.v.ClockEvents[c.key()].Window { // like dcgm-exporter, no series without a reason
		if n > 0 {
			c.add(float64(n), "window_size_in_ms", window, "clock_event", field.ClockEventReason(reason))
		}
	}
}

func (c *computedSeries) addClockEventsTotal() {
	if events, counted := c.v.ClockEvents[c.key()]; counted {
		for reason, n := range events.Samples {
			c.add(float64(n), "clock_event", field.ClockEventReason(reason))
		}
	}
}

// expHealthWatches are dcgm-exporter's names of the systems of a GPU, in the order of
// HealthSystemsOf(KindGPU).
var expHealthWatches = [...]string{"PCIE", "NVLINK", "PMU", "MCU", "MEM", "SM", "INFOROM", "THERMAL", "POWER", "DRIVER", "ALL"}

func (c *computedSeries) addHealthStatus() {
	h := c.freshHealth()
	if h == nil || !slices.ContainsFunc(h.Checked, func(checked model.CheckedEntity) bool { return checked.Entity == c.entity }) {
		return
	}
	for i, system := range model.HealthSystemsOf(model.KindGPU) {
		result, code := h.Result(c.entity, system)
		c.add(10*float64(result), // dcgmHealthWatchResults_t
			"health_error_code", "DCGM_FR_"+model.HealthErrorName(code), "health_watch", expHealthWatches[i])
	}
}

// expP2PStatuses are dcgm-exporter's names of dcgmNvLinkGpuP2PStatus_t.
var expP2PStatuses = [...]string{
	"OK", "ChipsetNotSupported", "GPUNotSupported", "TopologyNotSupported", "DisabledByRegKey", "NotSupported", "Unknown",
}

func (c *computedSeries) addP2PStatus() {
	peers := c.freshPeers()
	if peers == nil {
		return
	}
	for _, pair := range peers.Pairs {
		if pair.Entity == c.entity && pair.P2P != model.Unknown {
			c.add(float64(pair.P2P), "link_status", expP2PStatuses[min(pair.P2P, len(expP2PStatuses)-1)],
				"peer_gpu", decimal(c.v.Inventory.Entities[pair.Peer].ID))
		}
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
