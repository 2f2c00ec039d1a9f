// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"reflect"
	"slices"
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

// The tests here have samplers of clay, that live in this process and on the
// clock of a synctest bubble: it makes bounds of a minute exact, and it can make
// a process that SIGKILL does not end.

// clay is a sampler process without a process.
type clay struct {
	world  *clayWorld
	cfg    wire.SamplerConfig
	born   time.Time
	number int

	frameR, outR, errR *io.PipeReader
	frameW, outW, errW *io.PipeWriter
	w                  *wire.FrameWriter

	commands  chan wire.SamplerCommand
	stdinEnd  chan struct{}
	endStdin  func()
	dead      chan struct{}
	die       func(syscall.WaitStatus)
	status    syscall.WaitStatus
	killedAt  atomic.Pointer[time.Time]
	immortal  atomic.Bool // SIGKILL does not end it
	size      atomic.Uint64
	lastFrame atomic.Pointer[time.Time] // when it was sent
}

// clayWorld starts samplers that do what the script says.
type clayWorld struct {
	script func(*clay)
	refuse func(number int) error // may refuse to start one

	mu   sync.Mutex
	all  []*clay
	live int
	most int // that lived at once
}

func (w *clayWorld) start(_, _ []string, cfg wire.SamplerConfig) (process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &clay{world: w, cfg: cfg, born: time.Now(), number: len(w.all),
		commands: make(chan wire.SamplerCommand, 8), stdinEnd: make(chan struct{}), dead: make(chan struct{})}
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
	p.endStdin = sync.OnceFunc(func() { close(p.stdinEnd) })
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

func (w *clayWorld) started() []*clay {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*clay(nil), w.all...)
}

func (p *clay) pid() int { return 1000 + p.number }

func (p *clay) frames() io.Reader { return p.frameR }

func (p *clay) output() (stdout, stderr io.Reader) { return p.outR, p.errR }

func (p *clay) resident() (uint64, error) { return p.size.Load(), nil }

func (p *clay) command(c wire.SamplerCommand) { p.commands <- c }

func (p *clay) closeStdin() { p.endStdin() }

func (p *clay) kill() {
	now := time.Now()
	p.killedAt.CompareAndSwap(nil, &now)
	if !p.immortal.Load() {
		p.die(waitSignal(syscall.SIGKILL))
	}
}

func (p *clay) wait() syscall.WaitStatus {
	<-p.dead
	return p.status
}

func (p *clay) close() {
	p.endStdin()
	p.frameR.Close()
	p.outR.Close()
	p.errR.Close()
}

func waitSignal(s syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(s) }

func waitExit(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }

