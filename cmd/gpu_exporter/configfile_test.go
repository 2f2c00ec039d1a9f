// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector"
)

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parsed is what flags and variables come to, the latter as in the table of config_test.go.
func parsed(t *testing.T, args, env string) (config, error) {
	t.Helper()
	var stdout, stderr strings.Builder
	line, err := parseCommandLine(strings.Fields(args), strings.Fields(env), &stdout, &stderr)
	return line.config, err
}

// A flag wins over a variable, that over the file, the file over the default; also
// where two options mean the same.
func TestPrecedence(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), `
collect-interval: 10s
devices: "g:1"
kubernetes: true
web.listen-address: [":1"]
web.config.file: file.yml
log.level: warn
log.format: json
nvidia-resource-names: [example.com/gpu]
`)
	for _, tc := range []struct {
		args, env string
		got       func(config) any
		want      any
	}{
		{"", "", func(c config) any { return c.Interval }, 10 * time.Second},
		{"", "DCGM_EXPORTER_INTERVAL=20000", func(c config) any { return c.Interval }, 20 * time.Second},
		{"-c 30s", "DCGM_EXPORTER_INTERVAL=20000", func(c config) any { return c.Interval }, 30 * time.Second},
		{"-c 30s", "", func(c config) any { return c.MaxAge }, 90 * time.Second},
		{"", "", func(c config) any { return c.Devices }, "g:1"},
		{"", "", func(c config) any { return c.Kubernetes }, true},
		{"--no-kubernetes", "", func(c config) any { return c.Kubernetes }, false},
		{"", "DCGM_EXPORTER_KUBERNETES=false", func(c config) any { return c.Kubernetes }, false},
		{"", "DCGM_EXPORTER_KUBERNETES=", func(c config) any { return c.Kubernetes }, true},
		{"", "", func(c config) any { return c.ListenAddresses }, []string{":1"}},
		{"", "DCGM_EXPORTER_LISTEN=:2", func(c config) any { return c.ListenAddresses }, []string{":2"}},
		{"-a :3", "DCGM_EXPORTER_LISTEN=:2", func(c config) any { return c.ListenAddresses }, []string{":3"}},
		{"", "DCGM_EXPORTER_WEB_CONFIG_FILE=env.yml", func(c config) any { return c.WebConfigFile }, "env.yml"},
		{"", "", func(c config) any { return c.WebConfigFile }, "file.yml"},
		{"", "", func(c config) any { return c.LogLevel }, "warn"},
		{"", "DCGM_EXPORTER_DEBUG=true", func(c config) any { return c.LogLevel }, "debug"},
		{"", "DCGM_EXPORTER_LOG_FORMAT=text", func(c config) any { return c.LogFormat }, "logfmt"},
		{"--log.format=logfmt", "", func(c config) any { return c.LogFormat }, "logfmt"},
		{"", "", func(c config) any { return c.ResourceNames }, []string{"example.com/gpu"}},
	} {
		for _, by := range []string{"--config.file=" + path + " ", ""} {
			env := tc.env
			if by == "" {
				env += " GPU_EXPORTER_CONFIG_FILE=" + path
			}
			c, err := parsed(t, by+tc.args, env)
			if err != nil {
				t.Errorf("%q %q: %v", tc.args, tc.env, err)
			} else if got := tc.got(c); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%q %q: %v, want %v", tc.args, tc.env, got, tc.want)
			}
		}
	}
}

