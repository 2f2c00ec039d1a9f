// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/exporter-toolkit/web"
)

func alwaysReady() (bool, string) { return true, "" }

func TestEndpoints(t *testing.T) {
	notReady := func() (bool, string) { return false, "no sample yet: libdcgm.so.4 not found" }
	tests := []struct {
		name    string
		method  string
		path    string
		ready   func() (bool, string)
		pprof   bool
		status  int
		body    string            // in the body
		exactly string            // the whole body
		headers map[string]string // "" means absent
	}{
		{name: "metrics", path: "/metrics", status: 200, exactly: "x 1\n"},
		{name: "metrics while not ready", path: "/metrics", ready: notReady, status: 200, exactly: "x 1\n"},
		{name: "metrics by post", method: "POST", path: "/metrics", status: 405, headers: map[string]string{"Allow": "GET, HEAD"}},
		{name: "health as dcgm-exporter answers", path: "/health", status: 200, exactly: "OK",
			headers: map[string]string{"X-Reload-In-Progress": "false", "X-Registry-Available": "true"}},
		{name: "health while not ready", path: "/health", ready: notReady, status: 200, exactly: "OK",
			headers: map[string]string{"X-Registry-Available": "false"}},
		{name: "healthy", path: "/-/healthy", ready: notReady, status: 200, body: "healthy"},
		{name: "healthy by head", method: "HEAD", path: "/-/healthy", status: 200},
		{name: "healthy by delete", method: "DELETE", path: "/-/healthy", status: 405},
		{name: "ready", path: "/-/ready", status: 200, body: "is ready"},
		{name: "not ready", path: "/-/ready", ready: notReady, status: 503, body: "not ready: no sample yet: libdcgm.so.4 not found"},
		{name: "landing page", path: "/", status: 200, body: `href="/metrics"`, headers: map[string]string{"Content-Type": "text/html; charset=UTF-8"}},
		{name: "unknown path", path: "/nothing", status: 404},
		{name: "pprof is off", path: "/debug/pprof/", status: 404},
		{name: "pprof is on", path: "/debug/pprof/", pprof: true, status: 200, body: "goroutine"},
		{name: "pprof heap", path: "/debug/pprof/heap?debug=1", pprof: true, status: 200, body: "heap profile"},
		{name: "pprof command line", path: "/debug/pprof/cmdline", pprof: true, status: 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.ready == nil {
				tt.ready = alwaysReady
			}
			if tt.method == "" {
				tt.method = http.MethodGet
			}
			mux, err := newMux(serving(&text{body: "x 1\n"}).handler(40), tt.ready, http.NotFoundHandler(), tt.pprof)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			body := w.Body.String()
			if !strings.Contains(body, tt.body) || tt.exactly != "" && body != tt.exactly {
				t.Errorf("body %q, want %q", body, tt.body+tt.exactly)
			}
			if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options is %q", got)
			}
			for name, want := range tt.headers {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// The standard metrics of promhttp count our answers, refused ones too.
func TestMetricsAreInstrumented(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := new(source)
	h := promhttp.InstrumentMetricHandler(reg, s.handler(1))
	get(t, h, nil, nil)
	s.Store(&text{body: "x 1\n"})
	get(t, h, nil, nil)
	get(t, h, nil, nil)
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP promhttp_metric_handler_requests_in_flight Current number of scrapes being served.
# TYPE promhttp_metric_handler_requests_in_flight gauge
promhttp_metric_handler_requests_in_flight 0
# HELP promhttp_metric_handler_requests_total Total number of scrapes by HTTP status code.
# TYPE promhttp_metric_handler_requests_total counter
promhttp_metric_handler_requests_total{code="200"} 2
promhttp_metric_handler_requests_total{code="500"} 0
promhttp_metric_handler_requests_total{code="503"} 1
`))
	if err != nil {
		t.Error(err)
	}
}

// startServer serves handler as the exporter does and returns where.
func startServer(t *testing.T, handler http.Handler, timeouts httpTimeouts, webConfig string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	server := newHTTPServer(handler, timeouts, log)
	flags := config{WebConfigFile: webConfig}.webFlags()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serveHTTP(ctx, server, timeouts.shutdown, func() error {
			return web.ServeMultiple([]net.Listener{listener}, server, flags, log)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return listener.Addr().String()
}

// Clients that send nothing, send slowly or do not read lose their connection,
// and do not keep others from being served meanwhile.
func TestSlowClients(t *testing.T) {
	timeouts := httpTimeouts{
		readHeader: 200 * time.Millisecond, read: 400 * time.Millisecond, write: 400 * time.Millisecond,
		idle: 200 * time.Millisecond, shutdown: 5 * time.Second,
	}
	// More than the socket buffers hold.
	body := strings.Repeat("x 1\n", 8<<20)
	h := serving(&text{body: body}).handler(1)
	begun, ended := make(chan bool, 2), make(chan bool, 2)
	mux, err := newMux(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		h.ServeHTTP(w, r)
		ended <- true
	}), alwaysReady, http.NotFoundHandler(), false)
	if err != nil {
		t.Fatal(err)
	}
	address := startServer(t, mux, timeouts, "")

	clients := map[string]func(net.Conn) error{
		"says nothing": func(net.Conn) error { return nil },
		"slowloris": func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: node\r\n"); err != nil {
				return err
			}
			var err error
			for err == nil { // until the server has had enough
				time.Sleep(50 * time.Millisecond)
				_, err = io.WriteString(c, "X-Header: again and again\r\n")
			}
			return nil
		},
		"slow body": func(c net.Conn) error {
			_, err := io.WriteString(c, "POST /health HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000\r\n\r\n")
			return err
		},
		"idles after an answer": func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
				return err
			}
			_, err := http.ReadResponse(bufio.NewReader(c), nil)
			return err
		},
	}
	var wg sync.WaitGroup
	for name, client := range clients {
		wg.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer func() { _ = conn.Close() }()
			if err := client(conn); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			// The end of the stream: the server closed the connection.
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection stays open", name)
			}
		})
	}
	wg.Wait()

	// One that asks and does not read occupies the only place for a scrape, until
	// the server gives up on it.
	deaf, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = deaf.Close() }()
	if err := deaf.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(deaf, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	if resp := fetch(t, http.DefaultClient, "http://"+address+"/health"); resp.StatusCode != http.StatusOK {
		t.Errorf("health is %d meanwhile", resp.StatusCode)
	}
	<-ended
	if n, err := io.Copy(io.Discard, deaf); n >= int64(len(body)) {
		t.Errorf("the deaf client could read all of the body (error %v)", err)
	}
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d for the next scrape", resp.StatusCode)
	}
}

func TestLongHeadersAreRefused(t *testing.T) {
	mux, err := newMux(serving(&text{body: "x 1\n"}).handler(1), alwaysReady, http.NotFoundHandler(), false)
	if err != nil {
		t.Fatal(err)
	}
	address := startServer(t, mux, defaultTimeouts(), "")
	r, err := http.NewRequest(http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", resp.StatusCode)
	}
}

// On shutdown a scrape under way gets its answer, and the server ends; but one
// that never ends does not keep it.
func TestShutdown(t *testing.T) {
	for _, tt := range []struct {
		name     string
		finishes bool
	}{{"waits for a scrape", true}, {"but not for ever", false}} {
		t.Run(tt.name, func(t *testing.T) {
			e := &text{body: "x 1\n", hold: make(chan struct{})}
			h := serving(e).handler(1)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := newHTTPServer(h, defaultTimeouts(), slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			shutdown := 30 * time.Second
			if !tt.finishes {
				shutdown = 50 * time.Millisecond
			}
			go func() {
				done <- serveHTTP(ctx, server, shutdown, func() error { return server.Serve(listener) })
			}()
			answer := make(chan error, 1)
			go func() {
				resp, err := http.Get("http://" + listener.Addr().String() + "/metrics")
				if err == nil {
					defer func() { _ = resp.Body.Close() }()
					_, err = io.ReadAll(resp.Body)
				}
				answer <- err
			}()
			eventually(t, "the scrape has begun", func() bool { return h.serving.Load() == 1 })
			cancel()
			if tt.finishes {
				close(e.hold)
			}
			if err := <-done; err != nil {
				t.Errorf("serving: %v", err)
			}
			if err := <-answer; (err == nil) != tt.finishes {
				t.Errorf("the scrape ended with error %v", err)
			}
			if !tt.finishes {
				close(e.hold)
			}
		})
	}
}

func TestSeveralListenAddresses(t *testing.T) {
	mux, err := newMux(serving(&text{body: "x 1\n"}).handler(1), alwaysReady, http.NotFoundHandler(), false)
	if err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	server := newHTTPServer(mux, defaultTimeouts(), logger)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	flags := config{ListenAddresses: []string{"127.0.0.1:0", "127.0.0.2:0"}}.webFlags()
	go func() {
		done <- serveHTTP(ctx, server, time.Second, func() error { return web.ListenAndServe(server, flags, logger) })
	}()
	var addresses []string
	eventually(t, "both listen", func() bool {
		addresses = nil
		for line := range strings.Lines(log.String()) {
			if _, address, ok := strings.Cut(line, `msg="Listening on" address=`); ok {
				addresses = append(addresses, strings.TrimSpace(address))
			}
		}
		return len(addresses) == 2
	})
	for _, address := range addresses {
		if resp := fetch(t, http.DefaultClient, "http://"+address+"/metrics"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", address, resp.StatusCode)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What cannot be served ends the program with a reason.
func TestServeFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	tests := []struct {
		name   string
		config config
		want   string
	}{
		{"address in use", config{ListenAddresses: []string{taken.Addr().String()}}, "address already in use"},
		{"no sockets from systemd", config{SystemdSocket: true}, "no socket activation file descriptors found"},
		{"no web config", config{ListenAddresses: []string{"127.0.0.1:0"}, WebConfigFile: "testdata/none.yml"}, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := slog.New(slog.DiscardHandler)
			server := newHTTPServer(http.NotFoundHandler(), defaultTimeouts(), log)
			err := serveHTTP(t.Context(), server, time.Second, func() error {
				return web.ListenAndServe(server, tt.config.webFlags(), log)
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func fetch(t *testing.T, client *http.Client, url string) *http.Response {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain until " + what)
		}
	}
}

// syncBuffer is a buffer that a logger may write while a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
