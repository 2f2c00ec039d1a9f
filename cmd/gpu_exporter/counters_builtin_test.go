// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/etc"
)

// promtool's complaints about names of DCGM's and labels of dcgm-exporter's, which
// must stay. Others are about something of ours.
var compatibilityComplaints = []string{
	`counter metrics should have "_total" suffix`,
	"label names should be written in 'snake_case' not 'camelCase'",
	`metric name should not include type 'counter'`,
	"metric names should not contain abbreviated units", // DCGM_FI_DEV_CLOCKS_EVENT_REASON_*_NS
}

// Every counters file that is shipped is built in and passes promtool but for what is DCGM's.
func TestBuiltInCounters(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	shipped, err := filepath.Glob("../../etc/*-counters.csv")
	if err != nil || len(shipped) != len(etc.CountersNames()) {
		t.Fatalf("%v are shipped, %v are built in: %v", shipped, etc.CountersNames(), err)
	}
	for name, want := range map[string]struct {
		families int // of DCGM_*, at least; there is no XID
		series   map[string]int
	}{
		"default":    {24, map[string]int{"DCGM_FI_DEV_GPU_UTIL": 8, "DCGM_FI_DEV_SM_CLOCK": 8}},
		"dcgm-4.9":   {25, map[string]int{"DCGM_FI_DEV_GPU_UTIL_RATIO": 8, "DCGM_FI_DEV_FB_CAPACITY_BYTES": 8, "DCGM_FI_PROF_DRAM_UTIL_RATIO": 8}},
		"everything": {300, map[string]int{"DCGM_FI_DEV_GPU_UTIL": 8, "DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT": 4, "DCGM_FI_DEV_NVLINK_GET_STATE": 144}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			once := exec.CommandContext(t.Context(), built(t), "once", "--simulate=dgx-h100", "--collectors="+"builtin:"+name)
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
			output, _ := check.CombinedOutput() // its status reports complaints
			for line := range strings.Lines(string(output)) {
				about, complaint, _ := strings.Cut(strings.TrimSpace(line), " ")
				theirs := strings.HasPrefix(about, "DCGM_") || strings.Contains(complaint, "camelCase")
				if !theirs || !slices.ContainsFunc(compatibilityComplaints, func(known string) bool { return strings.Contains(complaint, known) }) {
					t.Errorf("promtool: %s", line)
				}
			}
		})
	}
}
