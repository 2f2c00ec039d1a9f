// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/goldentest"
	"gpu_exporter/etc"
)

// compatibilityComplaints are promtool's complaints about names of DCGM and labels of
// dcgm-exporter, which are kept for compatibility.
var compatibilityComplaints = []string{
	`counter metrics should have "_total" suffix`,
	"label names should be written in 'snake_case' not 'camelCase'",
	`metric name should not include type 'counter'`,
	"metric names should not contain abbreviated units", // DCGM_FI_DEV_CLOCKS_EVENT_REASON_*_NS
}

// TestBuiltInCounters: every shipped counters file is built in, and its page passes promtool
// except for compatibilityComplaints.
func TestBuiltInCounters(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	shipped, err := filepath.Glob("../../etc/*-counters.csv")
	if err != nil || len(shipped) != len(etc.CountersNames()) {
		t.Fatalf("%v are shipped, %v are built in: %v", shipped, etc.CountersNames(), err)
	}
	for name, want := range map[string]struct {
		families int // at least so many named DCGM_*, without XIDs
		series   map[string]int
	}{
		"default":           {24, map[string]int{"DCGM_FI_DEV_GPU_UTIL": 8, "DCGM_FI_DEV_SM_CLOCK": 8}},
		"dcgm-4.9":          {25, map[string]int{"DCGM_FI_DEV_GPU_UTIL_RATIO": 8, "DCGM_FI_DEV_FB_CAPACITY_BYTES": 8, "DCGM_FI_PROF_DRAM_UTIL_RATIO": 8}},
		"1.x-compatibility": {0, map[string]int{"dcgm_gpu_temp": 8, "dcgm_nvlink_bandwidth_total": 8, "dcgm_fi_prof_dram_active": 8}},
		"everything":        {300, map[string]int{"DCGM_FI_DEV_GPU_UTIL": 8, "DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT": 4, "DCGM_FI_DEV_NVLINK_GET_STATE": 144}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			once := exec.CommandContext(t.Context(), built(t), "once", "--all", "--simulate=dgx-h100", "--families=full", "--counters.file="+"builtin:"+name)
			var stderr bytes.Buffer
			once.Stderr = &stderr
			out, err := once.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			body := string(out)
			if got := strings.Count(body, "# TYPE DCGM_"); got < want.families {
				t.Errorf("%d families, want at least %d", got, want.families)
			}
			for family, series := range want.series {
				if _, count := sumOf(body, family); count != series {
					t.Errorf("%d series of %s, want %d", count, family, series)
				}
			}
			check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
			check.Stdin = strings.NewReader(body)
			output, _ := check.CombinedOutput() // complaints set the exit status
			for line := range strings.Lines(string(output)) {
				about, complaint, _ := strings.Cut(strings.TrimSpace(line), " ")
				compatible := strings.HasPrefix(strings.ToUpper(about), "DCGM_") || strings.Contains(complaint, "camelCase")
				if !compatible || !slices.ContainsFunc(compatibilityComplaints, func(known string) bool { return strings.Contains(complaint, known) }) {
					t.Errorf("promtool: %s", line)
				}
			}
		})
	}
}

// TestPromtoolCheckMetrics checks the golden files and a live scrape of each preset with
// promtool check metrics. testdata/promtool-complaints.txt has the accepted complaints, about names and
// labels of dcgm-exporter.
func TestPromtoolCheckMetrics(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	var bodies []string
	for preset, last := range map[string][]string{ // families that appear after the first sample or after a command
		"lean":    {"DCGM_FI_PROF_GR_ENGINE_ACTIVE"},
		"default": {"DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gpu_health_status", "gpu_profiling_state", "gpu_fabric_state_info", "gpu_fabric_health_info"},
		"full":    {"DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gpu_health_system_status", "gpu_topology_info", "gpu_profiling_state", "gpu_fabric_state_info", "gpu_fabric_health_info"},
	} {
		n := startNode(t, "dgx-h100", append(fast, "--families="+preset)...)
		n.command(t, "xid 94 gpu 1")
		n.command(t, "recovery gpu 2 reboot")
		n.command(t, "fabric gpu 2 failure -11")
		n.command(t, "link gpu 2 port 3 down")
		n.eventually(t, "all families exist", func() bool {
			body := n.scrape(t)
			missing := func(family string) bool { return !strings.Contains(body, family+"{") }
			return !slices.ContainsFunc(append(last, "gpu_xid_code_errors_total", "gpu_recovery_action_info"), missing)
		})
		bodies = append(bodies, n.scrape(t))
	}
	for _, golden := range []string{"families.prom", "families-old-names.prom"} {
		b, err := os.ReadFile(filepath.Join("../../collector/metrics/testdata", golden))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(b))
	}
	var complaints []string
	for _, body := range bodies {
		cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(body)
		out, _ := cmd.CombinedOutput() // complaints set the exit status
		for line := range strings.Lines(string(out)) {
			complaints = append(complaints, strings.TrimSpace(line))
		}
	}
	slices.Sort(complaints)
	got := strings.Join(slices.Compact(complaints), "\n") + "\n"
	goldentest.File(t, "testdata/promtool-complaints.txt", got, "golden")
}

// TestAttributionQueries runs the unit tests of the queries in podmapper/README.md and
// checks that every query has one.
func TestAttributionQueries(t *testing.T) {
	t.Parallel()
	const file = "testdata/attribution.test.yml"
	if out, err := exec.CommandContext(t.Context(), tool(t, "promtool"), "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
	rules, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../podmapper/README.md")
	if err != nil {
		t.Fatal(err)
	}
	words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	blocks := strings.Split(string(page), "```promql\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("the page has no query")
	}
	for _, block := range blocks {
		query, _, _ := strings.Cut(block, "```")
		if !strings.Contains(words(string(rules)), words(query)) {
			t.Errorf("no test in %s of the query\n%s", file, query)
		}
	}
}
