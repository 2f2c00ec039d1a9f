// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// logRecords is a slog.Handler that keeps the records and their text.
type logRecords struct {
	mu      sync.Mutex
	records []slog.Record
	text    bytes.Buffer
	shared  *logRecords // nil: this one; otherwise the one that keeps the records
	with    []slog.Attr
}

func (l *logRecords) Enabled(context.Context, slog.Level) bool { return true }

func (l *logRecords) Handle(ctx context.Context, r slog.Record) error {
	root := l
	if l.shared != nil {
		root = l.shared
	}
	root.mu.Lock()
	defer root.mu.Unlock()
	r = r.Clone()
	r.AddAttrs(l.with...)
	root.records = append(root.records, r)
	return slog.NewTextHandler(&root.text, &slog.HandlerOptions{Level: slog.LevelDebug - 4, ReplaceAttr: dropTime}).Handle(ctx, r)
}

func dropTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func (l *logRecords) WithAttrs(attrs []slog.Attr) slog.Handler {
	root := l
	if l.shared != nil {
		root = l.shared
	}
	return &logRecords{shared: root, with: append(append([]slog.Attr(nil), l.with...), attrs...)}
}

func (l *logRecords) WithGroup(string) slog.Handler { return l }

func (l *logRecords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Write receives formatted records.
func (l *logRecords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count counts the records of a level whose message contains a text.
func (l *logRecords) count(level slog.Level, contains string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.records {
		if r.Level == level && strings.Contains(r.Message, contains) {
			n++
		}
	}
	return n
}

// countFrom counts the records of a level and above.
func (l *logRecords) countFrom(level slog.Level) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.records {
		if r.Level >= level {
			n++
		}
	}
	return n
}

// logOutput returns the log of an output.
func logOutput(t *testing.T, stream outputStream, r io.Reader) *logRecords {
	t.Helper()
	var logs logRecords
	o := newOutputLog(slog.New(&logs), &logs)
	o.open()
	o.read(stream, r)
	o.close(10 * time.Second)
	return &logs
}

// Lines of stdout and stderr become records with component=dcgm. The sampler's own
// records pass unchanged.
func TestOutputLines(t *testing.T) {
	long := strings.Repeat("x", maxOutputLine)
	for name, c := range map[string]struct {
		stream outputStream
		in     string
		want   []string
	}{
		"stdout":             {streamStdout, "Starting embedded\n", []string{`level=INFO msg="Starting embedded" stream=stdout component=dcgm`}},
		"stderr":             {streamStderr, "oops\n", []string{`level=WARN msg=oops stream=stderr component=dcgm`}},
		"no newline at end":  {streamStdout, "a\nb", []string{`level=INFO msg=a stream=stdout component=dcgm`, `level=INFO msg=b stream=stdout component=dcgm`}},
		"empty lines":        {streamStdout, "\n\r\n\na\r\n", []string{`level=INFO msg=a stream=stdout component=dcgm`}},
		"nothing":            {streamStdout, "", nil},
		"control characters": {streamStdout, "a\x1b[31mb\x00c\n", []string{`level=INFO msg="a\x1b[31mb\x00c" stream=stdout component=dcgm`}},
		"not UTF-8":          {streamStdout, "a\xff\xfeb\n", []string{"level=INFO msg=\"a\uFFFDb\" stream=stdout component=dcgm"}},
		"long line": {streamStdout, long + long + long + "tail\nnext\n", []string{
			`level=INFO msg=` + long + ` stream=stdout truncated=true component=dcgm`,
			`level=INFO msg=next stream=stdout component=dcgm`}},
		"a record of the sampler": {streamRecords, `{"level":"ERROR","msg":"watching fields"}` + "\n", []string{`{"level":"ERROR","msg":"watching fields"}`}},
		"a record on stderr":      {streamStderr, `{"level":"INFO"}` + "\n", []string{`level=WARN msg="{\"level\":\"INFO\"}" stream=stderr component=dcgm`}},
	} {
		t.Run(name, func(t *testing.T) {
			got := logOutput(t, c.stream, strings.NewReader(c.in)).String()
			want := strings.Join(c.want, "\n")
			if want != "" {
				want += "\n"
			}
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A flood of lines is limited, and the dropped lines are counted.
func TestOutputFlood(t *testing.T) {
	t.Run("of a library", func(t *testing.T) { testOutputFlood(t, false, libraryLinesPerWindow) })
	t.Run("of a library whose log is enabled", func(t *testing.T) { testOutputFlood(t, true, outputLinesPerWindow) })
}

func testOutputFlood(t *testing.T, verbose bool, limit int) {
	synctest.Test(t, func(t *testing.T) {
		var logs logRecords
		o := newOutputLog(slog.New(&logs), nil)
		o.verbose.Store(verbose)
		o.open()
		r, w := io.Pipe()
		read := make(chan struct{})
		go func() {
			defer close(read)
			o.read(streamStderr, r)
		}()
		flood := func(n int) {
			for i := range n {
				fmt.Fprintf(w, "line %d\n", i)
				if i%50 == 0 { // so that the queue is not full
					synctest.Wait()
				}
			}
			synctest.Wait()
		}
		flood(1000)
		if n := logs.count(slog.LevelWarn, "line"); n != limit {
			t.Errorf("%d of 1000 lines logged, want %d", n, limit)
		}
		// The report does not need another line.
		time.Sleep(outputWindow)
		synctest.Wait()
		if !strings.Contains(logs.String(), fmt.Sprintf("lines were dropped\" lines=%d component=dcgm", 1000-limit)) {
			t.Errorf("%d dropped lines are not reported:\n%.500s", 1000-limit, logs.String())
		}
		flood(10)
		if n := logs.count(slog.LevelWarn, "line "); n != limit+10 {
			t.Errorf("%d lines in total, want 10 after the flood", n)
		}
		// The end of the log does not wait for the end of the window.
		flood(500)
		w.Close()
		<-read
		o.close(time.Second)
		if !strings.Contains(logs.String(), fmt.Sprintf("lines=%d", 500-limit+10)) {
			t.Errorf("the last dropped lines are not reported:\n%s", logs.String()[len(logs.String())-300:])
		}
	})
}

// A blocked log blocks neither the sampler nor the end of the supervisor.
func TestOutputDoesNotWaitForLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		o := newOutputLog(slog.New(blockedHandler{stuck}), nil)
		o.open()
		// More lines than all buffers hold.
		o.read(streamStdout, strings.NewReader(strings.Repeat("x\n", 100*outputLinesPerWindow)))
		time.Sleep(outputWindow)
		o.read(streamStdout, strings.NewReader(strings.Repeat("x\n", 100*outputLinesPerWindow)))
		begin := time.Now()
		o.close(time.Second)
		if d := time.Since(begin); d != time.Second {
			t.Errorf("closing took %v, want its limit of 1s", d)
		}
		close(stuck)
	})
}

type blockedHandler struct{ until chan struct{} }

func (blockedHandler) Enabled(context.Context, slog.Level) bool { return true }

func (b blockedHandler) WithAttrs([]slog.Attr) slog.Handler { return b }

func (b blockedHandler) WithGroup(string) slog.Handler { return b }

func (b blockedHandler) Handle(context.Context, slog.Record) error {
	<-b.until
	return nil
}

// The level of the logger applies to the output.
func TestOutputRespectsLevel(t *testing.T) {
	var out bytes.Buffer
	o := newOutputLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})), nil)
	o.open()
	o.read(streamStdout, strings.NewReader("chatter\n"))
	o.close(10 * time.Second)
	if out.Len() != 0 {
		t.Errorf("logged %s", out.String())
	}
}

// The report of a crash is one record of a bounded size.
func TestOutputOfACrash(t *testing.T) {
	for _, head := range []string{"fatal error: unexpected signal", "SIGSEGV: segmentation violation", "panic: runtime error"} {
		var logs logRecords
		o := newOutputLog(slog.New(&logs), nil)
		o.open()
		report := "a line before\n" + head + "\n" + strings.Repeat("goroutine 1 [running]:\n\tmain.go:1 +0x1\n", 1000)
		o.read(streamStderr, strings.NewReader(report))
		o.close(time.Minute)
		if n := logs.count(slog.LevelWarn, ""); n != 2 || len(logs.String()) > 2*maxCrashReport || !strings.Contains(logs.String(), head) {
			t.Errorf("%s: %d records of %d bytes:\n%.500s", head, n, len(logs.String()), logs.String())
		}
	}
}
