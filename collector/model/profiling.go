// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
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

	ProfilingStateCount = int(ProfilingError) + 1
)

var profilingStateNames = [ProfilingStateCount]string{
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

// Validate checks the states against their inventory.
func (p *Profiling) Validate(inv *Inventory) error {
	last := -1
	for _, g := range p.GPUs {
		if g.Entity <= last || g.Entity >= len(inv.Entities) {
			return fmt.Errorf("profiling of entity %d after that of %d, of %d entities", g.Entity, last, len(inv.Entities))
		}
		last = g.Entity
		if kind := inv.Entities[g.Entity].Kind; kind != KindGPU {
			return fmt.Errorf("profiling of entity %d, a %v", g.Entity, kind)
		}
		if int(g.State) >= ProfilingStateCount {
			return fmt.Errorf("profiling of entity %d has unknown state %d", g.Entity, g.State)
		}
	}
	return nil
}
