// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"time"

	"gpu_exporter/collector"
)

// processLead is how long before a sample the processes are read, if the interval
// allows: the sample is what makes the exporter publish both.
const processLead = time.Second

// processReader reads the processes beside the samples.
type processReader struct {
	beside[*collector.Inventory, processResult]
	failure string // why the last reading failed
}

type processResult struct {
	processes *collector.Processes
	err       error
}

// newProcessReader returns a reader, whose first reading is due at once.
func newProcessReader(cfg Config) *processReader {
	var read func(*collector.Inventory) processResult
	if cfg.Sampler.Processes && cfg.Processes != nil {
		read = func(inv *collector.Inventory) processResult {
			processes, err := cfg.Processes(inv)
			return processResult{processes, err}
		}
	}
	p := &processReader{beside: newBeside("reading the processes", cfg.Logger, read)}
	p.schedule(0)
	return p
}

// finish takes note of a reading that has ended, and returns nil if it failed.
func (p *processReader) finish(r processResult) *collector.Processes {
	p.beside.finish()
	failure := ""
	if r.err != nil {
		failure = r.err.Error()
	}
	if failure != p.failure && failure != "" {
		p.log.Warn("the processes on the devices cannot be read", "err", r.err)
	}
	p.failure = failure
	return r.processes
}

// writeProcesses writes a reading, unless it is of another inventory by now: its
// processes may have been on instances that are others.
func (s *sampler) writeProcesses(p *collector.Processes) error {
	if p == nil || p.Generation != s.inv.Generation {
		return nil
	}
	return s.cfg.Frames.Write(collector.Frame{Processes: p})
}
