// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// attached is a sampler process with the goroutines that read from it.
type attached struct {
	proc    process
	started time.Time

	// Written by the reader of frames; durations since started, 0 for never.
	lastFrame   atomic.Int64 // accepted inventory or sample
	firstSample atomic.Int64 // accepted sample
	rejected    atomic.Pointer[rejection]
	failure     atomic.Pointer[model.Failure]

	failed  chan struct{} // closed once failure is set
	readEnd chan struct{} // closed once readErr is set and nothing is delivered any more
	readErr error
	exited  chan struct{} // closed once the process is reaped and exit is set
	exit    syscall.WaitStatus
	output  sync.WaitGroup
}

// rejection is about the frames rejected since the last accepted one.
type rejection struct {
	count int
	last  error
}

func (r *attached) lastWord() *model.Failure { return r.failure.Load() }

func (r *attached) sampled() bool { return r.firstSample.Load() != 0 }

// attach starts to read what a new sampler says.
func (s *Supervisor) attach(proc process) *attached {
	r := &attached{
		proc:    proc,
		started: time.Now(),
		failed:  make(chan struct{}),
		readEnd: make(chan struct{}),
		exited:  make(chan struct{}),
	}
	stdout, stderr := proc.output()
	r.output.Go(func() { s.output.read(streamStdout, stdout) })
	r.output.Go(func() { s.output.read(streamStderr, stderr) })
	go func() {
		defer close(r.readEnd)
		r.readErr = s.takeIn(r)
	}()
	go func() {
		defer close(r.exited)
		r.exit = proc.wait()
	}()
	return r
}

// release closes the pipes of a sampler, after reading for at most drain what a
// dead one has left in them. When it returns, no frame of it will be delivered
// any more.
func (s *Supervisor) release(r *attached, drain time.Duration) {
	outputEnd := make(chan struct{})
	go func() {
		defer close(outputEnd)
		r.output.Wait()
	}()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	for _, end := range []<-chan struct{}{r.readEnd, outputEnd} {
		select {
		case <-end:
		case <-timer.C:
			timer.Reset(0) // one bound for both
		}
	}
	r.proc.close()
	<-r.readEnd
	<-outputEnd
	s.output.flush()
}

// takeIn delivers frames until there are no more.
func (s *Supervisor) takeIn(r *attached) error {
	frames := wire.NewFrameReader(r.proc.frames())
	var rejected rejection
	for {
		frame, err := frames.Next()
		if err != nil {
			if errors.Is(err, wire.ErrBadFrame) {
				s.update(func(st *model.SamplerStatus) { count(st.FramesRejected, rejectBadFrame) })
			}
			return err
		}
		if frame.Failure != nil {
			if r.failure.CompareAndSwap(nil, frame.Failure) {
				close(r.failed)
			}
			continue
		}
		if err := s.cfg.Deliver(frame); err != nil {
			s.reject(err)
			rejected = rejection{count: rejected.count + 1, last: err}
			r.rejected.Store(&rejection{rejected.count, err})
			if rejected.count == 1 {
				s.log.Warn("frame rejected", "pid", r.proc.pid(), "error", err)
			}
			continue
		}
		if rejected.count != 0 {
			rejected = rejection{}
			r.rejected.Store(nil)
		}
		s.heard(frame)
		// Events come about without sampling, so they are no sign of it.
		if frame.Inventory == nil && frame.Sample == nil {
			continue
		}
		now := max(1, int64(time.Since(r.started)))
		r.lastFrame.Store(now)
		if frame.Sample != nil && r.firstSample.CompareAndSwap(0, now) {
			s.update(func(st *model.SamplerStatus) { st.Sampling, s.replaces = st.Running, false })
			s.log.Info("sampler delivers samples", "pid", r.proc.pid(), "after", time.Duration(now))
		}
	}
}

func (s *Supervisor) reject(err error) {
	reason := model.RejectInvalid
	if e, ok := errors.AsType[*model.RejectError](err); ok {
		reason = e.Reason
	}
	s.update(func(st *model.SamplerStatus) { count(st.FramesRejected, reason) })
}

// how a sampler is brought to its end.
type how int

const (
	ownEnd    how = iota // it is already gone
	askToExit            // close its standard input, then kill it
	killNow
)

// verdict is what watching a sampler came to.
type verdict struct {
	how          how
	reconfigured bool
	failure      model.Failure // with killNow
}

