// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// kernelXID returns an XID of the kernel log on a bus of domain 0.
func kernelXID(bus uint8, instance int, code int64) model.KernelXID {
	return model.KernelXID{Bus: bus, GPUInstance: instance, Code: code, Time: epoch}
}

// The kernel log may report XIDs before the first inventory, and XIDs of a GPU that is
// bound later.
func TestKernelXIDBeforeItsGPU(t *testing.T) {
	var log bytes.Buffer
	clock := epoch
	node := NewNode(slog.New(slog.NewTextHandler(&log, nil)), fixture.XIDs(t))
	node.Clock = func() time.Time { return clock }
	count := func(uuid string) uint64 {
		return node.View().XIDs[xid.Key{EntityKey: model.EntityKey{UUID: uuid, Instance: model.Unknown}, Code: 79}].Total
	}
	node.AddKernelXID(kernelXID(0x18, model.Unknown, 79))
	x := kernelXID(0x3a, model.Unknown, 79)
	x.PID, x.Process, x.Text = 42, "trainer", "GPU has fallen off the bus."
	node.AddKernelXID(x)
	old := kernelXID(0x2a, model.Unknown, 79)
	node.AddKernelXID(old)

	inv := testInventory(t)
	inv.Entities = inv.Entities[:1]
	deliver(t, node, wire.Frame{Inventory: inv})
	if count("GPU-aaaa") != 1 || count("GPU-cccc") != 0 || node.View().StrayXIDs != 2 {
		t.Errorf("%d and %d XIDs, %d without a GPU", count("GPU-aaaa"), count("GPU-cccc"), node.View().StrayXIDs)
	}
	clock = clock.Add(time.Minute)
	inv = testInventory(t)
	inv.Entities = []model.Entity{inv.Entities[0], inv.Entities[2]}
	deliver(t, node, wire.Frame{Inventory: inv})
	if count("GPU-aaaa") != 1 || count("GPU-cccc") != 1 || node.View().StrayXIDs != 2 {
		t.Errorf("%d and %d XIDs, %d without a GPU", count("GPU-aaaa"), count("GPU-cccc"), node.View().StrayXIDs)
	}
	if want := `xid=79 meaning="GPU has fallen off the bus" action=RESTART_BM gpu=3 UUID=GPU-cccc pci_bus_id=00000000:3A:00.0 kernel_message="GPU has fallen off the bus." pid=42 process=trainer`; !strings.Contains(log.String(), want) {
		t.Errorf("log:\n%s\nwant %s", &log, want)
	}
	// A GPU that appears after unmatchedLife may be another board in the slot.
	clock = clock.Add(unmatchedLife)
	deliver(t, node, wire.Frame{Inventory: testInventory(t)})
	if n := count("GPU-bbbb"); n != 0 {
		t.Errorf("%d XIDs on a GPU that appeared %v later, want 0", n, unmatchedLife)
	}
	// A GPU that DCGM no longer lists is matched by its last address.
	inv = testInventory(t)
	inv.Entities = inv.Entities[:1]
	deliver(t, node, wire.Frame{Inventory: inv})
	node.AddKernelXID(old)
	if n := count("GPU-bbbb"); n != 1 {
		t.Errorf("%d XIDs on a GPU that is no longer listed, want 1", n)
	}
}

