// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"gpu_exporter/collector/dcgm/inventory"
	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// profilingTiming is when profiling fields are re-watched.
type profilingTiming struct {
	// stall is the age, relative to the engine's newest value, at which the values of
	// a GPU are stale; at least 3 intervals.
	stall time.Duration
	// retry is the time between two watches while the hardware is locked or a re-watch
	// does not help.
	retry time.Duration
}

var defaultProfilingTiming = profilingTiming{stall: 30 * time.Second, retry: 30 * time.Second}

// stallUpdates is the number of updates of a GPU's ordinary fields during which its
// profiling values are stale without an update.
const stallUpdates = 3

// profiler keeps the profiling fields working: it re-watches fields whose values are
// not updated, retries locked hardware, and implements the pause.
//
// A paused field is not watched: DCGM releases the hardware with the last watch.
// dcgmProfPause would avoid the re-watch, but it affects all clients of the engine,
// outlives this process in nv-hostengine, and needs a module that GPUs from Hopper on
// do not use (helperProfPauseResume in DCGM's DcgmApi.cpp).
type profiler struct {
	timing             profilingTiming
	log                *slog.Logger
	capabilities       map[uint32]capability
	pausedUntil        time.Time                // zero: not paused
	known              map[string]*gpuProfiling // by [inventory.Key]
	gpus               []*gpuProfiling          // of the plan, by row
	units              map[*watch.Unit]bool     // the profiling units
	reported           []model.GPUProfiling
	reportedGeneration uint64
}

// gpuProfiling is profiling on one GPU and its instances.
type gpuProfiling struct {
	id        uint32
	uuid      string
	row       int
	watchable bool // the GPU has fields to watch
	state     model.ProfilingState
	newest    int64     // time of the newest value, by the engine's clock; 0: none yet
	waiting   int64     // time since which the first value is awaited; 0: it exists
	tried     int64     // time of the newest reading of an ordinary field
	updates   int       // of ordinary fields after the newest value
	stalled   bool      // the newest value is too old
	since     int64     // the engine's time at the newest watch: older values are of the previous one
	attempt   int       // number of retries
	retryAt   time.Time // when to re-watch; zero: never
	rewatches uint32    // not reported yet
	cells     []profilingCell
}

// profilingCell is a profiling value of a reading.
type profilingCell struct {
	cell, row, column int
}

func newProfiler(cfg Config, now time.Time) *profiler {
	p := &profiler{timing: cfg.timing, log: cfg.Logger, known: make(map[string]*gpuProfiling)}
	if p.timing == (profilingTiming{}) {
		p.timing = defaultProfilingTiming
	}
	p.timing.stall = max(p.timing.stall, 3*cfg.Sampler.Interval)
	if cfg.Sampler.ProfilingPause > 0 {
		p.pausedUntil = now.Add(cfg.Sampler.ProfilingPause)
	}
	return p
}

func (p *profiler) paused() bool { return !p.pausedUntil.IsZero() }

// apply adds the pause and the retries to a new plan.
func (p *profiler) apply(plan *plan) {
	p.gpus = nil
	plan.attempts = make(map[uint32]int)
	for row, e := range plan.inv.Entities {
		if e.Kind == model.KindGPU && e.State == model.EntityUp {
			p.applyToGPU(plan, row)
		}
	}
}

func (p *profiler) applyToGPU(plan *plan, row int) {
	gpu := &plan.inv.Entities[row]
	wanted, watchable := plan.tracksProfiling[gpu.ID], plan.tracksProfiling[gpu.ID]
	plan.eachProfilingColumn(gpu, func(i, column int) {
		wanted = true
		if plan.fixed[i][column] != model.StatusOK {
			return
		}
		watchable = true
		if p.paused() {
			plan.fixed[i][column] = model.StatusNotWatched
		}
	})
	if !wanted {
		return
	}
	g := p.known[inventory.Key(gpu)]
	if g == nil {
		g = &gpuProfiling{uuid: gpu.UUID}
		p.known[inventory.Key(gpu)] = g
	}
	g.id, g.row, g.watchable = gpu.ID, row, watchable
	p.gpus = append(p.gpus, g)
	plan.attempts[g.id] = g.attempt
}

