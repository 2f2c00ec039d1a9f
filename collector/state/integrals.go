// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"math"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
)

// nature says what a value of a source is.
type nature uint8

const (
	// ofInterval is a mean over the time since the value before it. Profiling
	// values are: the hardware counts cycles and bytes, and DCGM divides by what
	// went by ("an average over a time interval and not an instantaneous value",
	// DCGM user guide, Profiling Metrics). NVML's percentages are means over the
	// driver's sample period of 1/6 s to 1 s (nvmlUtilization_t), and taken for the
	// time since the one before.
	ofInterval nature = iota
	// ofMoment is a reading at a point of time, such as power.
	ofMoment
	// ofAllTime is a sum that DCGM or the GPU keeps itself.
	ofAllTime
)

// Quantity is what an integral adds up. Each is a metric family.
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

// Integral is one series for each device.
type Integral struct {
	Quantity Quantity
	Label    string // value of the family's label
	// Sources are where it may come from, the best first.
	Sources []IntegralSource
	kinds   model.KindSet
	// parents says that it is one of the whole GPU, even of one that is split.
	parents bool
}

// IntegralSource is a field from which an integral can be computed.
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

// integratedFields are the fields that integrals are made of. Means since the
// last value and sums lose nothing at the interval of the samples; the others
// are looked at every resolution.
func integratedFields(resolution time.Duration) []model.TrackedField {
	var list []model.TrackedField
	for _, in := range allIntegrals() {
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
	// leastBridge is how long a gap may be at the least to be bridged.
	leastBridge = 30 * time.Second
	// recentTime is the time over which the recent mean is taken that gaps are
	// bridged with: one value says little of a load of short bursts.
	recentTime = 10.0 // seconds
)

// integrator is one integral of one device.
type integrator struct {
	source int   // position in the integral's sources
	until  int64 // what it covers, in µs by the engine's clock; 0: nothing to go on from
	value  float64
	recent float64 // mean of the last values, weighted by time
	total  float64
	// counter is the last value of a source that is a sum of all time, and counted
	// what total was then; known says that there is one.
	counter, counted float64
	known            bool
	interruptions    int // that there had been at the last value
}

// steps are what an integrator takes for granted about its values.
type steps struct {
	step   float64 // seconds from one value to the next, usually
	bridge float64 // seconds that a gap may have
	// silence is how many seconds the source in use must have said nothing before a
	// worse one helps out.
	silence float64
	// watch says whether the engine has watched since the value before. If so, the next
	// value is a mean over that time, however long it is; and if not, it is not, however
	// short that is.
	watch continuity
}

// continuity says whether there has been one watch between two values.
type continuity uint8

const (
	unknownWatch continuity = iota // or it makes no difference
	sameWatch
	anotherWatch
)

// usual says whether the value at the end of so many seconds tells of all of them. DCGM
// may be late once.
func (s steps) usual(dt float64) bool {
	switch s.watch {
	case sameWatch:
		return dt <= s.bridge
	case anotherWatch:
		return dt <= s.step
	}
	return dt <= 2*s.step+1
}

// add takes the next value of a source, and returns how many seconds without
// values it has bridged.
func (g *integrator) add(sources []IntegralSource, source int, p model.Point, s steps) (gap float64) {
	src := &sources[source]
	v := p.Value * src.scale
	if g.until == 0 || p.At-g.until < -clockStep {
		g.restart(source, p.At, v)
		if src.nature == ofAllTime {
			g.count(v)
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
		g.count(v)
	case s.usual(dt):
		g.total += src.share(g.value, v) * dt
	case dt <= s.bridge:
		known := 0.0 // of a mean, the end of the gap
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

// share is what two values say of the time between them.
func (s *IntegralSource) share(before, v float64) float64 {
	if s.nature == ofMoment {
		return (before + v) / 2
	}
	return v
}

// restart goes on from a value without knowing what was before it.
func (g *integrator) restart(source int, at int64, v float64) {
	g.source, g.until, g.value, g.recent = source, at, v, v
	g.known = false
}

// count goes on to the next value of a sum of all time. That tells of the time in
// which another source helped out, too. Where the sum was reset, nobody knows how
// much that hides.
func (g *integrator) count(v float64) {
	if g.known && v > g.counter {
		g.total = max(g.total, g.counted+v-g.counter)
	}
	g.counter, g.counted, g.known = v, g.total, true
}

// integrals are all integrals of all devices since the exporter started.
type integrals struct {
	all       []Integral
	of        map[model.EntityKey][]*integrator // in the order of all; nil where there was no value yet
	gaps      [QuantityCount]float64            // seconds
	positions map[model.FieldID][]sourceAt      // in all
	// interruptions counts what may have ended a watch and begun another.
	interruptions int
}

// interrupt takes note that fields may have been watched anew.
func (in *integrals) interrupt() { in.interruptions++ }

type sourceAt struct{ integral, source int }

func (in *integrals) init() {
	in.all = allIntegrals()
	in.of = map[model.EntityKey][]*integrator{}
	in.positions = map[model.FieldID][]sourceAt{}
	for i := range in.all {
		for n, s := range in.all[i].Sources {
			in.positions[s.field] = append(in.positions[s.field], sourceAt{i, n})
		}
	}
}

func (in *integrals) integrate(inv *model.Inventory, tracks *model.Tracks, t *tracking) {
	if in.all == nil {
		in.init()
	}
	// The best sources first: what they cover, the others need not.
	for rank := range 2 {
		for i := range tracks.List {
			track := &tracks.List[i]
			kind := inv.Entities[track.Entity].Kind
			for _, at := range in.positions[track.Field] {
				if at.source == rank && in.all[at.integral].kinds.Has(kind) {
					in.add(model.KeyOf(inv, track.Entity), at, track, t)
				}
			}
		}
	}
}

func (in *integrals) add(key model.EntityKey, at sourceAt, track *model.Track, t *tracking) {
	if key.UUID == "" {
		return // nobody could tell it from another
	}
	if len(track.Points) == 0 {
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
	s := steps{step: t.step(track.Field).Seconds(), bridge: max(leastBridge, 3*t.interval).Seconds()}
	inUse := in.all[at.integral].Sources[of[at.integral].source]
	if s.silence = 2*t.step(inUse.field).Seconds() + 1; inUse.nature == ofAllTime {
		s.silence = s.bridge // a sum loses nothing by being silent
	}
	g := of[at.integral]
	profiling := (field.Field{ID: track.Field}).Profiling()
	for _, p := range track.Points {
		if profiling {
			s.watch = sameWatch
			if g.interruptions != in.interruptions {
				s.watch = anotherWatch
			}
		}
		in.gaps[in.all[at.integral].Quantity] += g.add(in.all[at.integral].Sources, at.source, p, s)
		g.interruptions = in.interruptions
	}
}

// pause makes the devices that are not up in the inventory begin anew when they come
// back: the time without them is none of theirs. What a device that is still there
// counts itself goes on.
func (in *integrals) pause(inv *model.Inventory) {
	up := make(map[model.EntityKey]bool) // of those that are there
	for i := range inv.Devices() {
		if kind := inv.Entities[i].Kind; kind != model.KindGPU && kind != model.KindGPUInstance {
			continue
		}
		gpu, _ := inv.GPU(i)
		up[model.KeyOf(inv, i)] = gpu != nil && gpu.State == model.EntityUp && inv.Entities[i].State == model.EntityUp
	}
	for key, of := range in.of {
		isUp, isThere := up[key]
		if isUp {
			continue
		}
		for i, g := range of {
			if g == nil || isThere && in.all[i].Sources[g.source].nature == ofAllTime {
				continue
			}
			g.until = 0
		}
	}
}

// IntegralView is what the integrals had come to at a sample.
type IntegralView struct {
	All   []Integral
	Count int // of integrals for each entity
	// Totals and sources stand by entity, then integral. A total that does not
	// exist is NaN.
	Totals  []float64
	Sources []uint8
	Gone    map[string][]float64 // totals of GPUs that the inventory lacks, by UUID
	Gaps    [QuantityCount]float64
}

// view returns what the integrals have come to. Of GPUs that are split, those that
// their instances have in their place are not shown: they stand still, which is not
// idleness. They go on when the GPU is whole again.
func (in *integrals) view(inv *model.Inventory, split map[int]bool, gone []model.Entity) IntegralView {
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
			hidden := split[i] && !in.all[j].parents
			if of != nil && of[j] != nil && hidden {
				of[j].until = 0
			}
			if of == nil || of[j] == nil || hidden {
				v.Totals, v.Sources = append(v.Totals, math.NaN()), append(v.Sources, 0)
				continue
			}
			v.Totals, v.Sources = append(v.Totals, of[j].total), append(v.Sources, uint8(of[j].source))
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
