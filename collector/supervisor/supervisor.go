// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// The reasons for replacing a sampler, in addition to [model.Failure.Reason] of the
// failure that the sampler reports.
const (
	restartExit         = "exit"         // it exited
	restartCrash        = "crash"        // a fault in it killed it
	restartKilled       = "killed"       // another process killed it
	restartTimeout      = "timeout"      // no frame was accepted for too long
	restartBadFrame     = "bad_frame"    // its frame stream is corrupt
	restartMemory       = "memory"       // it exceeded its memory limit
	restartStart        = "start_failed" // the operating system did not start it
	restartReconfigured = "reconfigured" // the configuration changed
)

const (
	rejectBadFrame = "bad_frame"

	reasonOther = "other"
	// maxReasons bounds the label values, because the sampler chooses some of them.
	maxReasons = 32
)

// Config configures a [Supervisor]. [Supervisor.Reconfigure] sets the configuration of
// the sampler.
type Config struct {
	// Command is the command line of a sampler: the path of this binary and the
	// hidden subcommand.
	Command []string
	// Env is added to the environment that the sampler inherits.
	Env []string
	// Deliver receives every frame except a failure. Calls do not overlap, and all
	// frames of one sampler precede the first of the next. An error rejects the frame,
	// see [model.RejectError]. It must not block.
	Deliver func(wire.Frame) error
	// Ended, if not nil, is called after a sampler ended, when the status shows it. It
	// must not block.
	Ended func()
	// Links, if not nil, returns the links that a new sampler must know.
	Links  func() []model.KnownLinks
	Logger *slog.Logger
	// Records receives the sampler's own log, one record per line. The sampler writes
	// it to [wire.RecordsFD] in the format of the exporter's log. Nil discards it.
	Records io.Writer
	// MemoryLimit is the largest resident size of a sampler in bytes. 0 disables it.
	MemoryLimit uint64

	timing timing
	start  startFunc
}

// timing holds the durations of the supervisor, so that tests can shorten them.
type timing struct {
	tick    time.Duration // between checks of the sampler
	silence time.Duration // without an accepted frame; at least 3 intervals
	startup time.Duration // until the inventory, and from it to the first sample; at least 3 intervals
	stop    time.Duration // for a sampler to exit by itself
	reap    time.Duration // for a killed sampler to be reaped
	drain   time.Duration // to read the pipes of a dead sampler
	// Restarts back off from backoffMin to backoffMax. Samples for the time stable
	// reset the back-off.
	backoffMin, backoffMax, stable time.Duration
}

// defaultTiming has a longer limit for start-up than for silence. Without persistence
// mode, the first client of the driver initializes every GPU, at several seconds each.
// Embedded DCGM adds about 1 s for 16 GPUs. Connecting to an absent hostengine fails
// after 5 s. Embedded DCGM takes up to 1.5 s to stop.
var defaultTiming = timing{
	tick:       time.Second,
	silence:    10 * time.Second,
	startup:    30 * time.Second,
	stop:       2500 * time.Millisecond,
	reap:       2 * time.Second,
	drain:      time.Second,
	backoffMin: time.Second,
	backoffMax: time.Minute,
	stable:     time.Minute,
}

// backoff returns the delay before the next start. failures counts the samplers that
// ended in a row without a stable run; 0 means no delay. random is in [0, 1).
func (t *timing) backoff(failures int, random float64) time.Duration {
	if failures == 0 {
		return 0
	}
	const maxDoublings = 20 // so that the shift does not overflow
	d := min(t.backoffMin<<min(failures-1, maxDoublings), t.backoffMax/5*4)
	// The jitter adds up to a quarter, within the maximum.
	return d + time.Duration(random*float64(d)/4)
}

// Supervisor keeps one sampler process running and delivers its frames.
//
// At most one sampler exists, because two embedded engines compete for the profiling
// hardware. A sampler keeps no state, so every fault is handled by replacing it.
//
// No sampler outlives the supervising process. When that process dies, the sampler
// receives the end of its standard input, and SIGKILL from the kernel.
type Supervisor struct {
	cfg          Config
	log          *slog.Logger
	output       *outputLog
	reconfigured chan struct{} // has room for one

	mu          sync.Mutex
	sampler     wire.SamplerConfig
	eventsSince time.Time // the next sampler reports events from here on
	replaces    bool      // the next sample replaces that of a sampler with another configuration
	profiling   profilingPause
	status      model.SamplerStatus
}

