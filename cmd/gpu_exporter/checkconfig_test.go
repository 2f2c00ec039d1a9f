// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// checked returns the output of check-config, and the printed maximum number of series by
// subject.
func checked(t *testing.T, args ...string) (output string, most map[string]int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(append([]string{"check-config"}, args...), nil, &stdout, &stderr, nil); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	most = map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^ +(\d+) +(\d+) +(\d+) +(\S.*)$`).FindAllStringSubmatch(stdout.String(), -1) {
		var counters, groups, total int
		if _, err := fmt.Sscan(strings.Join(row[1:4], " "), &counters, &groups, &total); err != nil || counters+groups != total {
			t.Errorf("row %q, error %v", row[0], err)
		}
		most[row[4]] = total
	}
	return stdout.String(), most
}

// TestCheckConfigListsFamilies compares what check-config prints with a page: it names
// every family, and the numbers of series are upper bounds.
func TestCheckConfigListsFamilies(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--simulate=h100x8", "--families=lean"}, {"--simulate=h100x8-mig"}, {"--simulate=h100x8-mig", "--families=full"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			page, log, err := once(t, append([]string{"--all"}, args...)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
			output, most := checked(t, args...)
			series := map[string]map[string]int{"GPU": {}, "MIG instance": {}}
			for name, family := range parsed(t, page) {
				device := strings.HasPrefix(name, "DCGM_") || strings.HasPrefix(name, "gpu_") && !strings.HasPrefix(name, "gpu_exporter_")
				if (device || strings.HasPrefix(name, "gpu_exporter_")) && name != "gpu_exporter_build_info" && !strings.Contains(output, " "+name+" ") {
					t.Errorf("%s is not listed", name)
				}
				for _, m := range family.Metric {
					if subject, id := deviceOf(m); device && subject != "" && most["NVLink"]+most["pair of GPUs"] == 0 {
						series[subject][id]++
					}
				}
			}
			for subject, counts := range series {
				for id, count := range counts {
					if count > most[subject] {
						t.Errorf("%s %s has %d series, check-config prints at most %d", subject, id, count, most[subject])
					}
				}
			}
		})
	}
}

// deviceOf returns the kind and the identity of the device that a series belongs to.
func deviceOf(m *dto.Metric) (subject, id string) {
	labels := map[string]string{}
	for _, l := range m.Label {
		labels[l.GetName()] = l.GetValue()
	}
	switch {
	case labels["UUID"] == "":
		return "", ""
	case labels["GPU_I_ID"] != "":
		return "MIG instance", labels["UUID"] + "/" + labels["GPU_I_ID"]
	}
	return "GPU", labels["UUID"]
}

// TestCheckConfigGroups: groups that are not selected are named, and not counted.
func TestCheckConfigGroups(t *testing.T) {
	t.Parallel()
	lean, few := checked(t, "--families=lean", "--config.file="+writeFile(t, t.TempDir()+"/c.yaml", "counters: {file: []}\nfields: [DCGM_EXP_XID_ERRORS_TOTAL]\n"))
	if few["GPU"] == 0 || few["GPU"] > 8 || few["NVSwitch"] != 0 {
		t.Errorf("lean: %v", few)
	}
	if !strings.Contains(lean, "\nIn addition, by value: DCGM_EXP_XID_ERRORS_TOTAL, ") {
		t.Errorf("the computed counter is missing:\n%s", lean)
	}
	if _, rest, _ := strings.Cut(lean, "\nNot selected: usage ("); !strings.Contains(rest, "engines (") || strings.Contains(lean, "gpu_engine_active_seconds_total") {
		t.Errorf("the groups that are not selected are missing:\n%s", lean)
	}
	full, many := checked(t, "--families=full")
	if strings.Contains(full, "Not selected") || many["pair of GPUs"] == 0 || many["GPU"] < few["GPU"]+60 {
		t.Errorf("full: %v\n%s", many, full)
	}
	_, families, _ := strings.Cut(full, "Families of")
	for line := range strings.Lines(families) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
