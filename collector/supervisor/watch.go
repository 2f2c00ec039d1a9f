// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"syscall"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// ending is the result of one run of the sampler.
type ending struct {
	exited       bool // by itself; otherwise it has to be stopped
	graceful     bool // stop it by closing its standard input first
	reconfigured bool
	failure      model.Failure // unless graceful
	reported     bool          // the sampler itself reported the failure
	sampled      bool          // at least one sample was accepted
	stable       bool
	err          error // the killed process still exists
}

// watch returns when the sampler has exited or must be stopped.
func (s *Supervisor) watch(ctx context.Context, r *run, cfg wire.SamplerConfig) ending {
	t := &s.cfg.timing
	watchdog := watchdog{
		silence: max(3*cfg.Interval, t.silence),
		startup: max(3*cfg.Interval, t.startup),
		checked: r.started,
		awake:   r.started,
	}
	tick := time.NewTicker(t.tick)
	defer tick.Stop()

	framesDone := r.framesDone
	var (
		overdue   <-chan time.Time // fires when the sampler should have exited
		ifOverdue ending
	)
	for {
		select {
		case <-ctx.Done():
			return ending{graceful: true}
		case <-s.reconfigured:
			return ending{graceful: true, reconfigured: true}
		case <-r.exited:
			return ending{exited: true}
		case <-framesDone:
			framesDone = nil
			switch {
			case r.corrupt():
				return ending{failure: model.Failure{Reason: restartBadFrame, Message: r.readErr.Error()}}
			case r.failure != nil:
				ifOverdue = ending{failure: *r.failure, reported: true}
			default:
				ifOverdue = ending{failure: model.Failure{Reason: restartTimeout, Message: "the sampler closed its frame pipe and did not exit"}}
			}
			overdue = time.After(t.stop)
		case <-overdue:
			return ifOverdue
		case <-tick.C:
			if f := cmp.Or(watchdog.check(r, time.Now()), s.checkMemory(r)); f != nil {
				return ending{failure: *f}
			}
		}
	}
}

// watchdog detects a sampler that is silent for too long.
type watchdog struct {
	silence, startup time.Duration
	checked          time.Time // the last call of check
	awake            time.Time // start of the current sequence of regular calls
}

// check returns nil unless the sampler must be killed.
func (d *watchdog) check(r *run, now time.Time) *model.Failure {
	// If this process itself was stopped or starved, frames may wait to be read.
	if now.Sub(d.checked) > d.silence/2 {
		d.awake = now
	}
	d.checked = now

	last := r.started.Add(time.Duration(r.lastFrame.Load()))
	if d.awake.After(last) {
		last = d.awake
	}
	quiet := now.Sub(last)
	limit := d.silence
	if !r.sampled() && now.Sub(r.started) < 2*d.startup {
		limit = d.startup // once until the inventory, once more until the first sample
	}
	if limit = max(limit, time.Duration(r.wait.Load())); quiet < limit {
		return nil
	}
	f := &model.Failure{Reason: restartTimeout}
	if rejected := r.rejected.Load(); rejected != nil {
		f.Message = fmt.Sprintf("no frame was accepted for %v: %d frames were rejected, the last because of %v", quiet.Round(time.Second), rejected.count, rejected.last)
	} else {
		f.Message = fmt.Sprintf("the sampler sent no frame for %v: a call into DCGM or the driver does not return", quiet.Round(time.Second))
	}
	return f
}

// checkMemory returns nil unless the sampler must be killed.
func (s *Supervisor) checkMemory(r *run) *model.Failure {
	if s.cfg.MemoryLimit == 0 {
		return nil
	}
	size, err := r.proc.resident()
	if err != nil { // the process has exited
		s.log.Debug("Reading the sampler's memory failed", "pid", r.proc.pid(), "err", err)
	}
	if size <= s.cfg.MemoryLimit {
		return nil
	}
	return &model.Failure{
		Reason:  restartMemory,
		Message: fmt.Sprintf("the sampler's resident size of %d bytes exceeds the limit of %d", size, s.cfg.MemoryLimit),
	}
}

// describeExit returns the cause of an exit that the supervisor did not request.
func describeExit(ws syscall.WaitStatus) model.Failure {
	switch {
	case ws.Signaled():
		sig := ws.Signal()
		f := model.Failure{Reason: restartKilled, Message: fmt.Sprintf("signal %d: %s", int(sig), sig)}
		switch sig {
		case syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGABRT, syscall.SIGILL,
			syscall.SIGFPE, syscall.SIGTRAP, syscall.SIGSYS:
			f.Reason = restartCrash
		}
		return f
	case ws.Exited() && ws.ExitStatus() == 2:
		// The Go runtime also catches the fault signals of native code, prints a
		// report and exits with 2 (package runtime, GOTRACEBACK).
		return model.Failure{Reason: restartCrash, Message: "fatal error (exit status 2), see the sampler's output"}
	default:
		return model.Failure{Reason: restartExit, Message: fmt.Sprintf("exit status %d", ws.ExitStatus())}
	}
}
