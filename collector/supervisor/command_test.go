// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"io"
	"testing"
	"time"

	"gpu_exporter/collector/wire"
)

// A pause is told to the running sampler without replacing it, and to those that
// follow it with what is left of it.
func TestSupervisorPausesProfiling(t *testing.T) {
	inBubble(t, Config{Sampler: wire.SamplerConfig{Interval: time.Second}}, (*clay).behave, func(t *testing.T, s *Supervisor, w *clayWorld) {
		later(5 * time.Second)
		first := w.started()[0]
		if first.cfg.ProfilingPause != 0 || !s.Status().ProfilingPausedUntil.IsZero() {
			t.Errorf("paused from the start: %v, until %v", first.cfg.ProfilingPause, s.Status().ProfilingPausedUntil)
		}
		until := s.PauseProfiling(10 * time.Minute)
		if want := time.Now().Add(10 * time.Minute); !until.Equal(want) || !s.Status().ProfilingPausedUntil.Equal(want) {
			t.Errorf("until %v, status %v, want %v", until, s.Status().ProfilingPausedUntil, want)
		}
		if c := <-first.commands; c.ProfilingPause != 10*time.Minute {
			t.Errorf("the sampler was told %v", c)
		}
		later(4 * time.Minute)
		first.die(waitExit(1))
		later(5 * time.Second)
		all := w.started()
		if len(all) != 2 || all[1].cfg.ProfilingPause != all[1].born.Sub(until)*-1 {
			t.Fatalf("%d samplers, the last with a pause of %v, want 2 and %v", len(all), all[1].cfg.ProfilingPause, until.Sub(all[1].born))
		}
		if len(all[1].commands) != 0 {
			t.Error("the second sampler was told what its configuration says")
		}
		s.PauseProfiling(0)
		if c := <-all[1].commands; c.ProfilingPause != 0 || !s.Status().ProfilingPausedUntil.IsZero() {
			t.Errorf("told %v, until %v after the end", c, s.Status().ProfilingPausedUntil)
		}
		// A pause ends by itself.
		s.PauseProfiling(time.Minute)
		later(2 * time.Minute)
		all[1].die(waitExit(1))
		later(5 * time.Second)
		if all = w.started(); !s.Status().ProfilingPausedUntil.IsZero() || all[2].cfg.ProfilingPause != 0 {
			t.Errorf("after its end: until %v, the next sampler's pause is %v", s.Status().ProfilingPausedUntil, all[2].cfg.ProfilingPause)
		}
	})
}

// What is asked for while no sampler runs is in the next one's configuration.
func TestSupervisorPausesNextSampler(t *testing.T) {
	inBubble(t, Config{Sampler: wire.SamplerConfig{Interval: time.Second}}, func(p *clay) { p.die(waitExit(1)) }, func(t *testing.T, s *Supervisor, w *clayWorld) {
		later(2500 * time.Millisecond) // between two starts
		n := len(w.started())
		s.PauseProfiling(time.Hour)
		later(10 * time.Minute)
		if all := w.started(); len(all) <= n || all[n].cfg.ProfilingPause <= 59*time.Minute {
			t.Errorf("%d samplers before, %d after; a pause of %v", n, len(all), all[len(all)-1].cfg.ProfilingPause)
		}
	})
}

// A sampler that does not read blocks nobody, and reads the newest when it does.
func TestCommandQueue(t *testing.T) {
	q := newCommandQueue()
	for i := range 1000 {
		q.put(wire.SamplerCommand{ProfilingPause: time.Duration(i)})
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.writeTo(w)
		w.Close()
	}()
	got := make(chan wire.SamplerCommand)
	end := make(chan error)
	go func() { end <- wire.ReadSamplerCommands(r, func(c wire.SamplerCommand) { got <- c }) }()
	if c := <-got; c.ProfilingPause != 999 {
		t.Errorf("read %v, want the newest, 999", c)
	}
	q.put(wire.SamplerCommand{ProfilingPause: 5})
	if c := <-got; c.ProfilingPause != 5 {
		t.Errorf("read %v, want 5", c)
	}
	q.close()
	q.close()
	<-done
	if err := <-end; err != nil {
		t.Errorf("reading to the end: %v", err)
	}
}
