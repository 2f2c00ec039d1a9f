// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// A sampler that sends no frame for max(3 intervals, 10 s) is killed and restarted.
func TestSupervisorKillsSilentSampler(t *testing.T) {
	future := &model.RejectError{Reason: model.RejectFuture, Err: errors.New("an hour ahead")}
	for name, c := range map[string]struct {
		interval time.Duration
		script   func(*fakeProcess)
		reject   func(wire.Frame) error
		// since fakeProcess.lastFrame, or since the start
		after   time.Duration
		message string
	}{
		"10 s after the last sample": {interval: time.Second, after: 10 * time.Second,
			script: func(p *fakeProcess) { p.send(smallInventory(), smallSample()) }},
		"10 s after the last of many": {interval: time.Second, after: 10 * time.Second,
			script: func(p *fakeProcess) { p.send(smallInventory()); p.repeat(5*time.Minute, time.Second, smallSample) }},
		"3 intervals if longer": {interval: 5 * time.Second, after: 15 * time.Second,
			script: func(p *fakeProcess) { p.send(smallInventory(), smallSample()) }},
		"30 s from the start": {interval: time.Second, after: 30 * time.Second,
			script: func(*fakeProcess) {}},
		"3 intervals from the start if longer": {interval: 20 * time.Second, after: time.Minute,
			script: func(*fakeProcess) {}},
		"30 s from the start with only an inventory": {interval: time.Second, after: 30 * time.Second,
			script: func(p *fakeProcess) { last := p.lastFrame.Load(); p.send(smallInventory()); p.lastFrame.Store(last) }},
		"30 s after a late inventory": {interval: time.Second, after: 30 * time.Second,
			script: func(p *fakeProcess) { time.Sleep(25 * time.Second); p.send(smallInventory()) }},
		"30 s after an announced wait": {interval: time.Second, after: 30 * time.Second,
			script: func(p *fakeProcess) {
				p.send(smallInventory(), smallSample())
				p.repeat(2*time.Minute, 25*time.Second, func() wire.Frame { return wire.Frame{Wait: time.Hour} })
			}},
		"10 s after the sample that follows a wait": {interval: time.Second, after: 10 * time.Second,
			script: func(p *fakeProcess) {
				p.send(smallInventory(), wire.Frame{Wait: 30 * time.Second}, smallSample())
			}},
		"events do not count": {interval: time.Second, after: 10 * time.Second,
			script: func(p *fakeProcess) {
				p.send(smallInventory(), smallSample())
				last := p.lastFrame.Load()
				p.repeat(9*time.Second, time.Second, smallEvents)
				p.lastFrame.Store(last)
			}},
		"rejected frames do not count": {interval: time.Second, after: 10 * time.Second,
			script: func(p *fakeProcess) {
				p.send(smallInventory(), smallSample())
				last := p.lastFrame.Load()
				p.repeat(9*time.Second+time.Millisecond, 3*time.Second, func() wire.Frame {
					return wire.Frame{Sample: &model.Sample{Generation: 2, Time: time.Now()}}
				})
				p.lastFrame.Store(last)
			},
			reject: func(f wire.Frame) error {
				if f.Sample != nil && f.Sample.Generation == 2 {
					return future
				}
				return nil
			},
			message: "4 frames were rejected, the last because of future: an hour ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, sampler := Config{Deliver: c.reject}, wire.SamplerConfig{Interval: c.interval}
			script := func(p *fakeProcess) {
				if p.number > 0 {
					p.sampleForever()
					return
				}
				p.lastFrame.Store(&p.startedAt)
				c.script(p)
			}
			runFake(t, cfg, sampler, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
				synctest.Wait()
				first := w.started()[0]
				<-first.dead
				killed := first.killedAt.Load()
				if killed == nil {
					t.Fatalf("not killed; it ended with %v", first.status)
				}
				// The supervisor checks once a second.
				if got := killed.Sub(*first.lastFrame.Load()); got < c.after || got > c.after+time.Second {
					t.Errorf("killed after %v, want %v", got, c.after)
				}
				advance(2 * time.Second)
				st := s.Status()
				if st.Restarts[restartTimeout] != 1 || !st.Running || len(w.started()) != 2 {
					t.Errorf("not restarted: %+v", st)
				}
				if st.LastFailure.Reason != restartTimeout || !strings.Contains(st.LastFailure.Message, c.message) {
					t.Errorf("failure %+v, want message %q", st.LastFailure, c.message)
				}
				if c.message != "" && st.FramesRejected[model.RejectFuture] != 4 {
					t.Errorf("rejected %v, want 4 from the future", st.FramesRejected)
				}
			})
		})
	}
}

