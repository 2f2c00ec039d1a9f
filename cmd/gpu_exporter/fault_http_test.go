// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// dial opens connections, which are closed at the end of the test, and sends a text on
// each. The exporter may close them at any time.
func (n *node) dial(t *testing.T, count int, text string) (closeAll func()) {
	t.Helper()
	var conns []net.Conn
	for range count {
		conn, err := net.DialTimeout("tcp", n.address, patience)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a full connection is what is wanted
		_, _ = io.WriteString(conn, text)
	}
	closeAll = sync.OnceFunc(func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	t.Cleanup(closeAll)
	return closeAll
}

// TestFaultHTTPClients: clients that pipeline and do not read, that are idle, or that send
// nothing or garbage, neither keep scrapers out nor leave anything behind.
func TestFaultHTTPClients(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]struct {
		count int
		text  string
	}{
		"pipelining without reading": {60, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 500)},
		"idle":                       {600, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"},
		"silent":                     {600, ""},
		"slow header":                {300, "GET /metrics HTTP/1.1\r\nHost: "},
		"garbage":                    {100, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"},
		"long header":                {50, "GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 200<<10) + "\r\n\r\n"},
		"body":                       {50, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"},
		"many formats": {8, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\nAccept-Encoding: zstd\r\n\r\n"+
			"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n\r\n"+
			"HEAD /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n", 50)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", fast...)
			watch := watchFault(t, n)
			closeAll := n.dial(t, client.count, client.text)
			for range 5 {
				n.nextSample(t)
			}
			if files, _ := sumOf(n.scrape(t), "process_open_fds"); files > 256+64 {
				t.Errorf("%v open files", files)
			}
			closeAll()
			watch.recovers(t, "values are fresh", func() bool { return n.temperatures(t, 8) })
		})
	}
}

// TestFaultHTTPMethods: other methods and paths change nothing, and reload and profiling
// need the admin API.
func TestFaultHTTPMethods(t *testing.T) {
	t.Parallel()
	n := startNode(t, "t4x1", fast...)
	watchFault(t, n)
	for _, path := range []string{"/metrics", "/health", "/", "/-/ready", "/-/reload", "/-/profiling/pause", "/debug/pprof/heap", "/../../etc/passwd", "//", "/metrics/"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "x"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.address+path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Errorf("%s %s: %v", method, path, err)
				continue
			}
			_ = resp.Body.Close()
			if resp.StatusCode < 300 || resp.StatusCode >= 500 {
				t.Errorf("%s %s: status %d", method, path, resp.StatusCode)
			}
		}
	}
	if strings.Contains(n.log.String(), "Configuration reloaded") {
		t.Error("the configuration was reloaded")
	}
}

// TestFaultHTTPReloads: many requests to reload cause at most one reload a second. A web
// page of another site cannot cause one.
func TestFaultHTTPReloads(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", append(fast, "--web.enable-admin-api")...)
	if !strings.Contains(n.log.String(), "every client that reaches the port may use it") {
		t.Error("no warning about the open admin API")
	}
	watch := watchFault(t, n)
	start := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 3 {
				if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
					t.Errorf("%d %s", status, body)
				}
			}
		})
	}
	wg.Wait()
	reloads := strings.Count(n.log.String(), "Configuration reloaded")
	if most := 1 + int(time.Since(start)/time.Second); reloads > most {
		t.Errorf("%d reloads in %v", reloads, time.Since(start))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.address+"/-/reload", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://elsewhere.example")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a request of another site gets status %d", resp.StatusCode)
	}
	watch.recovers(t, "values are fresh", func() bool { return n.temperatures(t, 8) })
	t.Logf("60 requests, %d reloads", reloads)
}
