// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// Mistakes in flags and variables refer to --help, mistakes in the configuration file do
// not.
func TestSeeHelp(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "good.yaml"), "devices: g\n")
	bad := writeFile(t, filepath.Join(dir, "bad.yaml"), "devices: x\ncollect-intervall: 5s\n")
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

func TestRunReportsEveryProblem(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run([]string{"-c", "1", "--web.max-requests=0"}, nil, &stdout, &stderr, nil)
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if code != 1 || len(lines) != 3 || !strings.HasPrefix(lines[0], "gpu_exporter: error: --") || !strings.HasPrefix(lines[1], "gpu_exporter: error: --") {
		t.Errorf("exit status %d\n%s", code, &stderr)
	}
}