// Every mistake in a file is told at once, with its line and what to do.
func TestConfigFileMistakes(t *testing.T) {
	const nothing = "c.yaml: there is nothing in it but comments: if all is to be as without the file, write {}"
	for name, tc := range map[string]struct{ text, want string }{
		"several": {`collect_interval: 5s
kubernetes: perhaps
fields:
  - field: DCGM_FI_DEV_GPU_TMEP
  - field: 150
    name: gpu_temperature
  - field: 155
    resolution: 5ms
  - feild: 155
devices: g
devices: i
models:
  - without: [DCGM_FI_DEV_GPU_TEMP]
web:
  address: x
`, `c.yaml:1: unknown key "collect_interval": did you mean collect-interval?
c.yaml:2: kubernetes is a switch: write true or false
c.yaml:4: unknown field DCGM_FI_DEV_GPU_TMEP: did you mean DCGM_FI_DEV_GPU_TEMP?
c.yaml:5: "gpu_temperature" begins with gpu_, which is for the exporter's own metrics: choose another name
c.yaml:8: resolution: 5ms is too short: DCGM cannot keep up below 100ms
c.yaml:9: unknown key "feild": did you mean field?
c.yaml:11: devices stands on line 10 already: remove one of them
c.yaml:13: an entry of models needs the key match: a regular expression of the GPU's model name
c.yaml:14: unknown key "web" in the file: the keys are the long names of the flags (see --help), include, fields and models`},
		"a value of a flag": {"collect-interval: soon\n", `c.yaml:1: collect-interval: "soon" is neither a number of milliseconds nor a duration such as 5s`},
		"an interval that is none, and an age that is none": {"collect-interval: soon\nsample.max-age: -3s\n", `c.yaml:1: collect-interval: "soon" is neither a number of milliseconds nor a duration such as 5s
c.yaml:2: sample.max-age: -3s is no age that a sample can have: write a duration such as 30s`},
		"no mapping":                     {"- a\n", "c.yaml:1: the file must be a mapping: lines of key: value"},
		"no YAML":                        {"a: b: c\n", "c.yaml:1: mapping values are not allowed in this context"},
		"no YAML further down":           {"x: 1\n\n  a: b\n", "c.yaml:3: mapping values are not allowed in this context"},
		"no YAML in the second document": {"devices: f\n...\ny: }\n", "c.yaml:2: did not find expected <document start>"},
		"two documents":                  {"devices: f\n---\ndevices: g\n", "c.yaml:2: there is a second document after ---: write all into one"},
		"kind":                           {"fields: [{field: 150, kinds: [gpus]}]\n", `c.yaml:1: unknown kind "gpus": use gpu, nvswitch, gpu_instance, compute_instance, link, cpu, cpu_core or connectx`},
		"kinds that have no such field": {`fields:
  - {field: DCGM_FI_DEV_GPU_TEMP, kinds: [nvswitch]}
  - field: DCGM_FI_PROF_SM_ACTIVE
    name: active
    kinds:
      - compute_instance
      - link
      - cpu
  - {field: 780, kinds: [link, nvswitch]}
  - {field: DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES, kinds: link}
models:
  - match: T4
    fields: [{field: DCGM_FI_DEV_GPU_TEMP, kinds: connectx}]
`, `c.yaml:2: kinds: DCGM_FI_DEV_GPU_TEMP has no values on nvswitch: use gpu, gpu_instance or compute_instance
c.yaml:7: kinds: active has no values on link: use gpu, gpu_instance or compute_instance
c.yaml:8: kinds: active has no values on cpu: use gpu, gpu_instance or compute_instance
c.yaml:9: kinds: DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_TX has no values on nvswitch: use link
c.yaml:13: kinds: DCGM_FI_DEV_GPU_TEMP has no values on connectx: use gpu, gpu_instance or compute_instance`},
		"an empty entry":         {"models: [{match: A100}]\n", "c.yaml:1: an entry of models says nothing of the GPUs that match: add without or fields, or remove it"},
		"statistics of text":     {"fields: [{field: 150, name: t, type: label, statistics: true}]\n", "c.yaml:1: t is no series of numbers: leave resolution, statistics and histogram out"},
		"resolution for nothing": {"fields:\n  - {field: 155, resolution: 200ms, statistics: false}\n", "c.yaml:2: resolution: without statistics and histogram nothing tells of what lies between samples: leave it out, or one of them in"},
		"statistics of what is no quantity": {`fields:
  - {field: DCGM_FI_DEV_XID_ERRORS, statistics: true}
  - {field: DCGM_FI_DEV_PCIE_REPLAY_COUNTER, histogram: true}
  - {field: DCGM_FI_DEV_PCIE_REPLAY_COUNTER, type: gauge, name: replays, statistics: true}
  - field: DCGM_FI_PROF_PCIE_TX_BYTES
    type: counter
    statistics: true
  - {field: DCGM_FI_PROF_PCIE_RX_BYTES, statistics: true}
`, `c.yaml:2: DCGM_FI_DEV_XID_ERRORS is a code or a bit mask, and no quantity: leave resolution, statistics and histogram out
c.yaml:3: DCGM_FI_DEV_PCIE_REPLAY_COUNTER only grows, so that its newest value says all: leave resolution, statistics and histogram out
c.yaml:4: replays only grows, so that its newest value says all: leave resolution, statistics and histogram out
c.yaml:5: DCGM_FI_PROF_PCIE_TX_BYTES is a counter here, and statistics and histogram are of gauges: write type: gauge, or leave them out`},
		"nothing":       {"", nothing},
		"comments only": {"\n# collect-interval: 1s\n", nothing},
		"cut off":       {"---\n", nothing},
		"null":          {"~\n", nothing},
		"included files, and a mistake beside them": {`collect-intervall: 20s
sample.max-age: 1s
devices: x
include: [none.csv, bad.csv,
  "builtin:all"]
fields:
  - {field: 150, resolution: 10s, statistics: true}
`, `c.yaml:1: unknown key "collect-intervall": did you mean collect-interval?
c.yaml:3: devices: device selector "x": "x" at position 1 is neither g nor i; write f, g, i, g:<ids>, i:<ids> or g:<ids>+i:<ids>, with ids such as 0,2-4
c.yaml:4: include: there is no counters file none.csv: check the path (a relative one begins where this file lies)
c.yaml:4: include: bad.csv:2: unknown field DCGM_FI_DEV_GPU_TMP: did you mean DCGM_FI_DEV_GPU_TEMP?
c.yaml:4: include: bad.csv:3: DCGM_FI_DEV_POWER_USAGE has the unknown type gouge: write gauge, counter or label
c.yaml:5: include: builtin:all: there is no built-in counters file of that name: use builtin:default, builtin:dcgm-4.9 or builtin:everything, or the path of a file`},
		"counters files by two keys":            {"include: [builtin:default]\ncollectors: good.csv\n", "c.yaml:2: include and collectors say the same, which counters files to read: remove one of them"},
		"counters files by two keys, one empty": {"collectors: good.csv\n\ninclude: []\n", "c.yaml:3: collectors and include say the same, which counters files to read: remove one of them"},
		"resolution": {`collect-interval: 1s
fields:
  - field: 155
    statistics: true
    resolution: 1500ms
  - {field: 150, statistics: true, resolution: 1s}
models:
  - match: T4
    fields: [{field: 140, histogram: true, resolution: 1m}]
`, `c.yaml:5: resolution: 1.5s is longer than the 1s between samples (c.yaml:1: collect-interval), with each of which the field is looked at: make it shorter, or leave it out
c.yaml:9: resolution: 1m0s is longer than the 1s between samples (c.yaml:1: collect-interval), with each of which the field is looked at: make it shorter, or leave it out`},
		"what is computed": {`fields:
  - DCGM_EXP_XID_ERRORS_COUNT
  - {field: DCGM_EXP_XID_ERRORS_TOTAL, type: label}
  - {field: DCGM_EXP_P2P_STATUS, kinds: gpu}
  - DCGM_EXP_CLOCK_EVENT_COUNT
models:
  - match: T4
    without: [DCGM_EXP_P2P_STATUS]
    fields:
      - DCGM_EXP_P2P_STATUS
`, `c.yaml:3: DCGM_EXP_XID_ERRORS_TOTAL cannot be a label, it has many values at once: write counter
c.yaml:4: DCGM_EXP_P2P_STATUS is computed by the exporter, and not read: leave kinds, resolution, statistics and histogram out
c.yaml:5: unknown field DCGM_EXP_CLOCK_EVENT_COUNT: did you mean DCGM_EXP_CLOCK_EVENTS_COUNT?
c.yaml:8: DCGM_EXP_P2P_STATUS is computed by the exporter for all GPUs: models can neither add nor remove it, fields and counters files can add it
c.yaml:10: DCGM_EXP_P2P_STATUS is computed by the exporter for all GPUs: models can neither add nor remove it, fields and counters files can add it`},
		"aliases": {`include: &a [builtin:default]
collectors: [*a]
fields: *a
models:
  - {match: T4, fields: [*a, {<<: *a, field: 150}, {field: 150, resolution: *a}]}
  - *a
*a : x
`, `c.yaml:2: include and collectors say the same, which counters files to read: remove one of them
c.yaml:3: *a: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes
c.yaml:5: *a: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes
c.yaml:5: <<: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes
c.yaml:5: *a: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes
c.yaml:6: *a: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes
c.yaml:7: *a: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes`},
		"an alias of nothing":       {"collect-interval: 5s\ndevices: *b\n", "c.yaml:2: *b: aliases are not supported: write out what it stands for, or, if it is a text, put it in quotes"},
		"an asterisk":               {"models:\n  - match: *A100.*\n", "c.yaml:2: a text that begins with * or & must be put in quotes"},
		"a tab":                     {"fields:\n\t- DCGM_FI_DEV_GPU_TEMP\n", "c.yaml:2: the line is indented with a tab, which YAML does not allow: use spaces"},
		"a tab on the first line":   {"\tdevices: f\n", "c.yaml:1: the line is indented with a tab, which YAML does not allow: use spaces"},
		"a tab among more":          {"fields:\n  - field: 150\n\tname: x\n", "c.yaml:3: the line is indented with a tab, which YAML does not allow: use spaces"},
		"a tab that is none of it":  {"devices: f\t# all\nx: }\n", "c.yaml:1: did not find expected node content"},
		"no duration for one field": {"fields:\n  - {field: 150, resolution: ''}\n  - {field: 150, resolution: 10000000h}\n", "c.yaml:2: resolution: \"\" is not a duration: write one such as 100ms\nc.yaml:3: resolution: \"10000000h\" is too large: write a duration such as 100ms"},
		"fields that have no metric": {`fields:
  - {field: 60}
  - {field: 60, type: gauge}
  - {field: DCGM_FI_DEV_GPU_TEMP, type: none}
  - {field: DCGM_FI_DRIVER_VERSION, type: gauge}
  - {field: 0}
`, `c.yaml:2: DCGM_FI_SYSTEM_PCI_TOPOLOGY is a binary structure, not one value: it cannot be exported; leave the field out
c.yaml:3: DCGM_FI_SYSTEM_PCI_TOPOLOGY is a binary structure, not one value: it cannot be exported; leave the field out
c.yaml:4: DCGM_FI_DEV_GPU_TEMP has the unknown type none: write gauge, counter or label
c.yaml:5: DCGM_FI_DRIVER_VERSION is a text, and a gauge is a number: write label, to put it on the other series of its entity
c.yaml:6: DCGM_FI_SYSTEM_FIELD_UNKNOWN marks the edge of a range of field ids and has no value: leave the field out`},
		"contradictions": {`log-format: text
log.format: json
log.level: warn
debug: true
address: ":1"
web.listen-address: [":2"]
web-config-file: a
web.config.file: b
`, `c.yaml:2: log.format=json and c.yaml:1: log-format=text contradict each other: give one of them
c.yaml:3: log.level=warn and c.yaml:4: debug contradict each other: give one of them
c.yaml:6: web.listen-address and c.yaml:5: address mean the same and differ (":2" and ":1"): give one of them
c.yaml:8: web.config.file and c.yaml:7: web-config-file mean the same and differ ("b" and "a"): give one of them`},
		"in the order of the lines": {`devices: x
collect-intervall: 5s
web.max-requests: 99999999999999999999
kubernetes: perhaps
sample.resolution: 6s
`, `c.yaml:1: devices: device selector "x": "x" at position 1 is neither g nor i; write f, g, i, g:<ids>, i:<ids> or g:<ids>+i:<ids>, with ids such as 0,2-4
c.yaml:2: unknown key "collect-intervall": did you mean collect-interval?
c.yaml:3: web.max-requests: "99999999999999999999" is too large: write a number such as 40
c.yaml:4: kubernetes is a switch: write true or false`},
		"a resolution of all": {"collect-interval: 1s\nsample.resolution: 2s\n", "c.yaml:2: sample.resolution: 2s is longer than the 1s between samples (c.yaml:1: collect-interval), with each of which the field is looked at: make it shorter, or leave it out"},
		"there and not there": {`models:
  - match: T4
    fields: [155, DCGM_FI_DEV_GPU_TEMP]
    without:
      - DCGM_FI_DEV_FB_USED
      - 150
`, "c.yaml:3: DCGM_FI_DEV_GPU_TEMP is in fields and, on line 6, in without: remove one of them"},
		"twice the same": {"fields: [DCGM_FI_DEV_GPU_TEMP, {field: 150, name: DCGM_FI_DEV_GPU_TEMP}]\n", "c.yaml:1: the metric DCGM_FI_DEV_GPU_TEMP stands on line 1 already: give one of them another name"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeFile(t, filepath.Join(dir, "c.yaml"), tc.text)
			writeFile(t, filepath.Join(dir, "bad.csv"), "DCGM_FI_DEV_GPU_TEMP, gauge, T.\nDCGM_FI_DEV_GPU_TMP, gauge, T.\nDCGM_FI_DEV_POWER_USAGE, gouge, P.\n")
			_, err := parsed(t, "--config.file="+path, "")
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), dir+"/", ""); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
	if _, err := parsed(t, "--config.file=/nonexistent.yaml", ""); err == nil || !strings.Contains(err.Error(), "check the path given with --config.file") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A resolution is compared with the interval that counts in the end.
func TestResolutionAndInterval(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "collect-interval: 1s\nfields: [{field: 155, statistics: true, resolution: 2s}]\n")
	for args, want := range map[string]string{
		"":        "longer than the 1s between samples (" + path + ":1: collect-interval)",
		"-c 1.9s": "longer than the 1.9s between samples (--collect-interval)",
		"-c 2s":   "",
		"-c 10s":  "",
	} {
		_, err := parsed(t, "--config.file="+path+" "+args, "")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// What is said to be as without the file is, and a counters file by flag spares
// those that the file includes.
func TestConfigFileThatSaysNothing(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	c, err := parsed(t, "--config.file="+path, "")
	def, _ := parsed(t, "", "")
	def.ConfigFile, def.Lines = path, map[fieldKey]int{}
	if err != nil || !reflect.DeepEqual(c, def) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, c, def)
	}
	writeFile(t, path, "include: [none.csv]\n")
	if _, err := parsed(t, "-f builtin:default --config.file="+path, ""); err != nil {
		t.Error(err)
	}
}

