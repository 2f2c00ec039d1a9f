// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

// kernelXID is an XID of the kernel log on a bus of domain 0.
func kernelXID(bus uint8, instance int, code int64) KernelXID {
	return KernelXID{Bus: bus, GPUInstance: instance, Code: code, Time: epoch}
}

func deliver(t *testing.T, n *Node, frames ...Frame) {
	t.Helper()
	for _, f := range frames {
		if err := n.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
}

// An XID of the kernel log counts for the GPU at its address, or for the instance
// that the driver names; and once, if DCGM tells of it too.
func TestKernelXID(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	f.cfg.KernelLog = func() (KernelLogStatus, bool) { return KernelLogStatus{Up: true, Lost: 3}, true }
	node.AddKernelXID(kernelXID(0x18, Unknown, 48))
	node.AddKernelXID(kernelXID(0x2a, 12, 48)) // on an instance
	node.AddKernelXID(kernelXID(0x2a, Unknown, 74))
	node.AddKernelXID(kernelXID(0x2a, 99, 74))                   // on one that is not there
	node.AddKernelXID(kernelXID(0x3a, Unknown, 79))              // on a lost GPU
	node.AddKernelXID(kernelXID(0x77, Unknown, 79))              // where no GPU is
	node.AddKernelXID(KernelXID{Domain: 1, Bus: 0x18, Code: 79}) // nor here
	node.AddKernelXID(KernelXID{Bus: 0x18, Device: 1, Code: 79}) // nor here
	deliver(t, node, Frame{Generation: 1, Events: []Event{
		{Kind: EventXID, Entity: 0, Time: epoch, Code: 48},
		{Kind: EventXID, Entity: 5, Time: epoch, Code: 74}, // in a compute instance of instance 11
	}}, Frame{Sample: testSample(testInventory(t))})
	*clock = clock.Add(10 * time.Second)
	body := encode(t, f, expfmt.TypeTextPlain)
	for _, want := range []string{
		`gpu="0",UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1",xid="48"} 1`,
		`GPU_I_PROFILE="2g.10gb",GPU_I_ID="12",hostname="node1",xid="48"} 1`,
		`GPU_I_PROFILE="1g.5gb",GPU_I_ID="11",hostname="node1",xid="74"} 1`,
		`modelName="NVIDIA A100-SXM4-40GB",hostname="node1",xid="74"} 1`,
		`gpu="3",UUID="GPU-cccc",pci_bus_id="00000000:3A:00.0",device="nvidia3",modelName="Odd \"\\ name",hostname="node1",xid="79"} 1`,
		`gpu_xid_info{severity="unknown",xid="74"} 1`,
		"\ngpu_exporter_kernel_log_up 1\n",
		"\ngpu_exporter_kernel_log_lost_records_total 3\n",
		"\ngpu_exporter_kernel_log_unmatched_xids_total 3\n",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in\n%s", want, series(body, "gpu_xid_errors_total"))
		}
	}
}

