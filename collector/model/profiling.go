// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
)

// ProfilingState is the state of DCGM's profiling fields (DCGM_FI_PROF_*) on a GPU.
type ProfilingState uint8

// The states of profiling on a GPU.
const (
	ProfilingActive       ProfilingState = iota // watched
	ProfilingFrozen                             // watched, but DCGM repeats old values; withheld
	ProfilingLocked                             // another client uses the hardware; retried
	ProfilingPaused                             // not watched, at an operator's request
	ProfilingUnsupported                        // the GPU supports none of the fields
	ProfilingModuleAbsent                       // DCGM's profiling module is not loaded
	ProfilingNotPermitted                       // DCGM misses a privilege
	ProfilingError                              // DCGM returned another error

	ProfilingStateCount = int(ProfilingError) + 1
)

var profilingStateNames = []string{
	"active", "frozen", "locked", "paused", "unsupported", "module_not_loaded", "not_permitted", "error",
}

// String returns the value of the state label.
func (s ProfilingState) String() string { return NameOf(profilingStateNames, s, "state") }

// Profiling is the profiling state of the GPUs of an inventory. It is immutable once
// published.
type Profiling struct {
	Generation uint64 // of the inventory
	// GPUs is in the order of the entities. It contains the GPUs that are up and have
	// profiling fields configured, on the GPU or on its instances.
	GPUs []GPUProfiling
}

// GPUProfiling is the profiling state of one GPU.
type GPUProfiling struct {
	Entity int // position in [Inventory.Entities]
	State  ProfilingState
	// Rewatches is the number of times since the previous report that the sampler
	// re-registered frozen fields with DCGM.
	Rewatches uint32
}

// Validate checks the states against their inventory.
func (p *Profiling) Validate(inv *Inventory) error {
	last := -1
	for _, g := range p.GPUs {
		if err := inv.checkEntity("profiling", g.Entity, last, Kinds(KindGPU)); err != nil {
			return err
		}
		last = g.Entity
		if int(g.State) >= ProfilingStateCount {
			return fmt.Errorf("profiling of entity %d has unknown state %d", g.Entity, g.State)
		}
	}
	return nil
}
