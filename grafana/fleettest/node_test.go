// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
)

// patience is how long a test waits for a condition.
const patience = 5 * time.Minute

// root is the root of the repository.
const root = "../.."

// program returns the path of a program of make build, or of a tool of make test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "build", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make test-dashboards, which builds it", err)
	}
	return path
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

// lockedBuffer collects the output of a process.
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

// process is a server that logs the address it listens on.
type process struct {
	cmd     *exec.Cmd
	log     *lockedBuffer
	address string
	exited  chan struct{}
}

var listeningOn = regexp.MustCompile(`msg="Listening on" (?:component=web )?address=(\S+)`)

// startProcess starts a server and waits until it listens. It stops at the end of the test.
func startProcess(t *testing.T, environ []string, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), log: &lockedBuffer{}, exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), environ...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() { p.stop(t) })
	eventually(t, filepath.Base(name)+" listens", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("%s exited:\n%s", filepath.Base(name), p.log)
		default:
		}
		m := listeningOn.FindStringSubmatch(p.log.String())
		if m != nil {
			p.address = m[1]
		}
		return m != nil
	})
	return p
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		t.Errorf("SIGTERM did not stop %s within %v", p.cmd.Path, patience)
	}
}

// get returns the body at a path.
func (p *process) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

// node is an exporter on a simulated node. The simulated hardware outlives the exporter.
type node struct {
	name     string
	scenario string
	args     []string
	sim      *dcgmsim.Node
	exporter *process
}

func newNode(t *testing.T, name, scenario string, args ...string) *node {
	t.Helper()
	sim := dcgmsim.NewNode(program(t, "sim"), t.TempDir(), scenario)
	args = append([]string{
		"--web.listen-address=127.0.0.1:0", "--hostname=" + name, "--sample.interval=" + realInterval.String(), "--sample.resolution=" + realInterval.String(),
		"--web.enable-admin-api",
	}, args...)
	return &node{name: name, scenario: scenario, args: args, sim: sim}
}

// start starts the exporter and waits until it is ready.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.exporter = startProcess(t, []string{"DCGMSIM_STATE=" + n.sim.State, "DCGMSIM_CONTROL=" + n.sim.Control},
		program(t, "gpu_exporter"), append(n.args, "--simulate="+n.scenario)...)
	exporter := n.exporter
	eventually(t, n.name+" is ready", func() bool {
		select {
		case <-exporter.exited:
			t.Fatalf("the exporter of %s exited:\n%s", n.name, exporter.log)
		default:
		}
		_, err := exporter.get(t.Context(), "/-/ready")
		return err == nil
	})
}

// command steers the simulated node.
func (n *node) command(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if _, err := n.sim.Command(t.Context(), line); err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
	}
}

// killSampler kills the sampler process.
func (n *node) killSampler(t *testing.T) {
	t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.exporter.cmd.Process.Pid))
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // the thread ended
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Sscan(string(children), &pid); err == nil {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s has no sampler", n.name)
}
