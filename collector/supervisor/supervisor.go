// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// Why a sampler was replaced. Besides these words, [model.Failure.Reason] of the
// sampler's last frame is one.
const (
	restartExit         = "exit"         // it exited
	restartCrash        = "crash"        // it died of a fault of its own
	restartKilled       = "killed"       // something else than this process killed it
	restartTimeout      = "timeout"      // no frame was accepted for too long
	restartBadFrame     = "bad_frame"    // what it sent is not a stream of frames
	restartMemory       = "memory"       // it was over its memory limit
	restartStart        = "start_failed" // the operating system did not start it
	restartReconfigured = "reconfigured" // the configuration changed
)

const (
	rejectBadFrame = "bad_frame" // not a frame

	reasonOther = "other"
	// maxReasons bounds the distinct reasons that are counted: each becomes a
	// series, and the words come from another process.
	maxReasons = 32
)

// Config is what a [Supervisor] is made from.
type Config struct {
	// Command is the command line of a sampler: the path of this binary and the
	// hidden subcommand.
	Command []string
	// Env is added to the environment that the sampler inherits.
	Env []string
	// Sampler is the configuration that the first sampler gets.
	Sampler wire.SamplerConfig
	// Deliver takes over a frame with an inventory, a sample or events. Calls
	// do not overlap, and all frames of one sampler come before the first of the
	// next. An error rejects the frame, see [model.RejectError]. It must not block.
	Deliver func(wire.Frame) error
	// Links, if not nil, returns the links that a new sampler is to be told of.
	Links  func() []model.KnownLinks
	Logger *slog.Logger
	// MemoryLimit is the resident size in bytes over which a sampler is
	// replaced. 0 means no limit.
	MemoryLimit uint64

	timing timing
	start  startFunc
}

// timing holds the durations of the supervisor, so that tests can shorten them.
type timing struct {
	tick    time.Duration // between looks at the sampler's health
	silence time.Duration // without an accepted frame, unless 3 intervals are more
	startup time.Duration // until the inventory, and from there to the first sample, likewise
	stop    time.Duration // for a sampler to exit on its own
	reap    time.Duration // for a killed sampler to be reaped
	drain   time.Duration // to read what a dead sampler left in its pipes
	// The backoff between restarts, and how long samples must have come for it
	// to start over.
	backoffMin, backoffMax, stable time.Duration
}

// The start-up bound is not the bound on silence: the first client of a driver
// without persistence mode initialises every GPU, which takes seconds for each,
// embedded DCGM adds about a second at 16 GPUs, and connecting to a standalone
// engine that is not there takes 5 s to fail. A sampler killed in the middle of
// that would never come up. Stopping takes embedded DCGM up to 1.5 s.
var defaultTiming = timing{
	tick:       time.Second,
	silence:    10 * time.Second,
	startup:    30 * time.Second,
	stop:       3 * time.Second,
	reap:       2 * time.Second,
	drain:      time.Second,
	backoffMin: time.Second,
	backoffMax: time.Minute,
	stable:     time.Minute,
}

// backoff returns how long to wait after the given number of sampler ends in a
// row without a stable run, which is none after the first. random is in [0, 1).
func (t *timing) backoff(failures int, random float64) time.Duration {
	if failures == 0 {
		return 0
	}
	// The jitter adds up to a quarter, within the maximum.
	d, limit := t.backoffMin, t.backoffMax/5*4
	for range failures - 1 {
		if d *= 2; d >= limit {
			d = limit
			break
		}
	}
	return d + time.Duration(random*float64(d)/4)
}

// Supervisor keeps one sampler process running and takes in what it sends.
//
// There is never more than one: two embedded engines fight over the profiling
// hardware. A sampler holds no state worth keeping, so the answer to whatever
// goes wrong in one is a new one.
//
// No sampler outlives the process that supervises it: it gets the end of its
// standard input when that process dies, by whatever cause, and SIGKILL from
// the kernel in case it does not listen.
type Supervisor struct {
	cfg          Config
	log          *slog.Logger
	output       *outputLog
	reconfigured chan struct{} // has room for one

	mu          sync.Mutex
	sampler     wire.SamplerConfig
	eventsSince time.Time // where the next sampler goes on with events
	replaces    bool      // a sampler that works is to be replaced, and none has sampled since
	profiling   profilingPause
	status      model.SamplerStatus
}