// The log may tell of GPUs before the first sampler does, and of one that is
// bound later.
func TestKernelXIDBeforeItsGPU(t *testing.T) {
	var log bytes.Buffer
	clock := epoch
	node := NewNode(slog.New(slog.NewTextHandler(&log, nil)), testCatalogue(t))
	node.now = func() time.Time { return clock }
	count := func(uuid string) uint64 {
		return node.view().xids[xidKey{entityKey{uuid: uuid, instance: Unknown}, 79}].total
	}
	node.AddKernelXID(kernelXID(0x18, Unknown, 79))
	x := kernelXID(0x3a, Unknown, 79)
	x.PID, x.Process, x.Text = 42, "trainer", "GPU has fallen off the bus."
	node.AddKernelXID(x)
	old := kernelXID(0x2a, Unknown, 79)
	node.AddKernelXID(old)

	inv := testInventory(t)
	inv.Entities = inv.Entities[:1]
	deliver(t, node, Frame{Inventory: inv})
	if count("GPU-aaaa") != 1 || count("GPU-cccc") != 0 || node.view().strayXIDs != 2 {
		t.Errorf("%d and %d, with %d at no GPU", count("GPU-aaaa"), count("GPU-cccc"), node.view().strayXIDs)
	}
	clock = clock.Add(time.Minute)
	inv = testInventory(t)
	inv.Entities = []Entity{inv.Entities[0], inv.Entities[2]}
	deliver(t, node, Frame{Inventory: inv})
	if count("GPU-aaaa") != 1 || count("GPU-cccc") != 1 || node.view().strayXIDs != 2 {
		t.Errorf("%d and %d, with %d at no GPU", count("GPU-aaaa"), count("GPU-cccc"), node.view().strayXIDs)
	}
	if want := `xid=79 meaning="GPU has fallen off the bus" action=RESTART_BM gpu=3 UUID=GPU-cccc pci_bus_id=00000000:3A:00.0 kernel_says="GPU has fallen off the bus." pid=42 process=trainer`; !strings.Contains(log.String(), want) {
		t.Errorf("log:\n%s\nwant %s", &log, want)
	}
	// One that comes too late is another board in the same slot.
	clock = clock.Add(strayLife)
	deliver(t, node, Frame{Inventory: inv}, Frame{Inventory: testInventory(t)})
	if n := count("GPU-bbbb"); n != 0 {
		t.Errorf("%d XIDs on a GPU that came %v later", n, strayLife)
	}
	// A GPU that is gone is known by its last address.
	inv = testInventory(t)
	inv.Entities = inv.Entities[:1]
	deliver(t, node, Frame{Inventory: inv})
	node.AddKernelXID(old)
	if n := count("GPU-bbbb"); n != 1 {
		t.Errorf("%d XIDs on a GPU that is gone, want 1", n)
	}
}

