// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
)

// hold identifies a pod's share of a device.
type hold struct {
	device
	pod string
}

// use is a pod's usage of a device.
type use struct{ memory, processes float64 }

// testUsage runs the real processes of containers on the simulated GPUs. The exporter
// attributes them to pods by their real cgroups.
func testUsage(t *testing.T, k *kubelet, g *gpus, e *exporter, h *holdings) {
	g.command(t, "process none") // nor the default ones, which belong to the holders
	t.Cleanup(func() { g.command(t, "process none") })
	want := map[hold]use{}
	for _, one := range *h {
		want[hold{one.device, one.pod}] = use{} // a pod without processes has 0
	}
	put := func(pod string, mib int, more string) hold {
		t.Helper()
		at := hold{h.of(pod), pod}
		g.command(t, "process gpu %d pid %d memory %d %s", slices.Index(g.uuids, at.uuid), k.process(t, pod), mib, more)
		want[at] = use{float64(mib) * (1 << 20), 1}
		return at
	}
	busy := []hold{
		put("one-"+nodeName, 1000, "share 40"),
		put("left-"+nodeName, 3000, "share 30"),
		put("right-"+nodeName, 5000, "share 20"),
	}
	// The driver does not report the utilization of MIG devices.
	put("mig-"+nodeName, 700, fmt.Sprintf("ci %d", g.computeInstance(h.of("mig-"+nodeName))))
	// The process of the test belongs to no pod.
	g.command(t, "process gpu 4 pid %d memory 100", os.Getpid())

	eventually(t, "each process is attributed to its pod", func() error {
		x, err := e.scrape(t.Context())
		if err != nil {
			return err
		}
		got := map[hold]use{}
		for _, s := range x {
			at := hold{s.device(), s.labels["pod"]}
			u := got[at]
			switch s.name {
			case "gpu_pod_memory_used_bytes":
				u.memory = s.value
			case "gpu_pod_processes":
				u.processes = s.value
			default:
				continue
			}
			got[at] = u
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		for _, at := range busy {
			ratio, err := x.value("gpu_pod_sm_utilization_ratio", map[string]string{"UUID": at.uuid, "pod": at.pod})
			if err == nil && (ratio <= 0 || ratio > 1) {
				err = fmt.Errorf("%s has an SM utilization of %v", at.pod, ratio)
			}
			if err != nil {
				return err
			}
		}
		outside, err := x.value("gpu_exporter_processes_unattributed", map[string]string{"reason": "outside"})
		if err == nil && outside != 1 {
			err = fmt.Errorf("%v processes outside pods, want 1", outside)
		}
		return err
	})
}
