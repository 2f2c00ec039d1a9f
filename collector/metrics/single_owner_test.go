// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// Two containers of one pod leave the pod on the series of their device. Two pods do not.
func TestContainersOfOnePod(t *testing.T) {
	main := Owner{Namespace: "ml", Pod: "a", Container: "main"}
	side, other := main, main
	side.Container, other.Pod = "side", "b"
	for name, tc := range map[string]struct {
		owners []Owner
		want   string // labels of the first series of GPU 0
	}{
		"one container":                     {[]Owner{main}, `container="main",namespace="ml",pod="a"`},
		"two shares of one container":       {[]Owner{main, main}, `container="main",namespace="ml",pod="a"`},
		"two containers":                    {[]Owner{main, side}, `namespace="ml",pod="a"`},
		"two pods":                          {[]Owner{main, other}, ""},
		"two pods, one with two containers": {[]Owner{main, side, other}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, _ := newTestFamilies(t, testConfig(t))
			f.owners = fixedOwners{ownership: &Ownership{Known: true, Entities: []Holders{{Owners: tc.owners}}}}
			line, _, _ := strings.Cut(series(encode(t, f, expfmt.TypeTextPlain), "DCGM_FI_DEV_GPU_TEMP"), "}")
			got := ""
			for part := range strings.SplitSeq(line, ",") {
				if strings.HasPrefix(part, "container=") || strings.HasPrefix(part, "namespace=") || strings.HasPrefix(part, "pod=") {
					got += "," + part
				}
			}
			if got = strings.TrimPrefix(got, ","); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// The UUID of a MIG device, which device plugins use, is on the series that identifies its
// instance.
func TestMIGUUIDOfAnInstance(t *testing.T) {
	inv := &model.Inventory{Entities: []model.Entity{
		{Kind: model.KindGPU, Parent: model.Unknown},
		{Kind: model.KindGPUInstance, Parent: 0},
		{Kind: model.KindGPUInstance, Parent: 0},
		{Kind: model.KindComputeInstance, Parent: 1, UUID: "MIG-a"},
		{Kind: model.KindComputeInstance, Parent: 2, UUID: "MIG-b"},
		{Kind: model.KindComputeInstance, Parent: 2, UUID: "MIG-c"},
	}}
	for i, want := range []string{"", "MIG-a", "MIG-b,MIG-c", "MIG-a"} {
		got := ""
		for _, l := range gpuInfoLabels(nil, inv, i) {
			if l.GetName() == "mig_uuid" {
				got = l.GetValue()
			}
		}
		if got != want {
			t.Errorf("entity %d: %q, want %q", i, got, want)
		}
	}
}

// A pod that uses a device without holding it has its usage, as with schedulers that share
// GPUs by pods of their own.
func TestUsageWithoutHolding(t *testing.T) {
	cfg := testConfig(t)
	cfg.Owners.Usage = true
	var err error
	if cfg.Selected, err = definition.ParseSelection(definition.Full.String()); err != nil {
		t.Fatal(err)
	}
	f, node, _ := newTestFamilies(t, cfg)
	reservation := Owner{Namespace: "gpu", Pod: "reservation", Container: "main"}
	f.owners = fixedOwners{ownership: &Ownership{Entities: []Holders{0: {Owners: []Owner{reservation}}, 5: {}}}, places: map[uint32]ProcessPlace{
		1: {Namespace: "ml", Pod: "train", Container: "main"}, 2: {Namespace: "ml", Pod: "train", Container: "main"}, 3: {Trouble: ProcessUnknownPod},
	}}
	process := func(pid uint32) model.Process {
		return model.Process{PID: pid, MemoryBytes: mib, MemoryKnown: true, SM: 0.25}
	}
	deliver(t, node, wire.Frame{Processes: &model.Processes{Generation: 1, Time: epoch, Devices: []model.DeviceProcesses{
		{Entity: 0, Processes: []model.Process{process(1), process(2)}},
	}}})
	body := encode(t, f, expfmt.TypeTextPlain)
	for family, want := range map[string]string{
		"gpu_pod_processes": "2", "gpu_pod_memory_used_bytes": "2.097152e+06", "gpu_pod_sm_utilization_ratio": "0.5",
	} {
		lines := series(body, family)
		if !strings.Contains(lines, `namespace="ml",pod="train"} `+want+"\n") || !strings.Contains(lines, `pod="reservation"} 0`) {
			t.Errorf("%s: %s", family, lines)
		}
	}
}
