// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"io"
	"os"
	"testing"
	"time"

	"gpu_exporter/collector/wire"
)

// The running sampler receives a pause as a command, and its successors receive the
// rest of it in their configuration.
func TestSupervisorPausesProfiling(t *testing.T) {
	runFake(t, Config{}, everySecond, (*fakeProcess).sampleForever, func(t *testing.T, s *Supervisor, w *fakeHost) {
		advance(5 * time.Second)
		first := w.started()[0]
		if first.cfg.ProfilingPause != 0 || !s.Status().ProfilingPausedUntil.IsZero() {
			t.Errorf("paused from the start: %v, until %v", first.cfg.ProfilingPause, s.Status().ProfilingPausedUntil)
		}
		until := s.PauseProfiling(10 * time.Minute)
		if want := time.Now().Add(10 * time.Minute); !until.Equal(want) || !s.Status().ProfilingPausedUntil.Equal(want) {
			t.Errorf("until %v, status %v, want %v", until, s.Status().ProfilingPausedUntil, want)
		}
		if c := <-first.commands; c.ProfilingPause != 10*time.Minute {
			t.Errorf("command %v, want 10m", c)
		}
		advance(4 * time.Minute)
		first.die(waitExit(1))
		advance(5 * time.Second)
		all := w.started()
		if len(all) != 2 || all[1].cfg.ProfilingPause != all[1].startedAt.Sub(until)*-1 {
			t.Fatalf("%d samplers, the last with a pause of %v, want 2 and %v", len(all), all[1].cfg.ProfilingPause, until.Sub(all[1].startedAt))
		}
		if len(all[1].commands) != 0 {
			t.Error("the second sampler received a command in addition to its configuration")
		}
		s.PauseProfiling(0)
		if c := <-all[1].commands; c.ProfilingPause != 0 || !s.Status().ProfilingPausedUntil.IsZero() {
			t.Errorf("after resuming: command %v, paused until %v", c, s.Status().ProfilingPausedUntil)
		}
		// A pause also ends when its time is over.
		s.PauseProfiling(time.Minute)
		advance(2 * time.Minute)
		all[1].die(waitExit(1))
		advance(5 * time.Second)
		if all = w.started(); !s.Status().ProfilingPausedUntil.IsZero() || all[2].cfg.ProfilingPause != 0 {
			t.Errorf("after the pause: until %v, the next sampler's pause is %v", s.Status().ProfilingPausedUntil, all[2].cfg.ProfilingPause)
		}
	})
}

// A pause requested while no sampler runs is in the next one's configuration.
func TestSupervisorPausesNextSampler(t *testing.T) {
	runFake(t, Config{}, everySecond, func(p *fakeProcess) { p.die(waitExit(1)) }, func(t *testing.T, s *Supervisor, w *fakeHost) {
		advance(2500 * time.Millisecond) // between two starts
		n := len(w.started())
		s.PauseProfiling(time.Hour)
		advance(10 * time.Minute)
		if all := w.started(); len(all) <= n || all[n].cfg.ProfilingPause <= 59*time.Minute {
			t.Errorf("%d samplers before, %d after; a pause of %v", n, len(all), all[len(all)-1].cfg.ProfilingPause)
		}
	})
}

// Commands to a sampler that does not read do not block. It then reads the newest.
func TestCommandsDoNotBlock(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := &osProcess{stdin: w}
	const size = 1 << 20 // more than a pipe holds
	p.startStdin(make([]byte, size))
	for i := range 1000 {
		p.command(wire.SamplerCommand{ProfilingPause: time.Duration(i)})
	}
	if _, err := io.CopyN(io.Discard, r, size); err != nil {
		t.Fatal(err)
	}
	got := make(chan wire.SamplerCommand)
	end := make(chan error)
	go func() { end <- wire.ReadSamplerCommands(r, func(c wire.SamplerCommand) { got <- c }) }()
	if c := <-got; c.ProfilingPause != 999 {
		t.Errorf("read %v, want the newest, 999", c)
	}
	p.command(wire.SamplerCommand{ProfilingPause: 5})
	if c := <-got; c.ProfilingPause != 5 {
		t.Errorf("read %v, want 5", c)
	}
	p.closeStdin()
	p.close()
	if err := <-end; err != nil {
		t.Errorf("reading to the end: %v", err)
	}
}
