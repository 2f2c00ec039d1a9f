// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Events are what happened to the entities of one inventory, in the order in which
// the source reported them.
type Events struct {
	Generation uint64 // of the inventory
	List       []Event
}

// Validate checks the events against their inventory.
func (e *Events) Validate(inv *Inventory) error {
	for _, event := range e.List {
		if event.Kind != EventXID || event.Entity < 0 || event.Entity >= len(inv.Entities) {
			return fmt.Errorf("event of kind %d on entity %d of %d", event.Kind, event.Entity, len(inv.Entities))
		}
	}
	return nil
}

// Event is something that happened to an entity, in contrast to a value of it.
type Event struct {
	Kind   EventKind
	Entity int // position in the inventory of the same generation
	Time   time.Time
	Code   int64 // the XID
}

// EventKind says what happened.
type EventKind uint8

// EventXID is an XID error, from DCGM's field 230.
const EventXID EventKind = 1

// KernelXID is an XID error that the kernel log tells of.
type KernelXID struct {
	// Domain, Bus and Device are the PCI address of the GPU.
	Domain      uint32
	Bus, Device uint8
	Code        int64
	// GPUInstance is NVML's id of the GPU instance that the driver puts it down
	// to, or [Unknown].
	GPUInstance int
	Time        time.Time
	// Process is the name of the process that the driver names, PID its id; empty
	// and 0 if there is none. Text is what else the driver says.
	Process string
	PID     int
	Text    string
}

// KernelLogStatus says how the kernel log is followed.
type KernelLogStatus struct {
	Up bool
	// Lost is how many records were overwritten before they were read.
	Lost uint64
}