// Fields stand beside the default counters, or in place of those of the same name.
func TestConfigFileFields(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.csv"), "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	writeFile(t, filepath.Join(dir, "b.csv"), "DCGM_FI_DEV_POWER_USAGE, gauge, P.\nDCGM_FI_DEV_GPU_TEMP, gauge, again\n")
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `
include: [a.csv, b.csv]
fields:
  - DCGM_FI_DEV_FB_USED
  - {field: DCGM_FI_DEV_GPU_TEMP, help: Hot., resolution: 200ms, statistics: true, histogram: true, kinds: gpu}
  - {field: 155, name: my_power_watts, resolution: 100ms}
models:
  - match: .*A100.*
    without: [DCGM_FI_DEV_FB_USED]
    fields: [DCGM_FI_DEV_MEMORY_TEMP]
`)
	c, err := parsed(t, "--config.file="+path, "")
	if err != nil {
		t.Fatal(err)
	}
	counters, rules, err := loadCounters(c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range counters.List {
		names = append(names, m.Name)
	}
	want := "DCGM_FI_DEV_GPU_TEMP DCGM_FI_DEV_POWER_USAGE DCGM_FI_DEV_FB_USED my_power_watts DCGM_FI_DEV_MEMORY_TEMP"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("counters %s, want %s", got, want)
	}
	first := counters.List[0]
	if power := counters.List[3]; !power.Statistics || power.Histogram {
		t.Errorf("a resolution alone asks for %+v, want statistics", power)
	}
	if first.Help != "Hot." || first.Resolution != 200*time.Millisecond || !first.Statistics || !first.Histogram || first.Kinds != collector.Kinds(collector.KindGPU) {
		t.Errorf("counter %+v", first)
	}
	if len(counters.Warnings) != 2 || !strings.Contains(counters.Warnings[0].String(), "DCGM_FI_DEV_GPU_TEMP is in ") ||
		!strings.Contains(counters.Warnings[1].String(), "c.yaml:6: my_power_watts is the same field (155) as DCGM_FI_DEV_POWER_USAGE at ") {
		t.Errorf("warnings %v", counters.Warnings)
	}
	if len(rules) != 2 || rules[0].Only || !rules[1].Only {
		t.Errorf("rules on models %+v", rules)
	}
	// A counters file by flag stands in place of the included ones.
	c, err = parsed(t, "--config.file="+path+" -f "+filepath.Join(dir, "b.csv"), "")
	if err != nil || countersName(c) != filepath.Join(dir, "b.csv")+" and the fields of "+path {
		t.Errorf("%v, %v", countersName(c), err)
	}
}

