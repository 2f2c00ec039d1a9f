// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

// text is an exposition that is the same text in every format.
type text struct {
	body    string
	err     error
	encoded atomic.Int32  // calls of Append
	hold    chan struct{} // if not nil, Append waits for it to be closed
	panics  bool
}

func (e *text) Append(dst []byte, _ expfmt.Format) ([]byte, error) {
	e.encoded.Add(1)
	if e.hold != nil {
		<-e.hold
	}
	if e.panics {
		panic("encoder broke")
	}
	return append(dst, e.body...), e.err
}

// source is a changeable current exposition.
type source struct{ atomic.Pointer[text] }

func (s *source) current() exposition {
	if e := s.Load(); e != nil {
		return e
	}
	return nil
}

func (s *source) handler(limit int) *metricsHandler {
	return newMetricsHandler(s.current, limit, slog.New(slog.DiscardHandler))
}

func serving(e *text) *source {
	s := new(source)
	s.Store(e)
	return s
}

func TestMetricsHeaders(t *testing.T) {
	body := strings.Repeat("DCGM_FI_DEV_GPU_TEMP 41\n", 1000)
	h := serving(&text{body: body}).handler(40)
	for _, encoding := range []string{"", "gzip", "zstd"} {
		t.Run("encoding "+encoding, func(t *testing.T) {
			var lengths [2]string
			for i, method := range []string{http.MethodGet, http.MethodHead} {
				r := httptest.NewRequest(method, "/metrics", nil)
				r.Header.Set("Accept-Encoding", encoding)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					t.Fatalf("%s: status %d", method, w.Code)
				}
				if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
					t.Errorf("%s: Content-Type %q", method, got)
				}
				if got := w.Header().Get("Content-Encoding"); got != encoding {
					t.Errorf("%s: Content-Encoding %q", method, got)
				}
				lengths[i] = w.Header().Get("Content-Length")
				if method == http.MethodHead {
					if w.Body.Len() > 0 {
						t.Errorf("HEAD has a body of %d bytes", w.Body.Len())
					}
					continue
				}
				if lengths[i] != strconv.Itoa(w.Body.Len()) {
					t.Errorf("Content-Length %s, body %d bytes", lengths[i], w.Body.Len())
				}
				if got := plainBody(t, w.Result()); got != body {
					t.Errorf("body differs: %d bytes, want %d", len(got), len(body))
				}
			}
			if lengths[0] != lengths[1] {
				t.Errorf("Content-Length %s for GET, %s for HEAD", lengths[0], lengths[1])
			}
		})
	}
}

func TestMetricsAnswers(t *testing.T) {
	tests := []struct {
		name   string
		method string
		source *source
		status int
		body   string
		header [2]string
	}{
		{name: "nothing yet", method: http.MethodGet, source: new(source), status: http.StatusServiceUnavailable,
			body: "No metrics yet"},
		{name: "no metrics at all", method: http.MethodGet, source: serving(&text{}), status: http.StatusOK,
			body: "", header: [2]string{"Content-Length", "0"}},
		{name: "part of it cannot be encoded", method: http.MethodGet, source: serving(&text{body: "x 1\n", err: errors.New("y is broken")}),
			status: http.StatusOK, body: "x 1\n"},
		{name: "nothing can be encoded", method: http.MethodGet, source: serving(&text{err: errors.New("all is broken")}),
			status: http.StatusInternalServerError, body: "all is broken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			tt.source.handler(40).ServeHTTP(w, httptest.NewRequest(tt.method, "/metrics", nil))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			if got := w.Body.String(); !strings.Contains(got, tt.body) {
				t.Errorf("body %q, want %q in it", got, tt.body)
			}
			if got := w.Header().Get(tt.header[0]); tt.header[0] != "" && got != tt.header[1] {
				t.Errorf("%s is %q, want %q", tt.header[0], got, tt.header[1])
			}
			if w.Header().Get("Content-Type") == "" {
				t.Error("no Content-Type: Prometheus 3 rejects such an answer")
			}
		})
	}
}

// However many clients ask at once, and in whichever coding, a generation is
// encoded once; and the next generation is seen by the next request.
func TestMetricsEncodeOnce(t *testing.T) {
	first := &text{body: "generation 1\n", hold: make(chan struct{})}
	s := serving(first)
	h := s.handler(100)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			resp := get(t, h, nil, []string{[]string{"", "gzip", "zstd"}[i%3]})
			if got := plainBody(t, resp); got != first.body {
				t.Errorf("body %q", got)
			}
		})
	}
	for first.encoded.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(first.hold)
	wg.Wait()
	if n := first.encoded.Load(); n != 1 {
		t.Errorf("encoded %d times, want once", n)
	}

	second := &text{body: "generation 2\n"}
	s.Store(second)
	for range 3 {
		if got := plainBody(t, get(t, h, nil, nil)); got != second.body {
			t.Errorf("body %q, want that of the new generation", got)
		}
	}
	if n := second.encoded.Load(); n != 1 {
		t.Errorf("encoded %d times, want once", n)
	}
}

