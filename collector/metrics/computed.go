// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strconv"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/xid"
)

// computed returns the family of a computed counter.
func (f *Families) computed(c field.Counter, v state.View) Family {
	family := Family{Name: c.Name, Help: c.Help, Type: c.Type}
	action := f.cfg.XIDs.CallsForAction()
	for i := range f.layout.entities {
		l := &f.layout.entities[i]
		if l.own == nil {
			continue // they are of GPUs and GPU instances
		}
		for n := range l.variants {
			switch c.Computed {
			case field.XIDErrorsCount:
				family.Series = f.appendXIDErrorsCount(family.Series, v, i, n)
			case field.XIDErrorsTotal:
				family.Series = f.appendXIDErrorsTotal(family.Series, v, i, n, action)
			default:
				family.Series = f.appendCondition(family.Series, c.Computed, v, i, n)
			}
		}
	}
	return family
}

func (f *Families) appendXIDErrorsCount(series []Series, v state.View, entity, variant int) []Series {
	const family = "DCGM_EXP_XID_ERRORS_COUNT"
	window := Label{"window_size_in_ms", strconv.FormatInt(f.cfg.XIDWindow.Milliseconds(), 10)}
	key, found := model.KeyOf(v.Inventory, entity), false
	for _, code := range codesOf(v.RecentXIDs, key) {
		found = true
		series = append(series, Series{
			f.computedLabels(family, entity, variant, code, window, Label{"xid", strconv.FormatInt(code, 10)}),
			Number(float64(v.RecentXIDs[xid.Key{EntityKey: key, Code: code}])),
		})
	}
	if !found {
		series = append(series, Series{f.computedLabels(family, entity, variant, model.Unknown, window), Number(0)})
	}
	return series
}

// appendXIDErrorsTotal appends the counts of the codes of action and of those that came.
func (f *Families) appendXIDErrorsTotal(series []Series, v state.View, entity, variant int, action []int64) []Series {
	key := model.KeyOf(v.Inventory, entity)
	for _, code := range seenOr(action, v.XIDs, key) {
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_XID_ERRORS_TOTAL", entity, variant, code, Label{"xid", strconv.FormatInt(code, 10)}),
			Number(float64(v.XIDs[xid.Key{EntityKey: key, Code: code}].Total)),
		})
	}
	return series
}

// computedLabels returns the labels of a series of a computed counter: those of
// the entity's fields, with some of its own where dcgm-exporter has them.
func (f *Families) computedLabels(family string, entity, variant int, code int64, own ...Label) *LabelSet {
	return f.layout.render(renderedKey{entity, family, code, variant}, func() []Label {
		e := &f.layout.entities[entity]
		v := &e.variants[variant]
		fields := slices.Concat(v.fields, own)
		slices.SortStableFunc(fields, byName)
		return slices.Concat(e.identity, fields, v.attributes)
	})
}

// codesOf returns the codes that the entity has in the map, sorted.
func codesOf(of map[xid.Key]uint64, key model.EntityKey) []int64 {
	var codes []int64
	for k := range of {
		if k.EntityKey == key {
			codes = append(codes, k.Code)
		}
	}
	slices.Sort(codes)
	return codes
}

// xidWindow is how far back XIDs must be known; 0 if nobody asks.
func (cfg *Config) xidWindow() time.Duration {
	if slices.ContainsFunc(cfg.Counters, func(c field.Counter) bool { return c.Computed == field.XIDErrorsCount }) {
		return cfg.XIDWindow
	}
	return 0
}

// clockEventsWindow is for how long clock events must be kept; 0 if nobody asks.
func (cfg *Config) clockEventsWindow() time.Duration {
	if slices.ContainsFunc(cfg.Counters, func(c field.Counter) bool { return c.Computed == field.ClockEventsCount }) {
		return cfg.ClockEventsWindow
	}
	return 0
}