// send writes frames; it returns false when nobody reads any more.
func (p *clay) send(frames ...wire.Frame) bool {
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

// until sends the frame at once and then every interval, until d has passed or
// it is told to end.
func (p *clay) until(d, interval time.Duration, frame func() wire.Frame) {
	end := time.After(d)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for p.send(frame()) {
		select {
		case <-tick.C:
		case <-end:
			return
		case <-p.stdinEnd:
			p.die(waitExit(0))
			return
		case <-p.dead:
			return
		}
	}
}

// behave is what a good sampler does.
func (p *clay) behave() {
	if p.send(smallInventory()) {
		p.until(1000*time.Hour, time.Second, smallSample)
	}
}

// obey waits for the end and does nothing else.
func (p *clay) obey() {
	select {
	case <-p.stdinEnd:
		p.die(waitExit(0))
	case <-p.dead:
	}
}

// inBubble runs a supervisor of samplers of clay on a clock of its own.
func inBubble(t *testing.T, cfg Config, script func(*clay), check func(t *testing.T, s *Supervisor, w *clayWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &clayWorld{script: script}
		cfg.start = w.start
		if cfg.Deliver == nil {
			cfg.Deliver = func(wire.Frame) error { return nil }
		}
		s := New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		check(t, s, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.most > 1 {
			t.Errorf("%d samplers lived at once", w.most)
		}
		if st := s.Status(); st.Running || st.PID != 0 || st.Unreapable || !st.Started.IsZero() || !st.NextStart.IsZero() {
			t.Errorf("after Run: %+v", st)
		}
		time.Sleep(time.Hour) // scripts that sleep notice that it is over
	})
}

// later lets the time pass.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// No frame for max(3 intervals, 10 s) → SIGKILL and restart.
func TestSupervisorKillsSilentSampler(t *testing.T) {
	future := &model.RejectError{Reason: model.RejectFuture, Err: errors.New("an hour ahead")}
	for name, c := range map[string]struct {
		interval time.Duration
		script   func(*clay)
		reject   func(wire.Frame) error
		// From the last frame that p notes, or from the start.
		after time.Duration
		says  string
	}{
		"10 s after the last sample": {interval: time.Second, after: 10 * time.Second,
			script: func(p *clay) { p.send(smallInventory(), smallSample()) }},
		"10 s after the last of many": {interval: time.Second, after: 10 * time.Second,
			script: func(p *clay) { p.send(smallInventory()); p.until(5*time.Minute, time.Second, smallSample) }},
		"3 intervals, if they are more": {interval: 5 * time.Second, after: 15 * time.Second,
			script: func(p *clay) { p.send(smallInventory(), smallSample()) }},
		"30 s from the start": {interval: time.Second, after: 30 * time.Second,
			script: func(*clay) {}},
		"3 intervals from the start, if they are more": {interval: 20 * time.Second, after: time.Minute,
			script: func(*clay) {}},
		"30 s from the start if there is only an inventory": {interval: time.Second, after: 30 * time.Second,
			script: func(p *clay) { last := p.lastFrame.Load(); p.send(smallInventory()); p.lastFrame.Store(last) }},
		"30 s after a late inventory": {interval: time.Second, after: 30 * time.Second,
			script: func(p *clay) { time.Sleep(25 * time.Second); p.send(smallInventory()) }},
		"events are no sign of life": {interval: time.Second, after: 10 * time.Second,
			script: func(p *clay) {
				p.send(smallInventory(), smallSample())
				last := p.lastFrame.Load()
				p.until(9*time.Second, time.Second, smallEvents)
				p.lastFrame.Store(last)
			}},
		"rejected frames are no sign of life": {interval: time.Second, after: 10 * time.Second,
			script: func(p *clay) {
				p.send(smallInventory(), smallSample())
				last := p.lastFrame.Load()
				p.until(9*time.Second+time.Millisecond, 3*time.Second, func() wire.Frame {
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
			says: "4 frames were rejected, the last because of future: an hour ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Sampler: wire.SamplerConfig{Interval: c.interval}, Deliver: c.reject}
			script := func(p *clay) {
				if p.number > 0 {
					p.behave()
					return
				}
				p.lastFrame.Store(&p.born)
				c.script(p)
			}
			inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
				synctest.Wait()
				first := w.started()[0]
				<-first.dead
				killed := first.killedAt.Load()
				if killed == nil {
					t.Fatalf("it was not killed but ended with %v", first.status)
				}
				// It is looked at once a second.
				if got := killed.Sub(*first.lastFrame.Load()); got < c.after || got > c.after+time.Second {
					t.Errorf("killed after %v, want %v", got, c.after)
				}
				later(2 * time.Second)
				st := s.Status()
				if st.Restarts[restartTimeout] != 1 || !st.Running || len(w.started()) != 2 {
					t.Errorf("not restarted: %+v", st)
				}
				if st.LastFailure.Reason != restartTimeout || !strings.Contains(st.LastFailure.Message, c.says) {
					t.Errorf("failure %+v, want it to say %q", st.LastFailure, c.says)
				}
				if c.says != "" && st.FramesRejected[model.RejectFuture] != 4 {
					t.Errorf("rejected %v, want 4 from the future", st.FramesRejected)
				}
			})
		})
	}
}

// A slow sampler is not a silent one.
func TestSupervisorLeavesSlowSamplerAlone(t *testing.T) {
	cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}}
	script := func(p *clay) {
		time.Sleep(29 * time.Second)
		p.send(smallInventory())
		time.Sleep(9 * time.Second)
		p.until(time.Hour, 9*time.Second, smallSample)
	}
	inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
		later(10 * time.Minute)
		if n := len(w.started()); n != 1 {
			t.Errorf("%d samplers were started: %+v", n, s.Status())
		}
	})
}

