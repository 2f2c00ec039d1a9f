// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"log/slog"
	"math"
	"slices"
	"time"

	"gpu_exporter/collector"
)

// locked says whether a watch of profiling fields was refused because another
// client has the hardware. DCGM calls that an unrecoverable error of its
// profiling library (NVIDIA/DCGM issues 56 and 62), or in use.
func (c code) locked() bool { return c == codeProfLibraryError || c == codeInUse }

// What profiling is judged by: GPU utilisation in percent, and power in watts.
const (
	fieldGPUUtil uint16 = 203
	fieldPower   uint16 = 155
)

// maxRounds bounds the groups that GPUs are in by when they were last watched
// anew; see maxGroups.
const maxRounds = 8

// manyTries is after how many times without success it is said that what is
// wrong stays wrong.
const manyTries = 3

// profilingTiming says when profiling is judged and mended.
type profilingTiming struct {
	// samples in a row, over window at the least, must say that something is wrong.
	samples int
	window  time.Duration
	// stall is how much older than the engine's newest value those of profiling may be.
	stall time.Duration
	// What stays wrong is tried again after retryMin, and later and later up to retryMax.
	retryMin, retryMax time.Duration
}

var defaultProfilingTiming = profilingTiming{
	samples:  5,
	window:   10 * time.Second,
	stall:    30 * time.Second,
	retryMin: 30 * time.Second,
	retryMax: 5 * time.Minute,
}

// profiler keeps profiling going: what is frozen is watched anew, what is locked
// is tried again, and what is paused is not watched.
//
// To pause is not to watch: DCGM gives the hardware back with the last watch of
// it. dcgmProfPause would spare the new watch, but it holds for all clients of
// an engine, outlives this process in nv-hostengine, and needs the module that
// GPUs from Hopper on do without (helperProfPauseResume in DCGM's DcgmApi.cpp).
type profiler struct {
	timing       profilingTiming
	log          *slog.Logger
	capabilities map[uint32]capability
	appeared     []int64                  // as in reading
	until        time.Time                // of the pause; zero: none
	known        map[string]*gpuProfiling // by UUID
	gpus         []*gpuProfiling          // that the plan profiles or would profile, by row
	round        int                      // of watching anew
	silenced     bool                     // some GPU is silent that was not when the plan was made, or the reverse
	told         []collector.GPUProfiling // what was last written,
	toldOf       uint64                   // of which inventory
}

// gpuProfiling is profiling on one GPU and on the instances of it.
type gpuProfiling struct {
	id    uint32
	uuid  string
	row   int
	able  bool // there is something to watch
	state collector.ProfilingState
	check profilingCheck
	round int // in which it was last watched anew
	// watches is what is watched on the GPU and the instances of it.
	watches []string
	// since is when it was last watched anew, in the engine's time: what DCGM has
	// from before is not of this watch.
	since int64
	// retryAt is when to watch it anew; zero: there is no need to. delay is how long
	// to wait after that.
	retryAt   time.Time
	delay     time.Duration
	tries     int    // since something went wrong
	rewatches uint32 // that were not written yet

	// Where its readings are: positions in reading.cells. util and power are -1
	// where there is no such reading.
	cells       []profilingCell
	util, power int
}

type profilingCell struct {
	cell, row, column int
	field             uint16
}

func newProfiler(cfg Config, now time.Time) *profiler {
	p := &profiler{timing: cfg.timing, log: cfg.Logger, known: make(map[string]*gpuProfiling)}
	if p.timing == (profilingTiming{}) {
		p.timing = defaultProfilingTiming
	}
	if cfg.Sampler.ProfilingPause > 0 {
		p.until = now.Add(cfg.Sampler.ProfilingPause)
	}
	return p
}

func (p *profiler) paused() bool { return !p.until.IsZero() }

// silent returns the GPUs, by id, whose profiling gives no values although it could.
func (p *profiler) silent(inv *collector.Inventory) map[uint32]bool {
	p.silenced = false
	silent := make(map[uint32]bool)
	for i := range inv.Entities {
		if e := &inv.Entities[i]; e.Kind == collector.KindGPU {
			g := p.known[entityName(e)]
			silent[e.ID] = p.paused() || g != nil && isSilent(g.state)
		}
	}
	return silent
}

func isSilent(s collector.ProfilingState) bool {
	return s == collector.ProfilingLocked || s == collector.ProfilingFrozen || s == collector.ProfilingError
}

