// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"math"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// nature is the relation of a source's values to time.
type nature uint8

const (
	// ofInterval is a mean over the time since the previous value. Profiling values are:
	// the hardware counts cycles and bytes, and DCGM divides by the elapsed time ("an
	// average over a time interval and not an instantaneous value", DCGM user guide,
	// Profiling Metrics). NVML's percentages are means over the driver's sample period of
	// 1/6 s to 1 s (nvmlUtilization_t) and are treated likewise.
	ofInterval nature = iota
	// ofMoment is an instantaneous reading, such as power.
	ofMoment
	// ofAllTime is a sum that DCGM or the GPU accumulates.
	ofAllTime
)

// Quantity is the quantity that an integral accumulates. Each is a metric family.
type Quantity uint8

// The quantities, in the order of allIntegrals.
const (
	BusyTime Quantity = iota
	Energy
	EngineTime
	NVLinkBytes
	PCIeBytes

	QuantityCount = int(PCIeBytes) + 1
)

// Integral is one series per device.
type Integral struct {
	Quantity Quantity
	Label    string           // value of the family's label
	Sources  []IntegralSource // in order of preference
	kinds    model.KindSet
	parents  bool // also of partitioned GPUs
}

// IntegralSource is a field from which an integral is computed.
type IntegralSource struct {
	Name   string
	field  model.FieldID
	nature nature
	scale  float64 // from the field's unit to the integral's per second
}

// allIntegrals returns the integrals, in the order of families and labels.
func allIntegrals() []Integral {
	both, whole := model.Kinds(model.KindGPU, model.KindGPUInstance), model.Kinds(model.KindGPU)
	one := func(field model.FieldID, scale float64) []IntegralSource {
		return []IntegralSource{{field: field, nature: ofInterval, scale: scale}}
	}
	return []Integral{
		{Quantity: BusyTime, kinds: both, Sources: []IntegralSource{
			{"gr_engine", 1001, ofInterval, 1}, {"driver_utilization", field.GPUUtil, ofInterval, field.Percent},
		}},
		{Quantity: Energy, kinds: whole, parents: true, Sources: []IntegralSource{
			{"counter", 156, ofAllTime, 1e-3}, {"integrated_power", 155, ofMoment, 1},
		}},
		{Quantity: EngineTime, Label: "decoder", kinds: whole, Sources: one(207, field.Percent)},
		{Quantity: EngineTime, Label: "dram", kinds: both, Sources: one(1005, 1)},
		{Quantity: EngineTime, Label: "encoder", kinds: whole, Sources: one(206, field.Percent)},
		{Quantity: EngineTime, Label: "fp16", kinds: both, Sources: one(1008, 1)},
		{Quantity: EngineTime, Label: "fp32", kinds: both, Sources: one(1007, 1)},
		{Quantity: EngineTime, Label: "fp64", kinds: both, Sources: one(1006, 1)},
		{Quantity: EngineTime, Label: "sm", kinds: both, Sources: one(1002, 1)},
		{Quantity: EngineTime, Label: "tensor", kinds: both, Sources: one(1004, 1)},
		{Quantity: NVLinkBytes, Label: "receive", kinds: whole, parents: true, Sources: one(1012, 1)},
		{Quantity: NVLinkBytes, Label: "transmit", kinds: whole, parents: true, Sources: one(1011, 1)},
		{Quantity: PCIeBytes, Label: "receive", kinds: whole, parents: true, Sources: one(1010, 1)},
		{Quantity: PCIeBytes, Label: "transmit", kinds: whole, parents: true, Sources: one(1009, 1)},
	}
}

// integratedFields returns the source fields of the selected integrals. Sums, and means since the
// previous value, lose nothing if they are read once per sample. All others are read every
// resolution.
func integratedFields(selected func(Quantity) bool, resolution time.Duration) []model.TrackedField {
	var list []model.TrackedField
	for _, in := range allIntegrals() {
		if !selected(in.Quantity) {
			continue
		}
		for n, s := range in.Sources {
			t := model.TrackedField{Field: s.field, Kinds: in.kinds, Parents: in.parents}
			profiling := field.Field{ID: s.field}.Profiling()
			if !profiling && s.nature != ofAllTime {
				t.Every = resolution
			}
			if best := (field.Field{ID: in.Sources[0].field}); n > 0 && best.Profiling() {
				t.Unless = best.ID
			}
			list = append(list, t)
		}
	}
	return list
}

