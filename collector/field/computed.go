// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package field

import "gpu_exporter/collector/model"

// ComputedCounter is a counter that the exporter computes, as dcgm-exporter does, and that
// DCGM does not have. Counters files select it by name, like a field.
type ComputedCounter uint8

// The computed counters. Zero means that the counter is a field.
const (
	// XIDErrorsCount is the number of XIDs within a time window, by code. It is always a
	// gauge. An entity without an XID has one series of value 0 without a code.
	XIDErrorsCount ComputedCounter = iota + 1
	// XIDErrorsTotal is the number of XIDs since the exporter started, by code.
	// Unlike with dcgm-exporter, codes that require action exist from the start: see
	// [xid.Catalogue.CallsForAction].
	XIDErrorsTotal
	// ClockEventsCount is the number of samples within a time window in which a reason
	// reduced the clocks, by reason. A GPU without such a sample has one series of value 0
	// without a reason.
	ClockEventsCount
	// ClockEventsTotal is the same since the exporter started. All reasons exist from the
	// start.
	ClockEventsTotal
	// GPUHealthStatus is the newest health result of each system of a GPU: 0 pass, 10
	// warning, 20 failure.
	GPUHealthStatus
	// P2PStatus is the status of NVLink peer access between two GPUs: 0 means that it works.
	P2PStatus
)

// Checks reports whether the counter needs the health checks, which also read the
// topology.
func (c ComputedCounter) Checks() bool { return c == GPUHealthStatus || c == P2PStatus }

// computedCounters is ordered by name.
var computedCounters = [...]struct {
	counter    ComputedCounter
	name, help string
}{
	{ClockEventsCount, "DCGM_EXP_CLOCK_EVENTS_COUNT", "Samples with a clock event in the last window."},
	{ClockEventsTotal, "DCGM_EXP_CLOCK_EVENTS_TOTAL", "Clock events since the exporter started."},
	{GPUHealthStatus, "DCGM_EXP_GPU_HEALTH_STATUS", "Health of the GPU as DCGM reports it."},
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

// On reports whether entities of the kind have series of the counter.
func (c ComputedCounter) On(kind model.EntityKind) bool {
	switch c {
	case XIDErrorsCount, XIDErrorsTotal:
		return kind == model.KindGPU || kind == model.KindGPUInstance
	default:
		return kind == model.KindGPU
	}
}

// Nature returns the metric type of the counter, which a counters file cannot change.
func (c ComputedCounter) Nature() MetricType {
	switch c {
	case XIDErrorsTotal, ClockEventsTotal:
		return MetricCounter
	default:
		return MetricGauge
	}
}
