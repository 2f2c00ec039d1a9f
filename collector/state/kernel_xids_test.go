// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// kernelXID is an XID of the kernel log on a bus of domain 0.
func kernelXID(bus uint8, instance int, code int64) model.KernelXID {
	return model.KernelXID{Bus: bus, GPUInstance: instance, Code: code, Time: epoch}
}

// The log may tell of GPUs before the first sampler does, and of one that is
// bound later.
func TestKernelXIDBeforeItsGPU(t *testing.T) {
	var log bytes.Buffer
	clock := epoch
	node := NewNode(slog.New(slog.NewTextHandler(&log, nil)), testCatalogue(t))
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
		t.Errorf("%d and %d, with %d at no GPU", count("GPU-aaaa"), count("GPU-cccc"), node.View().StrayXIDs)
	}
	clock = clock.Add(time.Minute)
	inv = testInventory(t)
	inv.Entities = []model.Entity{inv.Entities[0], inv.Entities[2]}
	deliver(t, node, wire.Frame{Inventory: inv})
	if count("GPU-aaaa") != 1 || count("GPU-cccc") != 1 || node.View().StrayXIDs != 2 {
		t.Errorf("%d and %d, with %d at no GPU", count("GPU-aaaa"), count("GPU-cccc"), node.View().StrayXIDs)
	}
	if want := `xid=79 meaning="GPU has fallen off the bus" action=RESTART_BM gpu=3 UUID=GPU-cccc pci_bus_id=00000000:3A:00.0 kernel_says="GPU has fallen off the bus." pid=42 process=trainer`; !strings.Contains(log.String(), want) {
		t.Errorf("log:\n%s\nwant %s", &log, want)
	}
	// One that comes too late is another board in the same slot.
	clock = clock.Add(strayLife)
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Inventory: testInventory(t)})
	if n := count("GPU-bbbb"); n != 0 {
		t.Errorf("%d XIDs on a GPU that came %v later", n, strayLife)
	}
	// A GPU that is gone is known by its last address.
	inv = testInventory(t)
	inv.Entities = inv.Entities[:1]
	deliver(t, node, wire.Frame{Inventory: inv})
	node.AddKernelXID(old)
	if n := count("GPU-bbbb"); n != 1 {
		t.Errorf("%d XIDs on a GPU that is gone, want 1", n)
	}
}

// An XID that may be of either of two instances that had the number or id, one after
// the other, counts for their GPU; others count for their instance.
func TestXIDsAroundAResplit(t *testing.T) {
	// How long the ledger waits for DCGM to name an instance, for the next sample, and for
	// the kernel log.
	const instanceGrace, decisionGrace, kernelLag = 10 * time.Second, time.Minute, 10 * time.Second
	gpu := model.EntityKey{UUID: "GPU-bbbb", Instance: model.Unknown}
	small, large := model.EntityKey{UUID: "GPU-bbbb", Instance: 11, Profile: "1g.5gb"}, model.EntityKey{UUID: "GPU-bbbb", Instance: 11, Profile: "3g.20gb"}
	other := model.EntityKey{UUID: "GPU-bbbb", Instance: 12, Profile: "2g.10gb"}
	// Instance 11, with the id 7, becomes another one; 12 goes.
	resplit := func(t *testing.T, node *Node, generation uint64) {
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
	event := func(t *testing.T, n *Node, instance int, code int64) {
		deliver(t, n, wire.Frame{Events: &model.Events{Generation: n.latest.Generation, List: []model.Event{{Kind: model.EventXID, Entity: row(n, instance), Code: code, Time: epoch}}}})
	}
	for name, tc := range map[string]struct {
		happens func(t *testing.T, n *Node, clock *time.Time)
		want    map[xid.Key]uint64
	}{
		"logged before it": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			n.AddKernelXID(kernelXID(0x2a, 12, 62))
			n.AddKernelXID(kernelXID(0x2a, 13, 63))
			resplit(t, n, 2)
			sample(t, n, *clock)
			*clock = clock.Add(instanceGrace) // DCGM does not tell which it was
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1, {EntityKey: other, Code: 62}: 1, {EntityKey: model.EntityKey{UUID: "GPU-bbbb", Instance: 13, Profile: "1g.5gb"}, Code: 63}: 1}},
		"logged, and nothing happens": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: small, Code: 61}: 1}},
		"logged, and no sample comes": {func(_ *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			*clock = clock.Add(decisionGrace)
		}, map[xid.Key]uint64{{EntityKey: small, Code: 61}: 1}},
		"logged, and instances cannot be listed": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			inv := &model.Inventory{Generation: 2, Time: epoch, InstancesUnknown: true, Entities: slices.Clone(testInventory(t).Entities[:2])}
			deliver(t, n, wire.Frame{Inventory: inv}, wire.Frame{Sample: &model.Sample{Generation: 2, Time: *clock, Rows: make([][]model.Cell, 2)}})
			*clock = clock.Add(instanceGrace)
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1}},
		"logged, and told by DCGM long before the sample": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			event(t, n, 11, 61)
			event(t, n, 12, 61) // another one, which the log has later
			*clock = clock.Add(kernelLag - time.Second)
			n.AddKernelXID(kernelXID(0x2a, 12, 61))
			n.View()
			*clock = clock.Add(2 * instanceGrace)
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: small, Code: 61}: 1, {EntityKey: other, Code: 61}: 1}},
		"logged, and DCGM tells of the GPU": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			deliver(t, n, wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: 1, Code: 61, Time: epoch}}}})
			n.AddKernelXID(kernelXID(0x2a, 12, 62))
			deliver(t, n, wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: 1, Code: 62, Time: epoch}}}})
			resplit(t, n, 2)
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1, {EntityKey: other, Code: 62}: 1}},
		"logged, and DCGM tells of the new one": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			resplit(t, n, 2)
			event(t, n, 11, 61)
			sample(t, n, *clock)
			n.AddKernelXID(kernelXID(0x2a, 11, 61)) // and one more
			sample(t, n, *clock)
		}, map[xid.Key]uint64{{EntityKey: large, Code: 61}: 2}},
		"told by another sampler": {func(t *testing.T, n *Node, clock *time.Time) {
			resplit(t, n, 1)
			event(t, n, 11, 61) // maybe before it came
			event(t, n, 13, 63) // an id that is new
			sample(t, n, *clock)
			event(t, n, 11, 62)
		}, map[xid.Key]uint64{{EntityKey: gpu, Code: 61}: 1, {EntityKey: large, Code: 62}: 1, {EntityKey: model.EntityKey{UUID: "GPU-bbbb", Instance: 13, Profile: "1g.5gb"}, Code: 63}: 1}},
		"told by the same sampler, which knows": {func(t *testing.T, n *Node, _ *time.Time) {
			resplit(t, n, 2)
			event(t, n, 11, 61)
		}, map[xid.Key]uint64{{EntityKey: large, Code: 61}: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			node, clock := newTestNode(t)
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