const (
	// minBridge is the least upper bound for the duration of a gap that is bridged.
	minBridge = 30 * time.Second
	// recentTime is the time constant of the mean that bridges gaps, in seconds. One
	// value is not representative of a load of short bursts.
	recentTime = 10.0
)

// integrator computes one integral of one device.
type integrator struct {
	source int   // position in the integral's sources
	until  int64 // time of the last value, in µs of the engine's clock; 0: none to continue from
	value  float64
	recent float64 // exponentially weighted mean of the last values
	total  float64
	// counter is the last value of an ofAllTime source, if known is set. counted is the
	// total and countedAt the time at that value.
	counter, counted float64
	countedAt        int64
	known            bool
	interruptions    int // the value of integrals.interruptions at the last value
}

// steps holds the assumptions about the time between values, in seconds.
type steps struct {
	step    float64 // the usual time between two values
	covered float64 // the longest time that one value covers
	bridge  float64 // the longest gap that is bridged
	silence float64 // the time without values after which a less preferred source is used
}

// add adds the next value of a source, and returns the seconds without values that it
// bridges.
//
// Example: the values of a mean are 1 s apart, and one follows 6 s after the last. It covers
// the last second. The mean of it and the recent values bridges the 5 s before.
func (g *integrator) add(sources []IntegralSource, source int, p model.Point, s steps) (gap float64) {
	src := &sources[source]
	v := p.Value * src.scale
	if g.until == 0 || p.At-g.until < -clockStep {
		g.source, g.until, g.value, g.recent, g.known = source, p.At, v, v, false
		if src.nature == ofAllTime {
			g.count(v, p.At)
		}
		return 0
	}
	dt := float64(p.At-g.until) / 1e6
	if dt <= 0 || v < 0 {
		return 0
	}
	if source != g.source {
		if source > g.source && dt <= s.silence {
			return 0
		}
		g.source, g.value, g.recent = source, v, v
	}
	switch {
	case src.nature == ofAllTime:
		g.count(v, p.At)
	case dt <= s.covered && src.nature == ofMoment:
		g.total += (g.value + v) / 2 * dt
	case dt <= s.covered:
		g.total += v * dt
	case dt <= s.bridge:
		known := 0.0 // at the end of the gap
		if src.nature == ofInterval {
			known = min(dt, s.step)
		}
		gap = dt - known
		g.total += v*known + (g.recent+v)/2*gap
	}
	g.recent += (v - g.recent) * (1 - math.Exp(-dt/recentTime))
	g.value, g.until = v, p.At
	return gap
}

// maxRate bounds the increase of a sum per second, in the integral's unit: no GPU has 1 MW.
const maxRate = 1e6

// count adds the next value of a sum, at a time by the engine's clock. The sum includes the
// time during which another source was used. After a reset of the sum, or an increase that is
// impossible, the increase until the next value is unknown and omitted. Example: a damaged
// value of 10¹² J, 1 s after one of 7,000 J, adds nothing, and neither does the next one of
// 7,600 J.
func (g *integrator) count(v float64, at int64) {
	if most := maxRate * float64(at-g.countedAt) / 1e6; g.known && v > g.counter && v-g.counter <= most {
		g.total = max(g.total, g.counted+v-g.counter)
	}
	g.counter, g.counted, g.countedAt, g.known = v, g.total, at, true
}

// integrals holds all integrals of all devices since the exporter started.
type integrals struct {
	all       []Integral
	of        map[model.EntityKey][]*integrator // in the order of all; nil before the first value
	gaps      [QuantityCount]float64            // bridged seconds
	positions map[model.FieldID]sourceAt
	// interruptions counts the events after which DCGM may have restarted its watches.
	interruptions int
}

// sourceAt is the position of a source in integrals.all.
type sourceAt struct{ integral, source int }

func (in *integrals) interrupt() { in.interruptions++ }

func (in *integrals) init() {
	in.all = allIntegrals()
	in.of = map[model.EntityKey][]*integrator{}
	in.positions = map[model.FieldID]sourceAt{}
	for i := range in.all {
		for n, s := range in.all[i].Sources {
			in.positions[s.field] = sourceAt{i, n}
		}
	}
}

func (in *integrals) integrate(inv *model.Inventory, tracks *model.Tracks, t *tracking) {
	if in.all == nil {
		in.init()
	}
	// The preferred sources are first, because add ignores values of a time that is covered.
	for rank := range 2 {
		for i := range tracks.List {
			track := &tracks.List[i]
			at, ok := in.positions[track.Field]
			if ok && at.source == rank && in.all[at.integral].kinds.Has(inv.Entities[track.Entity].Kind) {
				in.add(model.KeyOf(inv, track.Entity), at, track, t)
			}
		}
	}
}