// An XID of one of two instances with the same id counts for their GPU, because the
// instance is ambiguous. All others count for their instance.
func TestXIDsAroundARepartition(t *testing.T) {
	gpu := model.EntityKey{UUID: "GPU-bbbb", Instance: model.Unknown}
	small, large := model.EntityKey{UUID: "GPU-bbbb", Instance: 11, Profile: "1g.5gb"}, model.EntityKey{UUID: "GPU-bbbb", Instance: 11, Profile: "3g.20gb"}
	second := model.EntityKey{UUID: "GPU-bbbb", Instance: 12, Profile: "2g.10gb"}
	third := model.EntityKey{UUID: "GPU-bbbb", Instance: 13, Profile: "1g.5gb"}
	// repartition replaces instance 11, with the DCGM id 7, and instance 12.
	repartition := func(t *testing.T, node *Node, generation uint64) {
		inv := testInventory(t)
		inv.Generation, inv.Time = generation, epoch.Add(2*time.Second)
		for i := range inv.Entities {
			if e := &inv.Entities[i]; e.Kind == model.KindGPUInstance && e.InstanceID == 11 {
				e.Profile = "3g.20gb"
			} else if e.Kind == model.KindGPUInstance {
				e.ID, e.InstanceID, e.Profile = 9, 13, "1g.5gb"
			}
		}
		deliver(t, node, wire.Frame{Inventory: inv})
	}
	sample := func(t *testing.T, node *Node, at time.Time) {
		s := testSample(node.latest)
		s.Generation, s.Time = node.latest.Generation, at
		deliver(t, node, wire.Frame{Sample: s})
	}
	row := func(n *Node, instance int) int {
		for i, e := range n.latest.Entities {
			if e.Kind == model.KindGPUInstance && e.InstanceID == instance {
				return i
			}
		}
		t.Fatalf("no instance %d", instance)
		return 0
	}
	report := func(t *testing.T, n *Node, instance int, code int64) {
		deliver(t, n, wire.Frame{Events: &model.Events{Generation: n.latest.Generation, List: []model.Event{{Kind: model.EventXID, Entity: row(n, instance), Code: code, Time: epoch}}}})
	}
	for name, tc := range map[string]struct {
		happens func(t *testing.T, n *Node, clock *time.Time)
		want    map[xid.Key]uint64
	}{
		"logged before the repartition": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			n.AddKernelXID(kernelXID(0x2a, 12, 62))
			n.AddKernelXID(kernelXID(0x2a, 13, 63))
			repartition(t, n, 2)
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1, {EntityKey: second, Code: 62}: 1, {EntityKey: third, Code: 63}: 1}},
		"logged without a repartition": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: small, Code: 61}: 1}},
		"logged without a sample": {func(_ *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			*clock = clock.Add(placementLife)
		}, map[xid.Key]uint64{{EntityKey: small, Code: 61}: 1}},
		"logged without an instance": {func(_ *testing.T, n *Node, _ *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, model.Unknown, 61))
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1}},
		"logged before the instances become unknown": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			inv := &model.Inventory{Generation: 2, Time: epoch, InstancesUnknown: true, Entities: slices.Clone(testInventory(t).Entities[:2])}
			deliver(t, n, wire.Frame{Inventory: inv}, wire.Frame{Sample: &model.Sample{Generation: 2, Time: *clock, Rows: make([][]model.Cell, 2)}})
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1}},
		"logged and reported by DCGM": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			report(t, n, 11, 61)
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: small, Code: 61}: 1}},
		"logged and reported for the new instance": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			repartition(t, n, 2)
			report(t, n, 11, 61)
			sample(t, n, *clock)
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1, {EntityKey: large, Code: 61}: 1}},
		"reported by another sampler": {func(t *testing.T, n *Node, clock *time.Time) {
			n.SetKernelLog(false)
			repartition(t, n, 1)
			report(t, n, 11, 61) // it may have occurred before the repartition
			report(t, n, 13, 63) // a new id
			sample(t, n, *clock)
			report(t, n, 11, 62)
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1, {EntityKey: large, Code: 62}: 1, {EntityKey: third, Code: 63}: 1}},
		"reported by the same sampler": {func(t *testing.T, n *Node, _ *time.Time) {
			n.SetKernelLog(false)
			repartition(t, n, 2)
			report(t, n, 11, 61)
		}, map[xid.Key]uint64{{EntityKey: large, Code: 61}: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			node, clock := newTestNode(t)
			node.SetKernelLog(true)
			before := node.View().XIDs
			tc.happens(t, node, clock)
			got := map[xid.Key]uint64{}
			for key, count := range node.View().XIDs {
				if n := count.Total - before[key].Total; n > 0 {
					got[key] = n
				}
			}
			if !maps.Equal(got, tc.want) {
				t.Errorf("counted %v, want %v", got, tc.want)
			}
		})
	}
}

// An XID beyond the bound of waiting XIDs counts for its instance at once.
func TestManyXIDsBetweenSamples(t *testing.T) {
	node, _ := newTestNode(t)
	node.SetKernelLog(true)
	const excess = 3
	for range maxWaitingXIDs + excess {
		node.AddKernelXID(kernelXID(0x2a, 11, 61))
	}
	key := xid.Key{EntityKey: model.EntityKey{UUID: "GPU-bbbb", Instance: 11, Profile: "1g.5gb"}, Code: 61}
	if n := node.View().XIDs[key].Total; n != excess {
		t.Errorf("%d XIDs before the sample, want %d", n, excess)
	}
	deliver(t, node, wire.Frame{Sample: testSample(node.latest)})
	if n := node.View().XIDs[key].Total; n != maxWaitingXIDs+excess {
		t.Errorf("%d XIDs after the sample, want %d", n, maxWaitingXIDs+excess)
	}
}

// The kernel log, DCGM and a scrape use the node at the same time; each XID counts once.
func TestConcurrentXIDReports(t *testing.T) {
	const xids = 500
	node := NewNode(slog.New(slog.DiscardHandler), fixture.XIDs(t))
	node.SetKernelLog(true)
	deliver(t, node, wire.Frame{Inventory: testInventory(t)})
	var wg sync.WaitGroup
	for _, report := range []func(){
		func() { node.AddKernelXID(kernelXID(0x18, model.Unknown, 48)) },
		func() {
			events := &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: 0, Code: 48, Time: epoch}}}
			if err := node.Deliver(wire.Frame{Events: events}); err != nil {
				t.Error(err)
			}
		},
		func() { node.View() },
	} {
		wg.Go(func() {
			for range xids {
				report()
			}
		})
	}
	wg.Wait()
	key := xid.Key{EntityKey: model.EntityKey{UUID: "GPU-aaaa", Instance: model.Unknown}, Code: 48}
	if n := node.View().XIDs[key].Total; n != xids {
		t.Errorf("%d XIDs, want %d", n, xids)
	}
}
