// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
	"gpu_exporter/collector/dcgmsim"
)

// The tests run the built binary on simulated nodes: a real sampler process, real
// HTTP, real signals. They wait for conditions, because the machine may be busy.

// patience is how long a test waits for a condition.
const patience = 5 * time.Minute

// strictDurations makes tests fail if an operation takes longer than on an idle
// machine. By default the durations are only printed.
var strictDurations = os.Getenv("TEST_DURATIONS") != ""

// fast are the flags of a node that detects changes early. The age is below the 10 s after
// which the supervisor kills a sampler without frames.
var fast = []string{"--sample.interval=200ms", "--sample.max-age=5s"}

// built returns the path of the binary of make build. The stand-ins are in the
// directory sim next to it.
func built(t *testing.T) string {
	t.Helper()
	return exportertest.Built(t, "gpu_exporter")
}

// tool returns a program that make test installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	return exportertest.Built(t, "tools", name)
}

// listening waits until a server logs its address, and returns it. The servers listen
// on port 0, so the kernel chooses a free port. The test fails if exited is closed.
func listening(t *testing.T, log *exportertest.Output, exited <-chan struct{}) (address string) {
	t.Helper()
	pattern := regexp.MustCompile(`msg="Listening on" (?:component=web )?address=(\S+)`)
	eventually(t, "the server listens", func() bool {
		m := pattern.FindStringSubmatch(log.String())
		if m != nil {
			address = m[1]
			return true
		}
		select {
		case <-exited:
			t.Fatalf("the server exited:\n%s", log)
		default:
		}
		return false
	})
	return address
}

// node is an exporter process over a simulated node.
type node struct {
	address string
	sim     *dcgmsim.Node
	cmd     *exec.Cmd
	log     *exportertest.Output
	started chan struct{} // closed when cmd.Process is set
	exited  chan struct{}
}

// startNode starts the exporter on a simulated node and waits until it is ready. The
// exporter stops at the end of the test.
func startNode(t *testing.T, scenario string, args ...string) *node {
	t.Helper()
	n := launchNode(t, scenario, args...)
	n.eventually(t, "the exporter is ready", func() bool {
		status, _ := n.tryGet(t, "/-/ready")
		return status == http.StatusOK
	})
	return n
}

// launchNode is startNode without waiting. An empty scenario simulates nothing.
func launchNode(t *testing.T, scenario string, args ...string) *node {
	t.Helper()
	return launchNodeWith(t, scenario, func(*node) {}, args...)
}

// launchNodeWith is launchNode with a change to the node before it starts.
func launchNodeWith(t *testing.T, scenario string, change func(*node), args ...string) *node {
	t.Helper()
	sim := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(t)), "sim"), t.TempDir(), scenario)
	n := &node{sim: sim, log: &exportertest.Output{}, started: make(chan struct{}), exited: make(chan struct{})}
	args = append([]string{"--web.listen-address=127.0.0.1:0"}, args...)
	if scenario != "" {
		args = append(args, "--simulate="+scenario)
	}
	n.cmd = exec.Command(built(t), args...)
	n.cmd.Env = append(os.Environ(), "DCGMSIM_STATE="+sim.State, "DCGMSIM_CONTROL="+sim.Control)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	change(n)
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(n.started)
	go func() {
		_ = n.cmd.Wait()
		close(n.exited)
	}()
	t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.exited:
		case <-time.After(patience):
			_ = n.cmd.Process.Kill()
			t.Errorf("SIGTERM did not stop the exporter within %v", patience)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", scenario, n.log)
		}
	})
	n.address = listening(t, n.log, n.exited)
	return n
}

// command steers the simulated node, whether or not a sampler runs.
func (n *node) command(t *testing.T, command string) {
	t.Helper()
	if _, err := n.sim.Command(t.Context(), command); err != nil {
		t.Fatal(err)
	}
}

func (n *node) tryGet(t *testing.T, path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience) // also for cleanups
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// scrape returns the body of /metrics. The status must be 200.
func (n *node) scrape(t *testing.T) string {
	t.Helper()
	status, body := n.tryGet(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", status, body)
	}
	return body
}

