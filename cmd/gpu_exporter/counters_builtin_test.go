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

// Every counters file that is shipped is built in, read without a warning, collected
// in full, and passes promtool but for what is DCGM's.
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
			cfg := config{Collectors: builtInPrefix + name}
			counters, _, err := loadCounters(cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range counters.Warnings {
				t.Error(w)
			}
			for _, w := range uncollected(counters) {
				t.Error(w)
			}
			once := exec.CommandContext(t.Context(), built(t), "once", "--simulate=dgx-h100", "--collectors="+builtInPrefix+name)
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
			said, _ := check.CombinedOutput() // its status says whether there are complaints
			for line := range strings.Lines(string(said)) {
				about, complaint, _ := strings.Cut(strings.TrimSpace(line), " ")
				theirs := strings.HasPrefix(about, "DCGM_") || strings.Contains(complaint, "camelCase")
				if !theirs || !slices.ContainsFunc(compatibilityComplaints, func(known string) bool { return strings.Contains(complaint, known) }) {
					t.Errorf("promtool: %s", line)
				}
			}
		})
	}
}

// A name that is none is an error that says which there are; names are no paths, and
// are not looked for beside the configuration file.
func TestBuiltInCountersByName(t *testing.T) {
	t.Parallel()
	if _, err := readCounters("builtin:all"); err == nil || err.Error() !=
		"builtin:all: there is no built-in counters file of that name: use builtin:default, builtin:dcgm-4.9 or builtin:everything, or the path of a file" {
		t.Errorf("error %v", err)
	}
	file, err := parseConfigFile("/etc/x.yaml", []byte("include: [builtin:dcgm-4.9, more.csv]\n"), options())
	if err != nil || !slices.Equal(file.include, []includedFile{{"builtin:dcgm-4.9", 1}, {"/etc/more.csv", 1}}) {
		t.Errorf("include %v: %v", file, err)
	}
	if files := configFiles(config{Include: []string{"builtin:dcgm-4.9", "/etc/more.csv"}, ConfigFile: "/etc/x.yaml"}); !slices.Equal(files, []string{"/etc/more.csv", "/etc/x.yaml"}) {
		t.Errorf("watched %v", files)
	}
}