// appendCondition appends the series of a computed counter about clock events,
// health or P2P on one entity. Unlike with dcgm-exporter, they are of GPUs alone: of
// one in MIG mode, too, and instances do not repeat them.
func (f *Families) appendCondition(series []Series, c field.ComputedCounter, v state.View, entity, variant int) []Series {
	if !c.On(v.Inventory.Entities[entity].Kind) {
		return series
	}
	switch c {
	case field.ClockEventsCount:
		return f.appendClockEventsCount(series, v, entity, variant)
	case field.ClockEventsTotal:
		return f.appendClockEventsTotal(series, v, entity, variant)
	case field.GPUHealthStatus:
		return f.appendGPUHealthStatus(series, v, entity, variant)
	case field.P2PStatus:
		return f.appendP2PStatus(series, v, entity, variant)
	}
	return series
}

func (f *Families) appendClockEventsCount(series []Series, v state.View, entity, variant int) []Series {
	const family = "DCGM_EXP_CLOCK_EVENTS_COUNT"
	state, ok := v.ClockEvents[model.KeyOf(v.Inventory, entity)]
	if !ok {
		return series
	}
	window := Label{"window_size_in_ms", strconv.FormatInt(f.cfg.ClockEventsWindow.Milliseconds(), 10)}
	found := false
	for bit := range field.ClockEventReasonCount {
		if state.Window[bit] == 0 {
			continue
		}
		found = true
		series = append(series, Series{
			f.computedLabels(family, entity, variant, int64(bit), window, Label{"clock_event", field.ClockEventReason(bit)}),
			Number(float64(state.Window[bit])),
		})
	}
	if !found {
		series = append(series, Series{f.computedLabels(family, entity, variant, model.Unknown, window), Number(0)})
	}
	return series
}

func (f *Families) appendClockEventsTotal(series []Series, v state.View, entity, variant int) []Series {
	state, ok := v.ClockEvents[model.KeyOf(v.Inventory, entity)]
	if !ok {
		return series
	}
	for bit := range field.ClockEventReasonCount {
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_CLOCK_EVENTS_TOTAL", entity, variant, int64(bit), Label{"clock_event", field.ClockEventReason(bit)}),
			Number(float64(state.Samples[bit])),
		})
	}
	return series
}

// expHealthWatches are dcgm-exporter's names of the systems of a GPU, in the order of
// HealthSystemsOf(KindGPU).
var expHealthWatches = [...]string{"PCIE", "NVLINK", "PMU", "MCU", "MEM", "SM", "INFOROM", "THERMAL", "POWER", "DRIVER", "ALL"}

func (f *Families) appendGPUHealthStatus(series []Series, v state.View, entity, variant int) []Series {
	h := f.freshHealth(v)
	if h == nil || !slices.ContainsFunc(h.Checked, func(c model.CheckedEntity) bool { return c.Entity == entity }) {
		return series
	}
	for i, system := range model.HealthSystemsOf(model.KindGPU) {
		result, code := h.Result(entity, system)
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_GPU_HEALTH_STATUS", entity, variant, int64(system)<<32|int64(code),
				Label{"health_error_code", "DCGM_FR_" + model.HealthErrorName(code)}, Label{"health_watch", expHealthWatches[i]}),
			Number(10 * float64(result)), // dcgmHealthWatchResults_t
		})
	}
	return series
}

// expP2PStatuses are dcgm-exporter's names of dcgmNvLinkGpuP2PStatus_t.
var expP2PStatuses = [...]string{
	"OK", "ChipsetNotSupported", "GPUNotSupported", "TopologyNotSupported", "DisabledByRegKey", "NotSupported", "Unknown",
}

func (f *Families) appendP2PStatus(series []Series, v state.View, entity, variant int) []Series {
	p := f.freshPeers(v)
	if p == nil {
		return series
	}
	for _, pair := range p.Pairs {
		if pair.Entity != entity || pair.P2P == model.Unknown {
			continue
		}
		status := expP2PStatuses[min(pair.P2P, len(expP2PStatuses)-1)]
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_P2P_STATUS", entity, variant, int64(pair.Peer)<<32|int64(pair.P2P),
				Label{"link_status", status}, Label{"peer_gpu", strconv.FormatUint(uint64(v.Inventory.Entities[pair.Peer].ID), 10)}),
			Number(float64(pair.P2P)),
		})
	}
	return series
}
