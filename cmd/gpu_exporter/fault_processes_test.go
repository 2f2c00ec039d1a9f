// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"os"
	"strings"
	"testing"

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
				sampler := n.samplerPID()
				n.killSampler(t)
				watch.recovers(t, "the sampler is replaced", func() bool {
					pid := n.samplerPID()
					return pid != 0 && pid != sampler && n.temperatures(t, 8)
				})
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