// shape puts into a new plan what is known of profiling: the pause, what is to
// be watched anew, and what to judge it by. A GPU with something that was not
// watched before, as after a split, is watched anew apart from the others, whose
// values go on. newest is the engine's time.
func (p *profiler) shape(plan *plan, newest int64) {
	p.gpus = nil
	before := make(map[*gpuProfiling][]string)
	for _, g := range p.known {
		before[g], g.watches = g.watches, nil
	}
	plan.round = make(map[uint32]int)
	plan.evidence = make(map[int][]uint16)
	for row, e := range plan.inv.Entities {
		if e.Kind == collector.KindGPU && e.State == collector.EntityUp {
			p.shapeGPU(plan, row)
		}
	}
	var changed []*gpuProfiling
	for _, g := range p.gpus {
		watches := plan.profilingOf(g.row)
		if len(without(watches, before[g])) > 0 {
			changed = append(changed, g)
		}
		g.watches = watches
	}
	p.beginRound(changed, newest)
	for _, g := range p.gpus {
		plan.round[g.id] = g.round
	}
}

func (p *profiler) shapeGPU(plan *plan, row int) {
	asked, able := false, false
	gpu := &plan.inv.Entities[row]
	plan.eachProfiled(gpu, func(i, column int) {
		asked = true
		if plan.fixed[i][column] != collector.StatusOK {
			return
		}
		able = true
		if p.paused() {
			plan.fixed[i][column] = collector.StatusNotWatched
		}
	})
	if plan.profiled[gpu.ID] {
		asked, able = true, true
	}
	if !asked {
		return
	}
	g := p.known[entityName(gpu)]
	if g == nil {
		g = &gpuProfiling{uuid: gpu.UUID}
		p.known[entityName(gpu)] = g
	}
	g.id, g.row, g.able = gpu.ID, row, able
	p.gpus = append(p.gpus, g)
	if able && !p.paused() {
		plan.evidence[row] = []uint16{fieldGPUUtil, fieldPower}
	}
}

// watched takes note of what the engine made of the plan.
func (p *profiler) watched(r *reading, units []*unit, now time.Time) {
	refusals := make(map[pair]code)
	for _, u := range units {
		for _, x := range u.refused {
			if u.profiling {
				refusals[x.entity] = x.code
			}
		}
	}
	byID := make(map[uint32]*gpuProfiling, len(p.gpus))
	for _, g := range p.gpus {
		byID[g.id] = g
		g.cells, g.util, g.power = nil, -1, -1
		state, refused := p.stateOf(g, r.plan, refusals)
		p.enter(g, state, r.lib.err(refused, "watching profiling fields"), now)
	}
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			gpu, ok := r.plan.inv.GPU(row)
			if !ok || byID[gpu.ID] == nil {
				continue
			}
			byID[gpu.ID].locate(b, e, row)
		}
	}
}

// locate notes where the readings of an entity of the block are.
func (g *gpuProfiling) locate(b *block, e, row int) {
	for f, field := range b.fields {
		cell := int(b.base[e]) + f
		switch {
		case f < len(b.to) && profiling(field):
			g.cells = append(g.cells, profilingCell{cell, row, b.to[f].column, field})
		case row == g.row && field == fieldGPUUtil:
			g.util = cell
		case row == g.row && field == fieldPower:
			g.power = cell
		}
	}
}

// stateOf says how profiling stands on the GPU by what was watched and what was
// refused.
func (p *profiler) stateOf(g *gpuProfiling, plan *plan, refusals map[pair]code) (collector.ProfilingState, code) {
	found := make(map[collector.Status]bool)
	refused := codeOK
	gpu := &plan.inv.Entities[g.row]
	plan.eachProfiled(gpu, func(row, column int) { found[plan.fixed[row][column]] = true })
	for i := range plan.inv.Entities {
		e := &plan.inv.Entities[i]
		if of, ok := plan.inv.GPU(i); ok && of == gpu && !refused.locked() {
			refused = cmp.Or(refusals[pairOf(e.Kind, e.ID)], refused)
		}
	}
	if refused == codeOK && plan.profiled[gpu.ID] {
		found[collector.StatusOK] = true
	}
	switch {
	case g.able && p.paused():
		return collector.ProfilingPaused, codeOK
	case refused.locked():
		return collector.ProfilingLocked, refused
	case found[collector.StatusOK] && g.check.fault != faultNone:
		return collector.ProfilingFrozen, codeOK
	case found[collector.StatusOK]:
		return collector.ProfilingActive, codeOK
	case found[collector.StatusModuleMissing]:
		return collector.ProfilingModuleAbsent, refused
	case found[collector.StatusNotPermitted]:
		return collector.ProfilingNotPermitted, refused
	case refused == codeOK || found[collector.StatusNotSupported]:
		return collector.ProfilingUnsupported, refused
	}
	return collector.ProfilingError, refused
}