// A sampler that is slow, but within the limits, is not killed.
func TestSupervisorToleratesSlowSampler(t *testing.T) {
	script := func(p *fakeProcess) {
		time.Sleep(29 * time.Second)
		p.send(smallInventory())
		time.Sleep(9 * time.Second)
		p.repeat(time.Hour, 9*time.Second, smallSample)
	}
	runFake(t, Config{}, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
		advance(10 * time.Minute)
		if n := len(w.started()); n != 1 {
			t.Errorf("%d samplers were started, want 1: %+v", n, s.Status())
		}
	})
}

// All frames of the old sampler are delivered before the first of the new one.
func TestSupervisorDeliversInOrder(t *testing.T) {
	var inDeliver, overlaps atomic.Int32
	var seen []uint64
	cfg := Config{Deliver: func(f wire.Frame) error {
		if inDeliver.Add(1) != 1 {
			overlaps.Add(1)
		}
		time.Sleep(300 * time.Millisecond)
		seen = append(seen, f.Sample.Generation)
		inDeliver.Add(-1)
		return nil
	}}
	script := func(p *fakeProcess) {
		go p.awaitStdinEnd()
		for p.send(wire.Frame{Sample: &model.Sample{Generation: uint64(p.number), Time: time.Now()}}) {
		}
	}
	runFake(t, cfg, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
		for range 5 {
			advance(2 * time.Second)
			s.Reconfigure(wire.SamplerConfig{Interval: time.Second})
		}
		advance(2 * time.Second)
	})
	for i := 1; i < len(seen); i++ {
		if seen[i] < seen[i-1] {
			t.Errorf("a frame of sampler %d follows one of sampler %d", seen[i], seen[i-1])
		}
	}
	if n := overlaps.Load(); n != 0 || len(seen) == 0 || seen[len(seen)-1] != 5 {
		t.Errorf("%d calls overlap; %d frames are of samplers %v", n, len(seen), seen)
	}
}

