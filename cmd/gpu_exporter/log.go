// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

const (
	// The queue of the log holds a burst such as the trace of a crash.
	maxQueuedRecords = 1024
	maxQueuedBytes   = 1 << 20
	// logFlushTimeout bounds how long the exit waits for a reader that stalls.
	logFlushTimeout = 500 * time.Millisecond
)

// logQueue is the writer of all log records, and never blocks: a reader that stalls or
// is gone costs records, not scrapes. Handlers of package slog write one record per call.
type logQueue struct {
	out     io.Writer
	notices *slog.Logger // writes to out directly
	records chan []byte
	size    atomic.Int64 // bytes in records
	dropped atomic.Uint64
	closing chan struct{}
	flushed chan struct{}
}

// newLogQueue returns a queue that writes to out in the configured level and format, and
// its logger.
func newLogQueue(c config.Config, out io.Writer) (*logQueue, *slog.Logger, error) {
	level, format := promslog.NewLevel(), promslog.NewFormat()
	if err := level.Set(c.LogLevel); err != nil {
		return nil, nil, fmt.Errorf("setting the log level: %w", err)
	}
	if err := format.Set(c.LogFormat); err != nil {
		return nil, nil, fmt.Errorf("setting the log format: %w", err)
	}
	q := &logQueue{
		out: out, notices: promslog.New(&promslog.Config{Level: level, Format: format, Writer: out}),
		records: make(chan []byte, maxQueuedRecords), closing: make(chan struct{}), flushed: make(chan struct{}),
	}
	go q.run()
	return q, promslog.New(&promslog.Config{Level: level, Format: format, Writer: q}), nil
}

// Write queues a record, or drops and counts it.
func (q *logQueue) Write(record []byte) (int, error) {
	size := int64(len(record))
	if q.size.Add(size) <= maxQueuedBytes {
		select {
		case q.records <- bytes.Clone(record):
			return len(record), nil
		default:
		}
	}
	q.size.Add(-size)
	q.dropped.Add(1)
	return len(record), nil
}

// run writes the records. A write may block for ever.
func (q *logQueue) run() {
	defer close(q.flushed)
	var announced uint64
	for {
		var record []byte
		select {
		case record = <-q.records:
		default:
			select {
			case record = <-q.records:
			case <-q.closing:
				return
			}
		}
		q.size.Add(-int64(len(record)))
		if _, err := q.out.Write(record); err != nil {
			q.dropped.Add(1) // no other log could report the error
			continue
		}
		// A reader that is only slow must not get a notice after each record.
		if dropped := q.dropped.Load(); dropped > announced && len(q.records) == 0 {
			q.notices.Warn("The reader of the log stalled or was gone: records were dropped", "records", dropped-announced)
			announced = dropped
		}
	}
}

// close writes the queued records for a limited time.
func (q *logQueue) close() {
	close(q.closing)
	select {
	case <-q.flushed:
	case <-time.After(logFlushTimeout):
	}
}

// metric returns the counter of dropped records. lines returns how many lines of the
// sampler's output were dropped before they became records.
func (q *logQueue) metric(lines func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "gpu_exporter_log_records_dropped_total",
		Help: "Log records that were dropped because the reader of the log stalled or was gone, or because the sampler printed too many.",
	}, func() float64 { return float64(q.dropped.Load() + lines()) })
}
