// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/podmapper/kubelettest"
)

// The groups of the presets lean and default.
const (
	leanGroups    = "devices xids owners busy exporter"
	defaultGroups = leanGroups + " usage energy engines traffic clocks limits errors nvlink fabric health profiling"
)

// groupFamily has a family of each group that exists on a healthy dgx-h100 with pods.
var groupFamily = map[string]string{
	"devices": "gpu_up", "xids": "gpu_xid_errors_total", "owners": "gpu_owners", "busy": "gpu_busy_seconds_total",
	"exporter": "gpu_exporter_sampler_up", "usage": "gpu_pod_processes", "energy": "gpu_energy_joules_total",
	"engines": "gpu_engine_active_seconds_total", "traffic": "gpu_pcie_bytes_total", "clocks": "gpu_clock_event_seconds_total",
	"limits": "gpu_power_limit_watts", "errors": "gpu_ecc_errors_total", "nvlink": "gpu_nvlinks", "fabric": "gpu_fabric_state",
	"health": "gpu_health_status", "profiling": "gpu_profiling_state", "usage-detail": "gpu_pod_process_memory_used_bytes",
	"links": "gpu_nvlink_up", "peers": "gpu_p2p_status", "clocks-detail": "gpu_clock_event_active",
	"violations": "gpu_violation_seconds_total", "errors-detail": "gpu_remapped_rows", "health-detail": "gpu_health_system_status",
	"exporter-detail": "gpu_exporter_nvlink_last_read_timestamp_seconds",
}

// allGroups returns the names of all groups.
func allGroups() string {
	var names []string
	for _, g := range definition.Groups() {
		names = append(names, g.Name)
	}
	return strings.Join(names, " ")
}

// without removes a group from a list.
func without(groups, removed string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(groups), func(g string) bool { return g == removed }), " ")
}

// groupsOf returns the groups that gpu_exporter_family_group_info reports.
func groupsOf(body string) string {
	var groups []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, `gpu_exporter_family_group_info{group="`); ok {
			groups = append(groups, name[:strings.IndexByte(name, '"')])
		}
	}
	return strings.Join(groups, " ")
}

// unselected returns the families on a page that belong to no selected group.
func unselected(body, groups string) (families []string) {
	for _, g := range definition.Groups() {
		if slices.Contains(strings.Fields(groups), g.Name) {
			continue
		}
		for _, d := range g.Families {
			if strings.Contains(body, "\n# TYPE "+d.Name+" ") {
				families = append(families, d.Name)
			}
		}
	}
	return families
}

// TestFamilies: --families selects the groups on the page. A family of a group that is
// not selected is absent, and the counters file is not affected.
func TestFamilies(t *testing.T) {
	t.Parallel()
	for list, groups := range map[string]string{
		"":                                      defaultGroups,
		"lean":                                  leanGroups,
		"default":                               defaultGroups,
		"full":                                  allGroups(),
		"default,links,-engines":                without(defaultGroups, "engines") + " links",
		"-traffic":                              without(defaultGroups, "traffic"),
		" exporter , xids,peers,exporter,-xids": "exporter peers",
		"usage-detail,exporter":                 "exporter usage-detail",
	} {
		t.Run(list, func(t *testing.T) {
			t.Parallel()
			kubelet, socket := startKubelet(t)
			proc := newHostProc(t)
			proc.process(t, 1001, podCgroup(uidA, "a"))
			args := append([]string{"-k", "--pod-resources-kubelet-socket=" + socket, "--path.procfs=" + string(proc), "--path.pod-logs=" + logDirectory(t, "ml_a_"+uidA)}, fast...)
			if list != "" {
				args = append(args, "--families="+list)
			}
			n := startNode(t, "dgx-h100", args...)
			truth, err := n.sim.Truth(t.Context(), 7)
			if err != nil {
				t.Fatal(err)
			}
			kubelet.SetPods(kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu", truth.UUID))
			n.command(t, "process none")
			n.command(t, "process gpu 7 pid 1001 memory 2048")
			for g := range strings.FieldsSeq(groups) {
				n.eventually(t, fmt.Sprintf("group %s has %s", g, groupFamily[g]), func() bool {
					_, count := sumOf(n.scrape(t), groupFamily[g])
					return count > 0
				})
			}
			for range 3 { // values that arrive after the first sample
				n.nextSample(t)
			}
			body := n.scrape(t)
			want := make([]string, 0, len(groupFamily)) // in the order of all groups
			for g := range strings.FieldsSeq(allGroups()) {
				if slices.Contains(strings.Fields(groups), g) {
					want = append(want, g)
				}
			}
			if got := groupsOf(body); got != strings.Join(want, " ") {
				t.Errorf("gpu_exporter_family_group_info has %q, want %q", got, want)
			}
			if families := unselected(body, groups); len(families) > 0 {
				t.Errorf("families of other groups: %q", families)
			}
			if got := strings.Count(body, "# TYPE DCGM_"); got != 24 {
				t.Errorf("%d families of the counters file, want 24", got)
			}
		})
	}
}

// TestFamiliesFromVariableAndFile: GPU_EXPORTER_FAMILIES and the configuration file select
// families. An unknown name is one line that names its source.
func TestFamiliesFromVariableAndFile(t *testing.T) {
	t.Parallel()
	file := func(text string) string { return writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), text) }
	good, bad := file("families: lean,links\n"), file("sample: {interval: 1s}\nfamilies: [default, linkz]\n")
	for name, tc := range map[string]struct {
		args   []string
		env    string
		groups string // empty: an error
		err    string
	}{
		"variable":               {nil, "lean", leanGroups, ""},
		"file":                   {[]string{"--config.file=" + good}, "", leanGroups + " links", ""},
		"variable and file":      {[]string{"--config.file=" + good}, "lean", leanGroups, ""},
		"flag and variable":      {[]string{"--families=busy,exporter"}, "lean", "busy exporter", ""},
		"unknown name, flag":     {[]string{"--families=default,linkz"}, "", "", `--families: "linkz" is neither a group nor a preset`},
		"unknown name, variable": {nil, "-linkz", "", `GPU_EXPORTER_FAMILIES: "linkz" is neither`},
		"unknown name, file":     {[]string{"--config.file=" + bad}, "", "", bad + `:2: families: "linkz" is neither a group nor a preset`},
		"empty name":             {[]string{"--families=lean,"}, "", "", `--families: "" is `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			once := exec.CommandContext(t.Context(), built(t), append([]string{"once", "--all", "--simulate=h100x8"}, tc.args...)...)
			once.Env = os.Environ()
			if tc.env != "" {
				once.Env = append(once.Env, "GPU_EXPORTER_FAMILIES="+tc.env)
			}
			var stderr bytes.Buffer
			once.Stderr = &stderr
			out, err := once.Output()
			if tc.groups == "" {
				if once.ProcessState.ExitCode() != 1 || len(out) > 0 {
					t.Errorf("%v, and the page\n%s", err, out)
				}
				if line, rest, _ := strings.Cut(stderr.String(), "\n"); !strings.Contains(line, tc.err) || strings.Count(rest, "\n") > 1 {
					t.Errorf("no line with %q:\n%s", tc.err, &stderr)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			if got := groupsOf(string(out)); strings.Contains(tc.groups, "exporter") && got != tc.groups {
				t.Errorf("the groups are %q, want %q", got, tc.groups)
			}
			if families := unselected(string(out), tc.groups); len(families) > 0 {
				t.Errorf("families of other groups: %q", families)
			}
		})
	}
}

