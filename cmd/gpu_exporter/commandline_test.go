// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckConfig runs the subcommand check-config on valid and invalid configurations.
func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"good.csv":  "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).\nDCGM_FI_DRIVER_VERSION, label, Driver version.\n",
		"bad.csv":   "DCGM_FI_DEV_GPU_TMP, gauge, Mistyped.\nDCGM_FI_DEV_POWER_USAGE, gouge, Mistyped too.\n",
		"none.yaml": "counters: {file: []}\n",
		"good.yml":  "http_server_config: {http2: false}\n",
		"bad.yml":   "tls_server_config: {cert_file: none.pem, key_file: none.pem}\n",
	} {
		writeFile(t, filepath.Join(dir, name), content)
	}
	t.Chdir(dir)
	tests := []struct {
		args   string
		status int
		stdout []string
		stderr []string
	}{
		{args: "", stdout: []string{" every 5s, of devices f, from an embedded host engine\n", "DCGM_FI_DEV_GPU_TEMP"}},
		{args: "-f good.csv -r node:5555 -c 10s -d g:0 --web.config.file=good.yml", stdout: []string{
			"good.csv every 10s, of devices g:0, from the host engine at node:5555\n",
			"150  DCGM_FI_DEV_GPU_TEMP    gauge  gpu,gpu_instance  GPU temperature (in C).\n",
			"1    DCGM_FI_DRIVER_VERSION  label  gpu,gpu_instance  Driver version.\n"}},
		{args: "--simulate=t4x1 -c 200", stdout: []string{"from the simulated node t4x1"}, stderr: []string{"warning: --collect-interval: 200ms is shorter"}},
		{args: "-f bad.csv --web.config.file=bad.yml", status: 1, stderr: []string{
			"error: bad.csv:1: ", "error: bad.csv:2: ", "error: --web.config.file=bad.yml: "}},
		{args: "-f good.csv --sample.histograms", stdout: []string{"gpu,gpu_instance every 1s +_histogram  GPU temperature (in C).\n"}},
		{args: "--config.file=none.yaml", stdout: []string{"no counters file every 5s, "}},
		{args: "-f none.csv", status: 1, stderr: []string{"error: reading counters file: open none.csv: no such file"}},
		{args: "-f bad.csv -c 5", status: 1, stderr: []string{"gpu_exporter: error: --collect-interval: 5ms is not between"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(append([]string{"check-config"}, strings.Fields(tt.args)...), nil, &stdout, &stderr, nil)
			if status != tt.status {
				t.Errorf("exit status %d, want %d", status, tt.status)
			}
			for _, want := range tt.stdout {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("no %q in\n%s", want, &stdout)
				}
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("no %q in\n%s", want, &stderr)
				}
			}
			if tt.stderr == nil && stderr.Len() > 0 {
				t.Errorf("unexpected errors:\n%s", &stderr)
			}
		})
	}
}

// TestSeeHelp: errors in flags and variables refer to --help, errors in the configuration
// file do not.
func TestSeeHelp(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "good.yaml"), "devices: {gpus: g}\n")
	bad := writeFile(t, filepath.Join(dir, "bad.yaml"), "devices: {gpus: x}\ncollect-intervall: 5s\n")
	for _, tt := range []struct {
		args, env string
		want      bool
	}{
		{"--config.file=" + bad, "", false},
		{"", "GPU_EXPORTER_CONFIG_FILE=" + bad, false},
		{"-c x --config.file=" + bad, "", true},
		{"--config.file=" + bad, "DCGM_EXPORTER_INTERVAL=x", true},
		{"-c x --config.file=" + good, "", true},
		{"--config.file=" + filepath.Join(dir, "none.yaml"), "", true},
		{"--colectors=x", "", true},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields("check-config "+tt.args), nil, &stdout, &stderr, strings.Fields(tt.env)); code != 1 {
			t.Errorf("%q %q: exit status %d", tt.args, tt.env, code)
		}
		if got := strings.Contains(stderr.String(), "see --help"); got != tt.want {
			t.Errorf("%q %q: %v, want %v\n%s", tt.args, tt.env, got, tt.want, &stderr)
		}
	}
}

// TestRunReportsEveryError: all invalid flags are reported, each in one line.
func TestRunReportsEveryError(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run([]string{"-c", "1", "--web.max-requests=0"}, nil, &stdout, &stderr, nil)
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if code != 1 || len(lines) != 3 || !strings.HasPrefix(lines[0], "gpu_exporter: error: --") || !strings.HasPrefix(lines[1], "gpu_exporter: error: --") {
		t.Errorf("exit status %d\n%s", code, &stderr)
	}
}

// TestMakeRun: make run passes the address to the exporter.
func TestMakeRun(t *testing.T) {
	for args, want := range map[string]string{
		"": "--web.listen-address=127.0.0.1:9400", "ADDRESS=127.0.0.1:9500": "--web.listen-address=127.0.0.1:9500",
	} {
		out, err := exec.CommandContext(t.Context(), "make", strings.Fields("-C ../.. -n run SCENARIO=t4x1 "+args)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--simulate=t4x1 "+want+"\n") {
			t.Errorf("make run %s: %v\n%s", args, err, out)
		}
	}
}
