// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"strconv"
	"time"
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
	// start: see [XIDCatalogue.CallsForAction].
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
func (c ComputedCounter) On(kind EntityKind) bool {
	switch c {
	case XIDErrorsCount, XIDErrorsTotal:
		return kind == KindGPU || kind == KindGPUInstance
	default:
		return kind == KindGPU
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

// computed returns the family of a computed counter.
func (f *Families) computed(c Counter, v nodeView) Family {
	family := Family{Name: c.Name, Help: c.Help, Type: c.Type}
	action := f.cfg.XIDs.CallsForAction()
	for i := range f.layout.entities {
		l := &f.layout.entities[i]
		if l.own == nil {
			continue // they are of GPUs and GPU instances
		}
		for n := range l.variants {
			switch c.Computed {
			case XIDErrorsCount:
				family.Series = f.appendXIDErrorsCount(family.Series, v, i, n)
			case XIDErrorsTotal:
				family.Series = f.appendXIDErrorsTotal(family.Series, v, i, n, action)
			default:
				family.Series = f.appendCondition(family.Series, c.Computed, v, i, n)
			}
		}
	}
	return family
}

func (f *Families) appendXIDErrorsCount(series []Series, v nodeView, entity, variant int) []Series {
	const family = "DCGM_EXP_XID_ERRORS_COUNT"
	window := Label{"window_size_in_ms", strconv.FormatInt(f.cfg.XIDWindow.Milliseconds(), 10)}
	key, found := instanceKey(v.inventory, entity), false
	for _, code := range codesOf(v.recentXIDs, key) {
		found = true
		series = append(series, Series{
			f.computedLabels(family, entity, variant, code, window, Label{"xid", strconv.FormatInt(code, 10)}),
			Number(float64(v.recentXIDs[xidKey{key, code}])),
		})
	}
	if !found {
		series = append(series, Series{f.computedLabels(family, entity, variant, Unknown, window), Number(0)})
	}
	return series
}

// appendXIDErrorsTotal appends the counts of the codes of action and of those that came.
func (f *Families) appendXIDErrorsTotal(series []Series, v nodeView, entity, variant int, action []int64) []Series {
	key := instanceKey(v.inventory, entity)
	for _, code := range seenOr(action, v.xids, key) {
		series = append(series, Series{
			f.computedLabels("DCGM_EXP_XID_ERRORS_TOTAL", entity, variant, code, Label{"xid", strconv.FormatInt(code, 10)}),
			Number(float64(v.xids[xidKey{key, code}].total)),
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
func codesOf(of map[xidKey]uint64, key entityKey) []int64 {
	var codes []int64
	for k := range of {
		if k.entityKey == key {
			codes = append(codes, k.code)
		}
	}
	slices.Sort(codes)
	return codes
}

// xidWindow is how far back XIDs must be known; 0 if nobody asks.
func (cfg *FamiliesConfig) xidWindow() time.Duration {
	if slices.ContainsFunc(cfg.Counters, func(c Counter) bool { return c.Computed == XIDErrorsCount }) {
		return cfg.XIDWindow
	}
	return 0
}