// watched updates the states after the plan was watched. newest is the engine's time
// before that.
func (p *profiler) watched(r *reading, units []*watch.Unit, newest int64, now time.Time) {
	refusals := make(map[native.Pair]native.Code)
	rewatched := make(map[native.Pair]bool)
	before := p.units
	p.units = make(map[*watch.Unit]bool)
	for _, u := range units {
		if !u.Profiling {
			continue
		}
		p.units[u] = true
		for _, x := range u.Refused {
			refusals[x.Entity] = x.Code
		}
		for _, e := range u.Entities {
			rewatched[e] = !before[u]
		}
	}
	byID := make(map[uint32]*gpuProfiling, len(p.gpus))
	for _, g := range p.gpus {
		byID[g.id] = g
		g.cells = nil
		for i, e := range r.plan.inv.Entities {
			if gpu, ok := r.plan.inv.GPU(i); ok && gpu.ID == g.id && rewatched[native.PairOf(e.Kind, e.ID)] {
				g.since = newest
			}
		}
		state, refused := p.stateOf(g, r.plan, refusals)
		p.enter(g, state, r.lib.Err(refused, "watching profiling fields"), now)
	}
	for i := range r.blocks {
		b := &r.blocks[i]
		for e, row := range b.rows {
			gpu, ok := r.plan.inv.GPU(row)
			if !ok || byID[gpu.ID] == nil {
				continue
			}
			for _, to := range b.to {
				if isProfiling(b.Fields[to.cell]) && !to.derived {
					byID[gpu.ID].cells = append(byID[gpu.ID].cells, profilingCell{int(b.Base[e]) + to.cell, row, to.column})
				}
			}
		}
	}
}

// stateOf returns the state of a GPU after its fields were watched or refused, and
// the code of a refusal.
func (p *profiler) stateOf(g *gpuProfiling, plan *plan, refusals map[native.Pair]native.Code) (model.ProfilingState, native.Code) {
	found := make(map[model.Status]bool)
	refused := native.OK
	gpu := &plan.inv.Entities[g.row]
	plan.eachProfilingColumn(gpu, func(row, column int) { found[plan.fixed[row][column]] = true })
	for i := range plan.inv.Entities {
		e := &plan.inv.Entities[i]
		if of, ok := plan.inv.GPU(i); ok && of == gpu && !refused.Locked() {
			refused = cmp.Or(refusals[native.PairOf(e.Kind, e.ID)], refused)
		}
	}
	if refused == native.OK && plan.tracksProfiling[gpu.ID] {
		found[model.StatusOK] = true
	}
	switch {
	case g.watchable && p.paused():
		return model.ProfilingPaused, native.OK
	case refused.Locked():
		return model.ProfilingLocked, refused
	case found[model.StatusOK] && g.stalled:
		return model.ProfilingFrozen, native.OK
	case found[model.StatusOK]:
		return model.ProfilingActive, native.OK
	case found[model.StatusModuleMissing]:
		return model.ProfilingModuleAbsent, refused
	case found[model.StatusNotPermitted]:
		return model.ProfilingNotPermitted, refused
	case refused == native.OK || found[model.StatusNotSupported]:
		return model.ProfilingUnsupported, refused
	}
	return model.ProfilingError, refused
}

// enter changes the state of a GPU, logs it, and schedules the re-watch. refused is
// the error of a refused watch.
func (p *profiler) enter(g *gpuProfiling, state model.ProfilingState, refused error, now time.Time) {
	before := g.state
	if g.state = state; state == before {
		return
	}
	g.retryAt = time.Time{}
	log := p.log.With("gpu", g.id, "uuid", g.uuid)
	switch state {
	case model.ProfilingLocked:
		log.Warn("another client uses the profiling hardware; profiling fields have no values until it is free", "err", refused)
		g.retryAt = now.Add(p.timing.retry)
		g.newest, g.waiting, g.stalled = 0, 0, false
	case model.ProfilingFrozen:
		log.Warn("DCGM does not update the profiling values; they are withheld and their fields are re-watched")
		g.retryAt = now
	case model.ProfilingError:
		log.Warn("profiling fields cannot be watched", "err", refused)
	case model.ProfilingActive:
		if before == model.ProfilingLocked || before == model.ProfilingFrozen {
			log.Info("profiling works again", "previous_state", before.String())
		}
	}
}

