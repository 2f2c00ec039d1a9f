// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const runbookDir = "../runbooks"

// runbookSections are the headings of each page, in this order.
var runbookSections = []string{"Checks", "Steps", "When to drain the node", "When to contact the vendor", "Known false alarms", "Sources"}

// maxRunbookLines keeps a page useful to a person who was woken up.
const maxRunbookLines = 65

// TestRunbooks: each alert has a page and each page an alert, with all sections, and the severity
// of the alert.
func TestRunbooks(t *testing.T) {
	pages, err := filepath.Glob(runbookDir + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		if !slices.ContainsFunc(allAlerts(), func(a *Alert) bool { return a.Name == name }) {
			t.Errorf("%s has no alert", page)
		}
	}
	for _, a := range allAlerts() {
		text := read(t, filepath.Join(runbookDir, a.Name+".md"))
		if !strings.HasPrefix(text, "# "+a.Name+"\n\nSeverity: "+string(a.Severity)+". ") {
			t.Errorf("%s: the page does not begin with the name and the severity %s", a, a.Severity)
		}
		var sections []string
		for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(text, -1) {
			sections = append(sections, m[1])
		}
		if !slices.Equal(sections, runbookSections) {
			t.Errorf("%s: the page has the sections %q", a, sections)
		}
		if _, sources, _ := strings.Cut(text, "## Sources\n"); !strings.Contains(sources, "](") {
			t.Errorf("%s: the page has no source", a)
		}
		if n := strings.Count(text, "\n"); n > maxRunbookLines {
			t.Errorf("%s: the page has %d lines, the limit is %d", a, n, maxRunbookLines)
		}
	}
}

// TestRunbookBlocks: queries parse and use existing metrics and labels, at least one per page.
// Shell commands parse, and use subcommands and flags of the exporter that exist.
func TestRunbookBlocks(t *testing.T) {
	help := exporterHelp(t)
	block := regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	exporter := regexp.MustCompile(`gpu_exporter ([a-z-]+)([^\n;|&]*)`)
	for _, a := range allAlerts() {
		queries := 0
		text := read(t, filepath.Join(runbookDir, a.Name+".md"))
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			switch b[1] {
			case "promql":
				queries++
				checkNames(t, a.Name, b[2])
			case "sh":
				if out, err := exec.CommandContext(t.Context(), "bash", "-n", "-c", b[2]).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s\n%s", a, err, out, b[2])
				}
			default:
				t.Errorf("%s: unknown kind of block %q", a, b[1])
			}
		}
		if queries == 0 {
			t.Errorf("%s: the page has no query", a)
		}
		commands := regexp.MustCompile("`"+`gpu_exporter [^`+"`"+`]+`+"`").FindAllString(text, -1)
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			if b[1] == "sh" {
				commands = append(commands, b[2])
			}
		}
		for _, c := range commands {
			for _, m := range exporter.FindAllStringSubmatch(strings.Trim(c, "`"), -1) {
				if strings.HasPrefix(m[1], "-") || strings.Contains(c, "systemctl") || strings.Contains(c, "journalctl") {
					continue
				}
				if !strings.Contains(help, "\n  "+m[1]) {
					t.Errorf("%s: gpu_exporter has no command %s", a, m[1])
				}
			}
		}
		// Flags with a dot are those of the exporter; the rest belong to nvidia-smi and others.
		for _, flag := range regexp.MustCompile(`--[a-z]+\.[a-z.-]+[a-z]`).FindAllString(text, -1) {
			if !strings.Contains(help, flag) {
				t.Errorf("%s: gpu_exporter has no flag %s", a, flag)
			}
		}
	}
}

// displays are the values of -d of nvidia-smi 610 (https://docs.nvidia.com/deploy/nvidia-smi/).
var displays = strings.Fields(`MEMORY UTILIZATION ECC TEMPERATURE POWER CLOCK COMPUTE PIDS PERFORMANCE SUPPORTED_CLOCKS
	PAGE_RETIREMENT ACCOUNTING ENCODER_STATS SUPPORTED_GPU_TARGET_TEMP VOLTAGE FBC_STATS ROW_REMAPPER
	GSP_FIRMWARE_VERSION POWER_SMOOTHING POWER_PROFILES`)

// TestDisplays: nvidia-smi accepts the -d of pages and remedies.
func TestDisplays(t *testing.T) {
	found := 0
	for _, a := range allAlerts() {
		for _, m := range regexp.MustCompile(`nvidia-smi [^;|\n]*-d ([A-Z_,]+)`).FindAllStringSubmatch(read(t, filepath.Join(runbookDir, a.Name+".md"))+a.Action, -1) {
			for _, display := range strings.Split(m[1], ",") {
				if found++; !slices.Contains(displays, display) {
					t.Errorf("%s: nvidia-smi has no -d %s", a, display)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no -d found")
	}
}

// exporterHelp returns the help of the exporter.
func exporterHelp(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../build/gpu_exporter")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	out, err := exec.CommandContext(t.Context(), path, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
