// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/wire"
)

// Ctrl-C in a terminal signals the exporter's process group. The sampler is in its own
// group, so that the exporter can stop it in order.
func TestSamplerHasItsOwnProcessGroup(t *testing.T) {
	st := startSupervisor(t, "healthy", nil)
	st.moreSamples(1)
	pid := st.s.Status().PID
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("sampler %d is in group %d, %v", pid, group, err)
	}
}

// The kernel kills the sampler with the thread that started it, so this thread must
// live as long as the supervisor.
func TestSamplerSurvivesEndOfThreads(t *testing.T) {
	st := startSupervisor(t, "healthy", nil)
	stop := make(chan struct{})
	var threads sync.WaitGroup
	for range 4 {
		threads.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var one sync.WaitGroup
				one.Go(func() {
					runtime.LockOSThread() // without unlocking: the thread ends with this goroutine
					time.Sleep(time.Millisecond)
				})
				one.Wait()
			}
		})
	}
	for range 20 {
		st.moreSamples(3)
		st.s.Reconfigure(wire.SamplerConfig{Interval: 20 * time.Millisecond})
	}
	st.moreSamples(20)
	close(stop)
	threads.Wait()
	for reason, n := range st.s.Status().Restarts {
		if reason != restartReconfigured && n != 0 {
			t.Errorf("%d restarts for %s, want 0", n, reason)
		}
	}
}

// No sampler outlives the exporter.
func TestNoOrphanWhenExporterIsKilled(t *testing.T) {
	for name, c := range map[string]struct {
		behaviour string
		shell     bool // a shell is the sampler's parent, so the kernel signals the shell
		stopped   bool
	}{
		"healthy":                    {behaviour: "healthy"},
		"no signal, healthy":         {behaviour: "healthy", shell: true},
		"no signal, hangs":           {behaviour: "hangs", shell: true},
		"ignores its standard input": {behaviour: "ignores stdin"},
		"stopped":                    {behaviour: "healthy", stopped: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			command := samplerCommand(dir, c.behaviour)
			if c.shell {
				command = append([]string{"/bin/sh", "-c", `"$@"; exit $?`, "sh"}, command...)
			}
			exporter := exec.Command(os.Args[0], append([]string{"exporter", dir}, command...)...)
			if err := exporter.Start(); err != nil {
				t.Fatal(err)
			}
			killed := false
			t.Cleanup(func() {
				if !killed {
					_ = exporter.Process.Kill()
					_ = exporter.Wait()
				}
			})
			eventually(t, "samples", func() bool {
				_, err := os.Stat(filepath.Join(dir, "samples"))
				return err == nil
			})
			b, err := os.ReadFile(filepath.Join(dir, "pids"))
			if err != nil {
				t.Fatal(err)
			}
			pid := atoi(t, strings.Fields(string(b))[0])
			if _, parent, _ := procStat(pid); c.shell == (parent == exporter.Process.Pid) {
				t.Fatalf("the sampler's parent is %d, the exporter is %d, with a shell between: %v", parent, exporter.Process.Pid, c.shell)
			}
			if c.stopped {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			if err := exporter.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			killed = true
			_ = exporter.Wait()
			t.Cleanup(func() {
				if alive(pid) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			})
			eventually(t, "the sampler exits", func() bool { return !alive(pid) })
		})
	}
}

// An exporter that was stopped itself, in a debugger or with its virtual machine, does
// not kill the sampler for that time.
func TestSupervisorToleratesItsOwnPause(t *testing.T) {
	dir := t.TempDir()
	exporter := exec.Command(os.Args[0], append([]string{"exporter", dir}, samplerCommand(dir, "healthy")...)...)
	if err := exporter.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exporter.Process.Kill()
		_ = exporter.Wait()
	})
	eventually(t, "samples", func() bool {
		_, err := os.Stat(filepath.Join(dir, "samples"))
		return err == nil
	})
	pids := func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "pids"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(b))
	}
	sampler := atoi(t, pids()[0])
	signal := func(pid int, sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(exporter.Process.Pid, syscall.SIGSTOP)
	signal(sampler, syscall.SIGSTOP)
	time.Sleep(2 * quick.silence)
	signal(exporter.Process.Pid, syscall.SIGCONT)
	time.Sleep(10 * quick.tick) // it checks the sampler before the next frame
	signal(sampler, syscall.SIGCONT)
	time.Sleep(quick.silence)
	if now := pids(); len(now) != 1 || !alive(sampler) {
		t.Errorf("the sampler was replaced: %v", now)
	}
}

// Restarts leak no goroutine, file, thread or zombie.
func TestSupervisorRestartsDoNotLeak(t *testing.T) {
	const warmUp, restarts = 10, 60
	counts := func() (goroutines, files, threads int) {
		entries := func(dir string) int {
			d, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			return len(d)
		}
		return runtime.NumGoroutine(), entries("/proc/self/fd"), entries("/proc/self/task")
	}
	goroutines, files, _ := counts()
	var threads int
	st := startSupervisor(t, "exits", func(c *Config) { c.timing.backoffMax = c.timing.backoffMin })
	for n := range uint64(restarts) {
		eventually(t, "restarts", func() bool { return st.s.Status().Restarts[restartExit] > n })
		if n == warmUp {
			_, _, threads = counts()
		}
	}
	_, filesNow, threadsNow := counts()
	// A leak adds at least one for each restart. The pipes of a sampler that is starting, the
	// runtime's files for polling and its threads are fewer.
	if filesNow > files+restarts/2 || threadsNow > threads+(restarts-warmUp)/2 {
		t.Errorf("after %d restarts: %d files (%d before the first), %d threads (%d after %d restarts)",
			restarts, filesNow, files, threadsNow, threads, warmUp)
	}
	st.stop()
	eventually(t, "the number of goroutines is as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	if _, filesNow, _ = counts(); filesNow > files+4 { // the poller keeps its files
		t.Errorf("%d open files, %d before", filesNow, files)
	}
	d, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range d {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if state, parent, ok := procStat(pid); ok && parent == os.Getpid() {
				t.Errorf("child %d remains in state %c", pid, state)
			}
		}
	}
}
