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
	"strings"
	"sync"
	"time"
)

const (
	maxOutputLine = 16 << 10
	// Enough for the goroutine trace of a crash, and no more than a log can take.
	outputWindow         = 10 * time.Second
	outputLinesPerWindow = 200
)

type outputStream string

const (
	streamStdout outputStream = "stdout"
	streamStderr outputStream = "stderr"
	// streamRecords carries the sampler's own log, in the form of the exporter's.
	streamRecords outputStream = "records"
)

type outputLine struct {
	stream outputStream
	text   string
	cut    bool
	// dropped stands alone: so many lines are missing here.
	dropped int
}

// outputLog logs what the sampler prints. The lines pass through a channel that
// is never waited for, so that a log that blocks does not block the sampler.
type outputLog struct {
	log     *slog.Logger
	records io.Writer // nil: the sampler's own log is dropped
	lines   chan outputLine
	done    chan struct{}

	mu      sync.Mutex
	window  time.Time // when the current window began
	passed  int       // lines in the window
	dropped int       // lines not logged, not reported yet
}

func newOutputLog(log *slog.Logger, records io.Writer) *outputLog {
	return &outputLog{log: log.With("component", "dcgm"), records: records}
}

func (o *outputLog) open() {
	o.lines = make(chan outputLine, outputLinesPerWindow)
	o.done = make(chan struct{})
	go func() {
		defer close(o.done)
		for line := range o.lines {
			o.write(line)
		}
	}()
}

// close waits at most d for the log. There must be no reader left.
func (o *outputLog) close(d time.Duration) {
	close(o.lines)
	within(o.done, d)
}

// read logs r line by line until its end.
func (o *outputLog) read(stream outputStream, r io.Reader) {
	lines := bufio.NewReaderSize(r, maxOutputLine)
	for {
		text, err := lines.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if text = bytes.TrimRight(text, "\r\n"); len(text) != 0 && o.admit(time.Now()) {
			o.send(outputLine{stream: stream, text: string(text), cut: cut})
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that was cut
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// admit says whether a line still fits into the current window.
func (o *outputLog) admit(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turn(now)
	if o.passed >= outputLinesPerWindow {
		o.dropped++
		return false
	}
	o.passed++
	return true
}

func (o *outputLog) send(line outputLine) {
	select {
	case o.lines <- line:
	default:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.dropped++
	}
}

// tick has a window end also when no line comes.
func (o *outputLog) tick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turn(time.Now())
}

// flush reports at once how many lines were dropped.
func (o *outputLog) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report()
}

// turn begins a new window if it is time. The mutex must be held.
func (o *outputLog) turn(now time.Time) {
	if now.Sub(o.window) >= outputWindow {
		o.window, o.passed = now, 0
		o.report()
	}
}

// report logs how many lines were dropped. The mutex must be held.
func (o *outputLog) report() {
	if o.dropped == 0 {
		return
	}
	select {
	case o.lines <- outputLine{dropped: o.dropped}:
		o.dropped = 0
	default: // the log is stuck; next time
	}
}

// write logs one line. A line of the records stream is a record already.
func (o *outputLog) write(line outputLine) {
	ctx := context.Background()
	if line.dropped != 0 {
		o.log.WarnContext(ctx, "too much output of the sampler, lines were dropped", "lines", line.dropped)
		return
	}
	level := slog.LevelInfo
	switch line.stream {
	case streamRecords:
		if o.records != nil {
			_, _ = io.WriteString(o.records, line.text+"\n") // a log that fails cannot be reported
		}
		return
	case streamStderr:
		level = slog.LevelWarn // mostly complaints
	}
	attrs := []slog.Attr{slog.String("stream", string(line.stream))}
	if line.cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	o.log.LogAttrs(ctx, level, strings.ToValidUTF8(line.text, "\uFFFD"), attrs...)
}
