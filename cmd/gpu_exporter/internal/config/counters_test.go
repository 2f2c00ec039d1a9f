// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/xid"
	"gpu_exporter/etc"
)

// Every counters file that we ship is built in, and is read and collected in full.
func TestBuiltInCounters(t *testing.T) {
	shipped, err := filepath.Glob("../../../../etc/*-counters.csv")
	if err != nil || len(shipped) != len(etc.CountersNames()) {
		t.Fatalf("%v are shipped, %v are built in: %v", shipped, etc.CountersNames(), err)
	}
	for _, name := range builtInCounters() {
		line, err := parse(t, []string{"--collectors=" + name}, nil)
		if err != nil || len(line.Warnings) > 0 || len(line.Config.Counters) < 20 || len(line.Config.Files) > 0 {
			t.Errorf("%s: %d counters, warnings %q, files %q, error %v", name, len(line.Config.Counters), line.Warnings, line.Config.Files, err)
		}
	}
	const want = "builtin:all: unknown built-in counters file: use builtin:default, builtin:dcgm-4.9, builtin:1.x-compatibility or builtin:everything, or the path of a file"
	if _, err := parse(t, []string{"-f", "builtin:all"}, nil); err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

// The counters files of dcgm-exporter's image are built in. Other missing files remain
// errors.
func TestCountersOfTheImage(t *testing.T) {
	const dir = "/etc/dcgm-exporter/"
	if _, err := os.Stat(dir); err == nil {
		t.Skipf("this machine has %s", dir)
	}
	for file, set := range map[string]struct {
		name     string
		counters int
	}{
		"default-counters.csv":          {"builtin:default", 26},
		"dcp-metrics-included.csv":      {"builtin:default", 26},
		"1.x-compatibility-metrics.csv": {"builtin:1.x-compatibility", 20},
	} {
		want := fmt.Sprintf("the counters file %s%s of dcgm-exporter's image does not exist: %s is used, which has the same counters", dir, file, set.name)
		included := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "counters: {file: "+dir+file+"}\n")
		for _, args := range [][]string{{"-f", dir + file}, {"--config.file=" + included}} {
			line, err := parse(t, args, nil)
			if err != nil || !slices.Equal(line.Warnings, []string{want}) || line.Config.CountersName != set.name || len(line.Config.Counters) != set.counters {
				t.Errorf("%v: %d counters of %s, warnings %q, error %v", args, len(line.Config.Counters), line.Config.CountersName, line.Warnings, err)
			}
			if !slices.Contains(line.Config.Files, dir+file) {
				t.Errorf("%v: %q would not be reloaded", args, line.Config.Files)
			}
		}
	}
	for _, path := range []string{dir + "other.csv", "/etc/default-counters.csv", "default-counters.csv"} {
		if _, err := parse(t, []string{"-f", path}, nil); err == nil || !strings.Contains(err.Error(), path+": no such file or directory") ||
			!strings.Contains(err.Error(), "--counters.file, or omit it to use the built-in") {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

// The names of built-in counters files are not paths relative to the configuration file.
func TestIncludedFiles(t *testing.T) {
	dir := t.TempDir()
	path, more := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "more.csv")
	writeFile(t, path, "counters: {file: [builtin:dcgm-4.9, more.csv]}\n")
	writeFile(t, more, "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	c, err := parsed(t, "--config.file="+path, "")
	if err != nil || c.CountersName != "builtin:dcgm-4.9, "+more {
		t.Errorf("counters of %s, error %v", c.CountersName, err)
	}
	if !slices.Equal(c.Files, []string{path, more}) {
		t.Errorf("files %q", c.Files)
	}
}

func TestFamilyNamesMustDiffer(t *testing.T) {
	power, _ := field.ByID(155)
	l := loader{counters: []counterEntry{
		{Counter: field.Counter{Field: power, Name: "board_power", Type: field.MetricGauge, Statistics: true}, file: "a", line: 1},
		{Counter: field.Counter{Field: power, Name: "board_power_mean", Type: field.MetricGauge}, file: "a", line: 2},
	}}
	l.checkFamilyNames()
	const want = "a:2: board_power_mean and board_power (a:1) both export the metric board_power_mean"
	if len(l.problems) != 1 || !strings.HasPrefix(l.problems[0].String(), want) {
		t.Errorf("got %v", l.problems)
	}
}

// The histograms of --sample.histograms have DCGM's own values: a counter in another
// unit has none.
func TestHistogramsInOtherUnits(t *testing.T) {
	c, err := parsed(t, "--sample.histograms -f builtin:dcgm-4.9", "")
	if err != nil {
		t.Fatal(err)
	}
	with := 0
	for _, c := range c.Counters {
		if c.Histogram {
			with++
		}
		if c.Histogram && c.Scale != 0 {
			t.Errorf("%s has a histogram", c.Name)
		}
	}
	if with == 0 {
		t.Error("no counter has a histogram")
	}
}

// A counter of health checks without health checks has no series.
func TestCountersWithoutSeries(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "counters: {file: []}\nfields: [DCGM_EXP_GPU_HEALTH_STATUS]\nhealth: {enabled: false}\n")
	_, warnings, err := loaded(t, path)
	if err != nil || warnings != "DCGM_EXP_GPU_HEALTH_STATUS has no series: it needs the health checks, which --health.enabled=false disables" {
		t.Errorf("warnings %q, error %v", warnings, err)
	}
}

// A catalogue file changes the XIDs that it has, and its mistakes are reported.
func TestXIDCatalogue(t *testing.T) {
	const header = "code,name,severity,action,investigation,meaning\n"
	path := writeFile(t, filepath.Join(t.TempDir(), "xids.csv"), "# ours\n"+header+"109,CTXSW_TIMEOUT,application,,,The application's business\n")
	c, err := parsed(t, "--xid.catalogue="+path, "")
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := c.XIDs.Lookup(109); x.Severity != xid.Application || x.Meaning != "The application's business" {
		t.Errorf("109 is %+v", x)
	}
	if x, ok := c.XIDs.Lookup(79); !ok || x.Severity != xid.Critical {
		t.Errorf("79 is %+v", x)
	}
	writeFile(t, path, header+"109,X,urgent,,,Y\n")
	if _, err := parsed(t, "--xid.catalogue="+path, ""); err == nil || !strings.Contains(err.Error(), path+`:2: code 109 has severity "urgent"`) {
		t.Errorf("error %v", err)
	}
	if _, err := parsed(t, "--xid.catalogue="+path+"x", ""); err == nil || !strings.HasPrefix(err.Error(), "--xid.catalogue: reading the XID catalogue: open ") {
		t.Errorf("error %v", err)
	}
}
