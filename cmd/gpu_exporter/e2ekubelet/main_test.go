// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	exporterFlag   = flag.String("exporter", "../../../build/gpu_exporter", "the exporter; the stand-ins are in the directory sim next to it")
	kubernetesFlag = flag.String("kubernetes", "", "directory with kubelet and kube-apiserver")
	keepFlag       = flag.Bool("keep", false, "keep the directory of a machine, with its logs")
)

// The test binary also has these roles in further processes.
const (
	roleVariable = "E2E_KUBELET_ROLE"
	roleInit     = "init"        // process 1 of a machine
	roleMIG      = "mig-devices" // prints the MIG devices of NVML
)

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleVariable); role {
	case roleInit:
		err = runInit(os.Args[1])
	case roleMIG:
		err = printMIGDevices(os.Stdout)
	default:
		flag.Parse()
		if err = preflight(); err == nil {
			interruptible()
			os.Exit(m.Run())
		}
		err = fmt.Errorf("e2e-kubelet cannot run here: %w", err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// preflight returns a one-line reason if the tests cannot run.
func preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root, for namespaces, cgroups and containers")
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "etcd", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: run make e2e-kubelet, which installs it on Debian and its derivatives", err)
		}
	}
	for _, file := range []string{*exporterFlag, filepath.Join(filepath.Dir(*exporterFlag), "sim", "libdcgm.so.4")} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: run make e2e-kubelet, which builds it", err)
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("creating namespaces: %w", err)
	}
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, dir := range hierarchies {
		probe := filepath.Join(dir, cgroupPrefix+"probe")
		if err := os.Mkdir(probe, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("creating a cgroup: %w", err)
		}
		if err := os.Remove(probe); err != nil {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
	}
	return nil
}

// interruptible cleans up on SIGINT and SIGTERM. After SIGKILL, the machines still stop,
// because their process 1 detects a closed pipe. Their files and empty cgroups remain.
func interruptible() {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		fmt.Fprintln(os.Stderr, "interrupted: cleaning up")
		machines.Lock()
		for m := range machines.running {
			_ = m.close()
		}
		os.Exit(1)
	}()
}

// patience is how long a test waits for a condition.
const patience = 3 * time.Minute

// eventually polls until the condition holds. It fails with the last error of the
// condition.
func eventually(t *testing.T, condition string, holds func() error) {
	t.Helper()
	if err := poll(patience, 20*time.Millisecond, holds); err != nil {
		t.Fatalf("timed out: %s: %v", condition, err)
	}
}

func poll(timeout, pause time.Duration, holds func() error) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(pause) {
		err := holds()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// tail returns the end of a log.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}
