// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

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
	"weak"

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

func never() bool { return false }

// serving returns a handler that serves e, or nothing yet if e is nil.
func serving(limit int, e *text) *Metrics {
	m := NewMetrics(limit, slog.New(slog.DiscardHandler))
	if e != nil {
		m.Publish(e.Append, never)
	}
	return m
}

func TestMetricsHeaders(t *testing.T) {
	body := strings.Repeat("DCGM_FI_DEV_GPU_TEMP 41\n", 1000)
	h := serving(40, &text{body: body})
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
		source *Metrics
		status int
		body   string
		header [2]string
	}{
		{name: "nothing yet", method: http.MethodGet, source: serving(40, nil), status: http.StatusServiceUnavailable,
			body: "No metrics yet"},
		{name: "no metrics at all", method: http.MethodGet, source: serving(40, &text{}), status: http.StatusOK,
			body: "", header: [2]string{"Content-Length", "0"}},
		{name: "part of it cannot be encoded", method: http.MethodGet, source: serving(40, &text{body: "x 1\n", err: errors.New("y is broken")}),
			status: http.StatusOK, body: "x 1\n"},
		{name: "nothing can be encoded", method: http.MethodGet, source: serving(40, &text{err: errors.New("all is broken")}),
			status: http.StatusInternalServerError, body: "all is broken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			tt.source.ServeHTTP(w, httptest.NewRequest(tt.method, "/metrics", nil))
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

// However many clients scrape at once, and in whichever coding, an exposition is
// encoded once. The next request gets the next exposition.
// TestStaleExpositionIsRenewed: the first scrape after a pause of the process finds the
// exposition of before the pause.
func TestStaleExpositionIsRenewed(t *testing.T) {
	m := serving(40, nil)
	var stale atomic.Bool
	m.Renew = func() { m.Publish((&text{body: "gpu_up 0\n"}).Append, never) }
	m.Publish((&text{body: "gpu_up 1\n"}).Append, stale.Load)
	for _, want := range []string{"gpu_up 1\n", "gpu_up 0\n"} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("status %d, body %q, want %q", w.Code, w.Body, want)
		}
		stale.Store(true)
	}
}

func TestMetricsEncodeOnce(t *testing.T) {
	first := &text{body: "exposition 1\n", hold: make(chan struct{})}
	h := serving(100, first)
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

	second := &text{body: "exposition 2\n"}
	h.Publish(second.Append, never)
	for range 3 {
		if got := plainBody(t, get(t, h, nil, nil)); got != second.body {
			t.Errorf("body %q, want that of the new exposition", got)
		}
	}
	if n := second.encoded.Load(); n != 1 {
		t.Errorf("encoded %d times, want once", n)
	}
}

func TestMetricsLimit(t *testing.T) {
	e := &text{body: "x 1\n", hold: make(chan struct{})}
	h := serving(3, e)
	h.turns.wait = time.Millisecond
	var wg sync.WaitGroup
	codes := make(chan int, 3)
	for range 3 {
		wg.Go(func() { codes <- get(t, h, nil, nil).StatusCode })
	}
	for len(h.turns.slots) < 3 {
		time.Sleep(time.Millisecond)
	}
	resp := get(t, h, nil, nil)
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d over the limit, want 503", resp.StatusCode)
	}
	h.turns.wait = time.Minute
	waiting := make(chan int, 1)
	wg.Go(func() { waiting <- get(t, h, nil, nil).StatusCode }) // the others end while it waits
	if got := plainBody(t, resp); !strings.Contains(got, "Limit of concurrent scrapes reached (3, set by --web.max-requests)") {
		t.Errorf("body %q", got)
	}
	close(e.hold)
	wg.Wait()
	if code := <-waiting; code != http.StatusOK {
		t.Errorf("status %d for a request that waited, want 200", code)
	}
	for range 3 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("status %d within the limit", code)
		}
	}
	if code := get(t, h, nil, nil).StatusCode; code != http.StatusOK {
		t.Errorf("status %d once the others are done", code)
	}
}