func TestBackoff(t *testing.T) {
	for failures, want := range []struct{ least, most time.Duration }{
		{0, 0},
		{time.Second, 1250 * time.Millisecond},
		{2 * time.Second, 2500 * time.Millisecond},
		{4 * time.Second, 5 * time.Second},
		{8 * time.Second, 10 * time.Second},
		{16 * time.Second, 20 * time.Second},
		{32 * time.Second, 40 * time.Second},
		{48 * time.Second, time.Minute},
		{48 * time.Second, time.Minute},
	} {
		if got := defaultTiming.backoff(failures, 0); got != want.least {
			t.Errorf("after %d failures, at least %v, want %v", failures, got, want.least)
		}
		if got := defaultTiming.backoff(failures, 1); got != want.most {
			t.Errorf("after %d failures, at most %v, want %v", failures, got, want.most)
		}
	}
	if got := defaultTiming.backoff(1_000_000, 1); got != time.Minute {
		t.Errorf("after a million failures: %v", got)
	}
}

// Exponential backoff with jitter, 1 s to 60 s, reset after a stable minute.
func TestSupervisorBacksOff(t *testing.T) {
	// How long each sampler in turn sends samples before it exits.
	lives := make([]time.Duration, 9)
	lives = append(lives,
		59*time.Second, // not yet stable
		61*time.Second, // stable: the next is started at once,
		0,              // after which it starts over
		0,
	)
	want := []struct{ least, most time.Duration }{
		{1000, 1250}, {2000, 2500}, {4000, 5000}, {8000, 10_000}, {16_000, 20_000},
		{32_000, 40_000}, {48_000, 60_000}, {48_000, 60_000}, {48_000, 60_000},
		{48_000, 60_000},
		{0, 0},
		{1000, 1250},
		{2000, 2500},
	}
	deaths := make([]time.Time, len(lives))
	script := func(p *clay) {
		if p.number >= len(lives) {
			p.obey()
			return
		}
		p.until(lives[p.number], time.Second, smallSample)
		deaths[p.number] = time.Now()
		p.die(waitExit(1))
	}
	cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}}
	var jitters int
	inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
		synctest.Wait()
		if st := s.Status(); st.Running || st.NextStart.Sub(deaths[0]) < time.Second || st.PID != 0 {
			t.Errorf("the next start is not announced: %+v", st)
		}
		for len(w.started()) <= len(lives) {
			later(time.Second)
		}
		started := w.started()
		for i, c := range want {
			gap := started[i+1].born.Sub(deaths[i])
			if gap < c.least*time.Millisecond || gap > c.most*time.Millisecond {
				t.Errorf("start %d after %v, want %v to %v ms", i+1, gap, int(c.least), int(c.most))
			}
			if c.least != 0 && gap%time.Millisecond != 0 {
				jitters++
			}
		}
		if got := s.Status().Restarts[restartExit]; got != uint64(len(lives)) {
			t.Errorf("%d restarts are counted, want %d", got, len(lives))
		}
	})
	if jitters == 0 {
		t.Error("there is no jitter")
	}
}

// While a killed sampler cannot be reaped, no second one is started.
func TestSupervisorWaitsForUnreapableSampler(t *testing.T) {
	var logs logRecords
	cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}, Logger: slog.New(&logs)}
	script := func(p *clay) {
		if p.number > 0 {
			p.behave()
			return
		}
		p.immortal.Store(true)
		p.send(smallInventory(), smallSample())
	}
	inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
		later(15 * time.Second) // silence, then the time to be reaped
		check := func(when string) {
			t.Helper()
			st := s.Status()
			if !st.Unreapable || st.Running || st.PID != 1000 || st.Restarts[restartTimeout] != 1 {
				t.Errorf("%s: %+v", when, st)
			}
			if n := len(w.started()); n != 1 {
				t.Fatalf("%s: %d samplers were started", when, n)
			}
		}
		check("after the kill")
		later(time.Hour)
		check("an hour later")
		s.Reconfigure(wire.SamplerConfig{Interval: time.Second, Devices: "g:1"})
		later(time.Hour)
		check("after a new configuration")
		if n := logs.count(slog.LevelError, "does not go away"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}

		w.started()[0].die(waitSignal(syscall.SIGKILL))
		later(2 * time.Second)
		st := s.Status()
		if st.Unreapable || !st.Running || st.PID != 1001 {
			t.Errorf("after it died: %+v", st)
		}
		if got := w.started()[1].cfg.Devices; got != "g:1" {
			t.Errorf("the next one has the configuration %q", got)
		}
	})
}

