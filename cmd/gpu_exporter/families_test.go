// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpu_exporter/collector/goldentest"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/podmapper/kubelettest"
)

// ownSeries counts the series of a page that do not come from the counters, by kind of
// subject and subject: go_*, process_* and promhttp_* are not counted. Reasons come and
// go, so those of the exporter can be left out.
func ownSeries(t *testing.T, body string, reasons bool) map[string]map[string]int {
	t.Helper()
	counts := map[string]map[string]int{}
	dec := expfmt.NewDecoder(strings.NewReader(body), expfmt.NewFormat(expfmt.TypeTextPlain))
	for {
		var family dto.MetricFamily
		if err := dec.Decode(&family); errors.Is(err, io.EOF) {
			return counts
		} else if err != nil {
			t.Fatal(err)
		}
		if name := family.GetName(); !strings.HasPrefix(name, "gpu_") || !reasons && strings.Contains(name, "_by_reason") {
			continue
		}
		for _, series := range family.Metric {
			labels := map[string]string{}
			for _, l := range series.Label {
				labels[l.GetName()] = l.GetValue()
			}
			kind, subject := subjectOf(labels)
			if counts[kind] == nil {
				counts[kind] = map[string]int{}
			}
			counts[kind][subject]++
		}
	}
}

// The kinds of subjects, in the order of METRICS.md.
var subjectKinds = []string{"GPU", "MIG instance", "NVSwitch", "node", "owner of a device", "source of owners"}

// subjectOf attributes a series by its labels.
func subjectOf(labels map[string]string) (kind, subject string) {
	device := labels["UUID"] + "/" + labels["GPU_I_ID"]
	switch {
	case labels["pod"] != "":
		// gpu_pod_labels is about the pod on all its devices, of which it has one here.
		return "owner of a device", labels["namespace"] + "/" + labels["pod"]
	case labels["job_id"] != "":
		return "owner of a device", device + "/" + labels["job_id"]
	case labels["GPU_I_ID"] != "":
		return "MIG instance", device
	case labels["UUID"] != "":
		return "GPU", device
	case labels["nvswitch"] != "":
		return "NVSwitch", labels["nvswitch"]
	case labels["source"] != "" && labels["data"] == "":
		return "source of owners", labels["source"]
	}
	return "node", ""
}

// budgets are the most series that a preset may add for a subject. The preset full has
// none.
var budgets = map[string]map[string]int{
	"lean":    {"GPU": 8, "MIG instance": 4, "NVSwitch": 2, "node": 40, "owner of a device": 6, "source of owners": 4},
	"default": {"GPU": 48, "MIG instance": 16, "NVSwitch": 2, "node": 70, "owner of a device": 6, "source of owners": 4},
}

// complete waits until the page of a preset has all families that healthy GPUs have,
// and returns it.
func (n *node) complete(t *testing.T, preset string, more ...string) string {
	t.Helper()
	want := append([]string{"gpu_up", "gpu_exporter_fields_missing", "gpu_exporter_source_info"}, more...)
	if preset != "lean" {
		want = append(want, "gpu_health_status", "gpu_profiling_state", "gpu_energy_joules_total", "gpu_thermal_margin_celsius", "gpu_clock_event_seconds_total")
	}
	if preset == "full" {
		want = append(want, "gpu_health_system_status")
	}
	body, missing := "", ""
	defer func() {
		if t.Failed() {
			t.Logf("missing at last: %s", missing)
		}
	}()
	last := map[string]map[string]int{}
	for same := 0; same < 3; { // three samples without a new series
		n.nextSample(t)
		n.eventually(t, "all families of "+preset+" exist", func() bool {
			body = n.scrape(t)
			missing = ""
			for _, family := range want {
				if _, count := sumOf(body, family); count == 0 {
					missing += " " + family
				}
			}
			return missing == ""
		})
		now := ownSeries(t, body, false)
		if same++; !maps.EqualFunc(now, last, maps.Equal[map[string]int, map[string]int]) {
			same = 0
		}
		last = now
	}
	return body
}

