// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
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
	log   *slog.Logger
	lines chan outputLine
	done  chan struct{}

	mu      sync.Mutex
	window  time.Time // when the current window began
	passed  int       // lines in the window
	dropped int       // lines not logged, not reported yet
}

func newOutputLog(log *slog.Logger) *outputLog {
	return &outputLog{log: log.With("component", "dcgm")}
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

// write logs one line: as the record that it is if the sampler logged it, else
// as a message. What goes to stderr is mostly a complaint.
func (o *outputLog) write(line outputLine) {
	ctx := context.Background()
	if line.dropped != 0 {
		o.log.WarnContext(ctx, "too much output of the sampler, lines were dropped", "lines", line.dropped)
		return
	}
	if record, ok := parseRecord(line.text); ok {
		if h := o.log.Handler(); h.Enabled(ctx, record.Level) {
			// There is nobody to tell of a log that fails.
			_ = h.Handle(ctx, record)
		}
		return
	}
	level := slog.LevelInfo
	if line.stream == streamStderr {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("stream", string(line.stream))}
	if line.cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	o.log.LogAttrs(ctx, level, strings.ToValidUTF8(line.text, "\uFFFD"), attrs...)
}

// parseRecord reads a line that [slog.JSONHandler] wrote.
func parseRecord(text string) (slog.Record, bool) {
	var (
		at       time.Time
		level    slog.Level
		msg      string
		hasLevel bool
		hasMsg   bool
		attrs    []slog.Attr
	)
	fields, err := jsonAttrs([]byte(text), 0)
	if err != nil {
		return slog.Record{}, false
	}
	for _, f := range fields {
		switch f.Key {
		case slog.TimeKey:
			t, err := time.Parse(time.RFC3339Nano, f.Value.String())
			if err != nil {
				return slog.Record{}, false
			}
			at = t
		case slog.LevelKey:
			if level.UnmarshalText([]byte(f.Value.String())) != nil {
				return slog.Record{}, false
			}
			hasLevel = true
		case slog.MessageKey:
			msg, hasMsg = f.Value.String(), true
		case "component": // is ours
		default:
			attrs = append(attrs, f)
		}
	}
	if !hasLevel || !hasMsg {
		return slog.Record{}, false
	}
	var pc [1]uintptr
	runtime.Callers(1, pc[:]) // the source of what is passed on is here
	record := slog.NewRecord(at, level, msg, pc[0])
	record.AddAttrs(attrs...)
	return record, true
}

var errNotObject = errors.New("not an object")

// maxJSONDepth is more than our own records need.
const maxJSONDepth = 4

// jsonAttrs returns the members of a JSON object in their order.
func jsonAttrs(text []byte, depth int) ([]slog.Attr, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if open, err := dec.Token(); err != nil {
		return nil, err
	} else if open != json.Delim('{') {
		return nil, errNotObject
	}
	var attrs []slog.Attr
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		name, _ := key.(string) // of an object, it is one
		attrs = append(attrs, slog.Attr{Key: name, Value: jsonValue(raw, depth)})
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotObject // something follows it
	}
	return attrs, nil
}

func jsonValue(raw json.RawMessage, depth int) slog.Value {
	if raw[0] == '{' && depth < maxJSONDepth {
		if attrs, err := jsonAttrs(raw, depth+1); err == nil {
			return slog.GroupValue(attrs...)
		}
	}
	var (
		s string
		b bool
		i int64
		f float64
	)
	switch {
	case raw[0] == '"' && json.Unmarshal(raw, &s) == nil:
		return slog.StringValue(s)
	case json.Unmarshal(raw, &i) == nil && string(raw) != "null":
		return slog.Int64Value(i)
	case json.Unmarshal(raw, &f) == nil && string(raw) != "null":
		return slog.Float64Value(f)
	case (raw[0] == 't' || raw[0] == 'f') && json.Unmarshal(raw, &b) == nil:
		return slog.BoolValue(b)
	}
	return slog.StringValue(string(raw))
}
