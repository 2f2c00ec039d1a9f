// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	promodel "github.com/prometheus/common/model"
)

// The tests whose names begin with TestFault are the fault suite (make test-faults). The
// next word is the group: Native, Process, Files, Kubelet, APIServer, Docker, Hostengine,
// GPU, Values, HTTP or Limits. Each case
//  1. starts a node and calls watchFault,
//  2. causes the fault and asserts the content of the page,
//  3. ends the fault and asserts recovery with faultWatch.recovers.
//
// The watch scrapes all the time. At the end it compares goroutines, descriptors, memory
// and log with those before the fault.

// strictTimes makes slow scrapes and recoveries fail. By default they are only printed.
var strictTimes = os.Getenv("FAULT_TIMES") != ""

// The targets of an idle machine.
const (
	maxScrapeTime   = 250 * time.Millisecond
	maxRecoveryTime = 3 * time.Second
	maxExitTime     = 3 * time.Second
)

// The tolerances for what a fault may leave behind.
const (
	leakedGoroutines = 8       // connections of the test's own client, timers
	leakedFiles      = 8       // likewise
	leakedMemory     = 8 << 20 // bytes; the heap grows with the first scrapes
	maxFaultLog      = 64 << 10
	leakPatience     = time.Minute // garbage and connections end by then
)

// vitals are what an exporter and its sampler hold.
type vitals struct {
	goroutines, files, memory float64 // memory: anonymous PSS of both in bytes
	log                       int
}

func (v vitals) String() string {
	return fmt.Sprintf("%v goroutines, %v files, %.1f MiB, %d bytes of log", v.goroutines, v.files, v.memory/(1<<20), v.log)
}

func (n *node) vitals(t *testing.T) vitals {
	t.Helper()
	body := n.scrape(t)
	v := vitals{log: len(n.log.String())}
	v.goroutines, _ = sumOf(body, "go_goroutines")
	v.files, _ = sumOf(body, "process_open_fds")
	// The rest of the PSS depends on how many other processes map the program's file.
	for _, pid := range []int{n.cmd.Process.Pid, n.samplerPID()} {
		v.memory += proportionalSize(pid, "Pss_Anon")
	}
	return v
}

// settledVitals returns the vitals after the start: process metrics are up to a second
// old, and the first scrapes allocate buffers.
func (n *node) settledVitals(t *testing.T) vitals {
	t.Helper()
	var cpu float64
	for range 2 {
		n.eventually(t, "the exporter gathers its own metrics", func() bool {
			before := cpu
			cpu, _ = sumOf(n.scrape(t), "process_cpu_seconds_total")
			return cpu != before
		})
	}
	return n.vitals(t)
}

// proportionalSize returns the PSS of a process in bytes, or 0 if it has ended. kind is Pss
// or a part of it, such as Pss_Anon.
func proportionalSize(pid int, kind string) float64 {
	rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(rollup)) {
		if kib, ok := strings.CutPrefix(line, kind+":"); ok {
			v, _ := strconv.ParseFloat(strings.Fields(kib)[0], 64)
			return v * 1024
		}
	}
	return 0
}

// faultWatch observes an exporter during a fault.
type faultWatch struct {
	n      *node
	before vitals
	maxLog int // bytes

	stop    func()
	mu      sync.Mutex
	scrapes int
	worst   time.Duration
}

// watchFault scrapes n until the test ends. Each scrape must be valid. At the end of the
// test, the exporter must hold what it held before.
func watchFault(t *testing.T, n *node) *faultWatch {
	t.Helper()
	w := &faultWatch{n: n, before: n.settledVitals(t), maxLog: maxFaultLog}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { w.scrape(ctx, t) })
	w.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(func() {
		eventually(t, "scrapes are tried", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.scrapes >= 3 || t.Failed() || ctx.Err() != nil
		})
		w.stop()
		if !t.Failed() {
			w.checkLeaks(t)
		}
		t.Logf("%d scrapes, the slowest took %v", w.scrapes, w.worst.Round(time.Millisecond))
		if strictTimes && w.worst > maxScrapeTime {
			t.Errorf("the slowest scrape took longer than %v", maxScrapeTime)
		}
	})
	return w
}

func (w *faultWatch) scrape(ctx context.Context, t *testing.T) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.n.exited:
			return
		case <-tick.C:
		}
		start := time.Now()
		body, err := validPage(ctx, client, "http://"+w.n.address+"/metrics")
		took := time.Since(start)
		select {
		case <-w.n.exited:
			return
		default:
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Errorf("scrape: %v\n%.2000s", err, body)
			return
		}
		w.mu.Lock()
		w.scrapes++
		w.worst = max(w.worst, took)
		w.mu.Unlock()
	}
}

// validPage scrapes and parses a page.
func validPage(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	if err == nil {
		parser := expfmt.NewTextParser(promodel.UTF8Validation)
		_, err = parser.TextToMetricFamilies(strings.NewReader(string(body)))
	}
	return string(body), err
}

// recovers waits for a condition after the fault has ended, and prints the time.
func (w *faultWatch) recovers(t *testing.T, condition string, holds func() bool) {
	t.Helper()
	start := time.Now()
	w.n.eventually(t, condition, holds)
	took := time.Since(start)
	t.Logf("recovered in %v: %s", took.Round(time.Millisecond), condition)
	if strictTimes && took > maxRecoveryTime {
		t.Errorf("the recovery took longer than %v", maxRecoveryTime)
	}
}

// replacesSampler kills the sampler, and waits until a new one has delivered the values of
// 8 GPUs.
func (w *faultWatch) replacesSampler(t *testing.T) {
	t.Helper()
	sampler := w.n.samplerPID()
	w.n.killSampler(t)
	w.recovers(t, "the sampler is replaced", func() bool {
		pid := w.n.samplerPID()
		return pid != 0 && pid != sampler && w.n.temperatures(t, 8)
	})
}

// temperatures reports whether n GPUs have a fresh value.
func (n *node) temperatures(t *testing.T, count int) bool {
	t.Helper()
	_, values := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP")
	return values == count
}

// checkLeaks waits until the exporter holds about what it held before.
func (w *faultWatch) checkLeaks(t *testing.T) {
	t.Helper()
	select {
	case <-w.n.exited:
		return
	default:
	}
	var after vitals
	defer func() { t.Logf("before: %v; after: %v", w.before, after) }()
	deadline := time.Now().Add(leakPatience)
	w.n.eventually(t, "goroutines, descriptors and memory are as before", func() bool {
		after = w.n.vitals(t)
		if time.Now().After(deadline) {
			t.Fatal("goroutines, descriptors or memory have grown")
		}
		return after.goroutines <= w.before.goroutines+leakedGoroutines &&
			after.files <= w.before.files+leakedFiles &&
			after.memory <= w.before.memory+leakedMemory
	})
	if grown := after.log - w.before.log; grown > w.maxLog {
		t.Errorf("the log has grown by %d bytes", grown)
	}
}

// terminates sends SIGTERM, and prints how long the exporter takes to exit with status 0.
func (n *node) terminates(t *testing.T) {
	t.Helper()
	start := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Fatal("SIGTERM is not obeyed")
	}
	took := time.Since(start)
	t.Logf("exit after %v", took.Round(time.Millisecond))
	if status := n.cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if strictTimes && took > maxExitTime {
		t.Errorf("the exit took longer than %v", maxExitTime)
	}
}
