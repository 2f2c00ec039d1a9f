// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ProfilingState says whether DCGM's profiling fields (DCGM_FI_PROF_*) of a GPU
// have values, and if not, why not.
type ProfilingState uint8

// The states of profiling on a GPU.
const (
	ProfilingActive       ProfilingState = iota // watched
	ProfilingFrozen                             // watched, but what comes is not measured; withheld
	ProfilingLocked                             // another client has the hardware; tried again
	ProfilingPaused                             // not watched, as an operator asked
	ProfilingUnsupported                        // the GPU has none of the fields
	ProfilingModuleAbsent                       // DCGM lacks its profiling module
	ProfilingNotPermitted                       // DCGM lacks a privilege
	ProfilingError                              // DCGM refuses for another reason

	profilingStates = int(ProfilingError) + 1
)

var profilingStateNames = [profilingStates]string{
	"active", "frozen", "locked", "paused", "unsupported", "module_not_loaded", "not_permitted", "error",
}

// String returns the state as it stands in a state label.
func (s ProfilingState) String() string {
	if int(s) < len(profilingStateNames) {
		return profilingStateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Profiling is how profiling stands on the GPUs of an inventory. It is immutable
// once published.
type Profiling struct {
	// Generation is the inventory that the GPUs are of.
	Generation uint64
	// GPUs are in the order of their entities: those that are up and on which
	// profiling fields are asked for, on them or on instances of theirs.
	GPUs []GPUProfiling
}

// GPUProfiling is how profiling stands on one GPU.
type GPUProfiling struct {
	Entity int // position in [Inventory.Entities]
	State  ProfilingState
	// Rewatches is how often, since the sampler last said so, the fields were
	// watched anew because they were frozen.
	Rewatches uint32
}

func (p *Profiling) validate(inv *Inventory) error {
	last := -1
	for _, g := range p.GPUs {
		if g.Entity <= last || g.Entity >= len(inv.Entities) {
			return fmt.Errorf("profiling of entity %d after that of %d, of %d entities", g.Entity, last, len(inv.Entities))
		}
		last = g.Entity
		if kind := inv.Entities[g.Entity].Kind; kind != KindGPU {
			return fmt.Errorf("profiling of entity %d, a %v", g.Entity, kind)
		}
	}
	return nil
}

// profilingSize is what a GPU takes in a frame at the least: entity, state, rewatches.
const profilingSize = 1 + 1 + 4

// WriteProfiling writes how profiling stands on the GPUs of the newest inventory.
func (f *FrameWriter) WriteProfiling(p *Profiling) error {
	f.begin()
	f.u64(p.Generation)
	f.num(len(p.GPUs))
	for _, g := range p.GPUs {
		f.num(g.Entity)
		f.u8(uint8(g.State))
		f.u32(g.Rewatches)
	}
	return f.flush(frameProfiling)
}

func (d *decoder) profiling() *Profiling {
	p := &Profiling{Generation: d.u64(), GPUs: make([]GPUProfiling, d.count(profilingSize))}
	for i := range p.GPUs {
		g := GPUProfiling{Entity: d.num(), State: ProfilingState(d.u8()), Rewatches: d.u32()}
		if int(g.State) >= profilingStates {
			d.failed = true // it is an index further on
		}
		p.GPUs[i] = g
	}
	return p
}

// setProfiling takes over how profiling stands. It is no reason to publish anew:
// the sample that follows it is.
func (n *Node) setProfiling(p *Profiling) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || n.latest.Generation != p.Generation {
		return &RejectError{Reason: rejectInventory, Err: fmt.Errorf("profiling of inventory %d", p.Generation)}
	}
	if err := p.validate(n.latest); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
	}
	n.profiling.newest, n.profiling.of = p, n.latest
	n.tracking.interrupt()
	for _, g := range p.GPUs {
		if uuid := n.latest.Entities[g.Entity].UUID; uuid != "" && g.Rewatches > 0 {
			if n.profiling.rewatches == nil {
				n.profiling.rewatches = make(map[string]uint64)
			}
			n.profiling.rewatches[uuid] += uint64(g.Rewatches)
		}
	}
	return nil
}