// post sends a request without a body.
func (n *node) post(t *testing.T, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// eventually polls until the condition holds.
func eventually(t *testing.T, condition string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", condition)
		}
	}
}

// get returns the status and the body at a URL.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// eventually polls until the condition holds. The test fails if the exporter exits.
func (n *node) eventually(t *testing.T, condition string, holds func() bool) {
	t.Helper()
	eventually(t, condition, func() bool {
		select {
		case <-n.exited:
			t.Fatalf("the exporter exited before %s", condition)
		default:
		}
		return holds()
	})
}

// sumOf returns the sum and the number of the series of a family whose labels contain
// all of the given texts.
func sumOf(body, family string, labels ...string) (sum float64, count int) {
lines:
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, family)
		if !ok || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		text := strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):])
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		sum += v
		count++
	}
	return sum, count
}

// nextSample waits until a sample newer than the current one is published.
func (n *node) nextSample(t *testing.T) {
	t.Helper()
	newest := func() float64 {
		v, _ := sumOf(n.scrape(t), "gpu_exporter_last_sample_timestamp_seconds")
		return v
	}
	last := newest()
	n.eventually(t, "the next sample is published", func() bool { return newest() > last })
}

// has waits until the series of a family exist and their sum is a value.
func (n *node) has(t *testing.T, value float64, family string, labels ...string) {
	t.Helper()
	var got float64
	var count int
	defer func() {
		if t.Failed() {
			t.Logf("%s%q was last %v in %d series", family, labels, got, count)
		}
	}()
	n.eventually(t, fmt.Sprintf("%s%q is %v", family, labels, value), func() bool {
		got, count = sumOf(n.scrape(t), family, labels...)
		return count > 0 && got == value
	})
}

// valueOf returns a function that waits until a family has a number of series with the
// labels and a sum.
func (n *node) valueOf(t *testing.T) func(want float64, count int, family string, labels ...string) {
	return func(want float64, count int, family string, labels ...string) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%s%v has the sum %v in %d series", family, labels, want, count), func() bool {
			sum, series := sumOf(n.scrape(t), family, labels...)
			return sum == want && series == count
		})
	}
}

// uuid returns the UUID of a GPU.
func (n *node) uuid(t *testing.T, gpu string) string {
	t.Helper()
	m := regexp.MustCompile(`gpu_up\{gpu="` + gpu + `",UUID="([^"]+)"`).FindStringSubmatch(n.scrape(t))
	if m == nil {
		t.Fatalf("no GPU %s", gpu)
	}
	return m[1]
}

// samplerPID returns the process id of the sampler, or 0 if there is none.
func (n *node) samplerPID() int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.cmd.Process.Pid))
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue // the thread ended
		}
		for field := range strings.FieldsSeq(string(children)) {
			if pid, err := strconv.Atoi(field); err == nil {
				return pid
			}
		}
	}
	return 0
}

// stopSampler suspends the sampler and waits until all of its threads are suspended.
func (n *node) stopSampler(t *testing.T) {
	t.Helper()
	pid := n.samplerPID()
	n.signal(t, syscall.SIGSTOP)
	n.suspended(t, pid)
}

// suspended waits until all threads of a process are suspended.
func (n *node) suspended(t *testing.T, pid int) {
	t.Helper()
	n.eventually(t, "the process is suspended", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(thread string) bool { return threadState(thread) != "T" })
	})
}

// threadState returns the state of a thread or process by its directory in /proc. Z is an
// exited process that waits to be reaped, which may never happen in a container.
func threadState(dir string) string {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return ""
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}

// killSampler kills the sampler.
func (n *node) killSampler(t *testing.T) {
	t.Helper()
	n.signal(t, syscall.SIGKILL)
}

// signal sends a signal to the sampler.
func (n *node) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	pid := n.samplerPID()
	if pid == 0 {
		t.Fatal("no sampler runs")
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// writeFile writes a file and returns its path.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// countersFile writes a counters file and returns its path.
func countersFile(t *testing.T, text string) string {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "counters.csv"), text)
}
