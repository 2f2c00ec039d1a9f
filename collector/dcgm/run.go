// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"context"
	"log/slog"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

const (
	// cleanupTimeout bounds the shutdown of DCGM, which takes 1 to 1.5 s, and forever
	// if a call hangs.
	cleanupTimeout = 1800 * time.Millisecond
	// xidInterval is the time between polls for XIDs. An embedded engine loses the
	// XIDs that were not read when its process is killed.
	xidInterval = time.Second
)

// Config is the input of [Run].
type Config struct {
	Sampler wire.SamplerConfig
	Frames  *wire.FrameWriter
	// MIGDevices lists the MIG devices by NVML's names. It is called when the
	// topology changes, and may be nil.
	MIGDevices func() ([]model.MIGDevice, error)
	// Processes reads the processes on the devices of an inventory. It is called
	// in the background if the configuration requests processes, and may hang.
	Processes func(*model.Inventory) (*model.Processes, error)
	// Commands delivers the exporter's commands; nil means none.
	Commands <-chan wire.SamplerCommand
	Logger   *slog.Logger

	timing profilingTiming // zero: the default
}

// Run samples until ctx ends, and then returns nil. If it cannot continue it returns a
// [*FailureError], or the error of a frame that could not be written.
//
// A native call may hang. Run then still returns when ctx ends, and leaves a goroutine
// that only the end of the process ends.
func Run(ctx context.Context, cfg Config) error {
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		if err != nil {
			cfg.Logger.Debug("sampling failed during the shutdown", "err", err)
		}
	case <-time.After(cleanupTimeout):
		cfg.Logger.Warn("DCGM did not shut down in time", "timeout", cleanupTimeout)
	}
	return nil
}

func run(ctx context.Context, cfg Config) error {
	s, err := newSampler(cfg)
	if err != nil {
		return err
	}
	if err := s.sample(); err != nil {
		return err
	}
	interval := cfg.Sampler.Interval
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	processes := newProcessPoll(cfg)
	health, err := newHealthPoll(cfg, s.lib)
	if err != nil {
		return err
	}
	s.fabric.schedule(untilBeforeSample(time.Now(), interval, fabricLead))
	var trackedDue <-chan time.Time
	if d := pollInterval(cfg.Sampler); d > 0 {
		tracked := time.NewTicker(d)
		defer tracked.Stop()
		trackedDue = tracked.C
	}
	xidTicker := time.NewTicker(xidInterval)
	defer xidTicker.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			s.flush() // first: a running call may hang
			health.wait()
			s.fabric.wait()
			s.flush()
			s.engine.close()
			return nil
		case tick := <-ticker.C:
			processes.schedule(untilBeforeSample(tick, interval, processLead))
			s.fabric.schedule(untilBeforeSample(tick, interval, fabricLead))
			err = s.sampleAt(ticker)
			health.follow(s.inv)
		case <-xidTicker.C:
			err = s.writeXIDs()
		case <-trackedDue:
			err = s.pollTracked(false)
		case c := <-cfg.Commands:
			err = s.command(c)
		case <-processes.timer.C:
			s.readProcesses(processes)
		case publish := <-processes.results:
			err = processes.finish(publish)
		case <-s.fabric.timer.C:
			s.fabric.list()
		case publish := <-s.fabric.results:
			err = s.fabric.finish(publish)
		case <-health.timer.C:
			s.checkHealth(health)
		case publish := <-health.results:
			err = health.finish(publish)
		}
	}
	if err := s.flushXIDs(); err != nil {
		s.log.Debug("some XIDs were not reported", "err", err)
	}
	return err
}

// sampleAt takes the sample of a tick. It drops the next tick if the sample took longer
// than the interval.
func (s *sampler) sampleAt(ticker *time.Ticker) error {
	start := time.Now()
	if err := s.sample(); err != nil {
		return err
	}
	if time.Since(start) > s.cfg.Sampler.Interval {
		select {
		case <-ticker.C:
		default:
		}
	}
	return nil
}
