// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ealerts

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
)

// patience is how long a test waits for a condition: the machine may be busy.
const patience = 15 * time.Minute

func eventually(t *testing.T, condition string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", condition)
		}
	}
}

// built returns a file below build.
func built(t *testing.T, parts ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(append([]string{"../../../build"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make test-alerts, which builds it", err)
	}
	return path
}

// freeAddress returns an address on which nothing listens. A different process may take the port,
// but hardly does: the kernel hands out ports in turn.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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

// start starts a program and waits until it answers at path. It stops at the end of the test.
func start(t *testing.T, env []string, url, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd, log, exited := exec.Command(args[0], args[1:]...), &lockedBuffer{}, make(chan struct{})
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
		}
		if t.Failed() {
			lines := strings.Split(log.String(), "\n")
			t.Logf("%s:\n%s", filepath.Base(args[0]), strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	})
	eventually(t, args[0]+" answers", func() bool {
		select {
		case <-exited:
			t.Fatalf("%s exited:\n%s", args[0], log)
		default:
		}
		return fetch(t, url+path, nil) == nil
	})
	return cmd
}

// fetch reads a page, and decodes it if into is not nil.
func fetch(t *testing.T, url string, into any) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// node is an exporter of a simulated node.
type node struct {
	name, address string
	sim           *dcgmsim.Node
	cmd           *exec.Cmd
}

// startNode starts an exporter whose label hostname is name.
func startNode(t *testing.T, name, scenario string, args ...string) *node {
	t.Helper()
	n := &node{name: name, address: freeAddress(t), sim: dcgmsim.NewNode(built(t, "sim"), t.TempDir(), scenario)}
	n.cmd = start(t, []string{"DCGMSIM_STATE=" + n.sim.State, "DCGMSIM_CONTROL=" + n.sim.Control}, "http://"+n.address, "/-/ready",
		append([]string{built(t, "gpu_exporter"), "--simulate=" + scenario, "--web.listen-address=" + n.address, "--hostname=" + name,
			"--sample.interval=1s", "--sample.max-age=5s", "--health.interval=2s"}, args...)...)
	return n
}

// command steers the node.
func (n *node) command(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if _, err := n.sim.Command(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
}