// presetSizes are the most series of each preset, by kind of subject.
type presetSizes struct {
	mu   sync.Mutex
	most map[string]map[string]int
}

// take compares a page with the budgets of its preset.
func (s *presetSizes) take(t *testing.T, name, preset, body string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most[preset] == nil {
		s.most[preset] = map[string]int{}
	}
	usual, all := ownSeries(t, body, false), ownSeries(t, body, true)
	var line strings.Builder
	for _, kind := range subjectKinds {
		most := 0
		for subject, n := range all[kind] {
			most = max(most, n)
			s.most[preset][kind] = max(s.most[preset][kind], usual[kind][subject])
		}
		fmt.Fprintf(&line, " %s %d;", kind, most)
		if budget, limited := budgets[preset][kind]; limited && most > budget {
			t.Errorf("%s: the preset %s has %d series per %s, the budget is %d", name, preset, most, kind, budget)
		}
	}
	t.Logf("%s %s:%s", name, preset, line.String())
}

// TestFamilyBudgets: the presets keep their budgets on several nodes. METRICS.md has the
// measured sizes; -update rewrites them.
func TestFamilyBudgets(t *testing.T) {
	t.Parallel()
	sizes := presetSizes{most: map[string]map[string]int{}}
	t.Run("nodes", func(t *testing.T) {
		for _, scenario := range []string{"h100x8", "h100x8-mig", "a100x7-mig", "dgx-h100", "gb200"} {
			t.Run(scenario, func(t *testing.T) {
				t.Parallel()
				for _, preset := range []string{"lean", "default", "full"} {
					n := startNode(t, scenario, append(fast, "--families="+preset)...)
					var more []string
					if scenario != "a100x7-mig" { // it has one GPU, and no module for profiling
						more = append(more, "gpu_busy_seconds_total")
						if preset != "lean" {
							more = append(more, "gpu_engine_active_seconds_total", "gpu_pcie_bytes_total")
						}
						if preset == "full" {
							more = append(more, "gpu_topology_info")
						}
					}
					sizes.take(t, scenario, preset, n.complete(t, preset, more...))
					n.stop(t)
				}
			})
		}
		t.Run("owners", func(t *testing.T) {
			t.Parallel()
			for _, preset := range []string{"lean", "default", "full"} {
				n, more := startOwners(t, preset)
				sizes.take(t, "owners", preset, n.complete(t, preset, more...))
				n.stop(t)
			}
		})
	})
	if t.Failed() {
		return
	}
	var table strings.Builder
	table.WriteString("| preset | " + strings.Join(subjectKinds, " | ") + " |\n|---" + strings.Repeat("|---", len(subjectKinds)) + "|\n")
	for _, preset := range []string{"lean", "default", "full"} {
		fmt.Fprintf(&table, "| `%s` |", preset)
		for _, kind := range subjectKinds {
			fmt.Fprintf(&table, " %d", sizes.most[preset][kind])
			if budget, limited := budgets[preset][kind]; limited {
				fmt.Fprintf(&table, " (%d)", budget)
			}
			table.WriteString(" |")
		}
		table.WriteString("\n")
	}
	goldentest.Section(t, "../../collector/METRICS.md", "<!-- presets -->", table.String(), "golden")
}

// stop stops the exporter, so that the next one has the CPU for itself.
func (n *node) stop(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-n.exited
}