// The failure that a sampler reports is the reason, however the sampler then ends.
func TestSupervisorUsesReportedFailure(t *testing.T) {
	lost := model.Failure{Reason: model.FailureHostengineLost, Message: "connection not valid"}
	for name, script := range map[string]func(*fakeProcess){
		"exits":               func(p *fakeProcess) { p.send(wire.Frame{Failure: &lost}); p.die(waitExit(1)) },
		"exits with 0":        func(p *fakeProcess) { p.send(wire.Frame{Failure: &lost}); p.die(waitExit(0)) },
		"crashes on exit":     func(p *fakeProcess) { p.send(wire.Frame{Failure: &lost}); p.die(waitSignal(syscall.SIGSEGV)) },
		"hangs on exit":       func(p *fakeProcess) { p.send(wire.Frame{Failure: &lost}); p.awaitStdinEnd() },
		"continues to sample": func(p *fakeProcess) { p.send(wire.Frame{Failure: &lost}); p.sampleForever() },
		"reports it after samples": func(p *fakeProcess) {
			p.send(smallInventory(), smallSample(), wire.Frame{Failure: &lost})
			p.die(waitExit(1))
		},
		"reports more than one": func(p *fakeProcess) {
			p.send(wire.Frame{Failure: &lost}, wire.Frame{Failure: &model.Failure{Reason: "again", Message: "?"}})
			p.die(waitExit(1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Deliver: func(f wire.Frame) error {
				if f.Failure != nil {
					t.Error("the failure was delivered")
				}
				return nil
			}}
			first := func(p *fakeProcess) {
				if p.number == 0 {
					script(p)
					return
				}
				p.sampleForever()
			}
			runFake(t, cfg, everySecond, first, func(t *testing.T, s *Supervisor, w *fakeHost) {
				advance(6 * time.Second)
				st := s.Status()
				if st.Restarts[model.FailureHostengineLost] != 1 || st.LastFailure != lost || !st.Running {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// A sampler over the memory limit is replaced.
func TestSupervisorLimitsMemory(t *testing.T) {
	cfg := Config{MemoryLimit: 1 << 20}
	script := func(p *fakeProcess) {
		p.size.Store(1 << 20) // equals the limit
		go func() {
			time.Sleep(90 * time.Second)
			if p.number == 0 {
				p.size.Add(1)
			}
		}()
		p.sampleForever()
	}
	runFake(t, cfg, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
		advance(89 * time.Second)
		if n := len(w.started()); n != 1 {
			t.Errorf("%d samplers within the limit, want 1", n)
		}
		advance(2 * time.Second)
		st := s.Status()
		if st.Restarts[restartMemory] != 1 || !st.Running || len(w.started()) != 2 {
			t.Errorf("status %+v", st)
		}
		advance(10 * time.Minute)
	})
}

func TestDescribeExit(t *testing.T) {
	for name, c := range map[string]struct {
		status syscall.WaitStatus
		want   model.Failure
	}{
		"exit 0":         {waitExit(0), model.Failure{Reason: restartExit, Message: "exit status 0"}},
		"exit 1":         {waitExit(1), model.Failure{Reason: restartExit, Message: "exit status 1"}},
		"Go fatal error": {waitExit(2), model.Failure{Reason: restartCrash, Message: "fatal error (exit status 2), see the sampler's output"}},
		"SIGSEGV":        {waitSignal(syscall.SIGSEGV), model.Failure{Reason: restartCrash, Message: "signal 11: segmentation fault"}},
		"core dumped":    {waitSignal(syscall.SIGABRT) | 0x80, model.Failure{Reason: restartCrash, Message: "signal 6: aborted"}},
		"SIGBUS":         {waitSignal(syscall.SIGBUS), model.Failure{Reason: restartCrash, Message: "signal 7: bus error"}},
		"SIGKILL":        {waitSignal(syscall.SIGKILL), model.Failure{Reason: restartKilled, Message: "signal 9: killed"}},
		"SIGTERM":        {waitSignal(syscall.SIGTERM), model.Failure{Reason: restartKilled, Message: "signal 15: terminated"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := describeExit(c.status); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// A sampler whose frame stream ends or is corrupt is replaced.
func TestSupervisorReplacesSamplerWithoutFrames(t *testing.T) {
	for name, c := range map[string]struct {
		script func(*fakeProcess)
		reason string
		within time.Duration
	}{
		"closes the pipe":   {func(p *fakeProcess) { p.send(smallSample()); p.frameW.Close(); p.awaitStdinEnd() }, restartTimeout, 4 * time.Second},
		"truncates a frame": {func(p *fakeProcess) { p.frameW.Write(make([]byte, 3)); p.frameW.Close(); p.awaitStdinEnd() }, restartTimeout, 4 * time.Second},
		"sends garbage":     {func(p *fakeProcess) { p.frameW.Write(make([]byte, 64)); p.awaitStdinEnd() }, restartBadFrame, time.Millisecond},
		"sends garbage and exits": {func(p *fakeProcess) {
			p.frameW.Write(make([]byte, 64))
			p.die(waitExit(1))
		}, restartBadFrame, time.Millisecond},
		"truncates a frame and crashes": {func(p *fakeProcess) {
			p.frameW.Write(make([]byte, 3))
			p.die(waitSignal(syscall.SIGSEGV))
		}, restartCrash, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			script := func(p *fakeProcess) {
				if p.number == 0 {
					c.script(p)
					return
				}
				p.sampleForever()
			}
			runFake(t, Config{}, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
				advance(c.within)
				if st := s.Status(); st.Restarts[c.reason] != 1 || st.LastFailure.Reason != c.reason {
					t.Errorf("status %+v, want one restart for %s", st, c.reason)
				}
			})
		})
	}
}
