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
	exporterFlag   = flag.String("exporter", "../../../build/gpu_exporter", "the exporter, with the stand-ins in sim beside it")
	kubernetesFlag = flag.String("kubernetes", "", "directory with kubelet and kube-apiserver")
	keepFlag       = flag.Bool("keep", false, "keep the directory of a machine, with its logs")
)

// The test binary is also these, in processes of its own.
const (
	roleVariable = "E2E_KUBELET_ROLE"
	roleInit     = "init"        // process 1 of a machine
	roleMIG      = "mig-devices" // prints the MIG devices that the loader's NVML has
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

// preflight tells in one line why the tests cannot run.
func preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root, for namespaces, cgroups and containers")
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "etcd", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: run make e2e-kubelet, which installs it on Debian and its like", err)
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
		return fmt.Errorf("making namespaces: %w", err)
	}
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, dir := range hierarchies {
		probe := filepath.Join(dir, cgroupPrefix+"probe")
		if err := os.Mkdir(probe, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("making a cgroup: %w", err)
		}
		if err := os.Remove(probe); err != nil {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
	}
	return nil
}

// interruptible cleans up on signals, too. After SIGKILL the machines still end,
// as their process 1 sees a pipe close; their files and empty cgroups stay.
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

// eventually polls until the condition holds. It fails with the last reason that
// the condition gave for not holding.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	if err := poll(time.Minute, 20*time.Millisecond, holds); err != nil {
		t.Fatalf("waited a minute in vain until %s: %v", what, err)
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
