// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Events are the events on the entities of one inventory, in the order of the source.
type Events struct {
	Generation uint64 // of the inventory
	List       []Event
}

// Validate checks the events against their inventory.
func (e *Events) Validate(inv *Inventory) error {
	for _, event := range e.List {
		if event.Kind != EventXID {
			return fmt.Errorf("event of unknown kind %d", event.Kind)
		}
		if err := inv.checkEntity("event", event.Entity, -1, anyKind); err != nil {
			return err
		}
	}
	return nil
}

// Event is an event on an entity.
type Event struct {
	Kind   EventKind
	Entity int // position in the inventory of the same generation
	Time   time.Time
	Code   int64 // the XID
}

// EventKind is the kind of an event.
type EventKind uint8

// EventXID is an XID error, from DCGM's field 230.
const EventXID EventKind = 1

// KernelXID is an XID error from the kernel log.
type KernelXID struct {
	// Domain, Bus and Device are the PCI address of the GPU.
	Domain      uint32
	Bus, Device uint8
	Code        int64
	// GPUInstance is NVML's ID of the GPU instance to which the driver attributes the
	// error, or [Unknown].
	GPUInstance int
	Time        time.Time
	// Process and PID are the name and ID of the process that the driver names, or empty
	// and 0. Text is the rest of the driver's message.
	Process string
	PID     int
	Text    string
}

// KernelLogStatus is the state of the kernel log reader.
type KernelLogStatus struct {
	Up bool
	// Lost is the number of records that were overwritten before they were read.
	Lost uint64
}