// enter changes the state, says so, and plans what is to be done about it. why is
// what a refused watch was answered.
func (p *profiler) enter(g *gpuProfiling, state collector.ProfilingState, why error, now time.Time) {
	before := g.state
	if g.state = state; state == before {
		return
	}
	p.silenced = p.silenced || isSilent(state) != isSilent(before)
	log := p.log.With("gpu", g.id, "uuid", g.uuid)
	switch state {
	case collector.ProfilingLocked:
		log.Warn("another client has the profiling hardware; profiling fields have no values until it is free", "err", why)
		g.retryAt, g.delay, g.tries = now.Add(p.timing.retryMin), 2*p.timing.retryMin, 0
		g.check = profilingCheck{}
	case collector.ProfilingFrozen:
		log.Warn("profiling values are withheld and their fields watched anew: "+g.check.fault.String(), "fields", g.fields())
		g.retryAt, g.delay, g.tries = now, p.timing.retryMin, 0
	case collector.ProfilingError:
		log.Warn("profiling fields cannot be watched", "err", why)
		g.retryAt = time.Time{}
	default:
		if state == collector.ProfilingActive && (before == collector.ProfilingLocked || before == collector.ProfilingFrozen) {
			log.Info("profiling is as it should be again", "before", before.String())
		}
		g.retryAt = time.Time{}
	}
}

func (g *gpuProfiling) fields() (fields []uint16) {
	for _, c := range g.cells {
		if !slices.Contains(fields, c.field) {
			fields = append(fields, c.field)
		}
	}
	return fields
}

// look judges a sample, and withholds what is no measurement from it.
func (p *profiler) look(r *reading, now time.Time) {
	for _, g := range p.gpus {
		if len(g.cells) == 0 {
			continue
		}
		seen := g.glance(r)
		g.check.look(&seen, now, &p.timing)
		state := collector.ProfilingActive
		if g.check.fault != faultNone {
			state = collector.ProfilingFrozen
			for _, c := range g.cells {
				if out := &r.rows[c.row][c.column]; out.Status == collector.StatusOK {
					*out = collector.NoValue(collector.StatusStale)
				}
			}
		}
		if g.state == collector.ProfilingActive || g.state == collector.ProfilingFrozen {
			p.enter(g, state, nil, now)
		}
	}
}

// withhold takes out of what was seen for sums and statistics what is no measurement.
func (p *profiler) withhold(inv *collector.Inventory, tracks *collector.Tracks) {
	for _, g := range p.gpus {
		if g.state != collector.ProfilingFrozen {
			continue
		}
		gpu := &inv.Entities[g.row]
		tracks.List = slices.DeleteFunc(tracks.List, func(t collector.Track) bool {
			of, ok := inv.GPU(t.Entity)
			return ok && of == gpu && profiling(uint16(t.Field))
		})
	}
}

// glance takes from a reading what is to be judged, and out of it what is from
// before the watch.
func (g *gpuProfiling) glance(r *reading) glance {
	seen := glance{engine: r.newest, util: r.number(g.util), power: r.number(g.power)}
	zero, tells := true, false
	for i := range g.cells {
		c := &g.cells[i]
		out, cell := &r.rows[c.row][c.column], &r.cells[c.cell]
		if out.Status != collector.StatusOK {
			continue
		}
		if cell.ts <= g.since {
			*out = collector.NoValue(collector.StatusNoData)
			continue
		}
		seen.values++
		seen.newest = max(seen.newest, cell.ts)
		seen.signature = (seen.signature ^ (uint64(cell.bits) + uint64(i))) * 0x9e3779b97f4a7c15
		v := out.Float64()
		zero = zero && v == 0
		tells = tells || showsKernels(c.field)
		seen.fraction = seen.fraction || out.Type == collector.ValueDouble && v != 0 && v != 1
	}
	seen.zero = zero && tells
	return seen
}