// Run returns although the sampler does not go, and says so.
func TestSupervisorDoesNotHangOnUnreapableSampler(t *testing.T) {
	for name, wait := range map[string]time.Duration{
		"noticed while stopping": 5 * time.Second,
		"known before":           time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &clayWorld{script: func(p *clay) {
					p.immortal.Store(true)
					p.send(smallInventory(), smallSample())
				}}
				s := New(Config{start: w.start, Deliver: func(wire.Frame) error { return nil }})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				later(wait)
				cancel()
				asked := time.Now()
				err := <-done
				if err == nil || !strings.Contains(err.Error(), "process 1000") {
					t.Errorf("Run returned %v", err)
				}
				if d := time.Since(asked); d > 7*time.Second {
					t.Errorf("it took %v", d)
				}
				if !s.Status().Unreapable {
					t.Error("the status does not say so")
				}
				w.started()[0].die(0) // the bubble wants everything gone
			})
		})
	}
}

// Configuration changed → a new sampler, once the old one is gone.
func TestSupervisorReconfigures(t *testing.T) {
	base := wire.SamplerConfig{Interval: time.Second, Devices: "g:0"}
	other := wire.SamplerConfig{Interval: time.Second, Devices: "g:1"}

	t.Run("running", func(t *testing.T) {
		inBubble(t, Config{Sampler: base}, (*clay).behave, func(t *testing.T, s *Supervisor, w *clayWorld) {
			later(5 * time.Second)
			s.Reconfigure(wire.SamplerConfig{Devices: "g:9"}) // superseded at once
			s.Reconfigure(other)
			later(time.Millisecond)
			all := w.started()
			if len(all) != 2 || all[1].cfg.Devices != "g:1" {
				t.Fatalf("%d samplers: %+v", len(all), s.Status())
			}
			if all[0].killedAt.Load() != nil || all[0].status != waitExit(0) {
				t.Error("the old one was not allowed to clean up")
			}
			if all[0].cfg.Replaces || !all[1].cfg.Replaces {
				t.Error("the second one replaces the first, which replaced none")
			}
			st := s.Status()
			if st.Restarts[restartReconfigured] != 1 || st.LastFailure != (model.Failure{}) || !st.Running {
				t.Errorf("status %+v", st)
			}
		})
	})
	t.Run("before the new one has a sample", func(t *testing.T) {
		script := func(p *clay) {
			if p.cfg.Devices == "g:1" {
				p.obey()
				return
			}
			p.behave()
		}
		inBubble(t, Config{Sampler: base}, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
			later(5 * time.Second)
			s.Reconfigure(other)
			later(time.Second)
			s.Reconfigure(wire.SamplerConfig{Interval: time.Second, Devices: "g:2"})
			later(5 * time.Second)
			s.Reconfigure(base)
			later(time.Second)
			var replaces []bool
			for _, p := range w.started() {
				replaces = append(replaces, p.cfg.Replaces)
			}
			// The last sample is still that of the first when the third one starts.
			if want := []bool{false, true, true, true}; !slices.Equal(replaces, want) {
				t.Errorf("replacing %v, want %v", replaces, want)
			}
		})
	})
	t.Run("old one does not listen", func(t *testing.T) {
		script := func(p *clay) {
			for p.send(smallSample()) {
				time.Sleep(time.Second)
			}
		}
		inBubble(t, Config{Sampler: base}, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
			later(5500 * time.Millisecond)
			s.Reconfigure(other)
			later(2900 * time.Millisecond)
			if st := s.Status(); len(w.started()) != 1 || st.Running || st.PID != 1000 {
				t.Errorf("a second one while the first is stopping: %+v", st)
			}
			later(200 * time.Millisecond)
			if all := w.started(); len(all) != 2 || all[0].killedAt.Load() == nil {
				t.Errorf("%d samplers, the first not killed", len(all))
			}
		})
	})
	t.Run("during backoff", func(t *testing.T) {
		script := func(p *clay) {
			if p.cfg.Devices == "g:0" {
				p.die(waitExit(1))
				return
			}
			p.behave()
		}
		inBubble(t, Config{Sampler: base}, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
			later(5 * time.Minute)
			before := len(w.started())
			s.Reconfigure(other)
			later(time.Millisecond)
			if all := w.started(); len(all) != before+1 || all[before].cfg.Devices != "g:1" {
				t.Errorf("the new configuration waits for the backoff: %+v", s.Status())
			} else if all[before].cfg.Replaces {
				t.Error("it is said to replace one that works")
			}
		})
	})
	t.Run("before the start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &clayWorld{script: (*clay).behave}
			s := New(Config{start: w.start, Sampler: base, Deliver: func(wire.Frame) error { return nil }})
			s.Reconfigure(other)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			later(time.Minute)
			if all := w.started(); len(all) != 1 || all[0].cfg.Devices != "g:1" {
				t.Errorf("%d samplers, the first with %q", len(all), all[0].cfg.Devices)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

// All frames of the old sampler come before the first of the new one.
func TestSupervisorDeliversInOrder(t *testing.T) {
	var inDeliver, overlaps atomic.Int32
	var seen []uint64
	cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}, Deliver: func(f wire.Frame) error {
		if inDeliver.Add(1) != 1 {
			overlaps.Add(1)
		}
		time.Sleep(300 * time.Millisecond)
		seen = append(seen, f.Sample.Generation)
		inDeliver.Add(-1)
		return nil
	}}
	script := func(p *clay) {
		go p.obey()
		for p.send(wire.Frame{Sample: &model.Sample{Generation: uint64(p.number), Time: time.Now()}}) {
		}
	}
	inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
		for range 5 {
			later(2 * time.Second)
			s.Reconfigure(wire.SamplerConfig{Interval: time.Second})
		}
		later(2 * time.Second)
	})
	for i := 1; i < len(seen); i++ {
		if seen[i] < seen[i-1] {
			t.Errorf("a frame of sampler %d came after one of %d", seen[i], seen[i-1])
		}
	}
	if n := overlaps.Load(); n != 0 || len(seen) == 0 || seen[len(seen)-1] != 5 {
		t.Errorf("%d calls overlap; the last of %d frames came from %v", n, len(seen), seen)
	}
}

