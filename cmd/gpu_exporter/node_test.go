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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
)

// built returns the binary that make build made, with the stand-ins beside it.
func built(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../build/gpu_exporter")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// tool returns a program that make test installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("GPU_EXPORTER_TOOLS")
	if dir == "" {
		dir = "../../build/tools"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make test, which installs it", err)
	}
	return path
}

// listening returns the address that a Prometheus server logs to listen on. The
// system chose its port when it was bound, so nobody else can have it.
func listening(t *testing.T, log *lockedBuffer) string {
	t.Helper()
	said := regexp.MustCompile(`msg="Listening on" (?:component=web )?address=(\S+)`)
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if m := said.FindStringSubmatch(log.String()); m != nil {
			return m[1]
		}
	}
	t.Fatalf("it does not listen:\n%s", log)
	return ""
}

// strictDurations makes tests fail, and not only print, if something takes longer
// than on an idle machine.
var strictDurations = os.Getenv("GPU_EXPORTER_TEST_DURATIONS") != ""

// node is an exporter process over a simulated node.
type node struct {
	address string
	sim     *dcgmsim.Node
	cmd     *exec.Cmd
	log     *lockedBuffer
	exited  chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// fast are the flags of nodes that should notice things soon.
var fast = []string{"--collect-interval=200ms", "--sample.max-age=2s"}

// startNode starts the built exporter on a simulated node and waits until it is
// ready. It is stopped with the test.
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
	sim := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(t)), "sim"), t.TempDir(), scenario)
	n := &node{sim: sim, log: &lockedBuffer{}, exited: make(chan struct{})}
	args = append([]string{"--web.listen-address=127.0.0.1:0"}, args...)
	if scenario != "" {
		args = append(args, "--simulate="+scenario)
	}
	n.cmd = exec.Command(built(t), args...)
	n.cmd.Env = append(os.Environ(), "DCGMSIM_STATE="+sim.State, "DCGMSIM_CONTROL="+sim.Control)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = n.cmd.Wait()
		close(n.exited)
	}()
	t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.exited:
		case <-time.After(time.Minute):
			_ = n.cmd.Process.Kill()
			t.Errorf("the exporter did not stop on SIGTERM within a minute")
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", scenario, n.log)
		}
	})
	n.address = listening(t, n.log)
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
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
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

// scrape returns the body of /metrics, which must answer 200.
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
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
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

// eventually polls until the condition holds.
func (n *node) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
		select {
		case <-n.exited:
			t.Fatalf("the exporter exited before %s", what)
		default:
		}
	}
}

// sumOf returns the sum of the series of a family whose labels contain all of
// the given texts, and how many there are.
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

// has waits until the sum of the series of a family is a value.
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

// valueOf waits until the series of a family with the labels are so many with such a sum.
func (n *node) valueOf(t *testing.T) func(want float64, count int, family string, labels ...string) {
	return func(want float64, count int, family string, labels ...string) {
		t.Helper()
		n.eventually(t, fmt.Sprintf("%s%v is %v in sum of %d", family, labels, want, count), func() bool {
			sum, series := sumOf(n.scrape(t), family, labels...)
			return sum == want && series == count
		})
	}
}

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
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.cmd.Process.Pid, n.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	all := string(children)
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.cmd.Process.Pid))
	for _, task := range tasks {
		if b, err := os.ReadFile(task); err == nil {
			all += " " + string(b)
		}
	}
	for field := range strings.FieldsSeq(all) {
		if pid, err := strconv.Atoi(field); err == nil {
			return pid
		}
	}
	return 0
}

func kill(t *testing.T, n *node) {
	t.Helper()
	pid := n.samplerPID()
	if pid == 0 {
		t.Fatal("no sampler to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// signal sends a signal to the sampler.
func (n *node) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	pid := n.samplerPID()
	if pid == 0 {
		t.Fatal("there is no sampler")
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func countersFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counters.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
