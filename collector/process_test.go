// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// processInventory is a GPU, and one in MIG mode with a GPU instance that has two
// compute instances.
func processInventory(generation uint64) *Inventory {
	return &Inventory{Generation: generation, Entities: []Entity{
		{Kind: KindGPU, Parent: Unknown, UUID: "GPU-1", Selected: true},
		{Kind: KindGPU, Parent: Unknown, UUID: "GPU-2", Selected: true, MIGMode: true},
		{Kind: KindGPUInstance, Parent: 1, InstanceID: 1},
		{Kind: KindComputeInstance, Parent: 2, InstanceID: 0},
		{Kind: KindComputeInstance, Parent: 2, InstanceID: 1},
		{Kind: KindCPU, Parent: Unknown},
	}}
}

func processReading(generation uint64) *Processes {
	return &Processes{Generation: generation, Time: time.Now(), Devices: []DeviceProcesses{
		{Entity: 0, Processes: []Process{{PID: 1}, {PID: 2}}},
		{Entity: 2, Listed: StatusNotFound},
		{Entity: 3, Utilization: StatusNotSupported, Processes: []Process{{PID: 1}}},
	}}
}

func TestNodeRejectsProcesses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(p *Processes)
		reason string
	}{
		"as it should be":             {func(*Processes) {}, ""},
		"no device":                   {func(p *Processes) { p.Devices = nil }, ""},
		"of another inventory":        {func(p *Processes) { p.Generation = 2 }, rejectInventory},
		"from the future":             {func(p *Processes) { p.Time = p.Time.Add(time.Minute) }, rejectFuture},
		"on nothing":                  {func(p *Processes) { p.Devices[2].Entity = 6 }, rejectInvalid},
		"before everything":           {func(p *Processes) { p.Devices[0].Entity = Unknown }, rejectInvalid},
		"on a CPU":                    {func(p *Processes) { p.Devices[2].Entity = 5 }, rejectInvalid},
		"on one device twice":         {func(p *Processes) { p.Devices[2].Entity = 2 }, rejectInvalid},
		"on devices out of order":     {func(p *Processes) { p.Devices[1].Entity = 4 }, rejectInvalid},
		"one twice":                   {func(p *Processes) { p.Devices[0].Processes[1].PID = 1 }, rejectInvalid},
		"in spite of not being known": {func(p *Processes) { p.Devices[0].Listed = StatusError }, rejectInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			node := NewNode(slog.New(slog.DiscardHandler), nil)
			var reject *RejectError
			if err := node.Deliver(Frame{Processes: processReading(1)}); !errors.As(err, &reject) || reject.Reason != rejectInventory {
				t.Fatalf("before any inventory: %v", err)
			}
			if err := node.Deliver(Frame{Inventory: processInventory(1)}); err != nil {
				t.Fatal(err)
			}
			p := processReading(1)
			tc.change(p)
			err := node.Deliver(Frame{Processes: p})
			switch {
			case tc.reason == "":
				if err != nil || node.view().processes != p {
					t.Errorf("%v, and %+v is shown", err, node.view().processes)
				}
			case !errors.As(err, &reject) || reject.Reason != tc.reason:
				t.Errorf("got %v, want reason %s", err, tc.reason)
			case node.view().processes != nil:
				t.Errorf("what was rejected is shown")
			}
		})
	}
}

// TestNodeShowsProcessesOfItsInventory: instances of another inventory may have
// the same positions, and the inventory of another sampler the same generation.
func TestNodeShowsProcessesOfItsInventory(t *testing.T) {
	node := NewNode(slog.New(slog.DiscardHandler), nil)
	shows := func(when string, inv *Inventory, p *Processes) {
		t.Helper()
		if v := node.view(); v.inventory != inv || v.processes != p {
			t.Errorf("%s: inventory %p and processes %p are shown, want %p and %p", when, v.inventory, v.processes, inv, p)
		}
	}
	deliver := func(f Frame) {
		t.Helper()
		if err := node.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
	sample := func() *Sample { return &Sample{Generation: 1, Time: time.Now(), Rows: make([][]Cell, 6)} }

	first, second := processInventory(1), processInventory(1)
	before, newer, after := processReading(1), processReading(1), processReading(1)
	deliver(Frame{Inventory: first})
	deliver(Frame{Processes: before})
	shows("before any sample", first, before)
	deliver(Frame{Sample: sample()})
	shows("with a sample", first, before)
	deliver(Frame{Processes: newer})
	shows("with a newer reading", first, newer)
	<-node.Changed()
	select {
	case <-node.Changed():
		t.Error("a reading of processes is no reason to publish")
	default:
	}

	deliver(Frame{Inventory: second})
	shows("until there is a sample of the new inventory", first, newer)
	deliver(Frame{Sample: sample()})
	shows("with a sample of the new inventory", second, nil)
	deliver(Frame{Processes: after})
	shows("with its processes, too", second, after)
}

func TestProcessKind(t *testing.T) {
	for kind, want := range map[ProcessKind]string{
		ProcessCompute: "compute", ProcessGraphics: "graphics", ProcessComputeGraphics: "compute+graphics", ProcessMPS: "mps", 9: "kind(9)",
	} {
		if got := kind.String(); got != want {
			t.Errorf("%d is %q, want %q", kind, got, want)
		}
	}
}

func TestNodeRejectsPlacement(t *testing.T) {
	inv := processInventory(1)
	inv.Entities[2].PlacementStart = Unknown
	node := NewNode(slog.New(slog.DiscardHandler), nil)
	if err := node.Deliver(Frame{Inventory: inv}); err != nil {
		t.Fatal(err)
	}
	inv = processInventory(2)
	inv.Entities[2].PlacementStart = -2
	var reject *RejectError
	if err := node.Deliver(Frame{Inventory: inv}); !errors.As(err, &reject) || reject.Reason != rejectInvalid {
		t.Errorf("got %v", err)
	}
}