// New returns a supervisor. [Supervisor.Run] starts it.
func New(cfg Config) *Supervisor {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.timing == (timing{}) {
		cfg.timing = defaultTiming
	}
	if cfg.start == nil {
		cfg.start = startProcess
	}
	s := &Supervisor{
		cfg:          cfg,
		log:          cfg.Logger,
		output:       newOutputLog(cfg.Logger, cfg.Records),
		reconfigured: make(chan struct{}, 1),
	}
	s.status.Restarts = zeroed(restartExit, restartCrash, restartKilled, restartTimeout,
		restartBadFrame, restartMemory, restartStart, restartReconfigured,
		model.FailureConfig, model.FailureLibraryMissing, model.FailureSymbolMissing, model.FailureLibraryUpdated,
		model.FailureDriverLoaded, model.FailureInitFailed, model.FailureHostengineUnreached, model.FailureHostengineLost,
		model.FailureEngineStalled, model.FailureEngineBlank, model.FailureDiscoveryFailed, model.FailureWatchFailed)
	s.status.FramesRejected = zeroed(rejectBadFrame, model.RejectFuture, model.RejectInventory, model.RejectInvalid)
	return s
}

func zeroed(reasons ...string) map[string]uint64 {
	m := make(map[string]uint64, len(reasons))
	for _, r := range reasons {
		m[r] = 0
	}
	return m
}

// Status returns a copy of the status. It never waits for the sampler.
func (s *Supervisor) Status() model.SamplerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Restarts = maps.Clone(status.Restarts)
	status.FramesRejected = maps.Clone(status.FramesRejected)
	status.LinesDropped = s.output.dropped.Load()
	if s.profiling.remaining() > 0 {
		status.ProfilingPausedUntil = s.profiling.until
	}
	return status
}

func (s *Supervisor) update(f func(*model.SamplerStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Reconfigure replaces the sampler by one with the given configuration, once the old
// one has exited. It does not wait.
func (s *Supervisor) Reconfigure(cfg wire.SamplerConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sampler = cfg
	s.replaces = s.replaces || s.status.Sampling
	select {
	case s.reconfigured <- struct{}{}:
	default:
	}
}

// nextConfig returns the newest configuration for a sampler that is about to start.
func (s *Supervisor) nextConfig() wire.SamplerConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.reconfigured:
	default:
	}
	cfg := s.sampler
	cfg.EventsSince = s.eventsSince
	cfg.Replaces = s.replaces
	if s.cfg.Links != nil {
		cfg.Links = s.cfg.Links()
	}
	cfg.ProfilingPause = s.profiling.remaining()
	s.profiling.sent = s.profiling.until
	s.output.verbose.Store(cfg.DCGMLogLevel != "" && cfg.DCGMLogLevel != "NONE")
	return cfg
}

// maxEventLag bounds how much later than the newest value an event can be stamped.
const maxEventLag = 5 * time.Second

// advanceEvents sets where the next sampler continues with events: after the newest
// delivered event, or at the first sample. The engine's clock may differ from ours, so
// only its times are used. If it was set back, events continue from there.
func (s *Supervisor) advanceEvents(f wire.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Sample != nil && !f.Sample.EngineTime.IsZero() {
		now := f.Sample.EngineTime
		if s.eventsSince.IsZero() || s.eventsSince.Sub(now) > maxEventLag {
			s.eventsSince = now
		}
	}
	if f.Events == nil {
		return
	}
	for _, e := range f.Events.List {
		if next := e.Time.Add(time.Microsecond); next.After(s.eventsSince) {
			s.eventsSince = next
		}
	}
}

// Run keeps a sampler running until ctx ends, then stops it and returns within
// seconds. The error reports a killed sampler that still exists. Call it once.
func (s *Supervisor) Run(ctx context.Context) error {
	// The kernel kills the sampler when the thread that started it ends
	// (PR_SET_PDEATHSIG), so this thread must last as long as this function.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	s.output.open()
	defer s.output.close(s.cfg.timing.drain)

	var (
		failures int
		logged   model.Failure // the newest failure that a sampler reported
	)
	for {
		cfg := s.nextConfig()
		end := s.runOne(ctx, cfg)
		if ctx.Err() != nil {
			return end.err
		}
		failures++
		switch {
		case end.stable || end.reconfigured:
			failures = 0
		case cfg.Hostengine != "" && end.failure.Reason == restartTimeout:
			// The sampler has waited for an engine that does not answer, for at least 10 s.
			// A sampler that waits uses the engine as soon as it answers.
			failures = 1
		}
		if end.sampled {
			logged = model.Failure{}
		}
		delay := s.cfg.timing.backoff(failures, rand.Float64())
		if end.reconfigured {
			s.log.Info("Sampler stopped for a new configuration")
		} else {
			level, message := slog.LevelWarn, "Sampler ended and is restarted"
			if end.reported {
				level, message = slog.LevelError, "Sampler cannot work and is retried"
				if end.failure == logged {
					level = slog.LevelDebug
				}
				logged = end.failure
			}
			s.log.Log(ctx, level, message, "reason", end.failure.Reason, "err", end.failure.Message, "retry_in", delay)
		}
		if s.backOff(ctx, delay) {
			failures = 0
		}
	}
}