// What the sampler says as its last word is the reason, however it then ends.
func TestSupervisorTakesTheSamplersWord(t *testing.T) {
	lost := model.Failure{Reason: model.FailureHostengineLost, Message: "connection not valid"}
	for name, script := range map[string]func(*clay){
		"exits":            func(p *clay) { p.send(wire.Frame{Failure: &lost}); p.die(waitExit(1)) },
		"exits with 0":     func(p *clay) { p.send(wire.Frame{Failure: &lost}); p.die(waitExit(0)) },
		"crashes on exit":  func(p *clay) { p.send(wire.Frame{Failure: &lost}); p.die(waitSignal(syscall.SIGSEGV)) },
		"hangs on exit":    func(p *clay) { p.send(wire.Frame{Failure: &lost}); p.obey() },
		"goes on sampling": func(p *clay) { p.send(wire.Frame{Failure: &lost}); p.behave() },
		"says it after samples": func(p *clay) {
			p.send(smallInventory(), smallSample(), wire.Frame{Failure: &lost})
			p.die(waitExit(1))
		},
		"says more than one": func(p *clay) {
			p.send(wire.Frame{Failure: &lost}, wire.Frame{Failure: &model.Failure{Reason: "again", Message: "?"}})
			p.die(waitExit(1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}, Deliver: func(f wire.Frame) error {
				if f.Failure != nil {
					t.Error("the failure was delivered")
				}
				return nil
			}}
			first := func(p *clay) {
				if p.number == 0 {
					script(p)
					return
				}
				p.behave()
			}
			inBubble(t, cfg, first, func(t *testing.T, s *Supervisor, w *clayWorld) {
				later(6 * time.Second)
				st := s.Status()
				if st.Restarts[model.FailureHostengineLost] != 1 || st.LastFailure != lost || !st.Running {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// Library missing: one clear log line, and trying again.
func TestSupervisorLogsTheSameFailureOnce(t *testing.T) {
	var logs logRecords
	missing := model.Failure{Reason: model.FailureLibraryMissing, Message: "libdcgm.so.4 is not there; install datacenter-gpu-manager-4-core"}
	cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}, Logger: slog.New(&logs)}
	script := func(p *clay) {
		switch {
		case p.number == 20:
			p.until(2*time.Minute, time.Second, smallSample)
			fallthrough
		default:
			p.send(wire.Frame{Failure: &missing})
			p.die(waitExit(1))
		}
	}
	inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
		later(10 * time.Minute)
		if got := s.Status().Restarts[model.FailureLibraryMissing]; got < 10 || got > 20 {
			t.Fatalf("%d restarts in 10 minutes", got)
		}
		if n, all := logs.count(slog.LevelError, ""), logs.countFrom(slog.LevelInfo); n != 1 || all != 1 {
			t.Errorf("%d errors of %d records, want one record\n%s", n, all, &logs)
		}
		if !strings.Contains(logs.String(), missing.Message) {
			t.Errorf("the log does not say what to do:\n%s", &logs)
		}
		// It worked in between: then it is news again.
		later(20 * time.Minute)
		if n := logs.count(slog.LevelError, ""); n != 2 {
			t.Errorf("%d errors after it worked for a while, want 2\n%s", n, &logs)
		}
	})
}

func TestSupervisorRetriesStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &clayWorld{script: (*clay).behave, refuse: func(n int) error {
			if n < 4 {
				return syscall.EAGAIN
			}
			return nil
		}}
		s := New(Config{start: w.start, Deliver: func(wire.Frame) error { return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		later(20 * time.Second)
		st := s.Status()
		if st.Restarts[restartStart] != 4 || !st.Running || st.LastFailure.Message != syscall.EAGAIN.Error() {
			t.Errorf("status %+v", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Memory over its limit → a new sampler.
func TestSupervisorLimitsMemory(t *testing.T) {
	cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}, MemoryLimit: 1 << 20}
	script := func(p *clay) {
		p.size.Store(1 << 20) // just fits
		go func() {
			time.Sleep(90 * time.Second)
			if p.number == 0 {
				p.size.Add(1)
			}
		}()
		p.behave()
	}
	inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
		later(89 * time.Second)
		if n := len(w.started()); n != 1 {
			t.Errorf("%d samplers before one is over the limit", n)
		}
		later(2 * time.Second)
		st := s.Status()
		if st.Restarts[restartMemory] != 1 || !st.Running || len(w.started()) != 2 {
			t.Errorf("status %+v", st)
		}
		later(10 * time.Minute)
	})
}

func TestSupervisorStatusIsACopy(t *testing.T) {
	s := New(Config{})
	known := []string{"exit", "crash", "killed", "timeout", "bad_frame", "memory", "start_failed",
		"reconfigured", "config", "library_missing", "library_symbol_missing", "library_updated",
		"driver_loaded", "init_failed", "hostengine_unreachable", "hostengine_lost",
		"engine_stalled", "engine_blank", "discovery_failed", "watch_failed"}
	st := s.Status()
	for _, reason := range known {
		if n, ok := st.Restarts[reason]; n != 0 || !ok {
			t.Errorf("restarts for %q: %d, %v; want 0, true", reason, n, ok)
		}
		st.Restarts[reason] = 7
	}
	for _, reason := range []string{"bad_frame", "future", "inventory_mismatch", "invalid"} {
		if n, ok := st.FramesRejected[reason]; n != 0 || !ok {
			t.Errorf("rejected for %q: %d, %v; want 0, true", reason, n, ok)
		}
	}
	if len(st.Restarts) != len(known) || s.Status().Restarts["exit"] != 0 {
		t.Errorf("%d restart reasons, want %d, and a copy", len(st.Restarts), len(known))
	}
}

// Reasons become label values and come from another process.
func TestReasonsAreBounded(t *testing.T) {
	m := zeroed("exit")
	for _, reason := range []string{"exit", "new_word_2", "", "Two Words", "naïve", strings.Repeat("x", 41), `a"b`} {
		count(m, reason)
	}
	if m["exit"] != 1 || m["new_word_2"] != 1 || m[reasonOther] != 5 || len(m) != 3 {
		t.Errorf("counted %v", m)
	}
	for i := range 1000 {
		count(m, "w"+strings.Repeat("x", i%39)+string(rune('a'+i%26)))
	}
	if len(m) > maxReasons+1 {
		t.Errorf("%d reasons, want at most %d", len(m), maxReasons+1)
	}
}

func TestDescribeExit(t *testing.T) {
	for name, c := range map[string]struct {
		status syscall.WaitStatus
		want   model.Failure
	}{
		"exit 0":         {waitExit(0), model.Failure{Reason: restartExit, Message: "exit status 0"}},
		"exit 1":         {waitExit(1), model.Failure{Reason: restartExit, Message: "exit status 1"}},
		"Go fatal error": {waitExit(2), model.Failure{Reason: restartCrash, Message: "fatal error (exit status 2), details stand in its output"}},
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

// A sampler that closes its pipe without exiting, and one that garbles it.
func TestSupervisorReadsNoMore(t *testing.T) {
	for name, c := range map[string]struct {
		script func(*clay)
		reason string
		within time.Duration
	}{
		"closes the pipe":        {func(p *clay) { p.send(smallSample()); p.frameW.Close(); p.obey() }, restartTimeout, 4 * time.Second},
		"cuts a frame and stays": {func(p *clay) { p.frameW.Write(make([]byte, 3)); p.frameW.Close(); p.obey() }, restartTimeout, 4 * time.Second},
		"garbles it":             {func(p *clay) { p.frameW.Write(make([]byte, 64)); p.obey() }, restartBadFrame, time.Millisecond},
		"garbles it and exits": {func(p *clay) {
			p.frameW.Write(make([]byte, 64))
			p.die(waitExit(1))
		}, restartBadFrame, time.Millisecond},
		"cuts a frame and crashes": {func(p *clay) {
			p.frameW.Write(make([]byte, 3))
			p.die(waitSignal(syscall.SIGSEGV))
		}, restartCrash, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Sampler: wire.SamplerConfig{Interval: time.Second}}
			script := func(p *clay) {
				if p.number == 0 {
					c.script(p)
					return
				}
				p.behave()
			}
			inBubble(t, cfg, script, func(t *testing.T, s *Supervisor, w *clayWorld) {
				later(c.within)
				if st := s.Status(); st.Restarts[c.reason] != 1 || st.LastFailure.Reason != c.reason {
					t.Errorf("status %+v, want one restart for %s", st, c.reason)
				}
			})
		})
	}
}

// Each sampler is told of the links that are known then.
func TestNextSamplerIsToldOfLinks(t *testing.T) {
	var known []model.KnownLinks
	s := New(Config{Links: func() []model.KnownLinks { return known }})
	for _, known = range [][]model.KnownLinks{nil, {{GPU: "GPU-aaaa", Ports: []int{0, 17}}}, {{Switch: 1, Ports: []int{40}}}} {
		s.Reconfigure(wire.SamplerConfig{Interval: time.Second})
		if told := s.nextConfig().Links; !reflect.DeepEqual(told, known) {
			t.Errorf("told of %+v, want %+v", told, known)
		}
	}
}

func TestNextSamplerGoesOnWhereEventsEnded(t *testing.T) {
	s := New(Config{})
	if since := s.nextConfig().EventsSince; !since.IsZero() {
		t.Errorf("the first sampler begins at %v, want now", since)
	}
	start := time.Unix(1_700_000_000, 0)
	s.heard(wire.Frame{Sample: &model.Sample{Time: start}})
	s.heard(wire.Frame{Sample: &model.Sample{Time: start.Add(time.Minute)}})
	if since := s.nextConfig().EventsSince; !since.Equal(start) {
		t.Errorf("without an event the next begins at %v, want %v, when sampling began", since, start)
	}
	newest := start.Add(time.Hour)
	s.heard(wire.Frame{Events: &model.Events{List: []model.Event{{Time: newest}, {Time: start}}}})
	s.Reconfigure(wire.SamplerConfig{Interval: time.Second})
	if since := s.nextConfig().EventsSince; !since.Equal(newest.Add(time.Microsecond)) {
		t.Errorf("the next begins at %v, want just after %v", since, newest)
	}
}