func TestMetricsLimit(t *testing.T) {
	e := &text{body: "x 1\n", hold: make(chan struct{})}
	h := serving(e).handler(3)
	var wg sync.WaitGroup
	codes := make(chan int, 3)
	for range 3 {
		wg.Go(func() { codes <- get(t, h, nil, nil).StatusCode })
	}
	for h.serving.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	resp := get(t, h, nil, nil)
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d over the limit, want 503", resp.StatusCode)
	}
	if got := plainBody(t, resp); !strings.Contains(got, "Limit of concurrent scrapes reached (3, set by --web.max-requests)") {
		t.Errorf("body %q", got)
	}
	close(e.hold)
	wg.Wait()
	for range 3 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("status %d within the limit", code)
		}
	}
	if code := get(t, h, nil, nil).StatusCode; code != http.StatusOK {
		t.Errorf("status %d once the others are done", code)
	}
}

// A panic in the encoder costs its own request, and no later one is served an
// empty body as if it were good.
func TestMetricsEncoderPanics(t *testing.T) {
	s := serving(&text{panics: true})
	h := s.handler(1)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is hidden from net/http, which logs it")
			}
		}()
		get(t, h, nil, nil)
	}()
	if code := get(t, h, nil, nil).StatusCode; code != http.StatusInternalServerError {
		t.Errorf("status %d after a panic, want 500", code)
	}
	s.Store(&text{body: "x 1\n"})
	if got := plainBody(t, get(t, h, nil, nil)); got != "x 1\n" {
		t.Errorf("body %q of the next generation", got)
	}
}

// slowWriter takes the body only when it is told to, and keeps no copy of what
// it was given.
type slowWriter struct {
	*httptest.ResponseRecorder
	started, goOn chan struct{}
	err           error
}

func (w *slowWriter) Write(b []byte) (int, error) {
	close(w.started)
	<-w.goOn
	if w.err != nil {
		return 0, w.err
	}
	return w.ResponseRecorder.Write(b)
}

// A client that is still reading an old generation gets it to the end, while
// others are served newer ones: memory is not used again under its feet.
func TestMetricsSlowReaderKeepsItsGeneration(t *testing.T) {
	for _, failed := range []error{nil, errors.New("connection reset")} {
		t.Run(fmt.Sprint("write error ", failed), func(t *testing.T) {
			body := func(i int) string { return strings.Repeat(strconv.Itoa(i), 1000) }
			s := serving(&text{body: body(0)})
			h := s.handler(40)
			slow := &slowWriter{ResponseRecorder: httptest.NewRecorder(), started: make(chan struct{}), goOn: make(chan struct{}), err: failed}
			done := make(chan struct{})
			go func() {
				defer close(done)
				h.ServeHTTP(slow, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			}()
			<-slow.started
			for i := 1; i < 5; i++ {
				s.Store(&text{body: body(i)})
				if got := plainBody(t, get(t, h, nil, nil)); got != body(i) {
					t.Errorf("generation %d: body %.20q", i, got)
				}
			}
			close(slow.goOn)
			<-done
			if got := slow.Body.String(); failed == nil && got != body(0) {
				t.Errorf("the slow client got %.20q", got)
			}
			// Its generation is over now. Unless the write failed, its memory comes
			// back, and either way what follows is right.
			for i := 5; i < 8; i++ {
				s.Store(&text{body: body(i)})
				if got := plainBody(t, get(t, h, nil, nil)); got != body(i) {
					t.Errorf("generation %d: body %.20q", i, got)
				}
			}
		})
	}
}

// Bodies of old generations do not pile up, and their memory is used again.
func TestMetricsMemory(t *testing.T) {
	s := new(source)
	h := s.handler(40)
	w := new(discard)
	body := strings.Repeat("DCGM_FI_DEV_GPU_TEMP 41\n", 20_000)
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	newGeneration := func() {
		s.Store(&text{body: body})
		w.header = http.Header{}
		h.ServeHTTP(w, r)
	}
	newGeneration() // the compressor and the first buffers
	newGeneration()
	const runs = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		newGeneration()
	}
	runtime.ReadMemStats(&after)
	// Of 480 KB of text and its compressed form, nothing is allocated anew.
	size := (after.TotalAlloc - before.TotalAlloc) / runs
	t.Logf("%d bytes allocated for a new generation", size)
	if size > 16<<10 {
		t.Errorf("a new generation allocates %d bytes, want what its headers take", size)
	}
	if len(h.live.bodies) != 2 {
		t.Errorf("%d bodies of the last generation, want its text and its gzip", len(h.live.bodies))
	}
}

// A client that goes through all formats makes us keep a bounded number of
// bodies.
func TestMetricsVariantsAreBounded(t *testing.T) {
	h := serving(&text{body: "x 1\n"}).handler(40)
	for _, version := range []string{"application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=0.0.1", "text/plain;version=0.0.4"} {
		for _, escaping := range []string{"allow-utf-8", "underscores", "dots", "values"} {
			for _, encoding := range []string{"identity", "gzip", "zstd"} {
				if got := plainBody(t, get(t, h, []string{version + ";escaping=" + escaping}, []string{encoding})); got != "x 1\n" {
					t.Errorf("%s, %s, %s: body %q", version, escaping, encoding, got)
				}
			}
		}
	}
	if n := len(h.live.bodies); n > maxVariants {
		t.Errorf("%d bodies kept, want at most %d", n, maxVariants)
	}
}

// discard is a client that costs nothing.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
