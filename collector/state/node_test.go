// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"log/slog"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// epoch is the time of the fixtures.
var epoch = time.Unix(1_700_000_000, 250_000_000)

const testCounters = `
DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).
DCGM_FI_DEV_POWER_USAGE, gauge, Power draw (in W).
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, counter, "Energy \ ""since"" boot (in mJ)."
DCGM_FI_DEV_XID_ERRORS, gauge, Last XID.
DCGM_FI_DEV_FB_USED, gauge, Framebuffer used (in MiB).
DCGM_FI_PROF_GR_ENGINE_ACTIVE, gauge, Ratio of time the graphics engine is active.
DCGM_FI_DRIVER_VERSION, label, Driver version.
`

const testXIDs = `code,name,severity,action,investigation,meaning
31,MMU_FAULT,warning,RESTART_APP,,GPU memory page fault
79,OFF_THE_BUS,critical,RESTART_BM,,GPU has fallen off the bus
`

func testCatalogue(t *testing.T) *xid.Catalogue {
	t.Helper()
	xids, err := xid.ParseCatalogue(strings.NewReader(testXIDs), "xids.csv")
	if err != nil {
		t.Fatal(err)
	}
	return xids
}

// testInventory returns an H100, an A100 in MIG mode with two GPU instances, and a lost GPU.
func testInventory(t *testing.T) *model.Inventory {
	t.Helper()
	counters, err := field.ParseCounters(strings.NewReader(testCounters), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	var columns []model.FieldID
	for _, c := range counters.List {
		columns = append(columns, c.Field.ID)
	}
	gpu := func(id uint32, uuid, bus, name string) model.Entity {
		return model.Entity{Kind: model.KindGPU, Selected: true, ID: id, Parent: model.Unknown, UUID: uuid, PCIBusID: bus, Model: name,
			Brand: "NVIDIA", Index: int(id), Minor: int(id) + 1, InstanceID: model.Unknown, Port: model.Unknown}
	}
	inv := &model.Inventory{
		Generation: 1, Time: epoch, DriverVersion: "570.133.20",
		Entities: []model.Entity{
			gpu(0, "GPU-aaaa", "00000000:18:00.0", "NVIDIA H100 80GB HBM3"),
			gpu(1, "GPU-bbbb", "00000000:2A:00.0", "NVIDIA A100-SXM4-40GB"),
			gpu(3, "GPU-cccc", "00000000:3A:00.0", `Odd "\ name`),
			{Kind: model.KindGPUInstance, Selected: true, ID: 7, Parent: 1, InstanceID: 11, Profile: "1g.5gb", Index: model.Unknown, Minor: model.Unknown},
			{Kind: model.KindGPUInstance, Selected: true, ID: 8, Parent: 1, InstanceID: 12, Profile: "2g.10gb", Index: model.Unknown, Minor: model.Unknown},
			{Kind: model.KindComputeInstance, ID: 7, Parent: 3, UUID: "MIG-1111", InstanceID: 0, Index: model.Unknown, Minor: model.Unknown},
		},
	}
	inv.Entities[1].MIGMode = true
	inv.Entities[2].State = model.EntityLost
	inv.Columns[model.KindGPU] = columns
	inv.Columns[model.KindGPUInstance] = columns
	return inv
}

func testSample(inv *model.Inventory) *model.Sample {
	none := model.NoValue(model.StatusNotSupported)
	lost := model.NoValue(model.StatusEntityLost)
	return &model.Sample{
		Generation: inv.Generation, Time: epoch, LinksRead: epoch, SwitchesListed: true, Duration: 1500 * time.Microsecond,
		Strings: []string{"570.133.20"},
		Rows: [][]model.Cell{
			{model.Int64Cell(35), model.DoubleCell(210), model.Int64Cell(1_000_000_000), model.NoValue(model.StatusNoData), model.Int64Cell(8155), model.DoubleCell(0.2), model.StringCell(0)},
			{model.Int64Cell(41), model.DoubleCell(95.5), model.Int64Cell(9_007_199_254_740_993), model.Int64Cell(79), model.Int64Cell(0), model.DoubleCell(1.0 / 3), model.StringCell(0)},
			{lost, lost, lost, lost, lost, lost, lost},
			{model.Int64Cell(41), model.DoubleCell(95.5), none, model.NoValue(model.StatusNoData), model.Int64Cell(100), model.DoubleCell(0.0000001), model.StringCell(0)},
			{model.Int64Cell(41), model.DoubleCell(math.NaN()), none, model.NoValue(model.StatusNoData), model.Int64Cell(200), none, model.NoValue(model.StatusBlank)},
			nil,
		},
	}
}

// newTestNode returns a node with the fixture, received at epoch, and its clock.
func newTestNode(t *testing.T) (*Node, *time.Time) {
	t.Helper()
	clock := epoch
	node := NewNode(slog.New(slog.DiscardHandler), testCatalogue(t))
	node.Clock = func() time.Time { return clock }
	inv := testInventory(t)
	for _, f := range []wire.Frame{
		{Inventory: inv},
		{Sample: testSample(inv)},
		{Events: &model.Events{Generation: 1, List: []model.Event{
			{Kind: model.EventXID, Entity: 1, Time: epoch, Code: 79},
			{Kind: model.EventXID, Entity: 5, Time: epoch, Code: 31},
			{Kind: model.EventXID, Entity: 5, Time: epoch.Add(-time.Second), Code: 31},
		}}},
	} {
		if err := node.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
	return node, &clock
}

// A step of the wall clock does not change the age of a sample: only the monotonic clock
// counts after arrival.
func TestAgeCountsFromTheSampleTime(t *testing.T) {
	node := NewNode(slog.New(slog.DiscardHandler), testCatalogue(t))
	inv := testInventory(t)
	s := testSample(inv)
	node.Clock = func() time.Time { return epoch.Add(20 * time.Second) }
	if err := errors.Join(node.Deliver(wire.Frame{Inventory: inv}), node.Deliver(wire.Frame{Sample: s})); err != nil {
		t.Fatal(err)
	}
	if _, fresh := node.Freshness(19 * time.Second); fresh {
		t.Errorf("a sample that is 20 s old on arrival is fresh")
	}
	if words := node.Staleness(); words != "the newest sample is 20s old" {
		t.Errorf("staleness %q", words)
	}
	if left, fresh := node.Freshness(21 * time.Second); !fresh || left != time.Second {
		t.Errorf("fresh %v for another %v, want 1 s", fresh, left)
	}
}

func TestNodeRejects(t *testing.T) {
	ahead := func(d time.Duration) func(*model.Inventory, *model.Sample) wire.Frame {
		return func(_ *model.Inventory, s *model.Sample) wire.Frame {
			s.Time = s.Time.Add(d)
			return wire.Frame{Sample: s}
		}
	}
	for name, tc := range map[string]struct {
		frame  func(*model.Inventory, *model.Sample) wire.Frame
		reason string
	}{
		"sample from the future": {ahead(2 * time.Second), model.RejectFuture},
		"clock jitter":           {ahead(500 * time.Millisecond), ""},
		"different generation":   {func(_ *model.Inventory, s *model.Sample) wire.Frame { s.Generation = 9; return wire.Frame{Sample: s} }, model.RejectInventory},
		"too few rows": {func(_ *model.Inventory, s *model.Sample) wire.Frame {
			s.Rows = s.Rows[1:]
			return wire.Frame{Sample: s}
		}, model.RejectInvalid},
		"too few cells": {func(_ *model.Inventory, s *model.Sample) wire.Frame {
			s.Rows[0] = s.Rows[0][1:]
			return wire.Frame{Sample: s}
		}, model.RejectInvalid},
		"string out of range": {func(_ *model.Inventory, s *model.Sample) wire.Frame { s.Strings = nil; return wire.Frame{Sample: s} }, model.RejectInvalid},
		"parent after child": {func(inv *model.Inventory, _ *model.Sample) wire.Frame {
			inv.Entities[3].Parent = 4
			return wire.Frame{Inventory: inv}
		}, model.RejectInvalid},
		"event of an unknown entity": {func(*model.Inventory, *model.Sample) wire.Frame {
			return wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: 6}}}}
		}, model.RejectInvalid},
		"one invalid event of two": {func(*model.Inventory, *model.Sample) wire.Frame {
			return wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Code: 13}, {Kind: model.EventXID, Entity: 6}}}}
		}, model.RejectInvalid},
		"event of another inventory": {func(*model.Inventory, *model.Sample) wire.Frame {
			return wire.Frame{Events: &model.Events{Generation: 2, List: []model.Event{{Kind: model.EventXID}}}}
		}, model.RejectInventory},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := newTestNode(t)
			inv := testInventory(t)
			before := node.View().XIDs
			err := node.Deliver(tc.frame(inv, testSample(inv)))
			if after := node.View().XIDs; !maps.Equal(after, before) {
				t.Errorf("counted XIDs: %v", after)
			}
			var reject *model.RejectError
			if tc.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else if !errors.As(err, &reject) || reject.Reason != tc.reason {
				t.Fatalf("got %v, want reason %s", err, tc.reason)
			}
		})
	}
	t.Run("sample before any inventory", func(t *testing.T) {
		var reject *model.RejectError
		if err := NewNode(slog.New(slog.DiscardHandler), testCatalogue(t)).Deliver(wire.Frame{Sample: testSample(testInventory(t))}); !errors.As(err, &reject) || reject.Reason != model.RejectInventory {
			t.Fatalf("got %v", err)
		}
	})
}

func deliver(t *testing.T, n *Node, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		if err := n.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
}

// The time in which the machine was suspended counts, though its monotonic clock stands
// still.
func TestSuspensionCountsAsAge(t *testing.T) {
	node := NewNode(slog.New(slog.DiscardHandler), nil)
	now := time.Now()
	node.sample, node.received, node.suspended = &model.Sample{Time: now}, now, suspended()
	if left, fresh := node.Freshness(time.Minute); !fresh || left > time.Minute {
		t.Fatalf("a new sample is fresh for %v: %v", left, fresh)
	}
	node.suspended -= 2 * time.Minute // as if the machine had been suspended meanwhile
	if left, fresh := node.Freshness(time.Minute); fresh {
		t.Errorf("a sample of before a suspension is fresh for %v", left)
	}
}
