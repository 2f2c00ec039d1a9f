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
	// Generation is the inventory that the devices are of.
	Generation uint64
	Time       time.Time     // when the reading was complete
	Duration   time.Duration // how long it took
	// Devices are in the order of their entities, each there once: the GPUs, and
	// in place of a GPU in MIG mode its instances.
	Devices []DeviceProcesses
}

// DeviceProcesses are the processes on one device.
type DeviceProcesses struct {
	// Entity is a position in [Inventory.Entities]: that of a GPU, of a compute
	// instance, or of a GPU instance of which no compute instance is known.
	Entity int
	// Listed says whether Processes was read. If it is not StatusOK, it is why
	// not, and there are none; if it is, no Processes means that none runs.
	Listed Status
	// Utilization says whether the processes' SM, Encoder and Decoder were read.
	Utilization Status
	Processes   []Process // by PID, each there once
}

// Validate checks the reading against the inventory that it says it belongs to.
func (p *Processes) Validate(inv *Inventory) error {
	last := -1
	for i := range p.Devices {
		d := &p.Devices[i]
		if d.Entity <= last || d.Entity >= len(inv.Entities) {
			return fmt.Errorf("processes of entity %d after those of %d, of %d entities", d.Entity, last, len(inv.Entities))
		}
		last = d.Entity
		switch e := &inv.Entities[d.Entity]; e.Kind {
		case KindGPU, KindGPUInstance, KindComputeInstance:
		default:
			return fmt.Errorf("processes of entity %d, a %v", d.Entity, e.Kind)
		}
		if d.Listed != StatusOK && len(d.Processes) > 0 {
			return fmt.Errorf("%d processes of entity %d, whose processes are not known: %v", len(d.Processes), d.Entity, d.Listed)
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
	// PID is the process's number in the sampler's PID namespace. Of processes that
	// are not in it the driver says nothing (os_find_ns_pid in its kernel module).
	PID  uint32
	Kind ProcessKind
	// MemoryBytes is the device memory that the process uses, whatever its kind,
	// if MemoryKnown.
	MemoryBytes uint64
	MemoryKnown bool
	// Shares of the device's time from 0 to 1, on average since the reading before;
	// 0 where the device's Utilization is not StatusOK.
	SM, Encoder, Decoder float64
}

func (p *Process) validate() error {
	if int(p.Kind) >= ProcessKindCount {
		return fmt.Errorf("unknown kind %d", p.Kind)
	}
	for _, share := range [...]float64{p.SM, p.Encoder, p.Decoder} {
		if !(share >= 0 && share <= 1) { // true for NaN, too
			return fmt.Errorf("share %v is not from 0 to 1", share)
		}
	}
	return nil
}

// ProcessKind is how a process uses a device.
type ProcessKind uint8

// The kinds of processes.
const (
	ProcessCompute ProcessKind = iota
	ProcessGraphics
	ProcessComputeGraphics // both
	ProcessMPS             // computes as a client of the Multi-Process Service

	ProcessKindCount = int(ProcessMPS) + 1
)

var processKindNames = [ProcessKindCount]string{"compute", "graphics", "compute+graphics", "mps"}

func (k ProcessKind) String() string {
	if int(k) < len(processKindNames) {
		return processKindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}
