// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

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

// The back-off is exponential with jitter, from 1 s to 60 s. A stable minute resets it.
func TestSupervisorBacksOff(t *testing.T) {
	// How long each sampler sends samples before it exits.
	lives := make([]time.Duration, 9)
	lives = append(lives,
		59*time.Second, // not stable
		61*time.Second, // stable: the next one starts at once
		0,              // the back-off begins again
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
	script := func(p *fakeProcess) {
		if p.number >= len(lives) {
			p.awaitStdinEnd()
			return
		}
		p.repeat(lives[p.number], time.Second, smallSample)
		deaths[p.number] = time.Now()
		p.die(waitExit(1))
	}
	var jitters int
	runFake(t, Config{}, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
		synctest.Wait()
		if st := s.Status(); st.Running || st.NextStart.Sub(deaths[0]) < time.Second || st.PID != 0 {
			t.Errorf("the status has no next start: %+v", st)
		}
		for len(w.started()) <= len(lives) {
			advance(time.Second)
		}
		started := w.started()
		for i, c := range want {
			gap := started[i+1].startedAt.Sub(deaths[i])
			if gap < c.least*time.Millisecond || gap > c.most*time.Millisecond {
				t.Errorf("start %d after %v, want %v to %v ms", i+1, gap, int(c.least), int(c.most))
			}
			if c.least != 0 && gap%time.Millisecond != 0 {
				jitters++
			}
		}
		if got := s.Status().Restarts[restartExit]; got != uint64(len(lives)) {
			t.Errorf("%d restarts counted, want %d", got, len(lives))
		}
	})
	if jitters == 0 {
		t.Error("no delay has jitter")
	}
}

// A sampler that waits for a standalone engine has waited long enough: the back-off does
// not grow. An embedded engine that hangs is started less and less often.
func TestSupervisorWaitsForSilentEngine(t *testing.T) {
	for name, c := range map[string]struct {
		hostengine string
		most       time.Duration // between the end of the last sampler and the next one
	}{
		"standalone": {filepath.Join(t.TempDir(), "missing.sock"), 1250 * time.Millisecond},
		"embedded":   {"", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			const samplers = 8
			sampler := wire.SamplerConfig{Interval: time.Second, Hostengine: c.hostengine}
			runFake(t, Config{}, sampler, (*fakeProcess).awaitStdinEnd, func(t *testing.T, s *Supervisor, w *fakeHost) {
				for len(w.started()) < samplers {
					advance(time.Second)
				}
				started := w.started()
				gap := started[samplers-1].startedAt.Sub(*started[samplers-2].killedAt.Load())
				if gap < c.most*4/5 || gap > c.most {
					t.Errorf("the next sampler is started %v after the last one, want %v to %v", gap, c.most*4/5, c.most)
				}
				if n := s.Status().Restarts[restartTimeout]; n != samplers-1 {
					t.Errorf("%d time-outs, want %d", n, samplers-1)
				}
			})
		})
	}
}

// While a killed sampler cannot be reaped, no second one starts.
func TestSupervisorWaitsForUnreapableSampler(t *testing.T) {
	var logs logRecords
	cfg := Config{Logger: slog.New(&logs)}
	script := func(p *fakeProcess) {
		if p.number > 0 {
			p.sampleForever()
			return
		}
		p.ignoresKill.Store(true)
		p.send(smallInventory(), smallSample())
	}
	runFake(t, cfg, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
		advance(15 * time.Second) // the silence, then the time to be reaped
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
		advance(time.Hour)
		check("an hour later")
		s.Reconfigure(wire.SamplerConfig{Interval: time.Second, Devices: "g:1"})
		advance(time.Hour)
		check("after a new configuration")
		if n := logs.count(slog.LevelError, "still exists"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}

		w.started()[0].die(waitSignal(syscall.SIGKILL))
		advance(2 * time.Second)
		st := s.Status()
		if st.Unreapable || !st.Running || st.PID != 1001 {
			t.Errorf("after it died: %+v", st)
		}
		if got := w.started()[1].cfg.Devices; got != "g:1" {
			t.Errorf("the next sampler has devices %q, want g:1", got)
		}
	})
}