// TestReloadOfFamilies: a reload adds and removes families. It replaces the sampler only if
// the sampler must read something else. Families that remain exist in every scrape, and
// their counters do not decrease.
func TestReloadOfFamilies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	configure := func(families string) {
		t.Helper()
		writeFile(t, path, "sample: {interval: 200ms, max-age: 1m}\nfamilies: "+families+"\n")
	}
	configure("default")
	n := startNode(t, "dgx-h100", "--config.file="+path, "--web.enable-admin-api")
	n.command(t, "load gpu all util 80")
	n.command(t, "xid 94 gpu 1")
	// Families of all selections below, and their number of series.
	remain := map[string]int{
		"DCGM_FI_DEV_GPU_TEMP": 8, "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 8, "gpu_up": 8, "gpu_info": 8, "gpu_busy_seconds_total": 8,
		"gpu_xid_errors_total": 24, "gpu_xid_code_errors_total": 1, "gpu_recovery_action": 8,
	}
	n.eventually(t, "all families exist", func() bool {
		body := n.scrape(t)
		for family, series := range remain {
			if _, count := sumOf(body, family); count != series {
				return false
			}
		}
		busy, _ := sumOf(body, "gpu_busy_seconds_total")
		return busy > 0
	})
	done, stopped, scrapes := make(chan struct{}), make(chan struct{}), atomic.Int64{}
	go func() {
		defer close(stopped)
		last := map[string]float64{}
		for ; ; scrapes.Add(1) {
			select {
			case <-done:
				return
			default:
			}
			status, body := n.tryGet(t, "/metrics")
			for family, series := range remain {
				sum, count := sumOf(body, family)
				if status != http.StatusOK || count != series || family == "gpu_up" && sum != 8 {
					t.Errorf("scrape %d: status %d, %s is %v in %d series, want %d", scrapes.Load(), status, family, sum, count, series)
					return
				}
				if strings.HasSuffix(family, "_total") && sum < last[family] {
					t.Errorf("scrape %d: %s decreased from %v to %v", scrapes.Load(), family, last[family], sum)
					return
				}
				last[family] = sum
			}
		}
	}()
	finish := sync.OnceFunc(func() {
		close(done)
		<-stopped
	})
	defer finish()

	for _, step := range []struct {
		families, groups string
		replaced         bool
	}{
		{"default,exporter-detail", defaultGroups + " exporter-detail", false},
		{"default,links,-owners", without(defaultGroups, "owners") + " links", false},
		{"lean", leanGroups, true},
		{"exporter,busy,xids,devices,owners", leanGroups, false},
		{"lean,peers", leanGroups + " peers", true},
		{"full", allGroups(), true},
		{"default", defaultGroups, true},
	} {
		sampler := n.samplerPID()
		configure(step.families)
		if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
			t.Fatalf("reload with %s answers %d: %s", step.families, status, body)
		}
		n.eventually(t, "the groups of "+step.families, func() bool {
			body := n.scrape(t)
			for g := range strings.FieldsSeq(step.groups) {
				_, count := sumOf(body, groupFamily[g])
				if none := strings.HasPrefix(g, "usage") || g == "owners"; count == 0 && !none { // no source of owners here
					return false
				}
			}
			return groupsOf(body) == step.groups && len(unselected(body, step.groups)) == 0
		})
		if now := n.samplerPID(); (now != sampler) != step.replaced {
			t.Errorf("%s: the sampler %d was replaced by %d, want replaced=%v", step.families, sampler, now, step.replaced)
		}
	}
	finish()
	if restarts, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_by_reason_total", `"reconfigured"`); restarts != 4 {
		t.Errorf("%v restarts because of a configuration, want 4", restarts)
	}
	t.Logf("%d scrapes", scrapes.Load())
}
