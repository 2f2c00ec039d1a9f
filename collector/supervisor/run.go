// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// run is one run of the sampler process, with the goroutines that read its pipes.
type run struct {
	proc    process
	started time.Time

	// Written by readFrames: durations since started, 0 for never.
	lastFrame   atomic.Int64 // newest accepted inventory or sample, or announcement
	firstSample atomic.Int64 // first accepted sample
	wait        atomic.Int64 // how long the sampler announced to be silent after lastFrame
	rejected    atomic.Pointer[rejection]

	framesDone chan struct{}  // closed when no further frame is delivered
	failure    *model.Failure // the sampler's own report; set before framesDone is closed
	readErr    error          // set before framesDone is closed
	exited     chan struct{}  // closed when the process is reaped
	exit       syscall.WaitStatus
	readers    sync.WaitGroup
}

// rejection counts the frames rejected since the last accepted one.
type rejection struct {
	count int
	last  error
}

// startRun starts to read the pipes of a new sampler.
func (s *Supervisor) startRun(proc process) *run {
	r := &run{proc: proc, started: time.Now(), framesDone: make(chan struct{}), exited: make(chan struct{})}
	stdout, stderr, records := proc.output()
	r.readers.Go(func() { s.output.read(streamStdout, stdout) })
	r.readers.Go(func() { s.output.read(streamStderr, stderr) })
	r.readers.Go(func() { s.output.read(streamRecords, records) })
	r.readers.Go(func() {
		defer close(r.framesDone)
		s.readFrames(r)
	})
	go func() {
		defer close(r.exited)
		r.exit = proc.wait()
	}()
	return r
}

// release reads the pipes of a dead sampler for at most drain, then closes them. After
// it returns, no further frame of this sampler is delivered.
func (s *Supervisor) release(r *run, drain time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.readers.Wait()
	}()
	closedWithin(done, drain)
	r.proc.close()
	<-done
}

// closedWithin reports whether c is closed within d.
func closedWithin(c <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// readFrames delivers frames until the stream ends or the sampler reports a failure.
func (s *Supervisor) readFrames(r *run) {
	frames := wire.NewFrameReader(r.proc.frames())
	for {
		frame, err := frames.Next()
		if err != nil {
			r.readErr = err
			if errors.Is(err, wire.ErrBadFrame) {
				s.update(func(st *model.SamplerStatus) { count(st.FramesRejected, rejectBadFrame) })
			}
			return
		}
		if frame.Failure != nil {
			r.failure = frame.Failure
			return
		}
		if frame.Wait != 0 {
			r.wait.Store(int64(min(frame.Wait, s.cfg.timing.startup)))
			r.lastFrame.Store(int64(max(1, time.Since(r.started))))
			continue
		}
		if err := s.cfg.Deliver(frame); err != nil {
			s.reject(r, err)
			continue
		}
		r.rejected.Store(nil)
		s.advanceEvents(frame)
		// Other frames do not depend on sampling, so they do not prove that it works.
		if frame.Inventory == nil && frame.Sample == nil {
			continue
		}
		now := max(1, time.Since(r.started))
		r.wait.Store(0)
		r.lastFrame.Store(int64(now))
		if frame.Sample != nil && r.firstSample.CompareAndSwap(0, int64(now)) {
			s.update(func(st *model.SamplerStatus) { st.Sampling, st.EngineGone, s.replaces = st.Running, false, false })
			s.log.Debug("Sampler delivers samples", "pid", r.proc.pid(), "after", now)
		}
	}
}

// reject counts a frame that was not accepted. Only the first in a row is logged.
func (s *Supervisor) reject(r *run, err error) {
	reason := model.RejectInvalid
	if e, ok := errors.AsType[*model.RejectError](err); ok {
		reason = e.Reason
	}
	s.update(func(st *model.SamplerStatus) { count(st.FramesRejected, reason) })
	n := 1
	if before := r.rejected.Load(); before != nil {
		n += before.count
	} else {
		s.log.Warn("Frame rejected", "pid", r.proc.pid(), "err", err)
	}
	r.rejected.Store(&rejection{n, err})
}

func (r *run) sampled() bool { return r.firstSample.Load() != 0 }

// sampledFor reports whether the first sample was accepted at least d ago.
func (r *run) sampledFor(d time.Duration) bool {
	return r.sampled() && time.Since(r.started)-time.Duration(r.firstSample.Load()) >= d
}

// corrupt reports whether the frames ended with garbage. A truncated frame is not
// garbage: its writer died.
func (r *run) corrupt() bool {
	return errors.Is(r.readErr, wire.ErrBadFrame) && !errors.Is(r.readErr, io.ErrUnexpectedEOF)
}

// endFailure returns the cause of a sampler's exit. The caller has released r.
func (r *run) endFailure() model.Failure {
	switch {
	case r.failure != nil:
		return *r.failure
	case r.corrupt():
		return model.Failure{Reason: restartBadFrame, Message: r.readErr.Error()}
	}
	f := describeExit(r.exit)
	if errors.Is(r.readErr, io.ErrUnexpectedEOF) {
		f.Message += " in the middle of a frame"
	}
	return f
}