// Run returns an error if a killed sampler still exists.
func TestRunReturnsWithUnreapableSampler(t *testing.T) {
	for name, wait := range map[string]time.Duration{
		"found while stopping":  5 * time.Second,
		"known before stopping": time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &fakeHost{script: func(p *fakeProcess) {
					p.ignoresKill.Store(true)
					p.send(smallInventory(), smallSample())
				}}
				s := New(Config{start: w.start, Deliver: func(wire.Frame) error { return nil }})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				advance(wait)
				cancel()
				canceled := time.Now()
				err := <-done
				if err == nil || !strings.Contains(err.Error(), "process 1000") {
					t.Errorf("Run returned %v", err)
				}
				if d := time.Since(canceled); d > 7*time.Second {
					t.Errorf("Run took %v to return", d)
				}
				if !s.Status().Unreapable {
					t.Error("the status does not report an unreapable sampler")
				}
				w.started()[0].die(0) // synctest requires all goroutines to end
			})
		})
	}
}

// A changed configuration starts a new sampler after the old one has exited.
func TestSupervisorReconfigures(t *testing.T) {
	base := wire.SamplerConfig{Interval: time.Second, Devices: "g:0"}
	other := wire.SamplerConfig{Interval: time.Second, Devices: "g:1"}

	t.Run("running", func(t *testing.T) {
		runFake(t, Config{}, base, (*fakeProcess).sampleForever, func(t *testing.T, s *Supervisor, w *fakeHost) {
			advance(5 * time.Second)
			s.Reconfigure(wire.SamplerConfig{Devices: "g:9"}) // replaced at once
			s.Reconfigure(other)
			advance(time.Millisecond)
			all := w.started()
			if len(all) != 2 || all[1].cfg.Devices != "g:1" {
				t.Fatalf("%d samplers: %+v", len(all), s.Status())
			}
			if all[0].killedAt.Load() != nil || all[0].status != waitExit(0) {
				t.Error("the old sampler could not clean up")
			}
			if all[0].cfg.Replaces || !all[1].cfg.Replaces {
				t.Error("want Replaces only for the second sampler")
			}
			st := s.Status()
			if st.Restarts[restartReconfigured] != 1 || st.LastFailure != (model.Failure{}) || !st.Running {
				t.Errorf("status %+v", st)
			}
		})
	})
	t.Run("before the new one has a sample", func(t *testing.T) {
		script := func(p *fakeProcess) {
			if p.cfg.Devices == "g:1" {
				p.awaitStdinEnd()
				return
			}
			p.sampleForever()
		}
		runFake(t, Config{}, base, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
			advance(5 * time.Second)
			s.Reconfigure(other)
			advance(time.Second)
			s.Reconfigure(wire.SamplerConfig{Interval: time.Second, Devices: "g:2"})
			advance(5 * time.Second)
			s.Reconfigure(base)
			advance(time.Second)
			var replaces []bool
			for _, p := range w.started() {
				replaces = append(replaces, p.cfg.Replaces)
			}
			// The newest sample is still of the first sampler when the third one starts.
			if want := []bool{false, true, true, true}; !slices.Equal(replaces, want) {
				t.Errorf("replacing %v, want %v", replaces, want)
			}
		})
	})
	t.Run("old one ignores its standard input", func(t *testing.T) {
		script := func(p *fakeProcess) {
			for p.send(smallSample()) {
				time.Sleep(time.Second)
			}
		}
		runFake(t, Config{}, base, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
			advance(5500 * time.Millisecond)
			s.Reconfigure(other)
			advance(2400 * time.Millisecond)
			if st := s.Status(); len(w.started()) != 1 || st.Running || st.PID != 1000 {
				t.Errorf("a second sampler started while the first one stops: %+v", st)
			}
			advance(200 * time.Millisecond)
			if all := w.started(); len(all) != 2 || all[0].killedAt.Load() == nil {
				t.Errorf("%d samplers, want 2 and the first killed", len(all))
			}
		})
	})
	t.Run("during backoff", func(t *testing.T) {
		script := func(p *fakeProcess) {
			if p.cfg.Devices == "g:0" {
				p.die(waitExit(1))
				return
			}
			p.sampleForever()
		}
		runFake(t, Config{}, base, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
			advance(5 * time.Minute)
			before := len(w.started())
			s.Reconfigure(other)
			advance(time.Millisecond)
			if all := w.started(); len(all) != before+1 || all[before].cfg.Devices != "g:1" {
				t.Errorf("the new configuration waits for the back-off: %+v", s.Status())
			} else if all[before].cfg.Replaces {
				t.Error("Replaces is set, but no sampler worked")
			}
		})
	})
	t.Run("before the start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &fakeHost{script: (*fakeProcess).sampleForever}
			s := New(Config{start: w.start, Deliver: func(wire.Frame) error { return nil }})
			s.Reconfigure(base)
			s.Reconfigure(other)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			advance(time.Minute)
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

// A missing library is logged once, and starts are retried.
func TestSupervisorLogsTheSameFailureOnce(t *testing.T) {
	var logs logRecords
	missing := model.Failure{Reason: model.FailureLibraryMissing, Message: "libdcgm.so.4 is missing; install datacenter-gpu-manager-4-core"}
	cfg := Config{Logger: slog.New(&logs)}
	script := func(p *fakeProcess) {
		switch {
		case p.number == 20:
			p.repeat(2*time.Minute, time.Second, smallSample)
			fallthrough
		default:
			p.send(wire.Frame{Failure: &missing})
			p.die(waitExit(1))
		}
	}
	runFake(t, cfg, everySecond, script, func(t *testing.T, s *Supervisor, w *fakeHost) {
		advance(10 * time.Minute)
		if got := s.Status().Restarts[model.FailureLibraryMissing]; got < 10 || got > 20 {
			t.Fatalf("%d restarts in 10 minutes", got)
		}
		if n, all := logs.count(slog.LevelError, ""), logs.countFrom(slog.LevelInfo); n != 1 || all != 1 {
			t.Errorf("%d errors of %d records, want one record\n%s", n, all, &logs)
		}
		if !strings.Contains(logs.String(), missing.Message) {
			t.Errorf("the log has no instruction:\n%s", &logs)
		}
		// A sampler worked in between, so the failure is logged again.
		advance(20 * time.Minute)
		if n := logs.count(slog.LevelError, ""); n != 2 {
			t.Errorf("%d errors after a sampler worked, want 2\n%s", n, &logs)
		}
	})
}

func TestSupervisorRetriesStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeHost{script: (*fakeProcess).sampleForever, refuse: func(n int) error {
			if n < 4 {
				return syscall.EAGAIN
			}
			return nil
		}}
		s := New(Config{start: w.start, Deliver: func(wire.Frame) error { return nil }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		advance(20 * time.Second)
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

// Reasons are label values that another process chooses.
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

// The configuration of each sampler has the links that are known at its start.
func TestNextConfigHasKnownLinks(t *testing.T) {
	var known []model.KnownLinks
	s := New(Config{Links: func() []model.KnownLinks { return known }})
	for _, known = range [][]model.KnownLinks{nil, {{GPU: "GPU-aaaa", Ports: []int{0, 17}}}, {{Switch: 1, Ports: []int{40}}}} {
		s.Reconfigure(wire.SamplerConfig{Interval: time.Second})
		if got := s.nextConfig().Links; !reflect.DeepEqual(got, known) {
			t.Errorf("links %+v, want %+v", got, known)
		}
	}
}

// Each sampler continues with events after the newest delivered one.
func TestNextConfigContinuesEvents(t *testing.T) {
	s := New(Config{})
	if since := s.nextConfig().EventsSince; !since.IsZero() {
		t.Errorf("the first sampler begins at %v, want the zero time", since)
	}
	start := time.Unix(1_700_000_000, 0)
	ours := start.Add(-time.Hour) // the engine's clock is ahead
	s.advanceEvents(wire.Frame{Sample: &model.Sample{Time: ours, EngineTime: start}})
	s.advanceEvents(wire.Frame{Sample: &model.Sample{Time: ours.Add(time.Minute), EngineTime: start.Add(time.Minute)}})
	if since := s.nextConfig().EventsSince; !since.Equal(start) {
		t.Errorf("without events the next sampler begins at %v, want the first sample's time %v", since, start)
	}
	newest := start.Add(time.Hour)
	s.advanceEvents(wire.Frame{Events: &model.Events{List: []model.Event{{Time: newest}, {Time: start}}}})
	s.Reconfigure(wire.SamplerConfig{Interval: time.Second})
	if since := s.nextConfig().EventsSince; !since.Equal(newest.Add(time.Microsecond)) {
		t.Errorf("the next sampler begins at %v, want 1 µs after %v", since, newest)
	}
	s.advanceEvents(wire.Frame{Sample: &model.Sample{Time: ours, EngineTime: newest.Add(-time.Second)}})
	if since := s.nextConfig().EventsSince; !since.Equal(newest.Add(time.Microsecond)) {
		t.Errorf("after a sample with older values the next sampler begins at %v, want 1 µs after %v", since, newest)
	}
	s.advanceEvents(wire.Frame{Sample: &model.Sample{Time: ours, EngineTime: start}})
	if since := s.nextConfig().EventsSince; !since.Equal(start) {
		t.Errorf("after the engine's clock was set back the next sampler begins at %v, want %v", since, start)
	}
}
