// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFaultHostengineImpostor: if another program listens in place of the hostengine, and
// answers nonsense, closes the connection or never answers, no GPU is up and the failure is
// counted. The next hostengine is used.
func TestFaultHostengineImpostor(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"nonsense": func(c net.Conn) {
			_, _ = c.Write([]byte(strings.Repeat("HTTP/1.1 400 Bad Request\r\n\xff\xff\xff\xff", 1000)))
		},
		"closing": func(c net.Conn) { _ = c.Close() },
		"silent":  func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "he.sock")
			n := launchNodeWith(t, "h100x8", func(n *node) {
				n.cmd.Env = append(n.cmd.Env, "DCGMSIM_CALL_TIMEOUT=2s", "DCGMSIM_CONNECT_TIMEOUT=1s")
			}, append(fast, "-r", socket)...)
			engine, err := n.sim.StartEngine(t.Context(), "--domain-socket", socket)
			if err != nil {
				t.Fatal(err)
			}
			n.until(t, http.StatusOK)
			watch := watchFault(t, n)
			watch.maxLog *= 2
			if err := engine.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(socket)
			endImpostor := listenAs(t, socket, serve)
			failures := func() float64 {
				v, _ := sumOf(n.scrape(t), "gpu_exporter_sampler_restarts_total")
				return v
			}
			n.eventually(t, "no GPU is up, and the back-off grows", func() bool {
				body := n.scrape(t)
				truthful(t, name, body, 8)
				return gpusUp(body) == 0 && failures() >= 2
			})
			if status, why := n.tryGet(t, "/-/ready"); status != http.StatusServiceUnavailable {
				t.Errorf("ready: %s", why)
			}
			endImpostor()
			if engine, err = n.sim.StartEngine(t.Context(), "--domain-socket", socket); err != nil {
				t.Fatal(err)
			}
			defer engine.Close()
			watch.recovers(t, "the next engine is used", func() bool { return gpusUp(n.scrape(t)) == 8 && n.temperatures(t, 8) })
		})
	}
}

// listenAs listens on a socket and serves each connection. end closes all of them, and
// removes the socket.
func listenAs(t *testing.T, socket string, serve func(net.Conn)) (end func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 1000)
	go func() {
		defer close(conns)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			conns <- c
			go serve(c)
		}
	}()
	return func() {
		_ = listener.Close()
		for c := range conns {
			_ = c.Close()
		}
	}
}

// TestFaultHostengineClock: steps of the engine's clock, in both directions, neither stop
// values and counters nor count as a duration, and no XID is lost or counted twice.
func TestFaultHostengineClock(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"embedded", "hostengine"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "he.sock")
			args := fast
			if where == "hostengine" {
				args = append(args[:len(args):len(args)], "-r", socket)
			}
			n := launchNode(t, "h100x8", args...)
			if where == "hostengine" {
				engine, err := n.sim.StartEngine(t.Context(), "--domain-socket", socket)
				if err != nil {
					t.Fatal(err)
				}
				defer engine.Close()
			}
			n.until(t, http.StatusOK)
			n.command(t, "load gpu all util 50")
			watch := watchFault(t, n)
			busy := func() float64 {
				v, _ := sumOf(n.scrape(t), "gpu_busy_seconds_total", `gpu="1"`)
				return v
			}
			n.eventually(t, "busy time", func() bool { return busy() > 0 })
			start, first := time.Now(), busy()
			for i, ms := range []string{"3600000", "0", "-3600000", "0"} {
				n.command(t, "clock "+ms)
				n.command(t, "xid 31 gpu 1")
				before := busy()
				watch.recovers(t, "busy time and the XID after a clock of "+ms+" ms", func() bool {
					body := n.scrape(t)
					xids, _ := sumOf(body, "gpu_xid_errors_total", `gpu="1"`)
					if xids > float64(i+1) {
						t.Fatalf("%v XIDs, want %d", xids, i+1)
					}
					return xids == float64(i+1) && busy() > before+0.1 && gpusUp(body) == 8 && n.temperatures(t, 8)
				})
			}
			if counted, passed := busy()-first, time.Since(start).Seconds(); counted > passed+1 {
				t.Errorf("%v s busy in %v s", counted, passed)
			}
		})
	}
}
