// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	toolkit "github.com/prometheus/exporter-toolkit/web"
)

func alwaysReady() (bool, string) { return true, "" }

func testHandler(metrics http.Handler, ready func() (bool, string), pprof bool) (http.Handler, error) {
	e := Endpoints{Metrics: metrics, Ready: ready, Reload: http.NotFoundHandler(), Pprof: pprof}
	return e.Handler()
}

func testFlags(systemd bool, config string, addresses ...string) *toolkit.FlagConfig {
	return &toolkit.FlagConfig{WebListenAddresses: &addresses, WebSystemdSocket: &systemd, WebConfigFile: &config}
}

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
			mux, err := testHandler(serving(40, &text{body: "x 1\n"}), tt.ready, tt.pprof)
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

// The standard metrics of promhttp count all answers, also rejected ones.
func TestMetricsAreInstrumented(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := serving(1, nil)
	h := promhttp.InstrumentMetricHandler(reg, m)
	get(t, h, nil, nil)
	m.Publish((&text{body: "x 1\n"}).Append, never)
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
func startServer(t *testing.T, handler http.Handler, timeouts timeouts, webConfig string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	server := newServer(handler, timeouts, log)
	flags := &toolkit.FlagConfig{WebConfigFile: &webConfig}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serve(ctx, server, timeouts.shutdown, func() error {
			return toolkit.ServeMultiple([]net.Listener{listener}, server, flags, log)
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

// Clients that send nothing, send slowly or do not read lose their connection.
// Meanwhile others are served.
func TestSlowClients(t *testing.T) {
	short := timeouts{
		readHeader: time.Second, read: 2 * time.Second, write: 3 * time.Second,
		idle: time.Second, shutdown: 5 * time.Second,
	}
	// More than the socket buffers hold.
	body := strings.Repeat("x 1\n", 8<<20)
	h := serving(1, &text{body: body})
	begun, ended := make(chan bool, 1), make(chan bool, 1)
	mux, err := testHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "slow" {
			h.ServeHTTP(w, r)
			return
		}
		begun <- true
		h.ServeHTTP(w, r)
		ended <- true
	}), alwaysReady, false)
	if err != nil {
		t.Fatal(err)
	}
	address := startServer(t, mux, short, "")

	clients := map[string]func(net.Conn) error{
		"sends nothing": func(net.Conn) error { return nil },
		"slowloris": func(c net.Conn) error {
			if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: node\r\n"); err != nil {
				return err
			}
			var err error
			for err == nil { // until the server closes the connection
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

	// A client that requests and does not read does not occupy the only slot for a scrape.
	slow, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if err := slow.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(slow, "GET /metrics HTTP/1.1\r\nHost: slow\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	answers := func(path string) func() bool {
		return func() bool {
			resp, err := http.Get("http://" + address + path)
			if err != nil {
				return false // a slow machine can exceed the short timeouts
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}
	}
	eventually(t, "health is answered meanwhile", answers("/health"))
	eventually(t, "a scrape is answered", answers("/metrics"))
	<-ended
	if n, err := io.Copy(io.Discard, slow); n >= int64(len(body)) {
		t.Errorf("the slow client could read all of the body (error %v)", err)
	}
	eventually(t, "the next scrape is answered", answers("/metrics"))
}

// TestConnectionsAreBounded: the connections of clients that pipeline and do not read, and
// of idle ones, are closed in favour of new ones, with HTTP and with TLS.
func TestConnectionsAreBounded(t *testing.T) {
	dir := t.TempDir()
	newAuthority(t, dir, "ours").issue("server")
	webConfig := filepath.Join(dir, "web.yml")
	if err := os.WriteFile(webConfig, []byte("tls_server_config: {cert_file: server.pem, key_file: server.key}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := serving(2, &text{body: strings.Repeat("x 1\n", 1<<20)})
	h.turns.wait = defaultTimeouts().write / 3 // for a busy machine, and shorter than a stalled write
	mux, err := testHandler(h, alwaysReady, false)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	for _, encrypted := range []bool{false, true} {
		scheme, config := "http", ""
		if encrypted {
			scheme, config = "https", webConfig
		}
		address := startServer(t, mux, defaultTimeouts(), config)
		for i := range 2 * maxConnections {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if encrypted {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			if i%2 == 0 { // the others are idle
				_, _ = io.WriteString(conn, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n", 50)) // may be closed already
			}
		}
		for range 10 {
			resp := fetch(t, client, scheme+"://"+address+"/metrics")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: status %d", scheme, resp.StatusCode)
			}
		}
	}
}

// A connection that is idle after a request is closed before one whose first request may be
// on its way, however long a busy machine delays it.
func TestNewConnectionIsKept(t *testing.T) {
	waiting, idle, another := &net.TCPConn{}, &net.TCPConn{}, &net.TCPConn{}
	c := &connections{limit: 2, open: map[net.Conn]connection{
		waiting: {state: http.StateNew, since: time.Now().Add(-time.Minute)},
		idle:    {state: http.StateIdle, since: time.Now()},
	}}
	c.changed(another, http.StateNew)
	if _, open := c.open[waiting]; !open || len(c.open) != 2 {
		t.Errorf("the new connection is open: %v, of %d connections", open, len(c.open))
	}
}

// A connection that is idle is closed before one that is in use.
func TestOldestConnectionIsClosed(t *testing.T) {
	c := &connections{limit: 3, open: map[net.Conn]connection{}}
	var conns []net.Conn
	add := func(state http.ConnState) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = theirs.Close() })
		conns = append(conns, ours)
		c.changed(ours, http.StateNew)
		c.changed(ours, state)
	}
	for _, state := range []http.ConnState{http.StateActive, http.StateIdle, http.StateIdle, http.StateActive, http.StateActive, http.StateActive} {
		add(state)
	}
	for i, want := range []bool{false, false, false, true, true, true} { // 1 and 2 were idle, then 0 was the oldest
		if _, open := c.open[conns[i]]; open != want {
			t.Errorf("connection %d is open: %v", i, open)
		}
	}
	c.changed(conns[5], http.StateClosed)
	if len(c.open) != 2 {
		t.Errorf("%d connections", len(c.open))
	}
}

func TestLongHeadersAreRefused(t *testing.T) {
	mux, err := testHandler(serving(1, &text{body: "x 1\n"}), alwaysReady, false)
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

// On shutdown a scrape in progress gets its answer. A scrape that never ends does
// not keep the server running.
func TestShutdown(t *testing.T) {
	for _, tt := range []struct {
		name     string
		finishes bool
	}{{"waits for a scrape", true}, {"for a limited time", false}} {
		t.Run(tt.name, func(t *testing.T) {
			e := &text{body: "x 1\n", hold: make(chan struct{})}
			h := serving(1, e)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := newServer(h, defaultTimeouts(), slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			shutdown := 30 * time.Second
			if !tt.finishes {
				shutdown = 50 * time.Millisecond
			}
			go func() {
				done <- serve(ctx, server, shutdown, func() error { return server.Serve(listener) })
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
			eventually(t, "the scrape has begun", func() bool { return len(h.turns.slots) == 1 })
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
	mux, err := testHandler(serving(1, &text{body: "x 1\n"}), alwaysReady, false)
	if err != nil {
		t.Fatal(err)
	}
	var log syncBuffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	server := newServer(mux, defaultTimeouts(), logger)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	flags := testFlags(false, "", "127.0.0.1:0", "127.0.0.2:0")
	go func() {
		done <- serve(ctx, server, time.Second, func() error { return toolkit.ListenAndServe(server, flags, logger) })
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

// A failure to listen is returned with its reason.
func TestServeFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	tests := []struct {
		name  string
		flags *toolkit.FlagConfig
		want  string
	}{
		{"address in use", testFlags(false, "", taken.Addr().String()), "address already in use"},
		{"no sockets from systemd", testFlags(true, ""), "no socket activation file descriptors found"},
		{"no web config", testFlags(false, "testdata/none.yml", "127.0.0.1:0"), "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := slog.New(slog.DiscardHandler)
			server := newServer(http.NotFoundHandler(), defaultTimeouts(), log)
			err := serve(t.Context(), server, time.Second, func() error {
				return toolkit.ListenAndServe(server, tt.flags, log)
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
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("timed out: " + what)
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
