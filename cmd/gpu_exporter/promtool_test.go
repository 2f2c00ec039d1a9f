// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// promtool check metrics passes on the goldens and on a live scrape, but for what
// is listed in testdata/promtool-complaints.txt: names and labels that are
// dcgm-exporter's and must stay.
func TestPromtoolCheckMetrics(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	n := startNode(t, "h100x8", fast...)
	n.eventually(t, "all families are there", func() bool { // some are read beside the samples
		body := n.scrape(t)
		return strings.Contains(body, "gpu_health_status{") && strings.Contains(body, "gpu_topology_info{") &&
			strings.Contains(body, "DCGM_FI_PROF_GR_ENGINE_ACTIVE{") && strings.Contains(body, "gpu_profiling_state{")
	})
	bodies := []string{n.scrape(t)}
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
		out, _ := cmd.CombinedOutput() // its status says whether there are complaints
		for line := range strings.Lines(string(out)) {
			complaints = append(complaints, strings.TrimSpace(line))
		}
	}
	slices.Sort(complaints)
	got := strings.Join(slices.Compact(complaints), "\n") + "\n"
	const file = "testdata/promtool-complaints.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("promtool says:\n%s\nexpected:\n%s", got, want)
	}
}

// The queries that podmapper/README.md shows give the right answers, and all of
// them are tried.
func TestAttributionQueries(t *testing.T) {
	t.Parallel()
	const file = "testdata/attribution.test.yml"
	if out, err := exec.CommandContext(t.Context(), tool(t, "promtool"), "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
	tried, err := os.ReadFile(file)
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
		if !strings.Contains(words(string(tried)), words(query)) {
			t.Errorf("not tried in %s:\n%s", file, query)
		}
	}
}
