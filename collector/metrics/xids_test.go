// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// kernelXID is an XID of the kernel log on a bus of domain 0.
func kernelXID(bus uint8, instance int, code int64) model.KernelXID {
	return model.KernelXID{Bus: bus, GPUInstance: instance, Code: code, Time: epoch}
}

// An XID of the kernel log counts for the GPU at its address, or for the instance that
// the driver names. It counts once if DCGM reports it too.
func TestKernelXID(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	f.cfg.KernelLog = func() (model.KernelLogStatus, bool) { return model.KernelLogStatus{Up: true, Lost: 3}, true }
	node.SetKernelLog(true)
	node.AddKernelXID(kernelXID(0x18, model.Unknown, 48))
	node.AddKernelXID(kernelXID(0x2a, 12, 48)) // on an instance
	node.AddKernelXID(kernelXID(0x2a, 11, 74))
	node.AddKernelXID(kernelXID(0x2a, 99, 74))                         // on one that does not exist
	node.AddKernelXID(kernelXID(0x3a, model.Unknown, 79))              // on a lost GPU
	node.AddKernelXID(kernelXID(0x77, model.Unknown, 79))              // at an address without a GPU
	node.AddKernelXID(model.KernelXID{Domain: 1, Bus: 0x18, Code: 79}) // likewise
	node.AddKernelXID(model.KernelXID{Bus: 0x18, Device: 1, Code: 79}) // likewise
	deliver(t, node, wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{
		{Kind: model.EventXID, Entity: 0, Time: epoch, Code: 48},
		{Kind: model.EventXID, Entity: 5, Time: epoch, Code: 74}, // in a compute instance of instance 11
	}}}, wire.Frame{Sample: testSample(testInventory(t))})
	*clock = clock.Add(10 * time.Second)
	body := encode(t, f, expfmt.TypeTextPlain)
	for _, want := range []string{
		`gpu="0",UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1",xid="48"} 1`,
		`GPU_I_PROFILE="2g.10gb",GPU_I_ID="12",hostname="node1",xid="48"} 1`,
		`GPU_I_PROFILE="1g.5gb",GPU_I_ID="11",hostname="node1",xid="74"} 1`,
		`modelName="NVIDIA A100-SXM4-40GB",hostname="node1",xid="74"} 1`,
		`gpu="3",UUID="GPU-cccc",pci_bus_id="00000000:3A:00.0",device="nvidia3",modelName="Odd \"\\ name",hostname="node1",xid="79"} 1`,
		`gpu_xid_info{severity="unknown",xid="74"} 1`,
		"\ngpu_exporter_xid_source_info{source=\"kernel_log\"} 1\n",
		"\ngpu_exporter_kernel_log_up 1\n",
		"\ngpu_exporter_kernel_log_lost_records_total 3\n",
		"\ngpu_exporter_kernel_log_unmatched_xids_total 3\n",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in\n%s", want, series(body, "gpu_xid_errors_total"))
		}
	}
}

// DCGM is the source of XIDs until the kernel log is readable, and again when it becomes
// unreadable.
func TestXIDSource(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	check := func(want string) {
		t.Helper()
		want = `gpu_exporter_xid_source_info{source="` + want + `"} 1`
		if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_exporter_xid_source_info"); strings.TrimSpace(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("dcgm")
	node.SetKernelLog(true)
	check("kernel_log")
	node.SetKernelLog(false)
	check("dcgm")
}
