// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var soak = flag.Duration("soak", 0, "how long TestSoak runs; 0 skips it")

// The soak reloads and causes faults at these intervals.
const (
	soakReload = 5 * time.Second
	soakFault  = 10 * time.Second
	soakRead   = 2 * time.Second
)

// quantity is one measurement of the soak over time.
type quantity struct {
	name      string
	tolerance float64 // of growth
	values    []float64
}

// grown compares the medians of the second and the last fifth. The first fifth warms up.
func (q *quantity) grown() (before, after float64) {
	fifth := len(q.values) / 5
	return median(q.values[fifth : 2*fifth]), median(q.values[len(q.values)-fifth:])
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// TestSoak reloads a simulated node every 5 s and causes a fault every 10 s. Goroutines,
// descriptors and memory of both processes must not grow.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("runs by make soak DURATION=10m")
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	configure := func(i int) {
		extra := []string{"", ", DCGM_FI_PROF_SM_ACTIVE", ", DCGM_FI_PROF_SM_OCCUPANCY"}[i%3] // not in the default counters
		writeFile(t, path, "sample: {interval: 500ms, max-age: 5s}\nfields: [DCGM_FI_DEV_GPU_TEMP"+extra+"]\n")
	}
	configure(0)
	n := startNode(t, "h100x8", "--config.file="+path, "--web.enable-admin-api")
	faults := []func(){
		func() { n.command(t, "lose gpu 3") },
		func() { n.command(t, "return gpu 3") },
		func() { n.command(t, "xid 94 gpu 1") },
		func() { n.dial(t, 100, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")() },
		func() { n.command(t, "hang dcgmEntitiesGetLatestValues") },
		func() { n.command(t, "clear") },
		func() {
			if pid := n.samplerPID(); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		},
		func() {
			_ = n.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Second) // the fault itself
			_ = n.cmd.Process.Signal(syscall.SIGCONT)
		},
	}
	measured := []*quantity{
		{name: "goroutines", tolerance: leakedGoroutines}, {name: "files", tolerance: leakedFiles}, {name: "sampler files", tolerance: leakedFiles},
		{name: "anonymous PSS MiB", tolerance: 2}, {name: "sampler anonymous PSS MiB", tolerance: 2}, // pages of files are shared with other processes
	}
	read := func() {
		status, body := n.tryGet(t, "/metrics")
		if status != http.StatusOK {
			t.Errorf("/metrics answers %d: %.500s", status, body)
		}
		values := make([]float64, len(measured))
		values[0], _ = sumOf(body, "go_goroutines")
		values[1], _ = sumOf(body, "process_open_fds")
		values[3] = proportionalSize(n.cmd.Process.Pid, "Pss_Anon") / (1 << 20)
		if pid := n.samplerPID(); pid != 0 {
			files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			values[2], values[4] = float64(len(files)), proportionalSize(pid, "Pss_Anon")/(1<<20)
		}
		for i, q := range measured {
			if values[i] > 0 { // 0: no sampler runs
				q.values = append(q.values, values[i])
			}
		}
	}
	reload, fault, measure := time.NewTicker(soakReload), time.NewTicker(soakFault), time.NewTicker(soakRead)
	defer reload.Stop()
	defer fault.Stop()
	defer measure.Stop()
	reloads, done := 0, 0
	for end := time.After(*soak); ; {
		select {
		case <-n.exited:
			t.Fatal("the exporter exited")
		case <-reload.C:
			reloads++
			configure(reloads)
			if status, body := n.post(t, "/-/reload"); status != http.StatusOK {
				t.Errorf("reload answers %d: %s", status, body)
			}
			continue
		case <-fault.C:
			faults[done%len(faults)]()
			done++
			continue
		case <-measure.C:
			read()
			continue
		case <-end:
		}
		break
	}
	t.Logf("%d reloads, %d faults, %d bytes of log", reloads, done, len(n.log.String()))
	for _, q := range measured {
		if len(q.values) < 10 {
			t.Errorf("%s: only %d measurements: soak longer", q.name, len(q.values))
			continue
		}
		var trend strings.Builder
		for chunk := range slices.Chunk(q.values, (len(q.values)+9)/10) {
			fmt.Fprintf(&trend, " %.4g", median(chunk))
		}
		before, after := q.grown()
		t.Logf("%-26s%s", q.name, &trend)
		if after > before+q.tolerance {
			t.Errorf("%s have grown from %.4g to %.4g", q.name, before, after)
		}
	}
}