// New returns a supervisor that does nothing before [Supervisor.Run].
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
		output:       newOutputLog(cfg.Logger),
		reconfigured: make(chan struct{}, 1),
		sampler:      cfg.Sampler,
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
	status.ProfilingPausedUntil = s.profiling.end()
	return status
}

func (s *Supervisor) update(f func(*model.SamplerStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Reconfigure has the sampler replaced by one with the given configuration, as
// soon as the old one is gone. It does not wait for that.
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

// nextConfig returns the newest configuration and forgets that it is new.
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
	cfg.ProfilingPause = s.profiling.left()
	s.profiling.told = s.profiling.until
	return cfg
}

// heard remembers where the next sampler is to go on with events: after the
// newest that was taken in, or, before there is one, where sampling began.
// Events' times are by the engine's clock, which need not be ours.
func (s *Supervisor) heard(f wire.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Sample != nil && s.eventsSince.IsZero() {
		s.eventsSince = f.Sample.Time
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

// Run keeps a sampler running until ctx is done, then stops it and returns. It
// is to be called once. An error means that a sampler is left that cannot be
// killed; Run returns within seconds nevertheless.
func (s *Supervisor) Run(ctx context.Context) error {
	// The kernel kills the sampler when the thread that started it ends
	// (PR_SET_PDEATHSIG), so that thread has to last as long as this function.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	s.output.open()
	defer s.output.close(s.cfg.timing.drain)

	var (
		failures int
		logged   model.Failure // by which the last sampler gave up, already logged
	)
	for {
		end := s.runOne(ctx, s.nextConfig())
		if ctx.Err() != nil {
			return end.err
		}
		failures++
		if end.stable || end.reconfigured {
			failures = 0
		}
		delay := s.cfg.timing.backoff(failures, rand.Float64())
		if end.sampled {
			logged = model.Failure{}
		}
		switch {
		case end.reconfigured:
			s.log.Info("sampler stopped for a new configuration")
		case end.bySampler && end.failure == logged:
			s.log.Debug("sampler still cannot work", "reason", end.failure.Reason,
				"error", end.failure.Message, "retry_in", delay)
		case end.bySampler:
			logged = end.failure
			s.log.Error("sampler cannot work, it will be tried again", "reason", end.failure.Reason,
				"error", end.failure.Message, "retry_in", delay)
		default:
			s.log.Warn("sampler ended, it will be restarted", "reason", end.failure.Reason,
				"error", end.failure.Message, "retry_in", delay)
		}
		if !s.pause(ctx, delay) {
			return nil
		}
	}
}

// pause waits until the next sampler may be started. It returns false when ctx
// is done.
func (s *Supervisor) pause(ctx context.Context, d time.Duration) bool {
	s.update(func(st *model.SamplerStatus) { st.NextStart = time.Now().Add(d) })
	defer s.update(func(st *model.SamplerStatus) { st.NextStart = time.Time{} })
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.reconfigured: // whoever changes something wants to see it at once
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// ending is how one sampler came to its end.
type ending struct {
	reconfigured bool
	failure      model.Failure // unless reconfigured
	bySampler    bool          // the failure is the sampler's own word
	sampled      bool          // a sample was accepted
	stable       bool
	err          error // it is not gone, and ctx is done
}

// runOne starts a sampler and returns when it is gone, or when ctx is done and
// it would not go.
func (s *Supervisor) runOne(ctx context.Context, cfg wire.SamplerConfig) ending {
	if ctx.Err() != nil {
		return ending{}
	}
	proc, err := s.cfg.start(s.cfg.Command, s.cfg.Env, cfg)
	if err != nil {
		f := model.Failure{Reason: restartStart, Message: err.Error()}
		s.countEnd(f.Reason, &f)
		return ending{failure: f}
	}
	r := s.attach(proc)
	s.update(func(st *model.SamplerStatus) { st.Running, st.PID, st.Started = true, proc.pid(), r.started })
	s.log.Debug("sampler started", "pid", proc.pid())
	s.hears(proc)
	defer s.hears(nil)

	why := s.watch(ctx, r, cfg)
	s.update(func(st *model.SamplerStatus) { st.Running, st.Sampling, st.Started = false, false, time.Time{} })
	if why.how == ownEnd {
		return s.ownEnd(r)
	}

	end := ending{failure: why.failure, reconfigured: why.reconfigured}
	end.bySampler = r.lastWord() != nil && why.failure == *r.lastWord()
	switch {
	case ctx.Err() != nil:
	case end.reconfigured:
		s.countEnd(restartReconfigured, nil)
	default:
		s.countEnd(why.failure.Reason, &why.failure)
	}
	end.err = s.stop(ctx, r, why.how == askToExit)
	end.sampled, end.stable = r.sampled(), s.wasStable(r)
	return end
}

// ownEnd finds out why a sampler that is gone went.
func (s *Supervisor) ownEnd(r *attached) ending {
	s.release(r, s.cfg.timing.drain)
	end := ending{sampled: r.sampled(), stable: s.wasStable(r)}
	switch {
	case r.lastWord() != nil:
		end.failure, end.bySampler = *r.lastWord(), true
	case garbled(r.readErr):
		end.failure = model.Failure{Reason: restartBadFrame, Message: r.readErr.Error()}
	default:
		end.failure = describeExit(r.exit)
		if errors.Is(r.readErr, io.ErrUnexpectedEOF) {
			end.failure.Message += " in the middle of a frame"
		}
	}
	s.countEnd(end.failure.Reason, &end.failure)
	s.update(func(st *model.SamplerStatus) { st.PID = 0 })
	return end
}

func (s *Supervisor) wasStable(r *attached) bool {
	first := r.firstSample.Load()
	return first != 0 && time.Since(r.started)-time.Duration(first) >= s.cfg.timing.stable
}

// stop makes the sampler go. When it returns without an error, it is gone.
func (s *Supervisor) stop(ctx context.Context, r *attached, ask bool) error {
	t := &s.cfg.timing
	if ask {
		r.proc.closeStdin()
	}
	if !ask || !within(r.exited, t.stop) {
		r.proc.kill()
	}
	if within(r.exited, t.reap) {
		s.release(r, t.drain)
		s.update(func(st *model.SamplerStatus) { st.PID = 0 })
		return nil
	}

	s.release(r, 0)
	s.update(func(st *model.SamplerStatus) { st.Unreapable = true })
	s.log.Error("killed sampler does not go away, it is probably stuck in a driver call; none is started before it does",
		"pid", r.proc.pid())
	select {
	case <-r.exited:
	case <-ctx.Done():
		return fmt.Errorf("stopping sampler: process %d was killed but does not go away", r.proc.pid())
	}
	s.update(func(st *model.SamplerStatus) { st.Unreapable, st.PID = false, 0 })
	s.log.Info("killed sampler is gone at last", "pid", r.proc.pid())
	return nil
}

// within waits for c to be closed, but not longer than d.
func within(c <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// countEnd counts the end of a sampler. f is nil if it was meant to end.
func (s *Supervisor) countEnd(reason string, f *model.Failure) {
	s.update(func(st *model.SamplerStatus) {
		count(st.Restarts, reason)
		if f != nil {
			st.LastFailure = *f
		}
	})
}

// count counts under a reason, or under "other" if it is no fit label value.
func count(m map[string]uint64, reason string) {
	if _, known := m[reason]; !known && (len(m) >= maxReasons || !isWord(reason)) {
		reason = reasonOther
	}
	m[reason]++
}

func isWord(s string) bool {
	if s == "" || len(s) > 40 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
