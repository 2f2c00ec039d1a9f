// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"log/slog"
	"time"

	"gpu_exporter/collector"
)

// processLead is how long before a sample the processes are read, if the interval
// allows: the sample is what makes the exporter publish both.
const processLead = time.Second

// processReader reads the processes beside the samples: a reading that hangs
// costs no sample. Its methods are for the goroutine that samples.
type processReader struct {
	interval time.Duration
	log      *slog.Logger
	timer    *time.Timer // fires when a reading is due; nil if none is ever to be taken
	requests chan *collector.Inventory
	results  chan processResult
	reading  bool
	overdue  bool   // a reading takes too long, and that was logged
	failure  string // why the last reading failed
}

type processResult struct {
	processes *collector.Processes
	err       error
}

// newProcessReader starts a reader, whose first reading is due at once.
func newProcessReader(cfg Config) *processReader {
	p := &processReader{interval: cfg.Sampler.Interval, log: cfg.Logger}
	if !cfg.Sampler.Processes || cfg.Processes == nil {
		return p
	}
	p.timer = time.NewTimer(0)
	// There is one reading at a time, so that nobody waits at these.
	p.requests = make(chan *collector.Inventory, 1)
	p.results = make(chan processResult, 1)
	go func() {
		for inv := range p.requests {
			processes, err := cfg.Processes(inv)
			p.results <- processResult{processes, err}
		}
	}()
	return p
}

// stop ends the reader, after the reading that is under way.
func (p *processReader) stop() {
	if p.timer != nil {
		p.timer.Stop()
		close(p.requests)
	}
}

// due delivers when start is to be called.
func (p *processReader) due() <-chan time.Time {
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}

// schedule makes the next reading due before the sample that follows the one of
// this tick.
func (p *processReader) schedule(tick time.Time) {
	if p.timer != nil {
		p.timer.Reset(time.Until(tick.Add(p.interval - min(processLead, p.interval/2))))
	}
}

// start starts a reading of the processes on the devices of inv, unless one is
// under way.
func (p *processReader) start(inv *collector.Inventory) {
	if p.reading {
		if !p.overdue {
			p.overdue = true
			p.log.Warn("reading the processes takes longer than an interval; samples go on, and the processes are not renewed")
		}
		return
	}
	p.reading = true
	p.requests <- inv
}

// finish takes note of a reading that has ended, and returns nil if it failed.
func (p *processReader) finish(r processResult) *collector.Processes {
	p.reading = false
	if p.overdue {
		p.overdue = false
		p.log.Info("reading the processes has come to an end")
	}
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
	return s.cfg.Frames.WriteProcesses(p)
}
