// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gpu_exporter/collector/model"
)

// lockedBuffer is a log that a test may read during writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// follower is a Follower that retries after a millisecond. It records what the
// Follower delivers and logs, and how often the log became readable and unreadable.
type follower struct {
	*Follower
	delivered            chan model.KernelXID
	log                  lockedBuffer
	readable, unreadable atomic.Int32
}

func newFollower(path string, required bool) *follower {
	f := &follower{delivered: make(chan model.KernelXID)}
	f.Follower = NewFollower(FollowerConfig{
		Path: path, Required: required,
		Readable: func(readable bool) {
			if readable {
				f.readable.Add(1)
			} else {
				f.unreadable.Add(1)
			}
		},
		Deliver: func(x model.KernelXID) { f.delivered <- x }, Logger: slog.New(slog.NewTextHandler(&f.log, nil)),
	})
	f.retry = time.Millisecond
	return f
}

// start opens the log and follows it until the test ends, or stop is called.
func (f *follower) start(t *testing.T) (stop func()) {
	t.Helper()
	if err := f.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.Close()
	})
	t.Cleanup(stop)
	return stop
}

func (f *follower) awaitUp(t *testing.T, want bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if s, ok := f.Status(); ok && s.Up == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("timed out: up is never %v", want)
		}
	}
}

func appendXID(t *testing.T, path string, code int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "3,1,1,-;NVRM: Xid (PCI:0000:18:00 GPU-I:05): %d, pid=42, name=trainer, test\n", code); err != nil {
		t.Fatal(err)
	}
}

// An unreadable kernel log is logged, and is an error only if it is required.
func TestFollowerUnreadableLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent")
	f := newFollower(path, false)
	if _, ok := f.Status(); ok {
		t.Error("Status returns ok before Open")
	}
	log := func() string { return f.log.String() }
	if err := f.Open(); err != nil || strings.Count(log(), "\n") != 1 || !strings.Contains(log(), "level=INFO") {
		t.Errorf("error %v, log %s", err, log())
	}
	if s, ok := f.Status(); !ok || s.Up {
		t.Errorf("up: %v, known: %v", s.Up, ok)
	}
	if err := newFollower(path, true).Open(); err == nil || !strings.Contains(err.Error(), "CAP_SYSLOG") {
		t.Errorf("error %v", err)
	}
}

// A log that is unreadable at the start is down, and Run retries until it is readable.
// Older records are not delivered.
func TestFollowerWaitsForTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsg")
	f := newFollower(path, false)
	stop := f.start(t)
	if s, ok := f.Status(); !ok || s.Up || f.readable.Load() != 0 {
		t.Errorf("up: %v, known: %v, opened %d times", s.Up, ok, f.readable.Load())
	}
	appendXID(t, path+".new", 13)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	f.awaitUp(t, true)
	appendXID(t, path, 14)
	if x := <-f.delivered; x.Code != 14 {
		t.Errorf("delivered XID %d, want 14 only", x.Code)
	}
	stop()
	if log := f.log.String(); f.readable.Load() != 1 || strings.Count(log, "\n") != 2 || !strings.Contains(log, "XIDs are counted from the kernel log") {
		t.Errorf("opened %d times; logged:\n%s", f.readable.Load(), log)
	}
}

// A failed log is reported once, and followed again as soon as it is readable.
func TestFollowerReopensTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kmsg")
	appendXID(t, path, 1) // before the start
	f := newFollower(path, false)
	stop := f.start(t)
	appendXID(t, path, 13)
	x := <-f.delivered
	if want := (model.KernelXID{Bus: 0x18, Code: 13, GPUInstance: 5, Time: x.Time, PID: 42, Process: "trainer", Text: "test"}); x != want || time.Since(x.Time).Abs() > 10*time.Minute {
		t.Errorf("got %+v, want %+v", x, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	f.awaitUp(t, false)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	appendXID(t, path+".new", 2)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	f.awaitUp(t, true)
	appendXID(t, path, 14)
	if x := <-f.delivered; x.Code != 14 {
		t.Errorf("got %+v", x)
	}
	stop()
	if n := strings.Count(f.log.String(), "is unreadable"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, &f.log)
	}
	if f.readable.Load() != 2 || f.unreadable.Load() != 1 {
		t.Errorf("became readable %d and unreadable %d times, want 2 and 1", f.readable.Load(), f.unreadable.Load())
	}
}
