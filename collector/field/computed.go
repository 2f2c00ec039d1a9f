// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import (
	"gpu_exporter/collector/model"
)

// ComputedCounter is one of the counters that dcgm-exporter computes, which are
// no fields of DCGM. A counters file asks for them by name, as for a field.
type ComputedCounter uint8

// The computed counters. Zero is none.
const (
	// XIDErrorsCount is the number of XIDs within a time window, by code. It is a
	// gauge, whatever the counters file says. An entity without an XID has one
	// series without a code, at 0.
	XIDErrorsCount ComputedCounter = iota + 1
	// XIDErrorsTotal is the number of XIDs since the exporter started, by code.
	// Unlike with dcgm-exporter, the codes that call for action exist from the
	// start: see [xid.Catalogue.CallsForAction].
	XIDErrorsTotal
	// ClockEventsCount is the number of samples within a time window in which a
	// reason held the clocks down, by reason. A GPU without any has one series
	// without a reason, at 0.
	ClockEventsCount
	// ClockEventsTotal is the same since the exporter started, all reasons there from
	// the start.
	ClockEventsTotal
	// GPUHealthStatus is what the newest health check makes of each system of a GPU:
	// 0 pass, 10 warning, 20 failure.
	GPUHealthStatus
	// P2PStatus is whether a GPU reaches each other one over NVLink: 0 is yes.
	P2PStatus
)

// Checks says whether the counter comes of health checks, or of what is read with them.
func (c ComputedCounter) Checks() bool { return c == GPUHealthStatus || c == P2PStatus }

// computedCounters are all of them, by name.
var computedCounters = [...]struct {
	counter    ComputedCounter
	name, help string
}{
	{ClockEventsCount, "DCGM_EXP_CLOCK_EVENTS_COUNT", "Samples with a clock event in the last window."},
	{ClockEventsTotal, "DCGM_EXP_CLOCK_EVENTS_TOTAL", "Clock events since the exporter started."},
	{GPUHealthStatus, "DCGM_EXP_GPU_HEALTH_STATUS", "Health of the GPU as DCGM judges it."},
	{P2PStatus, "DCGM_EXP_P2P_STATUS", "Status of the NVLink between two GPUs."},
	{XIDErrorsCount, "DCGM_EXP_XID_ERRORS_COUNT", "XID errors in the last window."},
	{XIDErrorsTotal, "DCGM_EXP_XID_ERRORS_TOTAL", "XID errors since the exporter started."},
}

// ComputedCounters returns the computed counters, by name.
func ComputedCounters() []Counter {
	list := make([]Counter, 0, len(computedCounters))
	for _, c := range computedCounters {
		list = append(list, Counter{Computed: c.counter, Name: c.name, Type: c.counter.Nature(), Help: c.help})
	}
	return list
}

// computedByName returns the computed counter of that name, and its help text.
func computedByName(name string) (c ComputedCounter, help string, ok bool) {
	for _, c := range computedCounters {
		if c.name == name {
			return c.counter, c.help, true
		}
	}
	return 0, "", false
}

// On says whether entities of the kind have series of the counter.
func (c ComputedCounter) On(kind model.EntityKind) bool {
	switch c {
	case XIDErrorsCount, XIDErrorsTotal:
		return kind == model.KindGPU || kind == model.KindGPUInstance
	default:
		return kind == model.KindGPU
	}
}

// Nature says what the counter is, as opposed to what counters files say.
func (c ComputedCounter) Nature() MetricType {
	switch c {
	case XIDErrorsTotal, ClockEventsTotal:
		return MetricCounter
	default:
		return MetricGauge
	}
}

// computed takes a line with a computed counter. dcgm-exporter's files call the
// gauges among them counters, so either word will do.
func (p *countersParser) computed(line int, computed ComputedCounter, name, word, help string) {
	metric, ok := p.metricType(line, name, word)
	if !p.help(line, name, help) || !ok {
		return
	}
	if metric == MetricLabel {
		p.fail(line, "%s cannot be a label, it has many values at once: write %s", name, computed.Nature())
		return
	}
	if at, twice := p.first[name]; twice {
		p.twice(line, at, name, computed.Nature())
		return
	}
	p.first[name] = line
	p.counters.List = append(p.counters.List, Counter{Computed: computed, Name: name, Type: computed.Nature(), Help: help})
}