// backOff waits until the next sampler may start. A new configuration takes effect at
// once, and so does an engine that listens again, for which it returns true.
func (s *Supervisor) backOff(ctx context.Context, d time.Duration) (back bool) {
	s.update(func(st *model.SamplerStatus) { st.NextStart = time.Now().Add(d) })
	defer s.update(func(st *model.SamplerStatus) { st.NextStart = time.Time{} })
	timer := time.NewTimer(d)
	defer timer.Stop()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	select {
	case <-ctx.Done():
	case <-s.reconfigured:
	case <-timer.C:
	case <-s.listensAgain(waiting):
		s.log.Info("The hostengine listens again")
		return true
	}
	return false
}

// runOne starts a sampler and returns when it no longer exists. If ctx ends and a
// killed sampler still exists, it returns an error.
func (s *Supervisor) runOne(ctx context.Context, cfg wire.SamplerConfig) ending {
	if ctx.Err() != nil {
		return ending{}
	}
	proc, err := s.cfg.start(s.cfg.Command, s.cfg.Env, cfg)
	if err != nil {
		end := ending{failure: model.Failure{Reason: restartStart, Message: err.Error()}}
		s.countEnd(end)
		return end
	}
	r := s.startRun(proc)
	s.update(func(st *model.SamplerStatus) { st.Running, st.PID, st.Started = true, proc.pid(), r.started })
	s.log.Debug("Sampler started", "pid", proc.pid())
	s.setPauseTarget(proc)
	end := s.watch(ctx, r, cfg)
	s.setPauseTarget(nil)
	s.update(func(st *model.SamplerStatus) { st.Running, st.Sampling, st.Started = false, false, time.Time{} })

	if end.exited {
		s.release(r, s.cfg.timing.drain)
		end.failure, end.reported = r.endFailure(), r.failure != nil
	}
	end.sampled = r.sampled()
	if ctx.Err() == nil {
		s.countEnd(end)
	}
	if !end.exited {
		end.err = s.stop(ctx, r, end.graceful)
	}
	if end.err == nil {
		s.update(func(st *model.SamplerStatus) { st.PID, st.Unreapable = 0, false })
	}
	end.stable = r.sampledFor(s.cfg.timing.stable)
	return end
}

// stop ends the sampler. The error means that it still exists.
func (s *Supervisor) stop(ctx context.Context, r *run, graceful bool) error {
	t := &s.cfg.timing
	if graceful {
		r.proc.closeStdin()
	}
	if !graceful || !closedWithin(r.exited, t.stop) {
		r.proc.kill()
	}
	if closedWithin(r.exited, t.reap) {
		s.release(r, t.drain)
		return nil
	}

	s.release(r, 0)
	s.update(func(st *model.SamplerStatus) { st.Unreapable = true })
	s.log.Error("Killed sampler still exists, probably stuck in a driver call; no other is started until it is gone",
		"pid", r.proc.pid())
	select {
	case <-r.exited:
	case <-ctx.Done():
		return fmt.Errorf("stopping sampler: process %d was killed but still exists", r.proc.pid())
	}
	s.log.Info("Killed sampler is gone", "pid", r.proc.pid())
	return nil
}

func (s *Supervisor) countEnd(end ending) {
	s.update(func(st *model.SamplerStatus) {
		if end.reconfigured {
			count(st.Restarts, restartReconfigured)
			return
		}
		count(st.Restarts, end.failure.Reason)
		st.LastFailure = end.failure
		// DCGM does not work if a sampler ends without any sample, whatever the reason.
		st.EngineGone = st.EngineGone || end.failure.EngineGone() || end.failure.Reason == restartTimeout || !end.sampled
	})
	if s.cfg.Ended != nil {
		s.cfg.Ended()
	}
}

// count counts a reason. Invalid label values, and those beyond maxReasons, are counted
// as "other".
func count(m map[string]uint64, reason string) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789_"
	valid := reason != "" && len(reason) <= 40 && strings.Trim(reason, allowed) == ""
	if _, known := m[reason]; !known && (len(m) >= maxReasons || !valid) {
		reason = reasonOther
	}
	m[reason]++
}