// A panic in the encoder fails its own request, and no later request gets an empty
// body with status 200.
func TestMetricsEncoderPanics(t *testing.T) {
	h := serving(1, &text{panics: true})
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
	h.Publish((&text{body: "x 1\n"}).Append, never)
	if got := plainBody(t, get(t, h, nil, nil)); got != "x 1\n" {
		t.Errorf("body %q of the next exposition", got)
	}
}

// slowWriter takes the body when goOn is closed, and keeps no copy before.
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

// A client that is still reading an old exposition gets it to the end, while
// others get newer ones: its memory is not reused.
func TestMetricsSlowReaderKeepsItsExposition(t *testing.T) {
	for _, failed := range []error{nil, errors.New("connection reset")} {
		t.Run(fmt.Sprint("write error ", failed), func(t *testing.T) {
			body := func(i int) string { return strings.Repeat(strconv.Itoa(i), 1000) }
			h := serving(40, &text{body: body(0)})
			slow := &slowWriter{ResponseRecorder: httptest.NewRecorder(), started: make(chan struct{}), goOn: make(chan struct{}), err: failed}
			done := make(chan struct{})
			go func() {
				defer close(done)
				h.ServeHTTP(slow, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			}()
			<-slow.started
			for i := 1; i < 5; i++ {
				h.Publish((&text{body: body(i)}).Append, never)
				if got := plainBody(t, get(t, h, nil, nil)); got != body(i) {
					t.Errorf("exposition %d: body %.20q", i, got)
				}
			}
			close(slow.goOn)
			<-done
			if got := slow.Body.String(); failed == nil && got != body(0) {
				t.Errorf("the slow client got %.20q", got)
			}
			// Later expositions are right, whether or not the write failed.
			for i := 5; i < 8; i++ {
				h.Publish((&text{body: body(i)}).Append, never)
				if got := plainBody(t, get(t, h, nil, nil)); got != body(i) {
					t.Errorf("exposition %d: body %.20q", i, got)
				}
			}
		})
	}
}

// The bodies of an exposition are dropped with it, and a new one allocates little
// more than its bodies.
func TestMetricsMemory(t *testing.T) {
	h := serving(40, nil)
	w := new(discard)
	body := strings.Repeat("DCGM_FI_DEV_GPU_TEMP 41\n", 20_000)
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	publish := func() {
		h.Publish((&text{body: body}).Append, never)
		w.header = http.Header{}
		h.ServeHTTP(w, r)
	}
	publish() // creates the compressor
	old := weak.Make(h.current.Load())
	const runs = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		publish()
	}
	runtime.ReadMemStats(&after)
	size := (after.TotalAlloc - before.TotalAlloc) / runs
	t.Logf("%d bytes allocated for an exposition with a text of %d", size, len(body))
	if size > uint64(len(body))*5/4 {
		t.Errorf("an exposition allocates %d bytes, want little more than its text of %d", size, len(body))
	}
	if n := len(h.current.Load().bodies); n != 2 {
		t.Errorf("%d bodies of the last exposition, want its text and its gzip", n)
	}
	runtime.GC()
	if old.Value() != nil {
		t.Error("the first exposition is still in memory")
	}
}

// A client that requests every format makes the handler keep a bounded number of
// bodies.
func TestMetricsVariantsAreBounded(t *testing.T) {
	h := serving(40, &text{body: "x 1\n"})
	for _, version := range []string{"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "text/plain;version=1.0.0", "text/plain;version=0.0.4"} {
		for _, escaping := range []string{"allow-utf-8", "underscores", "dots", "values"} {
			for _, encoding := range []string{"identity", "gzip", "zstd"} {
				if got := plainBody(t, get(t, h, []string{version + ";escaping=" + escaping}, []string{encoding})); got != "x 1\n" {
					t.Errorf("%s, %s, %s: body %q", version, escaping, encoding, got)
				}
			}
		}
	}
	if n := len(h.current.Load().bodies); n > maxVariants {
		t.Errorf("%d bodies kept, want at most %d", n, maxVariants)
	}
}

// discard is a response that allocates nothing.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
