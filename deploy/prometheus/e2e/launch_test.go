// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// launch starts a process that the kernel kills when this one ends, even by SIGKILL. The channel
// is closed when the process has exited.
func launch(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The signal is sent when the thread ends that started the process (prctl(2)).
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return done, <-started
}

// launcher is an environment variable that makes TestLaunchedProcessesEnd launch a process, print
// its ID and wait.
const launcher = "E2E_LAUNCHER"

// TestLaunchedProcessesEnd: no exporter or server outlives a test that a signal ends.
func TestLaunchedProcessesEnd(t *testing.T) {
	if os.Getenv(launcher) != "" {
		child := exec.Command("sleep", "3600")
		child.Stdout = os.Stdout
		if _, err := launch(child); err != nil {
			t.Fatal(err)
		}
		fmt.Println(child.Process.Pid)
		select {}
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		test := exec.Command(os.Args[0], "-test.run=^TestLaunchedProcessesEnd$")
		test.Env = append(os.Environ(), launcher+"=on")
		// The child has the pipe as well, so that it is at its end when both processes have ended.
		out, err := test.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := test.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		line, err := lines.ReadString('\n')
		child, bad := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || bad != nil {
			t.Fatalf("%q: %v, %v", line, err, bad)
		}
		if err := test.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, lines)
		}()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Errorf("process %d runs after %v ended the test", child, signal)
			_ = syscall.Kill(child, syscall.SIGKILL)
			<-ended
		}
		_ = test.Wait() // it was killed
	}
}
