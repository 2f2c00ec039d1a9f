// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newReloader returns a reloader of the configuration file at path.
func newReloader(t *testing.T, path string, log *slog.Logger, apply func(config.Config) (bool, error)) *Reloader {
	t.Helper()
	line, err := config.Parse([]string{"--config.file=" + path}, nil, io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Log: log, Files: line.Config.Files, Load: line.Again, Apply: apply, Done: func() {}})
}

func accept(config.Config) (bool, error) { return true, nil }

// An included file that was missing is detected when it appears, even if only a rejected
// configuration names it.
func TestRejectedFilesAreWatched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "c.yaml"), "{}\n")
	r := newReloader(t, path, slog.New(slog.DiscardHandler), accept)
	writeFile(t, path, "counters: {file: [a.csv]}\n")
	if err := r.reload("test"); err == nil || !strings.Contains(err.Error(), "c.yaml:1: counters.file: ") {
		t.Fatalf("error %v", err)
	}
	if r.changedOnDisk() {
		t.Error("changed already")
	}
	writeFile(t, filepath.Join(dir, "a.csv"), "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	if !r.changedOnDisk() {
		t.Error("the new file is not detected")
	}
	if err := r.reload("test"); err != nil || r.changedOnDisk() {
		t.Errorf("reload: %v", err)
	}
}

// buffer collects the log of several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// runReloads runs r until the test ends.
func runReloads(t *testing.T, r *Reloader) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// Many requests at the same time cause two reloads: one, and one for those that came
// while it ran.
func TestRequestsJoin(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	var reloads atomic.Int32
	release := make(chan struct{})
	r := newReloader(t, path, slog.New(slog.DiscardHandler), func(config.Config) (bool, error) {
		reloads.Add(1)
		<-release
		return false, nil
	})
	runReloads(t, r)
	var wg sync.WaitGroup
	first := r.request("test")
	for reloads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 100 {
		q := r.request("test")
		wg.Go(func() {
			<-q.done
			if q.err != nil {
				t.Error(q.err)
			}
		})
	}
	close(release)
	<-first.done
	wg.Wait()
	if n := reloads.Load(); n != 2 {
		t.Errorf("%d reloads", n)
	}
}

// A file that cannot be read at once, such as a named pipe without a writer, is rejected.
// It blocks neither the reloads nor the end of Run.
func TestUnusualFiles(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	var log buffer
	r := newReloader(t, path, slog.New(slog.NewTextHandler(&log, nil)), accept)
	runReloads(t, r)
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(t.Context(), "test"); err == nil || !strings.Contains(err.Error(), "it is a named pipe, not a regular file") {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "{}\n")
	if err := r.Reload(t.Context(), "test"); err != nil {
		t.Error(err)
	}
}

// The metrics, the log and the answer report how a reload went.
func TestReloadIsReported(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	var log buffer
	var failure error
	r := newReloader(t, path, slog.New(slog.NewTextHandler(&log, nil)), func(config.Config) (bool, error) { return false, failure })
	runReloads(t, r)
	registry := prometheus.NewRegistry()
	if err := r.Register(registry); err != nil {
		t.Fatal(err)
	}
	successful := func() float64 {
		families, err := registry.Gather()
		if err != nil || len(families) != 2 {
			t.Fatalf("%v, %v", families, err)
		}
		return families[1].GetMetric()[0].GetGauge().GetValue()
	}
	for _, tt := range []struct {
		name, method, file string
		apply              error
		status             int
		body, log          string
		successful         float64
	}{
		{"rejected", "POST", "sample: {interval: 10}\n", nil, 500, "the log has the reasons", "c.yaml:1: sample.interval: 10 has no unit", 0},
		{"several mistakes", "PUT", "a: 1\nb: 2\n", nil, 500, "rejected", "errors=2", 0},
		{"other method", "GET", "{}\n", nil, 405, "use POST", "", 0},
		{"valid again", "POST", "sample: {interval: 500ms}\n", nil, 200, "reloaded", `level=WARN msg="` + path + `:1: sample.interval: 500ms is shorter than 1s`, 1},
		{"not applied", "POST", "{}\n", errors.New("no such host"), 500, "rejected", "no such host", 0},
	} {
		log.Reset()
		failure = tt.apply
		writeFile(t, path, tt.file)
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, httptest.NewRequest(tt.method, "/-/reload", http.NoBody))
		if answer.Code != tt.status || !strings.Contains(answer.Body.String(), tt.body) || !strings.Contains(log.String(), tt.log) || successful() != tt.successful {
			t.Errorf("%s: status %d, successful %v\n%s\n%s", tt.name, answer.Code, successful(), answer.Body, log.String())
		}
		if strings.Contains(answer.Body.String(), path) {
			t.Errorf("%s: the answer has a path: %s", tt.name, answer.Body)
		}
	}
}

// A changed file is read again, a touched one is not, and there is one reload at a time.
func TestRun(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	applied := make(chan config.Config, 10)
	var running atomic.Int32
	r := newReloader(t, path, slog.New(slog.DiscardHandler), func(c config.Config) (bool, error) {
		if running.Add(1) != 1 {
			t.Error("two reloads at a time")
		}
		defer running.Add(-1)
		applied <- c
		return true, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	writeFile(t, path, "{}\n") // the same content
	writeFile(t, path, "sample: {interval: 20s}\n")
	select {
	case c := <-applied:
		if c.Interval != 20*time.Second {
			t.Errorf("interval %v", c.Interval)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("no reload")
	}
	for range 5 {
		wg.Go(func() { _ = r.Reload(ctx, "test") })
	}
}

// OnHangup calls the function for each signal, until it is stopped.
func TestOnHangup(t *testing.T) {
	calls := make(chan struct{}, 1)
	stop := OnHangup(func() { calls <- struct{}{} })
	for range 2 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-calls:
		case <-time.After(time.Minute):
			t.Fatal("the signal is not delivered")
		}
	}
	stop()
}

// Each of several mistakes is logged as a separate record of one line.
func TestLogError(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.New("a.csv:1: one\na.csv:2: two\n"), `level=ERROR msg="a.csv:1: one"
level=ERROR msg="a.csv:2: two"
level=ERROR msg="It ends" trigger=SIGHUP errors=2
`},
		{errors.New("one thing"), "level=ERROR msg=\"It ends\" trigger=SIGHUP err=\"one thing\"\n"},
		{errors.New("one thing\n"), "level=ERROR msg=\"It ends\" trigger=SIGHUP err=\"one thing\"\n"},
	} {
		var out strings.Builder
		LogError(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})), tc.err, "It ends", "trigger", "SIGHUP")
		if out.String() != tc.want {
			t.Errorf("got\n%s\nwant\n%s", &out, tc.want)
		}
	}
}