// check finds GPUs whose profiling values are not updated, and withholds these values
// from the sample. DCGM returns the last value again and again, with its old time.
func (p *profiler) check(r *reading, now time.Time) {
	for _, g := range p.gpus {
		if len(g.cells) == 0 {
			continue
		}
		newest := int64(0)
		if r.setBackSince(g.since) {
			g.since = 0
		}
		for _, c := range g.cells {
			out, at := &r.rows[c.row][c.column], r.cells[c.cell].Time
			switch {
			case out.Status != model.StatusOK:
			case at <= g.since:
				*out = model.NoValue(model.StatusNoData)
			default:
				newest = max(newest, at)
			}
		}
		tried := r.tried[g.row]
		if tried != g.tried {
			g.tried = tried
			g.updates++
		}
		// If the driver is slow, one update of all fields takes longer than the stall.
		slow := tried != 0 && g.updates < stallUpdates
		last := g.newest
		if last == 0 { // another client may have taken the hardware before the first value
			if g.waiting == 0 {
				g.waiting = r.newest
			}
			last = g.waiting
		}
		if newest != 0 && newest != g.newest {
			g.newest, g.waiting, g.updates, g.stalled = newest, 0, 0, false
		} else if last != 0 && r.newest-last > p.timing.stall.Microseconds() && !slow {
			g.stalled = true
		}
		state := model.ProfilingActive
		if g.stalled {
			state = model.ProfilingFrozen
			for _, c := range g.cells {
				if out := &r.rows[c.row][c.column]; out.Status == model.StatusOK {
					*out = model.NoValue(model.StatusStale)
				}
			}
		}
		if g.state == model.ProfilingActive || g.state == model.ProfilingFrozen {
			p.enter(g, state, nil, now)
		}
	}
}

// due reports whether fields must be watched again.
func (p *profiler) due(now time.Time) bool {
	if p.paused() {
		if now.Before(p.pausedUntil) {
			return false
		}
		p.resume()
		return true
	}
	due := false
	for _, g := range p.gpus {
		if g.retryAt.IsZero() || now.Before(g.retryAt) {
			continue
		}
		due = true
		g.attempt++
		g.retryAt = now.Add(p.timing.retry)
		if g.state == model.ProfilingFrozen {
			g.rewatches++
		}
	}
	return due
}

// pause starts a pause or changes its end; 0 ends it. It reports whether the watches
// must change.
func (p *profiler) pause(d time.Duration, now time.Time) bool {
	was := p.paused()
	if d <= 0 {
		if was {
			p.resume()
		}
		return was
	}
	p.pausedUntil = now.Add(d)
	p.log.Info("profiling is paused", "for", d.Round(time.Millisecond))
	return !was
}

// resume ends the pause.
func (p *profiler) resume() {
	p.pausedUntil = time.Time{}
	for _, g := range p.known {
		g.newest, g.waiting, g.stalled = 0, 0, false
	}
	p.log.Info("profiling is resumed")
}

// report returns the states of all GPUs, or nil if they were reported already.
func (p *profiler) report(generation uint64) *model.Profiling {
	if len(p.gpus) == 0 && len(p.reported) == 0 {
		return nil
	}
	list := make([]model.GPUProfiling, len(p.gpus))
	for i, g := range p.gpus {
		list[i] = model.GPUProfiling{Entity: g.row, State: g.state, Rewatches: g.rewatches}
	}
	if p.reportedGeneration == generation && slices.Equal(list, p.reported) {
		return nil
	}
	report := &model.Profiling{Generation: generation, GPUs: slices.Clone(list)}
	for i, g := range p.gpus {
		g.rewatches, list[i].Rewatches = 0, 0
	}
	p.reported, p.reportedGeneration = list, generation
	return report
}

// writeProfiling writes the states of profiling if they changed.
func (s *sampler) writeProfiling() error {
	if report := s.profiler.report(s.inv.Generation); report != nil {
		return s.cfg.Frames.Write(wire.Frame{Profiling: report})
	}
	return nil
}

// command carries out a command of the exporter.
func (s *sampler) command(c wire.SamplerCommand) error {
	if !s.profiler.pause(c.ProfilingPause, time.Now()) {
		return nil
	}
	return s.watch(s.plan(s.inv), false)
}

// rewatchProfiling re-watches the fields that are due.
func (s *sampler) rewatchProfiling(now time.Time) error {
	if !s.profiler.due(now) {
		return nil
	}
	return s.watch(s.plan(s.inv), false)
}
