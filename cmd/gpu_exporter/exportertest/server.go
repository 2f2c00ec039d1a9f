// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package exportertest runs servers for tests: exporters on simulated nodes, and programs
// such as Prometheus. A server ends with its test, and also if a signal kills the test's
// process. The package must not be imported outside tests.
package exportertest

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
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for a condition: the machine may be ten times
// oversubscribed.
const Patience = 10 * time.Minute

// Eventually polls until the condition holds.
func Eventually(t testing.TB, condition string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", condition)
		}
	}
}

// Built returns the absolute path of a file in the directory build of the repository.
func Built(t testing.TB, elem ...string) string {
	t.Helper()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for filepath.Dir(root) != root {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Dir(root)
	}
	path := filepath.Join(append([]string{root, "build"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run the test with make, which builds it", err)
	}
	return path
}

// Output collects the output of a process.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns the output until now.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Server is a process that logs the address on which it listens.
type Server struct {
	Address string
	Process *os.Process
	Log     *Output
	Exited  chan struct{} // closed when the process has exited
	program string
}

// The exporter, Prometheus and Alertmanager log their address in these forms.
var listeningOn = regexp.MustCompile(`msg="Listening on" (?:component=web )?address=(\S+)`)

// Start starts a server and waits until it listens. It stops at the end of the test.
func Start(t testing.TB, environ []string, program string, args ...string) *Server {
	t.Helper()
	s := &Server{Log: &Output{}, Exited: make(chan struct{}), program: program}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdout, cmd.Stderr = s.Log, s.Log
	// A killed test runs no cleanup. The kernel sends the signal when the thread that started
	// the server ends (prctl(2)). Go ends no thread of a goroutine that is not locked to it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.Process = cmd.Process
	go func() {
		_ = cmd.Wait()
		close(s.Exited)
	}()
	t.Cleanup(func() {
		s.Stop(t)
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", filepath.Base(program), tail(s.Log.String()))
		}
	})
	Eventually(t, filepath.Base(program)+" listens", func() bool {
		m := listeningOn.FindStringSubmatch(s.Log.String())
		if m == nil {
			s.MustRun(t)
			return false
		}
		s.Address = m[1]
		return true
	})
	return s
}

// tail returns the last lines of a log.
func tail(log string) string {
	const limit = 4096 // bytes
	return log[max(0, len(log)-limit):]
}

// MustRun fails the test if the server has exited.
func (s *Server) MustRun(t testing.TB) {
	t.Helper()
	select {
	case <-s.Exited:
		t.Fatalf("%s exited:\n%s", filepath.Base(s.program), tail(s.Log.String()))
	default:
	}
}

// Stop ends the server with SIGTERM.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	_ = s.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.Exited:
	case <-time.After(Patience):
		_ = s.Process.Kill()
		t.Errorf("SIGTERM did not stop %s within %v", s.program, Patience)
	}
}

// Get returns the body at a path. The status must be 200.
func (s *Server) Get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address+path, nil)
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

// Ready waits until the server answers /-/ready with 200.
func (s *Server) Ready(t testing.TB) {
	t.Helper()
	Eventually(t, filepath.Base(s.program)+" is ready", func() bool {
		s.MustRun(t)
		_, err := s.Get(t.Context(), "/-/ready")
		return err == nil
	})
}
