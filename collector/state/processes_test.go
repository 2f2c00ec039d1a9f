// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// processInventory returns a GPU, and a GPU in MIG mode with a GPU instance that has two
// compute instances.
func processInventory(generation uint64) *model.Inventory {
	return &model.Inventory{Generation: generation, Entities: []model.Entity{
		{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-1", Selected: true},
		{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-2", Selected: true, MIGMode: true},
		{Kind: model.KindGPUInstance, Parent: 1, InstanceID: 1},
		{Kind: model.KindComputeInstance, Parent: 2, InstanceID: 0},
		{Kind: model.KindComputeInstance, Parent: 2, InstanceID: 1},
		{Kind: model.KindCPU, Parent: model.Unknown},
	}}
}

func processReading(generation uint64) *model.Processes {
	return &model.Processes{Generation: generation, Time: time.Now(), Devices: []model.DeviceProcesses{
		{Entity: 0, Processes: []model.Process{{PID: 1}, {PID: 2}}},
		{Entity: 2, Listed: model.StatusNotFound},
		{Entity: 3, Utilization: model.StatusNotSupported, Processes: []model.Process{{PID: 1}}},
	}}
}

func TestNodeRejectsProcesses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(p *model.Processes)
		reason string
	}{
		"valid":                       {func(*model.Processes) {}, ""},
		"no device":                   {func(p *model.Processes) { p.Devices = nil }, ""},
		"another inventory":           {func(p *model.Processes) { p.Generation = 2 }, model.RejectInventory},
		"from the future":             {func(p *model.Processes) { p.Time = p.Time.Add(time.Minute) }, model.RejectFuture},
		"unknown entity":              {func(p *model.Processes) { p.Devices[2].Entity = 6 }, model.RejectInvalid},
		"negative entity":             {func(p *model.Processes) { p.Devices[0].Entity = model.Unknown }, model.RejectInvalid},
		"CPU":                         {func(p *model.Processes) { p.Devices[2].Entity = 5 }, model.RejectInvalid},
		"device twice":                {func(p *model.Processes) { p.Devices[2].Entity = 2 }, model.RejectInvalid},
		"devices out of order":        {func(p *model.Processes) { p.Devices[1].Entity = 4 }, model.RejectInvalid},
		"process twice":               {func(p *model.Processes) { p.Devices[0].Processes[1].PID = 1 }, model.RejectInvalid},
		"processes of an unread list": {func(p *model.Processes) { p.Devices[0].Listed = model.StatusError }, model.RejectInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			node := NewNode(slog.New(slog.DiscardHandler), nil)
			var reject *model.RejectError
			if err := node.Deliver(wire.Frame{Processes: processReading(1)}); !errors.As(err, &reject) || reject.Reason != model.RejectInventory {
				t.Fatalf("before any inventory: %v", err)
			}
			if err := node.Deliver(wire.Frame{Inventory: processInventory(1)}); err != nil {
				t.Fatal(err)
			}
			p := processReading(1)
			tc.change(p)
			err := node.Deliver(wire.Frame{Processes: p})
			switch {
			case tc.reason == "":
				if err != nil || node.View().Processes != p {
					t.Errorf("error %v; the view has %+v", err, node.View().Processes)
				}
			case !errors.As(err, &reject) || reject.Reason != tc.reason:
				t.Errorf("got %v, want reason %s", err, tc.reason)
			case node.View().Processes != nil:
				t.Errorf("the view has rejected processes")
			}
		})
	}
}

// A view has only processes of its inventory. Instances of another inventory may have the
// same positions, and the inventory of another sampler may have the same generation.
func TestNodeShowsProcessesOfItsInventory(t *testing.T) {
	node := NewNode(slog.New(slog.DiscardHandler), nil)
	shows := func(when string, inv *model.Inventory, p *model.Processes) {
		t.Helper()
		if v := node.View(); v.Inventory != inv || v.Processes != p {
			t.Errorf("%s: the view has inventory %p and processes %p, want %p and %p", when, v.Inventory, v.Processes, inv, p)
		}
	}
	deliver := func(f wire.Frame) {
		t.Helper()
		if err := node.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
	sample := func() *model.Sample {
		return &model.Sample{Generation: 1, Time: time.Now(), Rows: make([][]model.Cell, 6)}
	}

	first, second := processInventory(1), processInventory(1)
	before, newer, after := processReading(1), processReading(1), processReading(1)
	deliver(wire.Frame{Inventory: first})
	deliver(wire.Frame{Processes: before})
	shows("before any sample", first, before)
	deliver(wire.Frame{Sample: sample()})
	shows("with a sample", first, before)
	deliver(wire.Frame{Processes: newer})
	shows("with newer processes", first, newer)
	<-node.Changed()
	select {
	case <-node.Changed():
		t.Error("processes caused a notice")
	default:
	}

	deliver(wire.Frame{Inventory: second})
	shows("before a sample of the new inventory", first, newer)
	deliver(wire.Frame{Sample: sample()})
	shows("with a sample of the new inventory", second, nil)
	deliver(wire.Frame{Processes: after})
	shows("with processes of the new inventory", second, after)
}

func TestNodeRejectsPlacement(t *testing.T) {
	inv := processInventory(1)
	inv.Entities[2].PlacementStart = model.Unknown
	node := NewNode(slog.New(slog.DiscardHandler), nil)
	if err := node.Deliver(wire.Frame{Inventory: inv}); err != nil {
		t.Fatal(err)
	}
	inv = processInventory(2)
	inv.Entities[2].PlacementStart = -2
	var reject *model.RejectError
	if err := node.Deliver(wire.Frame{Inventory: inv}); !errors.As(err, &reject) || reject.Reason != model.RejectInvalid {
		t.Errorf("got %v", err)
	}
}
