// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/metrics/definition"
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
		`gpu="0",UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1",xid="48",severity="warning"} 1`,
		`GPU_I_PROFILE="2g.10gb",GPU_I_ID="12",hostname="node1",xid="48",severity="warning"} 1`,
		`GPU_I_PROFILE="1g.5gb",GPU_I_ID="11",hostname="node1",xid="74",severity="warning"} 1`,
		`modelName="NVIDIA A100-SXM4-40GB",hostname="node1",xid="74",severity="warning"} 1`,
		`gpu="3",UUID="GPU-cccc",pci_bus_id="00000000:3A:00.0",device="nvidia3",modelName="Odd \"\\ name",hostname="node1",xid="79",name="OFF_THE_BUS",severity="critical",action="RESTART_BM"} 1`,
		"\ngpu_exporter_source_info{data=\"xid\",source=\"kernel_log\"} 1\n",
		"\ngpu_exporter_kernel_log_up 1\n",
		"\ngpu_exporter_kernel_log_lost_records_total 3\n",
		"\ngpu_exporter_kernel_log_unmatched_xids_total 3\n",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in\n%s", want, series(body, "gpu_xid_code_errors_total"))
		}
	}
}

// DCGM is the source of XIDs until the kernel log is readable, and again when it becomes
// unreadable.
func TestXIDSource(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	check := func(want string) {
		t.Helper()
		want = `gpu_exporter_source_info{data="xid",source="` + want + `"} 1`
		if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_exporter_source_info"); strings.TrimSpace(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("dcgm")
	node.SetKernelLog(true)
	check("kernel_log")
	node.SetKernelLog(false)
	check("dcgm")
}

// xidSeries summarizes the XID series whose labels contain all of the given texts: own
// labels and values, sorted.
func xidSeries(body []byte, family string, labels ...string) string {
	var found []string
	for line := range strings.Lines(series(body, family)) {
		missing := slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) })
		if _, own, ok := strings.Cut(line, `hostname="node1",`); ok && !missing {
			found = append(found, strings.TrimSpace(strings.Replace(own, "}", "", 1)))
		}
	}
	slices.Sort(found)
	return strings.Join(found, "; ")
}

// The totals by severity of a GPU start at 0, because increase() misses the first event
// of a counter that starts at 1. A code has series as soon as it occurs.
func TestXIDsOfAGPU(t *testing.T) {
	const none = `severity="application" 0; severity="critical" 0; severity="warning" 0`
	const last = "1.70000000025e+09"
	for _, tc := range []struct {
		name               string
		codes              []int64
		bySeverity, byCode string
	}{
		{"no XID", nil, none, ""},
		{"known codes", []int64{79, 31, 31}, `severity="application" 0; severity="critical" 1; severity="warning" 2`,
			`xid="31",name="MMU_FAULT",severity="warning",action="RESTART_APP" 2; xid="79",name="OFF_THE_BUS",severity="critical",action="RESTART_BM" 1`},
		{"a code of the application", []int64{13}, `severity="application" 1; severity="critical" 0; severity="warning" 0`,
			`xid="13",name="GR_EXCEPTION",severity="application",action="RESTART_APP" 1`},
		{"an unknown code is a warning", []int64{999}, `severity="application" 0; severity="critical" 0; severity="warning" 1`,
			`xid="999",severity="warning" 1`},
		{"a code without an action", []int64{43}, `severity="application" 1; severity="critical" 0; severity="warning" 0`,
			`xid="43",name="RESETCHANNEL",severity="application" 1`},
	} {
		f, node, _ := newTestFamilies(t, testConfig(t))
		for _, code := range tc.codes {
			deliver(t, node, wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: 0, Time: epoch, Code: code}}}})
		}
		for range 2 { // the second time with the labels of the first
			body := encode(t, f, expfmt.TypeTextPlain)
			if got := xidSeries(body, definition.GPUXIDErrors.Name, `gpu="0"`); got != tc.bySeverity {
				t.Errorf("%s: by severity %s, want %s", tc.name, got, tc.bySeverity)
			}
			if got := xidSeries(body, definition.GPUXIDCodeErrors.Name, `gpu="0"`); got != tc.byCode {
				t.Errorf("%s: by code %s, want %s", tc.name, got, tc.byCode)
			}
			times := xidSeries(body, definition.GPUXIDCodeLastTimestamp.Name, `gpu="0"`)
			if n := strings.Count(times, "xid="); n != strings.Count(tc.byCode, "xid=") || strings.Count(times, last) != n {
				t.Errorf("%s: times %s", tc.name, times)
			}
		}
	}
}

// An instance has series after its first XID. Devices that are gone keep theirs.
func TestXIDsOfInstancesAndGoneGPUs(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t)) // XID 31 twice on instance 11, XID 79 on GPU 1
	body := encode(t, f, expfmt.TypeTextPlain)
	const warnings = `severity="warning" 2`
	const code31 = `xid="31",name="MMU_FAULT",severity="warning",action="RESTART_APP" 2`
	if got := xidSeries(body, definition.GPUXIDErrors.Name, `GPU_I_ID="11"`); got != warnings {
		t.Errorf("instance with XIDs: %s", got)
	}
	if got := xidSeries(body, definition.GPUXIDErrors.Name, `GPU_I_ID="12"`); got != "" {
		t.Errorf("instance without XIDs: %s", got)
	}
	inv := testInventory(t)
	inv.Entities = inv.Entities[:2] // GPU 3 is gone, and so are the instances
	s := testSample(inv)
	s.Rows = s.Rows[:2]
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	body = encode(t, f, expfmt.TypeTextPlain)
	if got := xidSeries(body, definition.GPUXIDErrors.Name, `GPU_I_ID="11"`); got != warnings {
		t.Errorf("former instance: %s", got)
	}
	if got := xidSeries(body, definition.GPUXIDCodeErrors.Name, `GPU_I_ID="11"`, `GPU_I_PROFILE="1g.5gb"`); got != code31 {
		t.Errorf("former instance by code: %s", got)
	}
	inv = testInventory(t)
	inv.Entities = inv.Entities[:1] // GPU 1 is gone, too
	s = testSample(inv)
	s.Rows = s.Rows[:1]
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	body = encode(t, f, expfmt.TypeTextPlain)
	if got := xidSeries(body, definition.GPUXIDErrors.Name, `UUID="GPU-cccc"`); got != `severity="application" 0; severity="critical" 0; severity="warning" 0` {
		t.Errorf("GPU that is gone without XIDs: %s", got)
	}
	const code79 = `xid="79",name="OFF_THE_BUS",severity="critical",action="RESTART_BM" 1`
	if got := xidSeries(body, definition.GPUXIDCodeErrors.Name, `UUID="GPU-bbbb"`, `device="nvidia1"`); !strings.Contains(got, code79) {
		t.Errorf("GPU that is gone by code: %s", got)
	}
	if got := xidSeries(body, definition.GPUXIDCodeErrors.Name, `GPU_I_ID="11"`); got != code31 {
		t.Errorf("former instance of a GPU that is gone: %s", got)
	}
	f.cfg.Selected = selection(t, "lean,-xids")
	if got := encode(t, f, expfmt.TypeTextPlain); strings.Contains(string(got), "gpu_xid") {
		t.Errorf("not selected:\n%s", got)
	}
}
