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

// logRecords is a log that remembers.
type logRecords struct {
	mu      sync.Mutex
	records []slog.Record
	text    bytes.Buffer
	shared  *logRecords // of the handlers derived from it
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

// logOutput returns what becomes of output.
func logOutput(t *testing.T, stream outputStream, r io.Reader) *logRecords {
	t.Helper()
	var logs logRecords
	o := newOutputLog(slog.New(&logs))
	o.open()
	o.read(stream, r)
	o.flush()
	o.close(10 * time.Second)
	return &logs
}

// The sampler's stdout and stderr end up in our log with component=dcgm.
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
		"no UTF-8":           {streamStdout, "a\xff\xfeb\n", []string{"level=INFO msg=\"a\uFFFDb\" stream=stdout component=dcgm"}},
		"long line": {streamStdout, long + long + long + "tail\nnext\n", []string{
			`level=INFO msg=` + long + ` stream=stdout cut=true component=dcgm`,
			`level=INFO msg=next stream=stdout component=dcgm`}},
		"our record": {streamStderr, `{"time":"2026-01-02T03:04:05.6Z","level":"ERROR","msg":"watching fields","field":150,"ratio":0.5,"error":"not \"watched\"","ok":true,"gpu":{"uuid":"GPU-1","id":3},"list":[1,"a"],"nothing":null}` + "\n", []string{
			`level=ERROR msg="watching fields" field=150 ratio=0.5 error="not \"watched\"" ok=true gpu.uuid=GPU-1 gpu.id=3 list="[1,\"a\"]" nothing=null component=dcgm`}},
		"our debug record":             {streamStderr, `{"level":"DEBUG-2","msg":"m"}` + "\n", []string{`level=DEBUG-2 msg=m component=dcgm`}},
		"component of its own":         {streamStderr, `{"level":"INFO","msg":"m","component":"sampler","a":1}` + "\n", []string{`level=INFO msg=m a=1 component=dcgm`}},
		"JSON without level":           {streamStderr, `{"msg":"m"}` + "\n", []string{`level=WARN msg="{\"msg\":\"m\"}" stream=stderr component=dcgm`}},
		"JSON without message":         {streamStdout, `{"level":"INFO"}` + "\n", []string{`level=INFO msg="{\"level\":\"INFO\"}" stream=stdout component=dcgm`}},
		"unknown level":                {streamStdout, `{"level":"LOUD","msg":"m"}` + "\n", []string{`level=INFO msg="{\"level\":\"LOUD\",\"msg\":\"m\"}" stream=stdout component=dcgm`}},
		"broken JSON":                  {streamStdout, `{"level":"INFO","msg":"m"` + "\n", []string{`level=INFO msg="{\"level\":\"INFO\",\"msg\":\"m\"" stream=stdout component=dcgm`}},
		"JSON with something after it": {streamStdout, `{"level":"INFO","msg":"m"} x` + "\n", []string{`level=INFO msg="{\"level\":\"INFO\",\"msg\":\"m\"} x" stream=stdout component=dcgm`}},
		"JSON, no object":              {streamStdout, "[1]\n", []string{`level=INFO msg=[1] stream=stdout component=dcgm`}},
		"nested without end": {streamStdout, `{"level":"INFO","msg":"m","a":` + strings.Repeat(`{"a":`, 900) + "1" + strings.Repeat("}", 900) + "}\n", []string{
			`level=INFO msg=m a.a.a.a.a="` + strings.ReplaceAll(strings.Repeat(`{"a":`, 896), `"`, `\"`) + "1" + strings.Repeat("}", 896) + `" component=dcgm`}},
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

// A record passes as our own log wrote it.
func TestOutputRecordRoundTrip(t *testing.T) {
	var line, want bytes.Buffer
	write := func(h slog.Handler) {
		log := slog.New(h)
		log.Warn("GPU is lost", "gpu", 3, slog.Group("pci", "bus", 23), "error", io.ErrUnexpectedEOF, "after", 1500*time.Millisecond)
	}
	write(slog.NewJSONHandler(&line, nil))
	record, ok := parseRecord(strings.TrimSpace(line.String()))
	if !ok {
		t.Fatalf("%s is not taken for a record", line.String())
	}
	if err := slog.NewJSONHandler(&want, nil).Handle(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if line.String() != want.String() {
		t.Errorf("got  %swant %s", want.String(), line.String())
	}
}

// A flood is limited, and what is missing is counted.
func TestOutputFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logRecords
		o := newOutputLog(slog.New(&logs))
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
				if i%50 == 0 { // or the channel is what limits it
					synctest.Wait()
				}
			}
			synctest.Wait()
		}
		flood(1000)
		if n := logs.count(slog.LevelWarn, "line"); n != outputLinesPerWindow {
			t.Errorf("%d of 1000 lines are logged, want %d", n, outputLinesPerWindow)
		}
		// No further line has to come for the rest to be reported.
		time.Sleep(outputWindow)
		o.tick()
		synctest.Wait()
		if !strings.Contains(logs.String(), "lines were dropped\" lines=800 component=dcgm") {
			t.Errorf("the 800 dropped lines are not reported:\n%.500s", logs.String())
		}
		flood(10)
		if n := logs.count(slog.LevelWarn, "line "); n != outputLinesPerWindow+10 {
			t.Errorf("%d lines in all, want the 10 after the flood, too", n)
		}
		// At the end of a sampler at once.
		flood(500)
		w.Close()
		<-read
		o.flush()
		synctest.Wait()
		if !strings.Contains(logs.String(), "lines=310") {
			t.Errorf("the last dropped lines are not reported:\n%s", logs.String()[len(logs.String())-300:])
		}
		o.close(time.Second)
	})
}

// A log that blocks does not block the sampler, nor the end.
func TestOutputDoesNotWaitForTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		o := newOutputLog(slog.New(blockedHandler{stuck}))
		o.open()
		// More than all buffers hold; it returns at all.
		o.read(streamStdout, strings.NewReader(strings.Repeat("x\n", 100*outputLinesPerWindow)))
		time.Sleep(outputWindow)
		o.read(streamStdout, strings.NewReader(strings.Repeat("x\n", 100*outputLinesPerWindow)))
		o.flush()
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

// What the log does not want is not made up for it.
func TestOutputRespectsLevel(t *testing.T) {
	var out bytes.Buffer
	o := newOutputLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	o.open()
	o.read(streamStdout, strings.NewReader("chatter\n{\"level\":\"INFO\",\"msg\":\"chatter\"}\n"))
	o.close(10 * time.Second)
	if out.Len() != 0 {
		t.Errorf("logged %s", out.String())
	}
}
