// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
)

// TestProcessesAreReadIfNeeded: the sampler reads the processes on the devices only for the
// usage of pods, if it is selected, and for Slurm jobs.
func TestProcessesAreReadIfNeeded(t *testing.T) {
	t.Parallel()
	proc := newHostProc(t)
	log := slog.New(slog.DiscardHandler)
	for args, want := range map[string]struct{ processes, usage bool }{
		"-k":                           {true, true},
		"-k --families=lean":           {false, false},
		"-k --families=default,-usage": {false, false},
		"-k --families=usage-detail":   {true, true},
		"-k --no-kubernetes.pod-usage": {false, false},
		"-k --families=lean --kubernetes-virtual-gpus": {true, true}, // memory by process
		"-k --families=lean --slurm.jobs=on":           {true, false},
		"--families=lean --slurm.jobs=on":              {true, false},
		"--families=lean --slurm.jobs=off":             {false, false},
		"--slurm.jobs=off":                             {false, false},
	} {
		line, err := config.Parse(append(strings.Fields(args), "--simulate=h100x8", "--path.procfs="+string(proc)), nil, io.Discard, nil)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		e, err := newExporter(line.Config, sampler.Environment{}, log, log, nil)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		s, err := e.settings(line.Config)
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if s.Sampler.Processes != want.processes || s.Metrics.Owners.Usage != want.usage {
			t.Errorf("%s: reads processes %v, has usage %v; want %v and %v", args, s.Sampler.Processes, s.Metrics.Owners.Usage, want.processes, want.usage)
		}
	}
}
