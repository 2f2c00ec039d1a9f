// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package exportertest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const killedTest = "EXPORTERTEST_KILLED"

// A server ends if a signal kills the process of its test, which runs no cleanup then.
func TestServersEndWithTheProcess(t *testing.T) {
	if os.Getenv(killedTest) != "" {
		s := Start(t, nil, "/bin/sh", "-c", `echo 'msg="Listening on" address=nowhere'; exec sleep 1000000`)
		fmt.Println("started", s.Process.Pid)
		select {} // until the parent kills this process
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServersEndWithTheProcess$")
	cmd.Env = append(os.Environ(), killedTest+"=yes")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(stdout); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "started %d", &pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if pid == 0 {
		t.Fatal("the test that was to be killed started no server")
	}
	Eventually(t, "the server has ended", func() bool { return !runs(pid) })
}

// runs reports whether a process runs. In a container no process may reap it.
func runs(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	if err != nil {
		return false
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0] != "Z"
}