// What is odd about a line of a counters file is as odd about a field here.
func TestOddFields(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `include: []
fields:
  - {field: DCGM_FI_DEV_GPU_TEMP, type: counter}
  - field: DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION
    type: gauge
    name: energy
  - {field: DCGM_FI_DEV_POWER_USAGE, type: label, name: watts}
  - {field: 150, name: temperature}
  - {field: 1002, kinds: [gpu]}
  - {field: 1002, name: sm_of_instances, kinds: [gpu_instance]}
  - {field: DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL, type: counter}
models:
  - match: T4
    fields: [{field: 140, type: counter}, {field: 140, name: hot}]
`)
	c, err := parsed(t, "--config.file="+path, "")
	if err != nil {
		t.Fatal(err)
	}
	counters, _, err := loadCounters(c)
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	for _, w := range counters.Warnings {
		warnings = append(warnings, strings.ReplaceAll(w.String(), dir+"/", ""))
	}
	const want = `c.yaml:3: DCGM_FI_DEV_GPU_TEMP is by nature a gauge, and the file makes it a counter: functions such as rate() will mislead
c.yaml:4: energy is by nature a counter, and the file makes it a gauge: functions such as rate() will mislead
c.yaml:7: watts is a number that keeps changing: as a label it makes new series each time; write gauge
c.yaml:8: temperature is the same field (150) as DCGM_FI_DEV_GPU_TEMP at c.yaml:3: its values are exported under both names
c.yaml:14: DCGM_FI_DEV_MEMORY_TEMP_CELSIUS is by nature a gauge, and the file makes it a counter: functions such as rate() will mislead
c.yaml:14: hot is the same field (140) as DCGM_FI_DEV_MEMORY_TEMP_CELSIUS at c.yaml:14: its values are exported under both names`
	if got := strings.Join(warnings, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What GPUs of some models have beside the others: a field that all have stays with
// all, and a name means the same everywhere.
func TestModelFields(t *testing.T) {
	const both = "include: []\nfields: [DCGM_FI_DEV_GPU_TEMP, {field: DCGM_FI_DEV_FB_USED, name: used}]\nmodels:\n"
	for name, tc := range map[string]struct{ models, counters, rules, warning, err string }{
		"of one model": {
			models:   "  - {match: T4, fields: [DCGM_FI_DEV_POWER_USAGE]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used DCGM_FI_DEV_POWER_USAGE", rules: "[{155 T4 true}]",
		},
		"of two": {
			models:   "  - {match: T4, fields: [155]}\n  - {match: A100, fields: [155]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used DCGM_FI_DEV_BOARD_POWER_WATTS", rules: "[{155 T4 true} {155 A100 true}]",
		},
		"of all": {
			models:   "  - {match: T4, without: [140], fields: [{field: DCGM_FI_DEV_GPU_TEMP, statistics: true}]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used", rules: "[{140 T4 false}]",
			warning: `c.yaml:4: models: DCGM_FI_DEV_GPU_TEMP, for GPUs that match "T4", is read of all GPUs anyway, as DCGM_FI_DEV_GPU_TEMP, and stays so: remove one of the two`,
		},
		"of all by another name": {
			models:   "  - {match: T4, fields: [DCGM_FI_DEV_FB_USED_BYTES]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used", rules: "[]",
			warning: `c.yaml:4: models: DCGM_FI_DEV_FB_USED_BYTES, for GPUs that match "T4", is read of all GPUs anyway, as used, and stays so: remove one of the two`,
		},
		"of all but some": {
			models:   "  - {match: T4, fields: [DCGM_FI_DEV_GPU_TEMP]}\n  - {match: .*4, without: [150]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used", rules: "[{150 .*4 false}]",
			warning: `c.yaml:4: models: DCGM_FI_DEV_GPU_TEMP, for GPUs that match "T4", is read of all GPUs anyway, as DCGM_FI_DEV_GPU_TEMP, but those that match ".*4", which are without it: this changes nothing, remove it`,
		},
		"the name of another": {
			models: "  - {match: T4, fields: [{field: 155, name: used}]}\n",
			err:    `c.yaml:4: models: used, for GPUs that match "T4", is not what goes by that name at c.yaml:2: give it another name, or the same field, type, help and other settings`,
		},
		"two meanings": {
			models: "  - {match: T4, fields: [{field: 155, name: w}]}\n  - {match: A100, fields: [{field: 155, name: w, help: Other.}]}\n",
			err:    `c.yaml:5: models: w, for GPUs that match "A100", is not what goes by that name at c.yaml:4: give it another name, or the same field, type, help and other settings`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, err := parsed(t, "--config.file="+writeFile(t, filepath.Join(dir, "c.yaml"), both+tc.models), "")
			if err != nil {
				t.Fatal(err)
			}
			counters, rules, err := loadCounters(c)
			if err != nil || tc.err != "" {
				if err == nil || strings.ReplaceAll(err.Error(), dir+"/", "") != tc.err {
					t.Errorf("error %v, want %s", err, tc.err)
				}
				return
			}
			var names, warnings []string
			for _, c := range counters.List {
				names = append(names, c.Name)
			}
			for _, w := range counters.Warnings {
				warnings = append(warnings, strings.ReplaceAll(w.String(), dir+"/", ""))
			}
			if got := strings.Join(names, " "); got != tc.counters {
				t.Errorf("counters %s, want %s", got, tc.counters)
			}
			if got := fmt.Sprint(rules); got != tc.rules {
				t.Errorf("rules %s, want %s", got, tc.rules)
			}
			if got := strings.Join(warnings, "\n"); got != tc.warning {
				t.Errorf("warnings %s, want %s", got, tc.warning)
			}
		})
	}
}