// profilingState is what is known of profiling on the GPUs of an inventory.
type profilingState struct {
	newest    *Profiling        // nil if no sampler has said
	of        *Inventory        // of newest
	rewatches map[string]uint64 // by UUID; nil until there is one
}

// sampled takes note that the newest inventory has a sample. A sampler that has said
// nothing of profiling by then has no GPU to say it of.
func (s *profilingState) sampled(latest *Inventory) {
	if s.of != latest {
		s.newest, s.of = nil, nil
	}
}

// at returns the state of the GPUs of its inventory that are up in another: that of
// the next sample may be known before that sample comes.
func (s profilingState) at(inv *Inventory) profilingState {
	s.rewatches = maps.Clone(s.rewatches)
	if s.newest == nil || s.of == inv || inv == nil {
		return s
	}
	positions := s.of.positionsIn(inv)
	moved := &Profiling{Generation: inv.Generation}
	for _, g := range s.newest.GPUs {
		if g.Entity = positions[g.Entity]; g.Entity != Unknown {
			moved.GPUs = append(moved.GPUs, g)
		}
	}
	slices.SortFunc(moved.GPUs, func(a, b GPUProfiling) int { return cmp.Compare(a.Entity, b.Entity) })
	s.newest, s.of = moved, inv
	return s
}

// Profiling returns how profiling stands on the GPUs of the inventory; nil if the
// sampler has not said so, which it does not if there are none to say it of.
func (n *Node) Profiling() (*Profiling, *Inventory) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.profiling.of != n.latest {
		return nil, nil
	}
	return n.profiling.newest, n.profiling.of
}

var (
	gpuProfilingState = definition{"gpu_profiling_state", MetricGauge, "Whether profiling fields (DCGM_FI_PROF_*) of the GPU have values, and if not, why not: 1 for the state that it is in, 0 for the others.",
		[]string{"state"}}
	gpuProfilingRewatches = definition{"gpu_profiling_rewatches_total", MetricCounter, "Times that profiling fields of the GPU were watched anew because DCGM's values stood still, were 0 on a busy GPU, or had ceased to come.", nil}
	profilingPausedUntil  = definition{"gpu_exporter_profiling_paused_until_timestamp_seconds", MetricGauge, "When the pause of profiling ends that an operator asked for; absent while there is none.", nil}
)

// appendProfiling appends how profiling stands on the GPUs. The states are those
// of a running sampler; the counters go on without one.
func (f *Families) appendProfiling(families []Family, v nodeView, fresh bool) []Family {
	if v.profiling.newest == nil {
		return families
	}
	state, rewatches := gpuProfilingState.family(), gpuProfilingRewatches.family()
	state.Series = make([]Series, 0, len(v.profiling.newest.GPUs)*profilingStates)
	for _, g := range v.profiling.newest.GPUs {
		l := &f.layout.entities[g.Entity]
		if l.own == nil {
			continue
		}
		rewatches.Series = append(rewatches.Series, Series{l.own, Number(float64(v.profiling.rewatches[v.inventory.Entities[g.Entity].UUID]))})
		if !fresh {
			continue
		}
		for s := range ProfilingState(profilingStates) {
			labels := f.layout.render(renderedKey{g.Entity, gpuProfilingState.Name, int64(s), 0}, func() []Label {
				return append(append([]Label(nil), l.identity...), Label{"state", s.String()})
			})
			state.Series = append(state.Series, Series{labels, Bool(s == g.State)})
		}
	}
	return append(families, state, rewatches)
}

// appendPause appends until when profiling is paused.
func appendPause(families []Family, until time.Time) []Family {
	if until.IsZero() {
		return families
	}
	return append(families, profilingPausedUntil.single(Number(seconds(until))))
}
