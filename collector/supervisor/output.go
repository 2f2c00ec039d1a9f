// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxOutputLine = 16 << 10
	// The limits keep a flood out of the log: libraryLinesPerWindow applies to each stream
	// that libraries print to, unless DCGM's log is enabled.
	outputWindow          = 10 * time.Second
	outputLinesPerWindow  = 200
	libraryLinesPerWindow = 20
	// maxCrashReport bounds the report of a crash, which begins with its cause and the
	// goroutine that crashed.
	maxCrashReport = 4 << 10
)

// isCrash matches the first line of the Go runtime's report of a crash, which also covers
// native code.
var isCrash = regexp.MustCompile(`^(fatal error: |panic: |SIG[A-Z]+: |unexpected fault address |runtime: )`)

type outputStream string

const (
	streamStdout outputStream = "stdout"
	streamStderr outputStream = "stderr"
	// streamRecords carries the sampler's own log, already in the exporter's format.
	streamRecords outputStream = "records"
)

type outputLine struct {
	stream    outputStream
	text      string
	truncated bool
}

// outputLog logs the output of samplers. Readers never wait for the log: they drop and
// count lines when its queue is full, so that a blocked log does not block the sampler.
type outputLog struct {
	log     *slog.Logger
	records io.Writer // nil: the sampler's own log is discarded
	// verbose is set while DCGM's log is enabled.
	verbose atomic.Bool
	lines   chan outputLine
	done    chan struct{}
	dropped atomic.Uint64 // since the start
}

func newOutputLog(log *slog.Logger, records io.Writer) *outputLog {
	return &outputLog{log: log.With("component", "dcgm"), records: records}
}

func (o *outputLog) open() {
	o.lines = make(chan outputLine, outputLinesPerWindow)
	o.done = make(chan struct{})
	go o.run()
}

// close waits at most d for the log. The caller has ended all readers.
func (o *outputLog) close(d time.Duration) {
	close(o.lines)
	closedWithin(o.done, d)
}

// run logs a limited number of lines per window, and reports the dropped ones.
func (o *outputLog) run() {
	defer close(o.done)
	var reported uint64
	report := func() {
		if n := o.dropped.Load(); n != reported {
			o.log.Warn("Sampler printed too much; lines were dropped", "lines", n-reported)
			reported = n
		}
	}
	defer report()
	window := time.NewTicker(outputWindow)
	defer window.Stop()
	logged, printed := 0, map[outputStream]int{}
	for {
		select {
		case line, ok := <-o.lines:
			switch {
			case !ok:
				return
			case logged == outputLinesPerWindow, line.stream != streamRecords && printed[line.stream] == libraryLinesPerWindow && !o.verbose.Load():
				o.dropped.Add(1)
			default:
				logged++
				printed[line.stream]++
				o.write(line)
			}
		case <-window.C:
			logged = 0
			clear(printed)
			report()
		}
	}
}

// queue never blocks.
func (o *outputLog) queue(line outputLine) {
	select {
	case o.lines <- line:
	default:
		o.dropped.Add(1)
	}
}

// read queues r line by line until it ends. The report of a crash is one line: the process
// ends after it.
func (o *outputLog) read(stream outputStream, r io.Reader) {
	lines := bufio.NewReaderSize(r, maxOutputLine)
	var crash []byte
	truncated := false
	defer func() {
		if len(crash) > 0 {
			o.queue(outputLine{stream, string(crash[:min(len(crash), maxCrashReport)]), truncated || len(crash) > maxCrashReport})
		}
	}()
	for {
		text, err := lines.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		switch text = bytes.TrimRight(text, "\r\n"); {
		case len(text) == 0:
		case stream == streamStderr && (len(crash) > 0 || isCrash.Match(text)):
			if truncated = truncated || cut || len(crash) > maxCrashReport; len(crash) <= maxCrashReport {
				crash = append(append(crash, text...), '\n')
			}
		default:
			o.queue(outputLine{stream, string(text), cut})
		}
		for errors.Is(err, bufio.ErrBufferFull) { // skip the rest of a truncated line
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// write logs one line. Lines of streamRecords are formatted records.
func (o *outputLog) write(line outputLine) {
	if line.stream == streamRecords {
		if o.records != nil {
			_, _ = io.WriteString(o.records, line.text+"\n") // no other log could report the error
		}
		return
	}
	level := slog.LevelInfo
	if line.stream == streamStderr {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("stream", string(line.stream))}
	if line.truncated {
		attrs = append(attrs, slog.Bool("truncated", true))
	}
	o.log.LogAttrs(context.Background(), level, strings.ToValidUTF8(line.text, "\uFFFD"), attrs...)
}
