// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
)

// emptyLibrary returns a directory with a library that the loader rejects.
func emptyLibrary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, sampler.DCGMLibrary), "")
	return dir
}

// startProgram runs the program, which is the test binary, in a new process.
func startProgram(t *testing.T, args ...string) (*exec.Cmd, *exportertest.Output) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable, args...)
	cmd.Env = append(os.Environ(), envProgram+"=1")
	log := new(exportertest.Output)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, log
}

// exitStatus waits until a process exits.
func exitStatus(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	watchdog := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// TestProgramWithoutDCGM: if libdcgm cannot be loaded, the program reports that and
// serves. SIGHUP does not stop it. SIGTERM and SIGINT stop it with status 0.
func TestProgramWithoutDCGM(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			dir := emptyLibrary(t)
			cmd, log := startProgram(t, "--web.listen-address=127.0.0.1:0", "--dcgm.library-path="+dir, "-n")
			address := listening(t, log, nil)
			eventually(t, "/-/ready reports the reason", func() bool {
				status, body := get(t, "http://"+address+"/-/ready")
				return status == http.StatusServiceUnavailable && strings.Contains(body, sampler.DCGMLibrary)
			})
			for path, want := range map[string]string{"/health": "OK", "/metrics": "gpu_exporter_sampler_up 0\n", "/": "<html"} {
				if status, body := get(t, "http://"+address+path); status != http.StatusOK || !strings.Contains(body, want) {
					t.Errorf("%s: status %d, no %q in\n%s", path, status, want, body)
				}
			}
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "SIGHUP is logged", func() bool { return strings.Contains(log.String(), "trigger=SIGHUP") })
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if status := exitStatus(t, cmd); status != 0 {
				t.Errorf("exit status %d\n%s", status, log)
			}
		})
	}
}

// TestProgramSystemdSocket: systemd passes a listening socket as file descriptor 3. In
// the sampler, file descriptor 3 is the pipe of frames, so it must not inherit the socket.
func TestProgramSystemdSocket(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := emptyLibrary(t)
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh",
		executable, "--web.systemd-socket", "--dcgm.library-path="+dir, "-n")
	cmd.Env = append(os.Environ(), envProgram+"=1")
	cmd.ExtraFiles = []*os.File{socket}
	log := new(exportertest.Output)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := errors.Join(socket.Close(), listener.Close()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if status := exitStatus(t, cmd); status != 0 {
			t.Errorf("exit status %d\n%s", status, log)
		}
	}()
	// The socket queues connections before the program starts.
	if status, _ := get(t, "http://"+address+"/health"); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	eventually(t, "the sampler's failure arrives through its pipe", func() bool {
		_, body := get(t, "http://"+address+"/-/ready")
		return strings.Contains(body, sampler.DCGMLibrary)
	})
}

func TestProgramCannotStart(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"address of another machine", []string{"--web.listen-address=192.0.2.1:9400"}, "cannot assign requested address"},
		{"web config", []string{"--web.config.file=/nonexistent/web.yml", "--web.listen-address=127.0.0.1:0"}, "/nonexistent/web.yml"},
		{"unknown scenario", []string{"--simulate=h200x9"}, "neither the path of a scenario file nor a known name"},
		{"two errors", []string{"-f", writeFile(t, filepath.Join(t.TempDir(), "bad.csv"), "A, gauge, A.\nB, gauge, B.\n")}, "bad.csv:2: unknown field B"},
		{"counters file", []string{"-f", "/nonexistent.csv"}, "/nonexistent.csv"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd, log := startProgram(t, tt.args...)
			if status := exitStatus(t, cmd); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			if !strings.Contains(log.String(), tt.want) {
				t.Errorf("no %q in\n%s", tt.want, log)
			}
			if strings.Contains(log.String(), `\n`) {
				t.Errorf("a record has several lines:\n%s", log)
			}
		})
	}
}

// TestAddressInUse: an address in use ends the program with one line that names the flag.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cmd, log := startProgram(t, "--web.listen-address="+taken.Addr().String(), "--dcgm.library-path="+emptyLibrary(t))
	if status := exitStatus(t, cmd); status != 1 {
		t.Errorf("exit status %d", status)
	}
	var found []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=ERROR") {
			found = append(found, line)
		}
	}
	remedy := "another process listens on " + taken.Addr().String() + ": stop it, or choose another address with --web.listen-address=HOST:PORT"
	if len(found) != 1 || !strings.Contains(found[0], remedy) {
		t.Errorf("errors %q, want one with %q", found, remedy)
	}
}
