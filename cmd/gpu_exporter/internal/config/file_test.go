// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parsed returns the configuration of flags and variables, both separated by blanks.
func parsed(t *testing.T, args, env string) (Config, error) {
	t.Helper()
	var stdout strings.Builder
	line, err := Parse(strings.Fields(args), strings.Fields(env), &stdout, nil)
	return line.Config, err
}

// loaded returns the configuration of a file and the warnings about it.
func loaded(t *testing.T, path string) (Config, string, error) {
	t.Helper()
	c, warnings, err := load(map[string][]string{"config.file": {path}}, Lookup(nil), nil, false)
	return c, strings.ReplaceAll(strings.Join(warnings, "\n"), filepath.Dir(path)+"/", ""), err
}

// A flag wins over a variable, the variable over the file, and the file over the default;
// also under different names of the flag.
func TestPrecedence(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "env.yml", "http_server_config: {http2: false}\n")
	dir := t.TempDir()
	relative := writeFile(t, filepath.Join(dir, "file.yml"), "http_server_config: {http2: false}\n")
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `
sample: {interval: 10s}
devices: {gpus: "g:1"}
kubernetes:
  enabled: true
  resource-names: [example.com/gpu]
web:
  listen-address: [":1"]
  config: {file: file.yml}
log:
  level: warn
  format: json
`)
	for _, tc := range []struct {
		args, env string
		got       func(Config) any
		want      any
	}{
		{"", "", func(c Config) any { return c.Interval }, 10 * time.Second},
		{"", "DCGM_EXPORTER_INTERVAL=20000", func(c Config) any { return c.Interval }, 20 * time.Second},
		{"-c 30s", "DCGM_EXPORTER_INTERVAL=20000", func(c Config) any { return c.Interval }, 30 * time.Second},
		{"-c 30s", "", func(c Config) any { return c.MaxAge }, 90 * time.Second},
		{"", "", func(c Config) any { return c.Devices }, "g:1"},
		{"", "", func(c Config) any { return c.Kubernetes }, true},
		{"--no-kubernetes", "", func(c Config) any { return c.Kubernetes }, false},
		{"", "DCGM_EXPORTER_KUBERNETES=false", func(c Config) any { return c.Kubernetes }, false},
		{"", "DCGM_EXPORTER_KUBERNETES=", func(c Config) any { return c.Kubernetes }, true},
		{"", "", func(c Config) any { return c.ListenAddresses }, []string{":1"}},
		{"", "DCGM_EXPORTER_LISTEN=:2", func(c Config) any { return c.ListenAddresses }, []string{":2"}},
		{"-a :3", "DCGM_EXPORTER_LISTEN=:2", func(c Config) any { return c.ListenAddresses }, []string{":3"}},
		{"", "DCGM_EXPORTER_WEB_CONFIG_FILE=env.yml", func(c Config) any { return c.WebConfigFile }, "env.yml"},
		{"", "", func(c Config) any { return c.WebConfigFile }, relative},
		{"", "", func(c Config) any { return c.LogLevel }, "warn"},
		{"", "DCGM_EXPORTER_DEBUG=true", func(c Config) any { return c.LogLevel }, "debug"},
		{"", "DCGM_EXPORTER_LOG_FORMAT=text", func(c Config) any { return c.LogFormat }, "logfmt"},
		{"--log.format=logfmt", "", func(c Config) any { return c.LogFormat }, "logfmt"},
		{"", "", func(c Config) any { return c.ResourceNames }, []string{"example.com/gpu"}},
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

// All mistakes in a file are reported at once, with their lines and advice.
func TestConfigFileMistakes(t *testing.T) {
	const nothing = "c.yaml: the file is empty, and may have been truncated: write {} for all defaults"
	for name, tc := range map[string]struct{ text, want string }{
		"several": {`smaple: {interval: 5s}
kubernetes: {enabled: perhaps}
fields:
  - field: DCGM_FI_DEV_GPU_TMEP
  - field: 150
    name: gpu_temperature
  - field: 155
    resolution: 5ms
  - feild: 155
devices: {gpus: g}
devices: {gpus: i}
models:
  - without: [DCGM_FI_DEV_GPU_TEMP]
web:
  port: x
`, `c.yaml:1: unknown key "smaple" in the file: did you mean sample?
c.yaml:2: kubernetes.enabled must be true or false
c.yaml:4: unknown field DCGM_FI_DEV_GPU_TMEP: did you mean DCGM_FI_DEV_GPU_TEMP?
c.yaml:5: "gpu_temperature" begins with gpu_, which is reserved for the exporter's own metrics: choose another name
c.yaml:8: resolution: 5ms is not between 100ms and 24h0m0s: write one such as 5s
c.yaml:9: unknown key "feild" in a field: did you mean field?
c.yaml:11: devices is set on line 10 already: remove one of them
c.yaml:13: an entry of models needs the key match: a regular expression of the GPU's model name
c.yaml:15: unknown key "port" in web: use config, enable-admin-api, enable-pprof, listen-address, max-requests, status-page or systemd-socket`},
		"keys in other places": {`sample.interval: 5s
max_age: 1m
level: debug
collect-interval: 5000
kubernetes_enable_dra: true
web: {interval: 5s, hostname: a, web.config.file: b}
devices: g
kubernetes: true
health: true
enable-exporter-metrics: true
dump-enabled: true
config.file: x
dcgm: {log: {level: DEBUG}}
sample.intervall: 5s
`, `c.yaml:1: unknown key "sample.interval" in the file: write sample: {interval: …}
c.yaml:2: unknown key "max_age" in the file: write sample: {max-age: …}
c.yaml:3: unknown key "level" in the file: write log: {level: …}
c.yaml:4: unknown key "collect-interval" in the file: write sample: {interval: …}
c.yaml:5: unknown key "kubernetes_enable_dra" in the file: write kubernetes: {dra: …}
c.yaml:6: unknown key "interval" in web: write sample: {interval: …} or health: {interval: …}
c.yaml:6: unknown key "hostname" in web: write hostname: …, not indented
c.yaml:6: unknown key "web.config.file" in web: write web: {config: {file: …}}
c.yaml:7: devices is a subject with several keys: write devices: {gpus: …}
c.yaml:8: kubernetes is a subject with several keys: write kubernetes: {enabled: …}
c.yaml:9: health must be a mapping: lines of key: value
c.yaml:10: unknown key "enable-exporter-metrics" in the file: this flag of dcgm-exporter has no effect: metrics of the exporter itself are always served: remove it
c.yaml:11: unknown key "dump-enabled" in the file: this flag of dcgm-exporter is not available: remove it
c.yaml:12: unknown key "config.file" in the file: use clock-events, counters, dcgm, devices, docker, families, fields, health, hostname, jobs, kubernetes, label, log, models, path, sample, simulate, slurm, web or xid
c.yaml:13: dcgm.log must be true or false
c.yaml:14: unknown key "sample.intervall" in the file: use clock-events, counters, dcgm, devices, docker, families, fields, health, hostname, jobs, kubernetes, label, log, models, path, sample, simulate, slurm, web or xid`},
		"a number without a unit": {"sample:\n  interval: 30\nfields: [{field: 155, resolution: 200}]\n", `c.yaml:2: sample.interval: 30 has no unit: write 30s or 30ms
c.yaml:3: resolution: 200 has no unit: write 200s or 200ms`},
		"a value of a flag": {"sample: {interval: soon}\n", `c.yaml:1: sample.interval: "soon" is not a duration from 100ms to 24h0m0s: write one such as 5s`},
		"an invalid interval and an invalid age": {"sample:\n  interval: soon\n  max-age: -3s\n", `c.yaml:2: sample.interval: "soon" is not a duration from 100ms to 24h0m0s: write one such as 5s
c.yaml:3: sample.max-age: -3s is not between 100ms and 168h0m0s: write one such as 5s`},
		"no mapping":                          {"- a\n", "c.yaml:1: the file must be a mapping: lines of key: value"},
		"invalid YAML":                        {"a: b: c\n", "c.yaml:1: mapping values are not allowed in this context"},
		"invalid YAML on a later line":        {"x: 1\n\n  a: b\n", "c.yaml:3: mapping values are not allowed in this context"},
		"invalid YAML in the second document": {"simulate: f\n...\ny: }\n", "c.yaml:2: did not find expected <document start>"},
		"two documents":                       {"simulate: f\n---\nsimulate: g\n", "c.yaml:2: a second document starts after ---: write all settings into one"},
		"kind":                                {"fields: [{field: 150, kinds: [gpus]}]\n", `c.yaml:1: unknown kind "gpus": use gpu, nvswitch, gpu_instance, compute_instance, link, cpu, cpu_core or connectx`},
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
		"an empty entry":         {"models: [{match: A100}]\n", "c.yaml:1: an entry of models changes nothing: add without or fields, or remove it"},
		"statistics of text":     {"fields: [{field: 150, name: t, type: label, statistics: true}]\n", "c.yaml:1: t is not a series of numbers: remove resolution, statistics and histogram"},
		"resolution for nothing": {"fields:\n  - {field: 155, resolution: 200ms, statistics: false}\n", "c.yaml:2: resolution has no effect without statistics or histogram: remove it, or enable one of them"},
		"statistics of a field that is not a quantity": {`fields:
  - {field: DCGM_FI_DEV_XID_ERRORS, statistics: true}
  - {field: DCGM_FI_DEV_PCIE_REPLAY_COUNTER, histogram: true}
  - {field: DCGM_FI_DEV_PCIE_REPLAY_COUNTER, type: gauge, name: replays, statistics: true}
  - field: DCGM_FI_PROF_PCIE_TX_BYTES
    type: counter
    statistics: true
  - {field: DCGM_FI_PROF_PCIE_RX_BYTES, statistics: true}
`, `c.yaml:2: DCGM_FI_DEV_XID_ERRORS is a code or a bit mask, not a quantity: remove resolution, statistics and histogram
c.yaml:3: DCGM_FI_DEV_PCIE_REPLAY_COUNTER only increases, so that its newest value is sufficient: remove resolution, statistics and histogram
c.yaml:4: replays only increases, so that its newest value is sufficient: remove resolution, statistics and histogram
c.yaml:5: DCGM_FI_PROF_PCIE_TX_BYTES is configured as a counter, and statistics and histogram need a gauge: write type: gauge, or remove them`},
		"nothing":       {"", nothing},
		"comments only": {"\n# sample: {interval: 1s}\n", nothing},
		"truncated":     {"---\n", nothing},
		"null":          {"~\n", nothing},
		"included files, and more mistakes": {`smaple: {interval: 20s}
sample: {max-age: 1s}
devices: {gpus: x}
counters: {file: [none.csv, bad.csv,
  "builtin:all"]}
fields:
  - {field: 150, resolution: 10s, statistics: true}
`, `c.yaml:1: unknown key "smaple" in the file: did you mean sample?
c.yaml:3: devices.gpus: device selector "x": "x" does not begin with g or i; write f, g, i, g:<ids>, i:<ids> or g:<ids>+i:<ids>, with ids such as 0,2-4
c.yaml:4: counters.file: none.csv does not exist: check the path (a relative one starts at this file's directory)
c.yaml:4: counters.file: bad.csv:2: unknown field DCGM_FI_DEV_GPU_TMP: did you mean DCGM_FI_DEV_GPU_TEMP?
c.yaml:4: counters.file: bad.csv:3: DCGM_FI_DEV_POWER_USAGE has the unknown type gouge: write gauge, counter or label
c.yaml:5: counters.file: builtin:all: unknown built-in counters file: use builtin:default, builtin:dcgm-4.9, builtin:1.x-compatibility or builtin:everything, or the path of a file`},
		"a key twice": {"sample:\n  interval: 1s\nlog: {level: info}\nsample:\n  max-age: 1m\n", "c.yaml:4: sample is set on line 1 already: remove one of them"},
		"resolution": {`sample: {interval: 1s}
fields:
  - field: 155
    statistics: true
    resolution: 1500ms
  - {field: 150, statistics: true, resolution: 1s}
models:
  - match: T4
    fields: [{field: 140, histogram: true, resolution: 1m}]
`, `c.yaml:5: resolution: 1.5s is longer than the 1s between samples (c.yaml:1: sample.interval): make it shorter, or remove it
c.yaml:9: resolution: 1m0s is longer than the 1s between samples (c.yaml:1: sample.interval): make it shorter, or remove it`},
		"computed counters": {`fields:
  - DCGM_EXP_XID_ERRORS_COUNT
  - {field: DCGM_EXP_XID_ERRORS_TOTAL, type: label}
  - {field: DCGM_EXP_P2P_STATUS, kinds: gpu}
  - DCGM_EXP_CLOCK_EVENT_COUNT
models:
  - match: T4
    without: [DCGM_EXP_P2P_STATUS]
    fields:
      - DCGM_EXP_P2P_STATUS
`, `c.yaml:3: DCGM_EXP_XID_ERRORS_TOTAL cannot be a label, because it has several values: write counter
c.yaml:4: DCGM_EXP_P2P_STATUS is computed by the exporter: remove kinds, resolution, statistics and histogram
c.yaml:5: unknown field DCGM_EXP_CLOCK_EVENT_COUNT: did you mean DCGM_EXP_CLOCK_EVENTS_COUNT?
c.yaml:8: DCGM_EXP_P2P_STATUS is computed by the exporter for all GPUs: models cannot add or remove it; use fields or a counters file
c.yaml:10: DCGM_EXP_P2P_STATUS is computed by the exporter for all GPUs: models cannot add or remove it; use fields or a counters file`},
		"aliases": {`simulate: &a t4x1
counters: {file: [*a]}
fields: *a
models:
  - {match: T4, fields: [*a, {<<: *a, field: 150}, {field: 150, resolution: *a}]}
  - *a
*a : x
`, `c.yaml:2: *a: aliases are not supported: write the value itself, or put a text in quotes
c.yaml:3: *a: aliases are not supported: write the value itself, or put a text in quotes
c.yaml:5: *a: aliases are not supported: write the value itself, or put a text in quotes
c.yaml:5: <<: aliases are not supported: write the value itself, or put a text in quotes
c.yaml:5: *a: aliases are not supported: write the value itself, or put a text in quotes
c.yaml:6: *a: aliases are not supported: write the value itself, or put a text in quotes
c.yaml:7: *a: aliases are not supported: write the value itself, or put a text in quotes`},
		"an alias without an anchor": {"sample: {interval: 5s}\nsimulate: *b\n", "c.yaml:2: *b: aliases are not supported: write the value itself, or put a text in quotes"},
		"an asterisk":                {"models:\n  - match: *A100.*\n", "c.yaml:2: a text that begins with * or & must be put in quotes"},
		"a tab":                      {"fields:\n\t- DCGM_FI_DEV_GPU_TEMP\n", "c.yaml:2: the line is indented with a tab, which YAML does not allow: use spaces"},
		"a tab on the first line":    {"\tsimulate: f\n", "c.yaml:1: the line is indented with a tab, which YAML does not allow: use spaces"},
		"a tab among more":           {"fields:\n  - field: 150\n\tname: x\n", "c.yaml:3: the line is indented with a tab, which YAML does not allow: use spaces"},
		"a tab after a value":        {"simulate: f\t# all\nx: }\n", "c.yaml:1: did not find expected node content"},
		"no duration for one field":  {"fields:\n  - {field: 150, resolution: ''}\n  - {field: 150, resolution: 10000000h}\n", "c.yaml:2: resolution: \"\" is not a duration from 100ms to 24h0m0s: write one such as 5s\nc.yaml:3: resolution: \"10000000h\" is not a duration from 100ms to 24h0m0s: write one such as 5s"},
		"fields that have no metric": {`fields:
  - {field: 60}
  - {field: 60, type: gauge}
  - {field: DCGM_FI_DEV_GPU_TEMP, type: none}
  - {field: DCGM_FI_DRIVER_VERSION, type: gauge}
  - {field: 0}
`, `c.yaml:2: DCGM_FI_SYSTEM_PCI_TOPOLOGY is a binary structure and cannot be exported: remove it
c.yaml:3: DCGM_FI_SYSTEM_PCI_TOPOLOGY is a binary structure and cannot be exported: remove it
c.yaml:4: DCGM_FI_DEV_GPU_TEMP has the unknown type none: write gauge, counter or label
c.yaml:5: DCGM_FI_DRIVER_VERSION is text and cannot be a gauge: write label, to add it to the other series of its entity
c.yaml:6: DCGM_FI_SYSTEM_FIELD_UNKNOWN marks the edge of a range of field IDs and has no value: remove it`},
		"in the order of the lines": {`devices: {gpus: x}
smaple: {interval: 5s}
web: {max-requests: 99999999999999999999}
kubernetes: {enabled: perhaps}
sample: {resolution: 6s}
`, `c.yaml:1: devices.gpus: device selector "x": "x" does not begin with g or i; write f, g, i, g:<ids>, i:<ids> or g:<ids>+i:<ids>, with ids such as 0,2-4
c.yaml:2: unknown key "smaple" in the file: did you mean sample?
c.yaml:3: web.max-requests: "99999999999999999999" is not a number from 1 to 100000
c.yaml:4: kubernetes.enabled must be true or false`},
		"the resolution of all fields": {"sample: {interval: 1s,\n resolution: 2s}\n", "c.yaml:2: sample.resolution: 2s is longer than the 1s between samples (c.yaml:1: sample.interval): make it shorter, or remove it"},
		"in fields and in without": {`models:
  - match: T4
    fields: [155, DCGM_FI_DEV_GPU_TEMP]
    without:
      - DCGM_FI_DEV_FB_USED
      - 150
`, "c.yaml:3: DCGM_FI_DEV_GPU_TEMP is in fields, and in without on line 6: remove one of them"},
		"twice the same": {"fields: [DCGM_FI_DEV_GPU_TEMP, {field: 150, name: DCGM_FI_DEV_GPU_TEMP}]\n", "c.yaml:1: the metric DCGM_FI_DEV_GPU_TEMP is defined on line 1 already: give one of them another name"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			path := writeFile(t, filepath.Join(dir, "c.yaml"), tc.text)
			writeFile(t, "good.csv", "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
			writeFile(t, "a", "http_server_config: {http2: false}\n")
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
	if _, err := parsed(t, "--config.file=/nonexistent.yaml", ""); err == nil || !strings.Contains(err.Error(), "--config.file: reading the configuration file: open /nonexistent.yaml: no such file or directory: check the path") {
		t.Errorf("a missing file: %v", err)
	}
}

// A resolution is compared with the effective interval.
func TestResolutionAndInterval(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "sample: {interval: 1s}\nfields: [{field: 155, statistics: true, resolution: 2s}]\n")
	for args, want := range map[string]string{
		"":        "longer than the 1s between samples (" + path + ":1: sample.interval)",
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

// {} is the configuration without a file, and --counters.file replaces the included files.
func TestEmptyMapping(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	c, err := parsed(t, "--config.file="+path, "")
	def, _ := parsed(t, "", "")
	def.ConfigFile, def.Files = path, []string{path}
	if err != nil || !reflect.DeepEqual(c, def) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, c, def)
	}
	writeFile(t, path, "counters: {file: [none.csv]}\n")
	if _, err := parsed(t, "-f builtin:default --config.file="+path, ""); err != nil {
		t.Error(err)
	}
}

// Fields extend the counters files, and replace counters of the same name.
func TestConfigFileFields(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.csv"), "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	writeFile(t, filepath.Join(dir, "b.csv"), "DCGM_FI_DEV_POWER_USAGE, gauge, P.\nDCGM_FI_DEV_GPU_TEMP, gauge, again\n")
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `
counters: {file: [a.csv, b.csv]}
fields:
  - DCGM_FI_DEV_FB_USED
  - {field: DCGM_FI_DEV_GPU_TEMP, help: Hot., resolution: 200ms, statistics: true, histogram: true, kinds: gpu}
  - {field: 155, name: my_power_watts, resolution: 100ms}
models:
  - match: .*A100.*
    without: [DCGM_FI_DEV_FB_USED]
    fields: [DCGM_FI_DEV_MEMORY_TEMP]
`)
	c, warnings, err := loaded(t, path)
	if err != nil {
		t.Fatal(err)
	}
	rules := c.Models
	var names []string
	for _, m := range c.Counters {
		names = append(names, m.Name)
	}
	want := "DCGM_FI_DEV_GPU_TEMP DCGM_FI_DEV_POWER_USAGE DCGM_FI_DEV_FB_USED my_power_watts DCGM_FI_DEV_MEMORY_TEMP"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("counters %s, want %s", got, want)
	}
	first := c.Counters[0]
	if power := c.Counters[3]; !power.Statistics || power.Histogram {
		t.Errorf("a resolution alone enables %+v, want statistics", power)
	}
	if first.Help != "Hot." || first.Resolution != 200*time.Millisecond || !first.Statistics || !first.Histogram || first.Kinds != model.Kinds(model.KindGPU) {
		t.Errorf("counter %+v", first)
	}
	if warnings != "b.csv:2: DCGM_FI_DEV_GPU_TEMP is ignored: it is in a.csv:1 already\n"+
		"c.yaml:6: my_power_watts is the same field (155) as DCGM_FI_DEV_POWER_USAGE at b.csv:1: its values are exported under both names" {
		t.Errorf("warnings %v", warnings)
	}
	if len(rules) != 2 || rules[0].Only || !rules[1].Only {
		t.Errorf("rules on models %+v", rules)
	}
	// --counters.file replaces the included files.
	c, err = parsed(t, "--config.file="+path+" -f "+filepath.Join(dir, "b.csv"), "")
	if err != nil || c.CountersName != filepath.Join(dir, "b.csv")+" and the fields of "+path {
		t.Errorf("%v, %v", c.CountersName, err)
	}
}

// The warnings about lines of a counters file apply to fields, too.
func TestOddFields(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `counters: {file: []}
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
	_, got, err := loaded(t, path)
	if err != nil {
		t.Fatal(err)
	}
	const want = `c.yaml:3: DCGM_FI_DEV_GPU_TEMP is a gauge, but is configured as a counter: functions such as rate() return wrong results
c.yaml:4: energy is a counter, but is configured as a gauge: functions such as rate() return wrong results
c.yaml:7: watts is a number that keeps changing, so that a label creates new series each time: write gauge
c.yaml:8: temperature is the same field (150) as DCGM_FI_DEV_GPU_TEMP at c.yaml:3: its values are exported under both names
c.yaml:14: DCGM_FI_DEV_MEMORY_TEMP_CELSIUS is a gauge, but is configured as a counter: functions such as rate() return wrong results
c.yaml:14: hot is the same field (140) as DCGM_FI_DEV_MEMORY_TEMP_CELSIUS at c.yaml:14: its values are exported under both names`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Fields of some models extend those of all GPUs: a field that all GPUs have is not taken
// from the other models, and a name has one meaning.
func TestModelFields(t *testing.T) {
	const both = "counters: {file: []}\nfields: [DCGM_FI_DEV_GPU_TEMP, {field: DCGM_FI_DEV_FB_USED, name: used}]\nmodels:\n"
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
			warning: `c.yaml:4: models: DCGM_FI_DEV_GPU_TEMP, for GPUs that match "T4", has no effect: the field is exported for all GPUs as DCGM_FI_DEV_GPU_TEMP: remove one of the two`,
		},
		"of all by another name": {
			models:   "  - {match: T4, fields: [DCGM_FI_DEV_FB_USED_BYTES]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used", rules: "[]",
			warning: `c.yaml:4: models: DCGM_FI_DEV_FB_USED_BYTES, for GPUs that match "T4", has no effect: the field is exported for all GPUs as used: remove one of the two`,
		},
		"of all but some": {
			models:   "  - {match: T4, fields: [DCGM_FI_DEV_GPU_TEMP]}\n  - {match: .*4, without: [150]}\n",
			counters: "DCGM_FI_DEV_GPU_TEMP used", rules: "[{150 .*4 false}]",
			warning: `c.yaml:4: models: DCGM_FI_DEV_GPU_TEMP, for GPUs that match "T4", has no effect: the field is exported for all GPUs as DCGM_FI_DEV_GPU_TEMP: remove one of the two`,
		},
		"the name of another": {
			models: "  - {match: T4, fields: [{field: 155, name: used}]}\n",
			err:    `c.yaml:4: models: used, for GPUs that match "T4", differs from the counter of that name at c.yaml:2: give it another name, or the same field, type, help and other settings`,
		},
		"two meanings": {
			models: "  - {match: T4, fields: [{field: 155, name: w}]}\n  - {match: A100, fields: [{field: 155, name: w, help: Other.}]}\n",
			err:    `c.yaml:5: models: w, for GPUs that match "A100", differs from the counter of that name at c.yaml:4: give it another name, or the same field, type, help and other settings`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, warnings, err := loaded(t, writeFile(t, filepath.Join(dir, "c.yaml"), both+tc.models))
			if err != nil || tc.err != "" {
				if err == nil || strings.ReplaceAll(err.Error(), dir+"/", "") != tc.err {
					t.Errorf("error %v, want %s", err, tc.err)
				}
				return
			}
			var names []string
			for _, c := range c.Counters {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, " "); got != tc.counters {
				t.Errorf("counters %s, want %s", got, tc.counters)
			}
			if got := fmt.Sprint(c.Models); got != tc.rules {
				t.Errorf("rules %s, want %s", got, tc.rules)
			}
			if warnings != tc.warning {
				t.Errorf("warnings %s, want %s", warnings, tc.warning)
			}
		})
	}
}

// All clashes of names are reported, with their places.
func TestClashingNames(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.csv"), "# ours\nDCGM_FI_DEV_FB_USED, gauge, U.\nDCGM_FI_DEV_POWER_USAGE, gauge, P.\n")
	path := writeFile(t, filepath.Join(dir, "c.yaml"), `counters: {file: [a.csv]}
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
	const want = `c.yaml:3: DCGM_FI_DEV_FB_USED_max and DCGM_FI_DEV_FB_USED (c.yaml:4) both export the metric DCGM_FI_DEV_FB_USED_max, by their names, statistics or histograms: give one of them another name
c.yaml:5: DCGM_FI_DEV_POWER_USAGE_histogram and DCGM_FI_DEV_POWER_USAGE (a.csv:3) both export the metric DCGM_FI_DEV_POWER_USAGE_histogram, by their names, statistics or histograms: give one of them another name
c.yaml:6: DCGM_FI_DEV_POWER_USAGE_histogram_count and DCGM_FI_DEV_POWER_USAGE (a.csv:3) both export the metric DCGM_FI_DEV_POWER_USAGE_histogram_count, by their names, statistics or histograms: give one of them another name
c.yaml:10: models: DCGM_FI_DEV_POWER_USAGE, for GPUs that match "T4", differs from the counter of that name at a.csv:3: give it another name, or the same field, type, help and other settings
c.yaml:11: DCGM_FI_DEV_FB_USED_min and DCGM_FI_DEV_FB_USED (c.yaml:4) both export the metric DCGM_FI_DEV_FB_USED_min, by their names, statistics or histograms: give one of them another name`
	if _, err := parsed(t, "--sample.histograms --config.file="+path, ""); err == nil || strings.ReplaceAll(err.Error(), dir+"/", "") != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// The shipped example is valid, and its values are the defaults.
func TestExampleConfigFile(t *testing.T) {
	c, err := parsed(t, "--config.file=../../../../etc/gpu_exporter.yaml", "")
	if err != nil {
		t.Fatal(err)
	}
	def, err := parsed(t, "", "")
	if err != nil {
		t.Fatal(err)
	}
	c.ConfigFile, c.Files = "", nil
	if !reflect.DeepEqual(c, def) {
		t.Errorf("got\n%+v\nwant\n%+v", c, def)
	}
	// The lines that are commented out are valid, too.
	text, err := os.ReadFile("../../../../etc/gpu_exporter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		all = append(all, strings.TrimPrefix(line, "#~"))
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "default-counters.csv"), "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	path := writeFile(t, filepath.Join(dir, "all.yaml"), strings.Join(all, ""))
	if _, err := parsed(t, "--config.file="+path, ""); err != nil {
		t.Error(err)
	}
}