// All names that clash are told, with where they stand.
func TestClashingNames(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.csv"), "# ours\nDCGM_FI_DEV_FB_USED, gauge, U.\nDCGM_FI_DEV_POWER_USAGE, gauge, P.\n")
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `include: [a.csv]
fields:
  - {field: 150, name: DCGM_FI_DEV_FB_USED_max}
  - {field: DCGM_FI_DEV_FB_USED, statistics: true}
  - {field: 140, name: DCGM_FI_DEV_POWER_USAGE_histogram}
  - {field: 150, name: DCGM_FI_DEV_POWER_USAGE_histogram_count}
models:
  - match: T4
    fields:
      - {field: 203, name: DCGM_FI_DEV_POWER_USAGE}
      - {field: 100, name: DCGM_FI_DEV_FB_USED_min}
`)
	c, err := parsed(t, "--sample.histograms --config.file="+path, "")
	if err != nil {
		t.Fatal(err)
	}
	const want = `c.yaml:3: DCGM_FI_DEV_FB_USED_max and DCGM_FI_DEV_FB_USED (c.yaml:4) both make the metric DCGM_FI_DEV_FB_USED_max, by their names, statistics or histograms: give one of them another name
c.yaml:5: DCGM_FI_DEV_POWER_USAGE_histogram and DCGM_FI_DEV_POWER_USAGE (a.csv:3) both make the metric DCGM_FI_DEV_POWER_USAGE_histogram, by their names, statistics or histograms: give one of them another name
c.yaml:6: DCGM_FI_DEV_POWER_USAGE_histogram_count and DCGM_FI_DEV_POWER_USAGE (a.csv:3) both make the metric DCGM_FI_DEV_POWER_USAGE_histogram_count, by their names, statistics or histograms: give one of them another name
c.yaml:10: models: DCGM_FI_DEV_POWER_USAGE, for GPUs that match "T4", is not what goes by that name at a.csv:3: give it another name, or the same field, type, help and other settings
c.yaml:11: DCGM_FI_DEV_FB_USED_min and DCGM_FI_DEV_FB_USED (c.yaml:4) both make the metric DCGM_FI_DEV_FB_USED_min, by their names, statistics or histograms: give one of them another name`
	if _, _, err := loadCounters(c); err == nil || strings.ReplaceAll(err.Error(), dir+"/", "") != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// The example that we ship is valid and says what is the default anyway.
func TestExampleConfigFile(t *testing.T) {
	c, err := parsed(t, "--config.file=../../etc/gpu_exporter.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	def, err := parsed(t, "", "")
	if err != nil {
		t.Fatal(err)
	}
	c.ConfigFile, c.Lines = "", nil
	if !reflect.DeepEqual(c, def) {
		t.Errorf("got\n%+v\nwant\n%+v", c, def)
	}
	// What is commented out in it is valid too.
	text, err := os.ReadFile("../../etc/gpu_exporter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		all = append(all, strings.TrimPrefix(line, "#~"))
	}
	path := writeFile(t, filepath.Join(t.TempDir(), "all.yaml"), strings.Join(all, ""))
	if _, err := loadConfigFile(path, options()); err != nil {
		t.Error(err)
	}
}
