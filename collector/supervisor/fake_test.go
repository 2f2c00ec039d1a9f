// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// fakeProcess is a sampler on the fake clock of a synctest bubble, which makes limits of
// a minute exact. It can survive SIGKILL.
type fakeProcess struct {
	cfg       wire.SamplerConfig
	startedAt time.Time
	number    int

	frameR, outR, errR *io.PipeReader
	frameW, outW, errW *io.PipeWriter
	w                  *wire.FrameWriter

	commands       chan wire.SamplerCommand
	stdinClosed    chan struct{}
	closeStdinOnce func()
	dead           chan struct{}
	die            func(syscall.WaitStatus)
	status         syscall.WaitStatus
	killedAt       atomic.Pointer[time.Time]
	ignoresKill    atomic.Bool // it survives SIGKILL
	size           atomic.Uint64
	lastFrame      atomic.Pointer[time.Time] // when it was sent
}

// fakeHost starts samplers that run a script.
type fakeHost struct {
	script func(*fakeProcess)
	refuse func(number int) error // not nil: may fail the start

	mu   sync.Mutex
	all  []*fakeProcess
	live int
	most int // alive at the same time
}

func (w *fakeHost) start(_, _ []string, cfg wire.SamplerConfig) (process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &fakeProcess{cfg: cfg, startedAt: time.Now(), number: len(w.all),
		commands: make(chan wire.SamplerCommand, 8), stdinClosed: make(chan struct{}), dead: make(chan struct{})}
	if w.refuse != nil {
		if err := w.refuse(p.number); err != nil {
			w.all = append(w.all, p)
			return nil, err
		}
	}
	p.frameR, p.frameW = io.Pipe()
	p.outR, p.outW = io.Pipe()
	p.errR, p.errW = io.Pipe()
	p.w = wire.NewFrameWriter(p.frameW)
	p.closeStdinOnce = sync.OnceFunc(func() { close(p.stdinClosed) })
	var once sync.Once
	p.die = func(ws syscall.WaitStatus) {
		once.Do(func() {
			p.status = ws
			p.frameW.Close()
			p.outW.Close()
			p.errW.Close()
			w.mu.Lock()
			w.live--
			w.mu.Unlock()
			close(p.dead)
		})
	}
	w.all = append(w.all, p)
	w.live++
	w.most = max(w.most, w.live)
	go w.script(p)
	return p, nil
}

func (w *fakeHost) started() []*fakeProcess {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*fakeProcess(nil), w.all...)
}

func (p *fakeProcess) pid() int { return 1000 + p.number }

func (p *fakeProcess) frames() io.Reader { return p.frameR }

func (p *fakeProcess) output() (stdout, stderr, records io.Reader) {
	return p.outR, p.errR, strings.NewReader("")
}

func (p *fakeProcess) resident() (uint64, error) { return p.size.Load(), nil }

func (p *fakeProcess) command(c wire.SamplerCommand) { p.commands <- c }

func (p *fakeProcess) closeStdin() { p.closeStdinOnce() }

func (p *fakeProcess) kill() {
	now := time.Now()
	p.killedAt.CompareAndSwap(nil, &now)
	if !p.ignoresKill.Load() {
		p.die(waitSignal(syscall.SIGKILL))
	}
}

func (p *fakeProcess) wait() syscall.WaitStatus {
	<-p.dead
	return p.status
}

func (p *fakeProcess) close() {
	p.closeStdinOnce()
	p.frameR.Close()
	p.outR.Close()
	p.errR.Close()
}

func waitSignal(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }

func waitExit(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }

// send writes frames. It returns false when the reader is closed.
func (p *fakeProcess) send(frames ...wire.Frame) bool {
	for _, f := range frames {
		if p.w.Write(f) != nil {
			return false
		}
		now := time.Now()
		p.lastFrame.Store(&now)
	}
	return true
}

func smallSample() wire.Frame {
	return wire.Frame{Sample: &model.Sample{Generation: 1, Time: time.Now()}}
}

func smallInventory() wire.Frame {
	return wire.Frame{Inventory: &model.Inventory{Generation: 1, Time: time.Now()}}
}

func smallEvents() wire.Frame {
	return wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID}}}}
}

// repeat sends a frame at once and then every interval, until d has passed or the
// sampler must end.
func (p *fakeProcess) repeat(d, interval time.Duration, frame func() wire.Frame) {
	end := time.After(d)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for p.send(frame()) {
		select {
		case <-tick.C:
		case <-end:
			return
		case <-p.stdinClosed:
			p.die(waitExit(0))
			return
		case <-p.dead:
			return
		}
	}
}

// sampleForever is a healthy sampler.
func (p *fakeProcess) sampleForever() {
	if p.send(smallInventory()) {
		p.repeat(1000*time.Hour, time.Second, smallSample)
	}
}

// awaitStdinEnd exits when standard input is closed.
func (p *fakeProcess) awaitStdinEnd() {
	select {
	case <-p.stdinClosed:
		p.die(waitExit(0))
	case <-p.dead:
	}
}

// everySecond is the sampler configuration of most tests.
var everySecond = wire.SamplerConfig{Interval: time.Second}

// runFake runs a supervisor of fake samplers on a fake clock.
func runFake(t *testing.T, cfg Config, sampler wire.SamplerConfig, script func(*fakeProcess), check func(t *testing.T, s *Supervisor, w *fakeHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &fakeHost{script: script}
		cfg.start = w.start
		if cfg.Deliver == nil {
			cfg.Deliver = func(wire.Frame) error { return nil }
		}
		s := New(cfg)
		s.Reconfigure(sampler)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		check(t, s, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.most > 1 {
			t.Errorf("%d samplers were alive at the same time, want 1", w.most)
		}
		if st := s.Status(); st.Running || st.PID != 0 || st.Unreapable || !st.Started.IsZero() || !st.NextStart.IsZero() {
			t.Errorf("after Run: %+v", st)
		}
		time.Sleep(time.Hour) // lets sleeping scripts end
	})
}

// advance advances the fake clock.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