// showsKernels says whether the field is above 0 whenever a kernel runs: activity
// of the graphics engine and of SMs, and occupancy.
func showsKernels(field uint16) bool { return field >= 1001 && field <= 1003 }

// number returns the number in a cell, or NaN.
func (r *reading) number(cell int) float64 {
	if cell < 0 {
		return math.NaN()
	}
	c := numberCell(&r.cells[cell], collector.ValueDouble)
	if c.Status != collector.StatusOK {
		return math.NaN()
	}
	return c.Float64()
}

// due says whether something has to be watched anew. What it says is to be
// carried out at once. newest is the engine's time.
func (p *profiler) due(now time.Time, newest int64) bool {
	if p.paused() {
		if now.Before(p.until) {
			return false
		}
		p.resume(newest)
		return true
	}
	var due []*gpuProfiling
	for _, g := range p.gpus {
		if g.retryAt.IsZero() || now.Before(g.retryAt) {
			continue
		}
		due = append(due, g)
		g.tries++
		g.retryAt = now.Add(g.delay)
		g.delay = min(2*g.delay, p.timing.retryMax)
		if g.state == collector.ProfilingFrozen {
			g.rewatches++
		}
		if g.tries == manyTries {
			p.log.Warn("profiling does not come back; its values stay withheld, and it is tried again now and then",
				"gpu", g.id, "uuid", g.uuid, "state", g.state.String(), "at_most_every", p.timing.retryMax)
		}
	}
	p.beginRound(due, newest)
	return p.silenced || len(due) > 0
}

// beginRound begins a round of watching these GPUs anew. GPUs that are in a round
// together are watched together. When there are too many rounds, all GPUs are in
// this one, at the price of one sample without values.
func (p *profiler) beginRound(gpus []*gpuProfiling, newest int64) {
	if len(gpus) == 0 {
		return
	}
	p.round++
	for _, g := range gpus {
		g.round, g.since = p.round, newest
	}
	rounds := make(map[int]bool)
	for _, g := range p.gpus {
		rounds[g.round] = true
	}
	if len(rounds) <= maxRounds {
		return
	}
	for _, g := range p.gpus {
		g.round, g.since = p.round, newest
	}
}

// pause begins a pause or changes its end; 0 ends it. It says whether watches
// have to change.
func (p *profiler) pause(d time.Duration, now time.Time, newest int64) bool {
	was := p.paused()
	if d <= 0 {
		if was {
			p.resume(newest)
		}
		return was
	}
	p.until = now.Add(d)
	p.log.Info("profiling is paused", "for", d.Round(time.Millisecond))
	return !was
}

// resume ends the pause. All begins anew.
func (p *profiler) resume(newest int64) {
	p.until = time.Time{}
	for _, g := range p.known {
		g.check, g.since = profilingCheck{}, newest
	}
	p.log.Info("the pause of profiling is over")
}

// report returns how profiling stands, or nil if that is known to the exporter.
func (p *profiler) report(generation uint64) *collector.Profiling {
	if len(p.gpus) == 0 && len(p.told) == 0 {
		return nil
	}
	list := make([]collector.GPUProfiling, len(p.gpus))
	for i, g := range p.gpus {
		list[i] = collector.GPUProfiling{Entity: g.row, State: g.state, Rewatches: g.rewatches}
	}
	if p.toldOf == generation && slices.Equal(list, p.told) {
		return nil
	}
	said := &collector.Profiling{Generation: generation, GPUs: slices.Clone(list)}
	for i, g := range p.gpus {
		g.rewatches, list[i].Rewatches = 0, 0
	}
	p.told, p.toldOf = list, generation
	return said
}

// writeProfiling writes how profiling stands, if that changed.
func (s *sampler) writeProfiling() error {
	if said := s.profiler.report(s.inv.Generation); said != nil {
		return s.cfg.Frames.Write(collector.Frame{Profiling: said})
	}
	return nil
}

// command does what the exporter wants.
func (s *sampler) command(c collector.SamplerCommand) error {
	if !s.profiler.pause(c.ProfilingPause, time.Now(), s.newest) {
		return nil
	}
	return s.watch(s.plan(s.inv), false)
}

// rewatchProfiling watches anew what is due.
func (s *sampler) rewatchProfiling(now time.Time) error {
	if !s.profiler.due(now, s.newest) {
		return nil
	}
	return s.watch(s.plan(s.inv), false)
}
