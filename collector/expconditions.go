// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strconv"
	"time"
)

// clockEventsWindow is for how long clock events must be kept; 0 if nobody asks.
func (cfg *FamiliesConfig) clockEventsWindow() time.Duration {
	if slices.ContainsFunc(cfg.Counters, func(c Counter) bool { return c.Computed == ClockEventsCount }) {
		return cfg.ClockEventsWindow
	}
	return 0
}

// appendCondition appends the series of a computed counter about clock events,
// health or P2P on one entity. Unlike with dcgm-exporter, they are of GPUs alone: of
// one in MIG mode, too, and instances do not repeat them.
func (f *Families) appendCondition(series []Series, c ComputedCounter, v nodeView, entity, variant int) []Series {
	if !c.On(v.inventory.Entities[entity].Kind) {
		return series
	}
	switch c {
	case ClockEventsCount:
		return f.appendClockEventsCount(series, v, entity, variant)
	case ClockEventsTotal:
		return f.appendClockEventsTotal(series, v, entity, variant)
	case GPUHealthStatus:
		return f.appendGPUHealthStatus(series, v, entity, variant)
	case P2PStatus:
		return f.appendP2PStatus(series, v, entity, variant)
	}
	return series
}

func (f *Families) appendClockEventsCount(series []Series, v nodeView, entity, variant int) []Series {
	const family = "DCGM_EXP_CLOCK_EVENTS_COUNT"
	state, ok := v.clockEvents[instanceKey(v.inventory, entity)]
	if !ok {
		return series
	}
	window := Label{"window_size_in_ms", strconv.FormatInt(f.cfg.ClockEventsWindow.Milliseconds(), 10)}
	found := false
	for bit := range clockEventReasons {
		if state.window[bit] == 0 {
			continue
		}
		found = true
		series = append(series, Series{
			f.computedLabels(family, entity, variant, int64(bit), window, Label{"clock_event", clockEventReason(bit)}),
			Number(float64(state.window[bit])),
		})
	}
	if !found {
		series = append(series, Series{f.computedLabels(family, entity, variant, Unknown, window), Number(0)})
	}
	return series
}

func (f *Families) appendClockEventsTotal(series []Series, v nodeView, entity, variant int) []Series {
	state, ok := v.clockEvents[instanceKey(v.inventory, entity)]
	if !ok {
		return series
	}
	for bit := range clockEventReasons {
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_CLOCK_EVENTS_TOTAL", entity, variant, int64(bit), Label{"clock_event", clockEventReason(bit)}),
			Number(float64(state.samples[bit])),
		})
	}
	return series
}

// expHealthWatches are dcgm-exporter's names of the systems of a GPU, in the order of
// healthOf(KindGPU).
var expHealthWatches = [...]string{"PCIE", "NVLINK", "PMU", "MCU", "MEM", "SM", "INFOROM", "THERMAL", "POWER", "DRIVER", "ALL"}

func (f *Families) appendGPUHealthStatus(series []Series, v nodeView, entity, variant int) []Series {
	h := f.freshHealth(v)
	if h == nil || !slices.ContainsFunc(h.Checked, func(c CheckedEntity) bool { return c.Entity == entity }) {
		return series
	}
	for i, system := range healthOf(KindGPU) {
		result, code := h.result(entity, system)
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_GPU_HEALTH_STATUS", entity, variant, int64(system)<<32|int64(code),
				Label{"health_error_code", "DCGM_FR_" + HealthErrorName(code)}, Label{"health_watch", expHealthWatches[i]}),
			Number(10 * float64(result)), // dcgmHealthWatchResults_t
		})
	}
	return series
}

// expP2PStatuses are dcgm-exporter's names of dcgmNvLinkGpuP2PStatus_t.
var expP2PStatuses = [...]string{
	"OK", "ChipsetNotSupported", "GPUNotSupported", "TopologyNotSupported", "DisabledByRegKey", "NotSupported", "Unknown",
}

func (f *Families) appendP2PStatus(series []Series, v nodeView, entity, variant int) []Series {
	p := f.freshPeers(v)
	if p == nil {
		return series
	}
	for _, pair := range p.Pairs {
		if pair.Entity != entity || pair.P2P == Unknown {
			continue
		}
		status := expP2PStatuses[min(pair.P2P, len(expP2PStatuses)-1)]
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_P2P_STATUS", entity, variant, int64(pair.Peer)<<32|int64(pair.P2P),
				Label{"link_status", status}, Label{"peer_gpu", strconv.FormatUint(uint64(v.inventory.Entities[pair.Peer].ID), 10)}),
			Number(float64(pair.P2P)),
		})
	}
	return series
}