func (in *integrals) add(key model.EntityKey, at sourceAt, track *model.Track, t *tracking) {
	if key.UUID == "" || len(track.Points) == 0 {
		return
	}
	of := in.of[key]
	if of == nil {
		of = make([]*integrator, len(in.all))
		in.of[key] = of
	}
	if of[at.integral] == nil {
		of[at.integral] = &integrator{source: at.source}
	}
	g, integral := of[at.integral], &in.all[at.integral]
	s := steps{step: t.step(track.Field).Seconds(), bridge: max(minBridge, 3*t.interval).Seconds()}
	inUse := integral.Sources[g.source]
	if s.silence = 2*t.step(inUse.field).Seconds() + 1; inUse.nature == ofAllTime {
		s.silence = s.bridge // a sum loses nothing in a gap
	}
	profiling := (field.Field{ID: track.Field}).Profiling()
	for _, p := range track.Points {
		switch {
		case !profiling:
			s.covered = 2*s.step + 1 // DCGM may be late once
		case g.interruptions != in.interruptions: // the watch may have restarted
			s.covered = s.step
		default: // DCGM's mean covers the time since the last value, however long
			s.covered = s.bridge
		}
		in.gaps[integral.Quantity] += g.add(integral.Sources, at.source, p, s)
		g.interruptions = in.interruptions
	}
}

// pause interrupts the integrals of devices that are not up in the inventory, so that their
// absence does not count. Sums continue while the device is listed.
func (in *integrals) pause(inv *model.Inventory) {
	up := make(map[model.EntityKey]bool) // of the listed devices
	for i := range inv.Devices() {
		if kind := inv.Entities[i].Kind; kind != model.KindGPU && kind != model.KindGPUInstance {
			continue
		}
		gpu, _ := inv.GPU(i)
		up[model.KeyOf(inv, i)] = gpu != nil && gpu.State == model.EntityUp && inv.Entities[i].State == model.EntityUp
	}
	for key, of := range in.of {
		isUp, listed := up[key]
		for i, g := range of {
			if g != nil && !isUp && !(listed && in.all[i].Sources[g.source].nature == ofAllTime) {
				g.until = 0
			}
		}
	}
}

// IntegralView is the state of the integrals at a sample.
type IntegralView struct {
	All   []Integral
	Count int // of integrals per entity
	// Totals and Sources are ordered by entity, then integral. An absent total is NaN.
	Totals  []float64
	Sources []uint8
	Gone    map[string][]float64 // totals of GPUs that are absent from the inventory, by UUID
	Gaps    [QuantityCount]float64
}

// view returns the state of the integrals. It omits those of partitioned GPUs that their
// instances have instead, because a constant total would look like idleness. These integrals
// continue when the GPU is no longer partitioned.
func (in *integrals) view(inv *model.Inventory, partitioned map[int]bool, gone []model.Entity) IntegralView {
	n, devices := len(in.all), inv.Devices()
	v := IntegralView{
		All: in.all, Count: n, Gaps: in.gaps,
		Totals: make([]float64, 0, n*devices), Sources: make([]uint8, 0, n*devices),
	}
	for i := range devices {
		var of []*integrator
		if kind := inv.Entities[i].Kind; kind == model.KindGPU || kind == model.KindGPUInstance {
			of = in.of[model.KeyOf(inv, i)]
		}
		for j := range n {
			total, source := math.NaN(), uint8(0)
			switch {
			case of == nil || of[j] == nil:
			case partitioned[i] && !in.all[j].parents:
				of[j].until = 0
			default:
				total, source = of[j].total, uint8(of[j].source)
			}
			v.Totals, v.Sources = append(v.Totals, total), append(v.Sources, source)
		}
	}
	for i := range gone {
		of := in.of[model.EntityKey{UUID: gone[i].UUID, Instance: model.Unknown}]
		if of == nil {
			continue
		}
		if v.Gone == nil {
			v.Gone = map[string][]float64{}
		}
		totals := make([]float64, n)
		for j := range totals {
			if totals[j] = math.NaN(); of[j] != nil {
				totals[j] = of[j].total
			}
		}
		v.Gone[gone[i].UUID] = totals
	}
	return v
}
