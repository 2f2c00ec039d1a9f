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
	if err := r.Reload("test"); err == nil || !strings.Contains(err.Error(), "c.yaml:1: counters.file: ") {
		t.Fatalf("error %v", err)
	}
	if r.changedOnDisk() {
		t.Error("changed already")
	}
	writeFile(t, filepath.Join(dir, "a.csv"), "DCGM_FI_DEV_GPU_TEMP, gauge, T.\n")
	if !r.changedOnDisk() {
		t.Error("the new file is not detected")
	}
	if err := r.Reload("test"); err != nil || r.changedOnDisk() {
		t.Errorf("reload: %v", err)
	}
}

// The metrics, the log and the answer report how a reload went.
func TestReloadIsReported(t *testing.T) {
	t.Parallel()
	path := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), "{}\n")
	var log bytes.Buffer
	var failure error
	r := newReloader(t, path, slog.New(slog.NewTextHandler(&log, nil)), func(config.Config) (bool, error) { return false, failure })
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
		{"accepted", "POST", "sample: {interval: 10}\n", nil, 500, "c.yaml:1: sample.interval: 10 has no unit", "level=ERROR", 0},
		{"several mistakes", "PUT", "a: 1\nb: 2\n", nil, 500, "c.yaml:2: unknown key", "errors=2", 0},
		{"other method", "GET", "{}\n", nil, 405, "use POST", "", 0},
		{"valid again", "POST", "sample: {interval: 500ms}\n", nil, 200, "reloaded", `level=WARN msg="` + path + `:1: sample.interval: 500ms is shorter than 1s`, 1},
		{"not applied", "POST", "{}\n", errors.New("no such host"), 500, "no such host", "the running one remains", 0},
	} {
		log.Reset()
		failure = tt.apply
		writeFile(t, path, tt.file)
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, httptest.NewRequest(tt.method, "/-/reload", http.NoBody))
		if answer.Code != tt.status || !strings.Contains(answer.Body.String(), tt.body) || !strings.Contains(log.String(), tt.log) || successful() != tt.successful {
			t.Errorf("%s: status %d, successful %v\n%s\n%s", tt.name, answer.Code, successful(), answer.Body, &log)
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
		wg.Go(func() { _ = r.Reload("test") })
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
