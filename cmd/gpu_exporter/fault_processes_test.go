// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFaultProcessStalledLog: a reader of the log that stalls, and one that is gone, stop
// nothing: a killed sampler is replaced, a reload answers, SIGTERM is obeyed.
func TestFaultProcessStalledLog(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		t.Run(map[bool]string{false: "stalled", true: "gone"}[gone], func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// The smallest pipe: a few records fill it.
			if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
				t.Fatal(err)
			}
			started := make(chan struct{})
			n := launchNodeWith(t, "h100x8", func(n *node) {
				n.cmd.Stdout, n.cmd.Stderr = nil, w
				go func() {
					defer close(started)
					chunk := make([]byte, 4096)
					for !strings.Contains(n.log.String(), "Sampler delivers samples") {
						size, err := r.Read(chunk)
						if err != nil {
							t.Error(err)
							return
						}
						_, _ = n.log.Write(chunk[:size])
					}
				}()
			}, append(fast, "--web.enable-admin-api", "--log.level=debug")...)
			n.eventually(t, "a sampler runs", func() bool { return n.temperatures(t, 8) })
			<-started
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			watch := watchFault(t, n)
			if gone {
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 2 {
				watch.replacesSampler(t)
				if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
					t.Errorf("reload %d: %d %s", i, status, body)
				}
			}
			if gone {
				n.eventually(t, "the lost records are counted", func() bool {
					v, _ := sumOf(n.scrape(t), "gpu_exporter_log_records_dropped_total")
					return v > 0
				})
			}
			watch.stop()
			watch.checkLeaks(t)
			n.terminates(t)
		})
	}
}

// TestFaultProcessPrints: a library that prints much costs a bounded part of the log, and
// the lines that are dropped are counted.
func TestFaultProcessPrints(t *testing.T) {
	t.Parallel()
	n := startNode(t, "t4x1", fast...)
	watch := watchFault(t, n)
	dropped := func() float64 {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_log_records_dropped_total")
		return v
	}
	if v := dropped(); v != 0 {
		t.Errorf("%v lines were dropped before the fault", v)
	}
	printed := 0
	n.eventually(t, "a line is dropped", func() bool {
		printed++
		n.command(t, "print stderr "+strings.Repeat("x", 200)+strconv.Itoa(printed))
		return dropped() > 0
	})
	t.Logf("%d lines printed", printed)
	watch.recovers(t, "values are fresh", func() bool { return n.temperatures(t, 1) })
}

// TestFaultProcessPaused: the first scrapes and the readiness after a pause, like that of
// a virtual machine, do not show values of before the pause as fresh.
func TestFaultProcessPaused(t *testing.T) {
	t.Parallel()
	const maxAge = time.Second
	n := startNode(t, "h100x8", "--sample.interval=100ms", "--sample.max-age=1s")
	before := n.settledVitals(t)
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := errors.Join(syscall.Kill(n.samplerPID(), s), n.cmd.Process.Signal(s)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		connections := make([]net.Conn, 8)
		for i := range connections {
			conn, err := net.Dial("tcp", n.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			connections[i] = conn
		}
		sampler := n.samplerPID()
		signal(syscall.SIGSTOP)
		n.suspended(t, n.cmd.Process.Pid)
		n.suspended(t, sampler)
		paused := time.Now()
		for i, conn := range connections { // they wait in the socket
			path := []string{"/metrics", "/-/ready"}[i%2]
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(maxAge * 3 / 2) // the fault itself
		signal(syscall.SIGCONT)
		continued := time.Now()
		for i, conn := range connections {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 1 {
				continue
			}
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
			newest, _ := sumOf(string(body), "gpu_exporter_last_sample_timestamp_seconds")
			up, _ := sumOf(string(body), "gpu_up")
			_, values := sumOf(string(body), "DCGM_FI_DEV_GPU_TEMP")
			sampled := time.UnixMicro(int64(newest * 1e6))
			if (up > 0 || values > 0) && sampled.Before(paused.Add(maxAge)) {
				t.Errorf("%v GPUs are up and %d have a value, of %v before the end of the pause", up, values, continued.Sub(sampled))
			}
		}
		n.eventually(t, "fresh values return", func() bool { return n.temperatures(t, 8) })
		t.Logf("recovered in %v", time.Since(continued).Round(time.Millisecond))
	}
	(&faultWatch{n: n, before: before, maxLog: maxFaultLog}).checkLeaks(t)
}

// TestFaultProcessHangupAtStart: SIGHUP does not end the exporter at any moment of its
// start, and is obeyed afterwards.
func TestFaultProcessHangupAtStart(t *testing.T) {
	t.Parallel()
	for range 5 {
		n := launchNodeWith(t, "t4x1", func(n *node) {
			go func() {
				<-n.started
				const hangup = 1 << (syscall.SIGHUP - 1)
				for !strings.Contains(n.log.String(), "Listening on") {
					// Before the loader has finished, nothing can protect the process.
					if caught := signalMask(n.cmd.Process.Pid, "SigIgn:") | signalMask(n.cmd.Process.Pid, "SigCgt:"); caught&hangup != 0 {
						_ = n.cmd.Process.Signal(syscall.SIGHUP)
					}
					time.Sleep(time.Millisecond)
				}
			}()
		})
		n.eventually(t, "a sampler runs", func() bool { return n.temperatures(t, 1) })
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		n.eventually(t, "SIGHUP reloads", func() bool { return strings.Contains(n.log.String(), "trigger=SIGHUP") })
		n.terminates(t)
	}
}

// signalMask returns a mask of the signals of a process, see proc_pid_status(5).
func signalMask(pid int, name string) (mask uint64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, name); ok {
			mask, _ = strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		}
	}
	return mask
}

// TestFaultProcessKilledSampler: a sampler that is killed, or crashes, is replaced, and its
// end is reported in a few records.
func TestFaultProcessKilledSampler(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", fast...)
	watch := watchFault(t, n)
	for range 2 {
		watch.replacesSampler(t)
	}
}

// TestFaultProcessKilledExporter: no sampler survives the exporter.
func TestFaultProcessKilledExporter(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*testing.T, *node){
		"no fault":        func(*testing.T, *node) {},
		"stopped sampler": func(t *testing.T, n *node) { n.stopSampler(t) },
		"hanging library": func(t *testing.T, n *node) { n.command(t, "hang *") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", fast...)
			sampler := n.samplerPID()
			fault(t, n)
			t.Cleanup(func() {
				if t.Failed() {
					_ = syscall.Kill(sampler, syscall.SIGKILL)
				}
			})
			start := time.Now()
			if err := n.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-n.exited
			eventually(t, "the sampler exits", func() bool {
				return errors.Is(syscall.Kill(sampler, 0), syscall.ESRCH) || threadState(fmt.Sprintf("/proc/%d", sampler)) == "Z"
			})
			t.Logf("the sampler has exited after %v", time.Since(start).Round(time.Millisecond))
		})
	}
}

// TestFaultProcessTerminated: SIGTERM is obeyed while the sampler is stopped, and while
// its library hangs.
func TestFaultProcessTerminated(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*testing.T, *node){
		"no fault":        func(*testing.T, *node) {},
		"stopped sampler": func(t *testing.T, n *node) { n.stopSampler(t) },
		"hanging library": func(t *testing.T, n *node) { n.command(t, "hang *") },
		"stalled client": func(t *testing.T, n *node) {
			conn, err := net.Dial("tcp", n.address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			_, _ = io.WriteString(conn, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "h100x8", fast...)
			fault(t, n)
			n.terminates(t)
		})
	}
}
