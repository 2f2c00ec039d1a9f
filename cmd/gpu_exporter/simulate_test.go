// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/dcgmsim"
)

// TestScenarioNames compares the names in package config with those of the stand-in, which
// must not be linked into the program.
func TestScenarioNames(t *testing.T) {
	if got, want := slices.Sorted(slices.Values(config.Scenarios())), slices.Sorted(slices.Values(dcgmsim.Scenarios())); !slices.Equal(got, want) {
		t.Errorf("--simulate has %q, the stand-in %q", got, want)
	}
}

// TestScenarioWithAnError: an error in a scenario file is reported at the start in one
// line, instead of by samplers that fail repeatedly.
func TestScenarioWithAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "node.scenario")
	if err := os.WriteFile(file, []byte("gpu t4 cuont 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"serve", "once", "check-config"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		out, err := exec.CommandContext(ctx, built(t), command, "--simulate="+file, "--web.listen-address=127.0.0.1:0").CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), file+":1: ") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// TestHostname: --hostname is the value of the hostname label, and the address of a local
// engine is not.
func TestHostname(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), built(t), "once", "--simulate=t4x1", "--hostname=node-7").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, count := sumOf(string(out), "DCGM_FI_DEV_GPU_TEMP", `hostname="node-7"`); count != 1 {
		t.Errorf("%d GPUs with the hostname", count)
	}
}
