// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"math"
	"slices"
	"time"
)

// The families of integrals: counters of ours that are right over any window and
// with any scrape interval.
var (
	gpuBusySeconds         = definition{"gpu_busy_seconds_total", MetricCounter, "Time in which the GPU or GPU instance was busy, since the exporter started; gpu_busy_source_info says by what measure.", nil}
	gpuEngineActiveSeconds = definition{"gpu_engine_active_seconds_total", MetricCounter, "Time in which an engine or pipe was active, since the exporter started; half active for two seconds is one second.", []string{"engine"}}
	gpuEnergyJoules        = definition{"gpu_energy_joules_total", MetricCounter, "Energy that the board has drawn since the exporter started; gpu_energy_source_info says by what measure.", nil}
	gpuNVLinkBytes         = definition{"gpu_nvlink_bytes_total", MetricCounter, "Data moved over all NVLinks of the GPU, headers included, since the exporter started.", []string{"direction"}}
	gpuPCIeBytes           = definition{"gpu_pcie_bytes_total", MetricCounter, "Data moved over PCIe, headers included, since the exporter started.", []string{"direction"}}

	gpuBusySource = definition{"gpu_busy_source_info", MetricGauge, "What gpu_busy_seconds_total is made of: gr_engine (the graphics and compute engine's cycles) or driver_utilization (the driver's percentage, where there is no profiling); always 1.", []string{"source"}}
	gpuEnergySrc  = definition{"gpu_energy_source_info", MetricGauge, "What gpu_energy_joules_total is made of: counter (the GPU's own) or integrated_power (readings of the power); always 1.", []string{"source"}}

	integratedGap = definition{"gpu_exporter_integrated_gap_seconds_total", MetricCounter, "Time without values that was bridged by their mean on both sides, summed over devices and series, by family. Longer gaps are left out of the family.", []string{"family"}}
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

// quantity is what an integral adds up. Each is a metric family.
type quantity uint8

// The quantities, in the order of allIntegrals.
const (
	busyTime quantity = iota
	energy
	engineTime
	nvlinkBytes
	pcieBytes

	quantityCount = int(pcieBytes) + 1
)

// integral is one series for each device.
type integral struct {
	quantity quantity
	label    string // value of the family's label
	// sources are where it may come from, the best first.
	sources []integralSource
	kinds   KindSet
	// parents says that it is one of the whole GPU, even of one that is split.
	parents bool
}

type integralSource struct {
	name   string
	field  FieldID
	nature nature
	scale  float64 // from the field's unit to the integral's per second
}

const percent = 0.01

// allIntegrals returns the integrals, in the order of families and labels.
func allIntegrals() []integral {
	both, whole := Kinds(KindGPU, KindGPUInstance), Kinds(KindGPU)
	one := func(field FieldID, scale float64) []integralSource {
		return []integralSource{{field: field, nature: ofInterval, scale: scale}}
	}
	return []integral{
		{quantity: busyTime, kinds: both, sources: []integralSource{
			{"gr_engine", 1001, ofInterval, 1}, {"driver_utilization", fieldGPUUtil, ofInterval, percent},
		}},
		{quantity: energy, kinds: whole, parents: true, sources: []integralSource{
			{"counter", 156, ofAllTime, 1e-3}, {"integrated_power", 155, ofMoment, 1},
		}},
		{quantity: engineTime, label: "decoder", kinds: whole, sources: one(207, percent)},
		{quantity: engineTime, label: "dram", kinds: both, sources: one(1005, 1)},
		{quantity: engineTime, label: "encoder", kinds: whole, sources: one(206, percent)},
		{quantity: engineTime, label: "fp16", kinds: both, sources: one(1008, 1)},
		{quantity: engineTime, label: "fp32", kinds: both, sources: one(1007, 1)},
		{quantity: engineTime, label: "fp64", kinds: both, sources: one(1006, 1)},
		{quantity: engineTime, label: "sm", kinds: both, sources: one(1002, 1)},
		{quantity: engineTime, label: "tensor", kinds: both, sources: one(1004, 1)},
		{quantity: nvlinkBytes, label: "receive", kinds: whole, parents: true, sources: one(1012, 1)},
		{quantity: nvlinkBytes, label: "transmit", kinds: whole, parents: true, sources: one(1011, 1)},
		{quantity: pcieBytes, label: "receive", kinds: whole, parents: true, sources: one(1010, 1)},
		{quantity: pcieBytes, label: "transmit", kinds: whole, parents: true, sources: one(1009, 1)},
	}
}

// integratedFields are the fields that integrals are made of. Means since the
// last value and sums lose nothing at the interval of the samples; the others
// are looked at every resolution.
func integratedFields(resolution time.Duration) []TrackedField {
	var list []TrackedField
	for _, in := range allIntegrals() {
		for n, s := range in.sources {
			t := TrackedField{Field: s.field, Kinds: in.kinds, Parents: in.parents}
			profiling := Field{ID: s.field}.Profiling()
			if !profiling && s.nature != ofAllTime {
				t.Every = resolution
			}
			if best := (Field{ID: in.sources[0].field}); n > 0 && best.Profiling() {
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
func (g *integrator) add(sources []integralSource, source int, p Point, s steps) (gap float64) {
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
func (s *integralSource) share(before, v float64) float64 {
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
	all       []integral
	of        map[entityKey][]*integrator // in the order of all; nil where there was no value yet
	gaps      [quantityCount]float64      // seconds
	positions map[FieldID][]sourceAt      // in all
	// interruptions counts what may have ended a watch and begun another.
	interruptions int
}

// interrupt takes note that fields may have been watched anew.
func (in *integrals) interrupt() { in.interruptions++ }

type sourceAt struct{ integral, source int }

func (in *integrals) init() {
	in.all = allIntegrals()
	in.of = map[entityKey][]*integrator{}
	in.positions = map[FieldID][]sourceAt{}
	for i := range in.all {
		for n, s := range in.all[i].sources {
			in.positions[s.field] = append(in.positions[s.field], sourceAt{i, n})
		}
	}
}

func (in *integrals) integrate(inv *Inventory, tracks *Tracks, t *tracking) {
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
					in.add(instanceKey(inv, track.Entity), at, track, t)
				}
			}
		}
	}
}

func (in *integrals) add(key entityKey, at sourceAt, track *Track, t *tracking) {
	if key.uuid == "" {
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
	inUse := in.all[at.integral].sources[of[at.integral].source]
	if s.silence = 2*t.step(inUse.field).Seconds() + 1; inUse.nature == ofAllTime {
		s.silence = s.bridge // a sum loses nothing by being silent
	}
	g := of[at.integral]
	profiling := (Field{ID: track.Field}).Profiling()
	for _, p := range track.Points {
		if profiling {
			s.watch = sameWatch
			if g.interruptions != in.interruptions {
				s.watch = anotherWatch
			}
		}
		in.gaps[in.all[at.integral].quantity] += g.add(in.all[at.integral].sources, at.source, p, s)
		g.interruptions = in.interruptions
	}
}

// pause makes the devices that are not up in the inventory begin anew when they come
// back: the time without them is none of theirs. What a device that is still there
// counts itself goes on.
func (in *integrals) pause(inv *Inventory) {
	up := make(map[entityKey]bool) // of those that are there
	for i := range inv.devices() {
		if kind := inv.Entities[i].Kind; kind != KindGPU && kind != KindGPUInstance {
			continue
		}
		gpu, _ := inv.GPU(i)
		up[instanceKey(inv, i)] = gpu != nil && gpu.State == EntityUp && inv.Entities[i].State == EntityUp
	}
	for key, of := range in.of {
		isUp, isThere := up[key]
		if isUp {
			continue
		}
		for i, g := range of {
			if g == nil || isThere && in.all[i].sources[g.source].nature == ofAllTime {
				continue
			}
			g.until = 0
		}
	}
}

// integralView is what the integrals had come to at a sample.
type integralView struct {
	all   []integral
	count int // of integrals for each entity
	// totals and sources stand by entity, then integral. A total that does not
	// exist is NaN.
	totals  []float64
	sources []uint8
	gone    map[string][]float64 // totals of GPUs that the inventory lacks, by UUID
	gaps    [quantityCount]float64
}

// view returns what the integrals have come to. Of GPUs that are split, those that
// their instances have in their place are not shown: they stand still, which is not
// idleness. They go on when the GPU is whole again.
func (in *integrals) view(inv *Inventory, split map[int]bool, gone []Entity) integralView {
	n, devices := len(in.all), inv.devices()
	v := integralView{
		all: in.all, count: n, gaps: in.gaps,
		totals: make([]float64, 0, n*devices), sources: make([]uint8, 0, n*devices),
	}
	for i := range devices {
		var of []*integrator
		if kind := inv.Entities[i].Kind; kind == KindGPU || kind == KindGPUInstance {
			of = in.of[instanceKey(inv, i)]
		}
		for j := range n {
			hidden := split[i] && !in.all[j].parents
			if of != nil && of[j] != nil && hidden {
				of[j].until = 0
			}
			if of == nil || of[j] == nil || hidden {
				v.totals, v.sources = append(v.totals, math.NaN()), append(v.sources, 0)
				continue
			}
			v.totals, v.sources = append(v.totals, of[j].total), append(v.sources, uint8(of[j].source))
		}
	}
	for i := range gone {
		of := in.of[entityKey{uuid: gone[i].UUID, instance: Unknown}]
		if of == nil {
			continue
		}
		if v.gone == nil {
			v.gone = map[string][]float64{}
		}
		totals := make([]float64, n)
		for j := range totals {
			if totals[j] = math.NaN(); of[j] != nil {
				totals[j] = of[j].total
			}
		}
		v.gone[gone[i].UUID] = totals
	}
	return v
}

// integralFamilies are the families of the quantities, and those that say from which
// source an integral comes.
var (
	integralFamilies = [quantityCount]*definition{
		busyTime: &gpuBusySeconds, energy: &gpuEnergyJoules, engineTime: &gpuEngineActiveSeconds,
		nvlinkBytes: &gpuNVLinkBytes, pcieBytes: &gpuPCIeBytes,
	}
	integralSources = [quantityCount]*definition{busyTime: &gpuBusySource, energy: &gpuEnergySrc}
)

// appendIntegrals appends the integrals. They are counters, and stay while no
// sample comes.
func (f *Families) appendIntegrals(families []Family, v nodeView) []Family {
	if v.tracks == nil || v.tracks.count == 0 {
		return families
	}
	view := &v.tracks.integralView
	for j := range view.all {
		if j == 0 || view.all[j].quantity != view.all[j-1].quantity {
			families = append(families, integralFamilies[view.all[j].quantity].family())
			families[len(families)-1].Series = f.room(families[len(families)-1].Name)
		}
		family := &families[len(families)-1]
		for i := range v.inventory.devices() {
			l := &f.layout.entities[i]
			if total := view.totals[i*view.count+j]; l.own != nil && !math.IsNaN(total) {
				family.Series = append(family.Series, Series{l.integral(view.all, j), Number(total)})
			}
		}
		for i := range v.gone {
			gone := &v.gone[i]
			totals := view.gone[gone.UUID]
			if totals == nil || math.IsNaN(totals[j]) || findGPU(v.inventory, gone.UUID) != nil {
				continue
			}
			labels := NewLabelSet(integralLabels(&view.all[j], f.cfg.goneIdentity(gone))...)
			family.Series = append(family.Series, Series{labels, Number(totals[j])})
		}
	}
	for j := range view.all {
		definition := integralSources[view.all[j].quantity]
		if definition == nil {
			continue
		}
		info := definition.family()
		for i := range v.inventory.devices() {
			l := &f.layout.entities[i]
			if l.own == nil || math.IsNaN(view.totals[i*view.count+j]) {
				continue
			}
			source := view.all[j].sources[view.sources[i*view.count+j]].name
			labels := f.layout.render(renderedKey{i, info.Name, int64(view.sources[i*view.count+j]), 0}, func() []Label {
				return append(slices.Clone(l.identity), Label{"source", source})
			})
			info.Series = append(info.Series, Series{labels, Number(1)})
		}
		families = append(families, info)
	}
	gaps := make(map[string]float64, quantityCount)
	for i, seconds := range view.gaps {
		gaps[integralFamilies[i].Name] = seconds
	}
	return append(families, counts(f, &integratedGap, gaps))
}

// integral returns the labels of an integral, made by the first call.
func (l *entityLayout) integral(all []integral, j int) *LabelSet {
	if all[j].label == "" {
		return l.own
	}
	if l.integrals == nil {
		l.integrals = make([]*LabelSet, len(all))
	}
	if l.integrals[j] == nil {
		l.integrals[j] = NewLabelSet(integralLabels(&all[j], l.identity)...)
	}
	return l.integrals[j]
}

func integralLabels(in *integral, identity []Label) []Label {
	if in.label == "" {
		return identity
	}
	return append(slices.Clone(identity), Label{integralFamilies[in.quantity].Labels[0], in.label})
}
