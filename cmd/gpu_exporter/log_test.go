// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

// stallingWriter blocks while it is stalled, and fails while it is closed.
type stallingWriter struct {
	stalled sync.Mutex
	mu      sync.Mutex
	closed  bool
	text    strings.Builder
}

func (w *stallingWriter) Write(p []byte) (int, error) {
	w.stalled.Lock()
	defer w.stalled.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, errors.New("broken pipe")
	}
	return w.text.Write(p)
}

func (w *stallingWriter) setClosed(closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = closed
}

func (w *stallingWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func newTestQueue(t *testing.T) (*stallingWriter, *logQueue, *slog.Logger) {
	t.Helper()
	w := new(stallingWriter)
	q, log, err := newLogQueue(config.Config{Static: config.Static{LogLevel: "info", LogFormat: "logfmt"}}, w)
	if err != nil {
		t.Fatal(err)
	}
	return w, q, log
}

// TestLogOfAStalledReader: logging returns while the reader stalls. The queue is bounded
// in records and in bytes. One record reports the dropped ones when the reader returns.
func TestLogOfAStalledReader(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]string{"small records": "x", "large records": strings.Repeat("x", 20<<10)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, q, log := newTestQueue(t)
			w.stalled.Lock()
			const written = 3 * maxQueuedRecords
			for range written {
				log.Info(record)
			}
			dropped := q.dropped.Load()
			if held := q.size.Load(); dropped < written-maxQueuedRecords-1 || held > maxQueuedBytes {
				t.Errorf("%d of %d records dropped, %d bytes queued", dropped, written, held)
			}
			w.stalled.Unlock()
			eventually(t, "the loss is reported", func() bool { return strings.Contains(w.String(), "records were dropped") })
			log.Info("after")
			q.close()
			text := w.String()
			if n := strings.Count(text, "records were dropped"); n != 1 {
				t.Errorf("%d notices", n)
			}
			if lines := strings.Count(text, "\n"); lines != written-int(dropped)+2 || !strings.HasSuffix(text, "msg=after\n") {
				t.Errorf("%d lines of %d records, %d dropped", lines, written, dropped)
			}
		})
	}
}

// TestLogOfAClosedReader: records for a closed reader are dropped and counted.
func TestLogOfAClosedReader(t *testing.T) {
	t.Parallel()
	w, q, log := newTestQueue(t)
	w.setClosed(true)
	for range 10 {
		log.Info("lost")
	}
	eventually(t, "the records are dropped", func() bool { return q.dropped.Load() == 10 })
	w.setClosed(false)
	log.Info("written")
	q.close()
	if text := w.String(); !strings.Contains(text, "msg=written") || !strings.Contains(text, "records=10") {
		t.Errorf("log:\n%s", text)
	}
}

// TestLogFlushIsBounded: the exit does not wait for a reader that stalls.
func TestLogFlushIsBounded(t *testing.T) {
	t.Parallel()
	w, q, log := newTestQueue(t)
	w.stalled.Lock()
	defer w.stalled.Unlock()
	log.Info("never read")
	q.close() // returns
}