func TestParsePCIAddress(t *testing.T) {
	for text, want := range map[string]pciAddress{
		"00000000:18:00.0": {0, 0x18, 0}, "0000B8D4:C1:1F.0": {0xb8d4, 0xc1, 0x1f}, "0:ff:1": {0, 0xff, 1},
	} {
		if got, ok := parsePCIAddress(text); !ok || got != want {
			t.Errorf("%s: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "18:00.0", "0:100:0.0", "x:1:2.0", "1:2:3:4"} {
		if got, ok := parsePCIAddress(text); ok {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// An XID that may be of either of two instances that had the number or id, one after
// the other, counts for their GPU; others count for their instance.
func TestXIDsAroundAResplit(t *testing.T) {
	// How long the ledger waits for DCGM to name an instance, for the next sample, and for
	// the kernel log.
	const instanceGrace, decisionGrace, kernelLag = 10 * time.Second, time.Minute, 10 * time.Second
	gpu := entityKey{uuid: "GPU-bbbb", instance: Unknown}
	small, large := entityKey{"GPU-bbbb", 11, "1g.5gb"}, entityKey{"GPU-bbbb", 11, "3g.20gb"}
	other := entityKey{"GPU-bbbb", 12, "2g.10gb"}
	// Instance 11, with the id 7, becomes another one; 12 goes.
	resplit := func(t *testing.T, node *Node, generation uint64) {
		inv := testInventory(t)
		inv.Generation, inv.Time = generation, epoch.Add(2*time.Second)
		for i := range inv.Entities {
			if e := &inv.Entities[i]; e.Kind == KindGPUInstance && e.InstanceID == 11 {
				e.Profile = "3g.20gb"
			} else if e.Kind == KindGPUInstance {
				e.ID, e.InstanceID, e.Profile = 9, 13, "1g.5gb"
			}
		}
		deliver(t, node, Frame{Inventory: inv})
	}
	sample := func(t *testing.T, node *Node, at time.Time) {
		s := testSample(node.latest)
		s.Generation, s.Time = node.latest.Generation, at
		deliver(t, node, Frame{Sample: s})
	}
	row := func(n *Node, instance int) int {
		for i, e := range n.latest.Entities {
			if e.Kind == KindGPUInstance && e.InstanceID == instance {
				return i
			}
		}
		t.Fatalf("no instance %d", instance)
		return 0
	}
	event := func(t *testing.T, n *Node, instance int, code int64) {
		deliver(t, n, Frame{Generation: n.latest.Generation, Events: []Event{{Kind: EventXID, Entity: row(n, instance), Code: code, Time: epoch}}})
	}
	for name, tc := range map[string]struct {
		happens func(t *testing.T, n *Node, clock *time.Time)
		want    map[xidKey]uint64
	}{
		"logged before it": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			n.AddKernelXID(kernelXID(0x2a, 12, 62))
			n.AddKernelXID(kernelXID(0x2a, 13, 63))
			resplit(t, n, 2)
			sample(t, n, *clock)
			*clock = clock.Add(instanceGrace) // DCGM does not tell which it was
		}, map[xidKey]uint64{{gpu, 61}: 1, {other, 62}: 1, {entityKey{"GPU-bbbb", 13, "1g.5gb"}, 63}: 1}},
		"logged, and nothing happens": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			sample(t, n, *clock)
		}, map[xidKey]uint64{{small, 61}: 1}},
		"logged, and no sample comes": {func(_ *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			*clock = clock.Add(decisionGrace)
		}, map[xidKey]uint64{{small, 61}: 1}},
		"logged, and instances cannot be listed": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			inv := &Inventory{Generation: 2, Time: epoch, InstancesUnknown: true, Entities: slices.Clone(testInventory(t).Entities[:2])}
			deliver(t, n, Frame{Inventory: inv}, Frame{Sample: &Sample{Generation: 2, Time: *clock, Rows: make([][]Cell, 2)}})
			*clock = clock.Add(instanceGrace)
		}, map[xidKey]uint64{{gpu, 61}: 1}},
		"logged, and told by DCGM long before the sample": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			event(t, n, 11, 61)
			event(t, n, 12, 61) // another one, which the log has later
			*clock = clock.Add(kernelLag - time.Second)
			n.AddKernelXID(kernelXID(0x2a, 12, 61))
			n.view()
			*clock = clock.Add(2 * instanceGrace)
			sample(t, n, *clock)
		}, map[xidKey]uint64{{small, 61}: 1, {other, 61}: 1}},
		"logged, and DCGM tells of the GPU": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			deliver(t, n, Frame{Generation: 1, Events: []Event{{Kind: EventXID, Entity: 1, Code: 61, Time: epoch}}})
			n.AddKernelXID(kernelXID(0x2a, 12, 62))
			deliver(t, n, Frame{Generation: 1, Events: []Event{{Kind: EventXID, Entity: 1, Code: 62, Time: epoch}}})
			resplit(t, n, 2)
			sample(t, n, *clock)
		}, map[xidKey]uint64{{gpu, 61}: 1, {other, 62}: 1}},
		"logged, and DCGM tells of the new one": {func(t *testing.T, n *Node, clock *time.Time) {
			n.AddKernelXID(kernelXID(0x2a, 11, 61))
			resplit(t, n, 2)
			event(t, n, 11, 61)
			sample(t, n, *clock)
			n.AddKernelXID(kernelXID(0x2a, 11, 61)) // and one more
			sample(t, n, *clock)
		}, map[xidKey]uint64{{large, 61}: 2}},
		"told by another sampler": {func(t *testing.T, n *Node, clock *time.Time) {
			resplit(t, n, 1)
			event(t, n, 11, 61) // maybe before it came
			event(t, n, 13, 63) // an id that is new
			sample(t, n, *clock)
			event(t, n, 11, 62)
		}, map[xidKey]uint64{{gpu, 61}: 1, {large, 62}: 1, {entityKey{"GPU-bbbb", 13, "1g.5gb"}, 63}: 1}},
		"told by the same sampler, which knows": {func(t *testing.T, n *Node, _ *time.Time) {
			resplit(t, n, 2)
			event(t, n, 11, 61)
		}, map[xidKey]uint64{{large, 61}: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			node, clock := newTestNode(t)
			before := node.view().xids
			tc.happens(t, node, clock)
			got := map[xidKey]uint64{}
			for key, count := range node.view().xids {
				if n := count.total - before[key].total; n > 0 {
					got[key] = n
				}
			}
			if !maps.Equal(got, tc.want) {
				t.Errorf("counted %v, want %v", got, tc.want)
			}
		})
	}
}
