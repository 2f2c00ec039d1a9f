// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Processes is one reading of the processes on the node's devices. It is
// immutable once published.
type Processes struct {
	Generation uint64        // of the inventory
	Time       time.Time     // when the reading was complete
	Duration   time.Duration // how long it took
	// Devices is in the order of the entities, without duplicates. It contains the GPUs,
	// and the instances of a MIG GPU in place of that GPU.
	Devices []DeviceProcesses
}

// DeviceProcesses are the processes on one device.
type DeviceProcesses struct {
	// Entity is the position in [Inventory.Entities] of a GPU, of a compute instance, or
	// of a GPU instance without a known compute instance.
	Entity int
	// Listed is StatusOK if Processes was read, else the reason why it was not.
	Listed Status
	// Utilization is StatusOK if the processes' SM, Encoder and Decoder were read.
	Utilization Status
	Processes   []Process // by PID, without duplicates
}

// Validate checks the reading against its inventory.
func (p *Processes) Validate(inv *Inventory) error {
	last := -1
	for i := range p.Devices {
		d := &p.Devices[i]
		if err := inv.checkEntity("processes", d.Entity, last, Kinds(KindGPU, KindGPUInstance, KindComputeInstance)); err != nil {
			return err
		}
		last = d.Entity
		if d.Listed != StatusOK && len(d.Processes) > 0 {
			return fmt.Errorf("%d processes of entity %d with status %v", len(d.Processes), d.Entity, d.Listed)
		}
		if int(d.Listed) >= StatusCount || int(d.Utilization) >= StatusCount {
			return fmt.Errorf("processes of entity %d have unknown status %d or %d", d.Entity, d.Listed, d.Utilization)
		}
		for j := range d.Processes {
			if err := d.Processes[j].validate(); err != nil {
				return fmt.Errorf("process %d on entity %d: %w", d.Processes[j].PID, d.Entity, err)
			}
			if j > 0 && d.Processes[j].PID <= d.Processes[j-1].PID {
				return fmt.Errorf("processes of entity %d are not in order", d.Entity)
			}
		}
	}
	return nil
}

// Process is a process on one device.
type Process struct {
	// PID is the process ID in the sampler's PID namespace. The driver omits processes
	// outside that namespace (os_find_ns_pid in its kernel module).
	PID  uint32
	Kind ProcessKind
	// MemoryBytes is the device memory of the process. It is valid if MemoryKnown.
	MemoryBytes uint64
	MemoryKnown bool
	// SM, Encoder and Decoder are shares of the device's time since the previous reading,
	// from 0 to 1. They are 0 if the device's Utilization is not StatusOK.
	SM, Encoder, Decoder float64
}

func (p *Process) validate() error {
	if int(p.Kind) >= ProcessKindCount {
		return fmt.Errorf("unknown kind %d", p.Kind)
	}
	for _, share := range [...]float64{p.SM, p.Encoder, p.Decoder} {
		if !(share >= 0 && share <= 1) { // also true for NaN
			return fmt.Errorf("share %v is outside 0 to 1", share)
		}
	}
	return nil
}

// ProcessKind is the way in which a process uses a device.
type ProcessKind uint8

// The kinds of processes.
const (
	ProcessCompute ProcessKind = iota
	ProcessGraphics
	ProcessComputeGraphics // both
	ProcessMPS             // a client of the Multi-Process Service

	ProcessKindCount = int(ProcessMPS) + 1
)

var processKindNames = []string{"compute", "graphics", "compute+graphics", "mps"}

func (k ProcessKind) String() string { return NameOf(processKindNames, k, "kind") }