// startOwners starts a node on which pods hold a GPU, a share of a GPU and a MIG instance,
// and a batch job holds a GPU. It also returns the families that it has in the end.
func startOwners(t *testing.T, preset string) (*node, []string) {
	t.Helper()
	kubelet, socket := startKubelet(t)
	podsSocket := filepath.Join(t.TempDir(), "pods.sock")
	api := kubelettest.NewPodsAPI(podsSocket)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	var described []*corev1.Pod
	var names []string
	for i, name := range []string{"whole", "shared-a", "shared-b", "slice"} {
		uid := fmt.Sprintf("0a1b2c3d-0000-4000-8000-00000000001%d", i)
		names = append(names, "ml_"+name+"_"+uid)
		described = append(described, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(uid), Labels: map[string]string{"app": "llm"}}})
	}
	api.SetPods(described...)
	jobs := t.TempDir()
	writeFile(t, filepath.Join(jobs, "5"), "1001\n")
	proc := newHostProc(t)
	proc.process(t, 1001, podCgroup("0a1b2c3d-0000-4000-8000-000000000010", "a"))
	n := startNode(t, "h100x8-mig", append(fast, "--families="+preset, "-k", "--pod-resources-kubelet-socket="+socket, "--kubernetes.pods-socket="+podsSocket,
		"--path.pod-logs="+logDirectory(t, names...), "--path.procfs="+string(proc), "--kubernetes-enable-pod-labels", "--kubernetes-pod-label-allowlist-regex=app", "--kubernetes.pod-labels-form=family",
		"--hpc-job-mapping-dir="+jobs)...)
	kubelet.SetPods(
		kubelettest.Pod("ml", "whole", "main", "nvidia.com/gpu", n.uuid(t, "6")),
		kubelettest.Pod("ml", "shared-a", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::0"),
		kubelettest.Pod("ml", "shared-b", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::1"),
		kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", firstMIGDevice),
	)
	n.command(t, "process none")
	n.command(t, "process gpu 6 pid 1001 memory 2048 share 50")
	more := []string{"gpu_owners", "gpu_pod_info", "gpu_job_info", "gpu_pod_labels"}
	if preset != "lean" {
		more = append(more, "gpu_pod_processes", "gpu_pod_memory_used_bytes", "gpu_pod_sm_utilization_ratio")
	}
	return n, more
}

// alertFamilies are what the alerts need, with any counters file.
var alertFamilies = []string{
	"gpu_up", "gpu_info", "gpu_recovery_action", "gpu_xid_errors_total", "gpu_busy_seconds_total", "gpu_energy_joules_total",
	"gpu_ecc_errors_total", "gpu_row_remap_pending", "gpu_row_remap_failed", "gpu_row_remap_exhausted_banks",
	"gpu_thermal_margin_celsius", "gpu_slowdown_temperature_celsius", "gpu_power_limit_watts", "gpu_pcie_link_width",
	"gpu_pcie_link_width_max", "gpu_nvlinks", "gpu_nvlink_errors_total", "gpu_persistence_mode", "gpu_clock_event_seconds_total",
	"gpu_health_status", "gpu_fabric_state", "gpu_fabric_health", "gpu_pcie_replays_total",
	"gpu_memory_unrepairable", "gpu_sram_threshold_exceeded", "gpu_profiling_state", "gpu_owners",
}

// TestFamiliesOfAlerts: the default preset has the families of the alerts on each GPU
// even with a counters file that has no counter of GPUs.
func TestFamiliesOfAlerts(t *testing.T) {
	t.Parallel()
	jobs := t.TempDir()
	n := startNode(t, "h100x8", append(fast, "-f", countersFile(t, "DCGM_FI_DEV_CPU_UTIL_TOTAL, gauge, Utilization of the CPU.\n"), "--hpc-job-mapping-dir="+jobs)...)
	missing := []string{"all"}
	defer func() {
		if t.Failed() {
			t.Logf("missing at last: %v", missing)
		}
	}()
	n.eventually(t, "the families of the alerts exist", func() bool {
		body := n.scrape(t)
		missing = slices.DeleteFunc(slices.Clone(alertFamilies), func(family string) bool {
			_, count := sumOf(body, family)
			return count >= 8
		})
		return len(missing) == 0
	})
	if body := n.scrape(t); strings.Contains(body, "\nDCGM_") {
		t.Error("a field has series without a counter")
	}
	n.has(t, 8, "gpu_up")

	// A GPU that does not answer is down without a counter, too.
	n.command(t, "lose gpu 3")
	n.has(t, 7, "gpu_up")
	selected, err := definition.ParseSelection(definition.Default.String())
	if err != nil {
		t.Fatal(err)
	}
	n.has(t, float64(len(selected.Groups())), "gpu_exporter_family_group_info")
}