// watch returns when something has to be done about the sampler.
func (s *Supervisor) watch(ctx context.Context, r *attached, cfg wire.SamplerConfig) verdict {
	t := &s.cfg.timing
	dog := watchdog{
		silence: max(3*cfg.Interval, t.silence),
		startup: max(3*cfg.Interval, t.startup),
		looked:  r.started,
		awake:   r.started,
	}
	tick := time.NewTicker(t.tick)
	defer tick.Stop()

	readEnd, failed := r.readEnd, r.failed
	// overdue fires when the sampler should have exited by itself.
	var (
		overdue <-chan time.Time
		ifAlive model.Failure
	)
	for {
		select {
		case <-ctx.Done():
			return verdict{how: askToExit}
		case <-s.reconfigured:
			return verdict{how: askToExit, reconfigured: true}
		case <-r.exited:
			return verdict{how: ownEnd}
		case <-failed:
			failed = nil
			overdue, ifAlive = time.After(t.stop), *r.lastWord()
		case <-readEnd:
			readEnd = nil
			switch {
			case garbled(r.readErr):
				return verdict{how: killNow, failure: model.Failure{Reason: restartBadFrame, Message: r.readErr.Error()}}
			case overdue != nil:
			default: // the pipe ended; most likely so does the sampler
				overdue = time.After(t.stop)
				ifAlive = model.Failure{Reason: restartTimeout, Message: "it closed its pipe for frames without exiting"}
			}
		case <-overdue:
			return verdict{how: killNow, failure: ifAlive}
		case <-tick.C:
			s.output.tick()
			if f, ok := dog.look(r, time.Now()); !ok {
				return verdict{how: killNow, failure: f}
			}
			if f, ok := s.checkMemory(r); !ok {
				return verdict{how: killNow, failure: f}
			}
		}
	}
}

// garbled says that a stream of frames ended with something that is no frame,
// as opposed to nothing or half a frame.
func garbled(err error) bool {
	return errors.Is(err, wire.ErrBadFrame) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// watchdog notices when a sampler has been silent for too long.
type watchdog struct {
	silence, startup time.Duration
	looked           time.Time // when look was last called
	awake            time.Time // since when it has been called regularly
}

func (d *watchdog) look(r *attached, now time.Time) (model.Failure, bool) {
	// If this process was itself stopped or starved, what the sampler has sent
	// meanwhile may still wait to be read.
	if now.Sub(d.looked) > d.silence/2 {
		d.awake = now
	}
	d.looked = now

	last := r.started.Add(time.Duration(r.lastFrame.Load()))
	if d.awake.After(last) {
		last = d.awake
	}
	quiet := now.Sub(last)
	limit := d.silence
	if !r.sampled() && now.Sub(r.started) < 2*d.startup {
		// Until the inventory, and as long again until the first sample: a slow
		// driver is read in whole before that.
		limit = d.startup
	}
	if quiet < limit {
		return model.Failure{}, true
	}
	msg := fmt.Sprintf("nothing came from the sampler for %v: a call into DCGM or the driver does not return", quiet.Round(time.Second))
	if rej := r.rejected.Load(); rej != nil {
		msg = fmt.Sprintf("nothing of use came from the sampler for %v: %d frames were rejected, the last because of %v", quiet.Round(time.Second), rej.count, rej.last)
	}
	return model.Failure{Reason: restartTimeout, Message: msg}, false
}

func (s *Supervisor) checkMemory(r *attached) (model.Failure, bool) {
	if s.cfg.MemoryLimit == 0 {
		return model.Failure{}, true
	}
	size, err := r.proc.resident()
	if err != nil { // it is about to be reaped
		s.log.Debug("cannot tell the sampler's memory", "pid", r.proc.pid(), "error", err)
		return model.Failure{}, true
	}
	if size <= s.cfg.MemoryLimit {
		return model.Failure{}, true
	}
	return model.Failure{
		Reason:  restartMemory,
		Message: fmt.Sprintf("its resident size is %d bytes, over the limit of %d", size, s.cfg.MemoryLimit),
	}, false
}

// describeExit says how a process that nobody told to end ended.
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
		// The Go runtime catches the fault signals of native code too, prints
		// what it knows and exits with 2 (package runtime, GOTRACEBACK).
		return model.Failure{Reason: restartCrash, Message: "fatal error (exit status 2), details stand in its output"}
	default:
		return model.Failure{Reason: restartExit, Message: fmt.Sprintf("exit status %d", ws.ExitStatus())}
	}
}
