// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// stage is a supervisor of real processes that feeds a real Node.
type stage struct {
	t      *testing.T
	dir    string
	s      *Supervisor
	node   *state.Node
	logs   logRecords
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	samples atomic.Int64 // accepted
	driver  atomic.Value // string: of the newest inventory
}

// setStage runs a supervisor of samplers with the given behaviour until the
// test ends. change may be nil.
func setStage(t *testing.T, behaviour string, change func(*Config)) *stage {
	t.Helper()
	st := &stage{t: t, dir: t.TempDir(), node: state.NewNode(slog.New(slog.DiscardHandler), &xid.Catalogue{}), done: make(chan struct{})}
	st.driver.Store("")
	cfg := Config{
		Command: samplerCommand(st.dir, behaviour),
		Sampler: wire.SamplerConfig{Interval: 20 * time.Millisecond},
		Logger:  slog.New(&st.logs),
		timing:  quick,
		Deliver: func(f wire.Frame) error {
			if err := st.node.Deliver(f); err != nil {
				return err
			}
			if f.Inventory != nil {
				st.driver.Store(f.Inventory.DriverVersion)
			}
			if f.Sample != nil {
				st.samples.Add(1)
			}
			return nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	st.s = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	st.cancel = cancel
	go func() {
		defer close(st.done)
		st.err = st.s.Run(ctx)
	}()
	t.Cleanup(func() {
		st.stop()
		if t.Failed() {
			t.Logf("status %+v\nlog:\n%.8000s", st.s.Status(), &st.logs)
		}
		if overlap := st.notes("overlap"); len(overlap) != 0 {
			t.Errorf("samplers %v ran beside another", overlap)
		}
		for _, pid := range st.notes("pids") {
			if alive(atoi(t, pid)) {
				t.Errorf("sampler %s is left", pid)
			}
		}
	})
	return st
}

// stop ends the supervisor and returns how long that took.
func (st *stage) stop() time.Duration {
	begin := time.Now()
	st.cancel()
	select {
	case <-st.done:
	case <-time.After(time.Minute):
		st.t.Fatal("Run does not return")
	}
	return time.Since(begin)
}

// notes are the lines that samplers left in a file.
func (st *stage) notes(file string) []string {
	b, err := os.ReadFile(filepath.Join(st.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		st.t.Error(err)
	}
	return strings.Fields(string(b))
}

// moreSamples waits for n more accepted samples.
func (st *stage) moreSamples(n int64) {
	st.t.Helper()
	want := st.samples.Load() + n
	eventually(st.t, "samples come", func() bool { return st.samples.Load() >= want })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute, but not: %s", what)
		}
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// alive says whether there is such a process that is no zombie.
func alive(pid int) bool {
	state, _, ok := procStat(pid)
	return ok && state != 'Z' && state != 'X'
}

// procStat reads the state and the parent from /proc/PID/stat.
func procStat(pid int) (state byte, parent int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if _, err := fmt.Sscanf(rest, "%c %d", &state, &parent); err != nil {
		return 0, 0, false
	}
	return state, parent, true
}

func TestSupervisorRuns(t *testing.T) {
	st := setStage(t, "well", nil)
	begin := time.Now()
	st.moreSamples(20)
	status := st.s.Status()
	if !status.Running || !alive(status.PID) || status.Unreapable || !status.NextStart.IsZero() ||
		status.Started.After(begin.Add(10*time.Second)) || status.LastFailure != (model.Failure{}) {
		t.Errorf("status %+v", status)
	}
	for reason, n := range status.Restarts {
		if n != 0 {
			t.Errorf("%d restarts for %s", n, reason)
		}
	}
	if _, fresh := st.node.Freshness(time.Minute); !fresh {
		t.Errorf("the node has no fresh sample: %s", st.node.Staleness())
	}
	st.stop()
	// It was asked, and had the time to obey.
	if eof := st.notes("eof"); !slices.Equal(eof, []string{strconv.Itoa(status.PID)}) {
		t.Errorf("the end of standard input was seen by %v, want %d", eof, status.PID)
	}
	if st.err != nil {
		t.Errorf("Run: %v", st.err)
	}
}

// Zero GPUs are a node like any other.
func TestSupervisorRunsWithoutGPU(t *testing.T) {
	st := setStage(t, "none", nil)
	st.moreSamples(500) // 10 s, twice the bound on silence
	if n := len(st.notes("pids")); n != 1 {
		t.Errorf("%d samplers were started", n)
	}
}

// Whatever one sampler does wrong, it is replaced, the reason is told, and
// samples go on.
func TestSupervisorRestarts(t *testing.T) {
	for behaviour, c := range map[string]struct {
		reason   string
		rejected string // a reason for which frames were rejected
		says     string
	}{
		"hang":                                  {restartTimeout, "", "nothing came from the sampler for "},
		"exit":                                  {restartExit, "", "exit status 3"},
		"fault":                                 {restartCrash, "", "exit status 2"},
		"segv":                                  {restartCrash, "", "segmentation fault"},
		"garbage":                               {restartBadFrame, rejectBadFrame, "exceeds the limit"},
		"cut and go on":                         {restartBadFrame, rejectBadFrame, "bad frame"},
		"cut and exit":                          {restartExit, rejectBadFrame, "exit status 0 in the middle of a frame"},
		"child":                                 {restartExit, "", "exit status 3"},
		"exit before reading the configuration": {restartExit, "", "exit status 3"},
	} {
		t.Run(behaviour, func(t *testing.T) {
			st := setStage(t, "once "+behaviour, nil)
			eventually(t, "the first is replaced", func() bool { return st.s.Status().Restarts[c.reason] == 1 })
			failure := st.s.Status().LastFailure
			st.moreSamples(20)
			if failure.Reason != c.reason || !strings.Contains(failure.Message, c.says) {
				t.Errorf("failure %+v, want %s with %q", failure, c.reason, c.says)
			}
			status := st.s.Status()
			if c.rejected != "" && status.FramesRejected[c.rejected] == 0 {
				t.Errorf("rejected %v, want some for %s", status.FramesRejected, c.rejected)
			}
			pids := st.notes("pids")
			if !status.Running || len(pids) != 2 || pids[0] == pids[1] || strconv.Itoa(status.PID) != pids[1] {
				t.Errorf("samplers %v, status %+v", pids, status)
			}
			for _, child := range st.notes("child") {
				if alive(atoi(t, child)) {
					t.Errorf("child %s of the first sampler is left", child)
				}
			}
			if !strings.Contains(st.logs.String(), "reason="+c.reason) {
				t.Errorf("the log does not tell the reason:\n%s", &st.logs)
			}
		})
	}
}

// A Go runtime that dies of a fault says where; that must not be lost.
func TestSupervisorLogsTraceOfCrash(t *testing.T) {
	st := setStage(t, "once fault", nil)
	eventually(t, "the crash", func() bool { return st.s.Status().Restarts[restartCrash] == 1 })
	eventually(t, "a trace in the log", func() bool {
		log := st.logs.String()
		return strings.Contains(log, "nil pointer dereference") && strings.Contains(log, "helper_test.go") &&
			strings.Contains(log, "component=dcgm")
	})
}

func TestSupervisorRestartsKilledSampler(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, "well", nil)
			st.moreSamples(3)
			pid := st.s.Status().PID
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartKilled] == 1 })
			st.moreSamples(20)
			if status := st.s.Status(); status.PID == pid || alive(pid) {
				t.Errorf("killed %d, status %+v", pid, status)
			}
		})
	}
}

// A stopped sampler gets neither the end of its input nor a signal but SIGKILL.
func TestSupervisorKillsStoppedSampler(t *testing.T) {
	st := setStage(t, "well", nil)
	st.moreSamples(3)
	pid := st.s.Status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartTimeout] == 1 })
	st.moreSamples(20)
}

func TestSupervisorRestartsSamplerOfRejectedFrames(t *testing.T) {
	st := setStage(t, "once future", func(c *Config) { c.timing.startup = c.timing.silence })
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartTimeout] >= 1 })
	failure := st.s.Status().LastFailure
	st.moreSamples(20)
	if n := st.s.Status().FramesRejected[model.RejectFuture]; n < 10 {
		t.Errorf("%d frames from the future are counted", n)
	}
	if !strings.Contains(failure.Message, "were rejected, the last because of future") {
		t.Errorf("failure %+v", failure)
	}
	if n := st.logs.count(slog.LevelWarn, "frame rejected"); n != 1 {
		t.Errorf("rejection is logged %d times, want once", n)
	}
}

func TestSupervisorKillsSamplerThatNeverSamples(t *testing.T) {
	st := setStage(t, "once mute", func(c *Config) { c.timing.startup = c.timing.silence })
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartTimeout] >= 1 })
	st.moreSamples(20)
}

// Library missing: keeps trying, and works once it is there.
func TestSupervisorWaitsForLibrary(t *testing.T) {
	st := setStage(t, "library missing", nil)
	eventually(t, "retries", func() bool { return st.s.Status().Restarts[model.FailureLibraryMissing] >= 5 })
	if st.samples.Load() != 0 {
		t.Error("there are samples without a library")
	}
	if n := st.logs.countFrom(slog.LevelInfo); n != 1 {
		t.Errorf("%d log lines, want one:\n%s", n, &st.logs)
	}
	if err := os.WriteFile(filepath.Join(st.dir, "library"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st.moreSamples(20)
}

// What a sampler has sent counts, also if it is gone before it is read.
func TestSupervisorReadsOutDeadSampler(t *testing.T) {
	st := setStage(t, "once last words", func(c *Config) {
		deliver := c.Deliver
		c.Deliver = func(f wire.Frame) error {
			if f.Inventory != nil {
				time.Sleep(300 * time.Millisecond)
			}
			return deliver(f)
		}
	})
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[model.FailureHostengineLost] == 1 })
	if n := st.samples.Load(); n < 5 {
		t.Errorf("%d of its 5 samples were delivered", n)
	}
}

func TestSupervisorStopsDeafSampler(t *testing.T) {
	st := setStage(t, "deaf", nil)
	st.moreSamples(3)
	pid := st.s.Status().PID
	if d := st.stop(); d < quick.stop {
		t.Errorf("Run returned after %v, the sampler had %v to go", d, quick.stop)
	}
	if alive(pid) || st.err != nil {
		t.Errorf("sampler alive: %v, Run: %v", alive(pid), st.err)
	}
}

func TestSupervisorReplacesRunningSampler(t *testing.T) {
	for _, behaviour := range []string{"well", "deaf"} {
		t.Run(behaviour, func(t *testing.T) {
			st := setStage(t, behaviour, nil)
			st.moreSamples(3)
			st.s.Reconfigure(wire.SamplerConfig{Interval: 10 * time.Millisecond, Devices: "g:1"})
			eventually(t, "the new configuration", func() bool { return st.driver.Load() == "g:1" })
			st.moreSamples(20)
			if status := st.s.Status(); status.Restarts[restartReconfigured] != 1 || len(st.notes("pids")) != 2 {
				t.Errorf("status %+v", status)
			} // that the two did not meet is checked for every stage
		})
	}
}

func TestSupervisorReplacesLeakingSampler(t *testing.T) {
	const limit = 256 << 20
	st := setStage(t, "once leak", func(c *Config) { c.MemoryLimit = limit })
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartMemory] == 1 })
	st.moreSamples(20)
	if n := len(st.notes("pids")); n != 2 {
		t.Errorf("%d samplers, want the second to stay", n)
	}
}

// Neither stream may hold up the frames, and the log gets no flood.
func TestSupervisorReadsFloodOfOutput(t *testing.T) {
	st := setStage(t, "flood", nil)
	st.moreSamples(100)
	if n := len(st.notes("pids")); n != 1 {
		t.Errorf("%d samplers were started", n)
	}
	st.stop()
	if n := st.logs.countFrom(slog.LevelDebug); n > 2*outputLinesPerWindow {
		t.Errorf("%d log lines", n)
	}
	log := st.logs.String()
	for _, want := range []string{"libdcgm says something", "cut=true", "stream=stdout", "stream=stderr", "lines were dropped"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

func TestSupervisorPassesOutputOn(t *testing.T) {
	st := setStage(t, "log", nil)
	for _, want := range []string{
		`level=INFO msg="printed by the library" stream=stdout component=dcgm`,
		`level=ERROR msg="cannot watch" field=150 component=dcgm`,
		`level=WARN msg="complained by the library" stream=stderr component=dcgm`,
	} {
		eventually(t, want, func() bool { return strings.Contains(st.logs.String(), want+"\n") })
	}
}

func TestSupervisorSetsEnvironment(t *testing.T) {
	st := setStage(t, "env", func(c *Config) { c.Env = []string{"SUPERVISOR_TEST=on"} })
	st.moreSamples(1)
	if got := st.notes("env"); !slices.Equal(got, []string{"on"}) {
		t.Errorf("the sampler has %q", got)
	}
}

func TestSupervisorReportsMissingBinary(t *testing.T) {
	for name, command := range map[string][]string{"no such file": {filepath.Join(t.TempDir(), "gone")}, "no command": nil} {
		t.Run(name, func(t *testing.T) {
			st := setStage(t, "", func(c *Config) { c.Command = command })
			eventually(t, "retries", func() bool { return st.s.Status().Restarts[restartStart] >= 3 })
		})
	}
}

// Ctrl-C in a terminal goes to the group of the exporter; the sampler has to be
// in another, or it dies before it is stopped in order.
func TestSamplerHasItsOwnProcessGroup(t *testing.T) {
	st := setStage(t, "well", nil)
	st.moreSamples(1)
	pid := st.s.Status().PID
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("sampler %d is in group %d, %v", pid, group, err)
	}
}

// The sampler dies with the thread that started it, which must be none that
// ends before the supervisor.
func TestSamplerSurvivesEndOfThreads(t *testing.T) {
	st := setStage(t, "well", nil)
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
			t.Errorf("%d restarts because of %s", n, reason)
		}
	}
}

// When the exporter dies, no orphan is left.
func TestNoOrphanWhenExporterIsKilled(t *testing.T) {
	for name, c := range map[string]struct {
		behaviour string
		shell     bool // between the two, so that the kernel's signal hits the shell
		stopped   bool
	}{
		"sampler heeds its standard input":                        {behaviour: "well"},
		"by its standard input alone":                             {behaviour: "well", shell: true},
		"hangs, by its standard input alone":                      {behaviour: "hang", shell: true},
		"sampler does not listen, so by the signal of the kernel": {behaviour: "deaf"},
		"sampler is stopped, by the signal of the kernel":         {behaviour: "well", stopped: true},
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
				t.Fatalf("the parent of the sampler is %d, of the exporter %d, a shell between: %v", parent, exporter.Process.Pid, c.shell)
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
			eventually(t, "the sampler is gone", func() bool { return !alive(pid) })
		})
	}
}

// An exporter that was stopped itself, with its virtual machine or in a
// debugger, does not take the pause for silence of the sampler.
func TestSupervisorExcusesItsOwnPause(t *testing.T) {
	dir := t.TempDir()
	exporter := exec.Command(os.Args[0], append([]string{"exporter", dir}, samplerCommand(dir, "well")...)...)
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
	time.Sleep(10 * quick.tick) // it looks at the sampler before that has said anything
	signal(sampler, syscall.SIGCONT)
	time.Sleep(quick.silence)
	if now := pids(); len(now) != 1 || !alive(sampler) {
		t.Errorf("the sampler was replaced: %v", now)
	}
}

// A process in a frozen cgroup of version 1 is like one stuck in a driver call:
// it is not reaped after SIGKILL before it thaws.
func TestSupervisorWaitsForFrozenSampler(t *testing.T) {
	const root = "/sys/fs/cgroup/freezer"
	cgroup, err := os.MkdirTemp(root, "gpu_exporter_test")
	if err != nil {
		t.Skipf("no freezer cgroup of version 1 can be made here: %v", err)
	}
	t.Cleanup(func() {
		eventually(t, "the cgroup is removed", func() bool { return os.Remove(cgroup) == nil })
	})
	put := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(cgroup, file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	freeze := func(st *stage) int {
		t.Helper()
		st.moreSamples(3)
		pid := st.s.Status().PID
		put("cgroup.procs", strconv.Itoa(pid))
		put("freezer.state", "FROZEN")
		eventually(t, "it is frozen", func() bool {
			b, _ := os.ReadFile(filepath.Join(cgroup, "freezer.state"))
			return strings.TrimSpace(string(b)) == "FROZEN"
		})
		return pid
	}
	thaw := func() { _ = os.WriteFile(filepath.Join(cgroup, "freezer.state"), []byte("THAWED"), 0) }
	t.Cleanup(thaw)

	t.Run("waits and goes on", func(t *testing.T) {
		st := setStage(t, "well", nil)
		pid := freeze(st)
		t.Cleanup(thaw)
		eventually(t, "the status says so", func() bool { return st.s.Status().Unreapable })
		time.Sleep(20 * quick.backoffMax)
		if status := st.s.Status(); len(st.notes("pids")) != 1 || status.PID != pid || status.Running || !status.Unreapable || !alive(pid) {
			t.Errorf("samplers %v, alive: %v, status %+v", st.notes("pids"), alive(pid), status)
		}
		thaw()
		st.moreSamples(20)
		if status := st.s.Status(); status.Unreapable || !status.Running || status.Restarts[restartTimeout] != 1 {
			t.Errorf("status %+v", status)
		}
	})
	t.Run("does not keep Run from returning", func(t *testing.T) {
		st := setStage(t, "well", nil)
		pid := freeze(st)
		t.Cleanup(thaw) // before the stage looks for what is left
		st.stop()
		if st.err == nil || !strings.Contains(st.err.Error(), strconv.Itoa(pid)) || !st.s.Status().Unreapable {
			t.Errorf("Run returned %v with %d frozen, status %+v", st.err, pid, st.s.Status())
		}
		thaw()
		eventually(t, "it dies", func() bool { return !alive(pid) })
	})
}

// Restarts leave nothing behind: no goroutine, file, thread or zombie.
func TestSupervisorRestartsLeaveNothing(t *testing.T) {
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
	st := setStage(t, "exit", func(c *Config) { c.timing.backoffMax = c.timing.backoffMin })
	for n := range uint64(restarts) {
		eventually(t, "restarts", func() bool { return st.s.Status().Restarts[restartExit] > n })
		if n == warmUp {
			_, _, threads = counts()
		}
	}
	_, filesNow, threadsNow := counts()
	// While one sampler runs, it has its pipes and its statm file, besides what
	// the runtime opens for polling. Threads are kept by the runtime.
	if filesNow > files+12 || threadsNow > threads+4 {
		t.Errorf("after %d restarts: %d files (%d before the first), %d threads (%d after %d restarts)",
			restarts, filesNow, files, threadsNow, threads, warmUp)
	}
	st.stop()
	eventually(t, "the goroutines are as many as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	if _, filesNow, _ = counts(); filesNow > files+4 { // the poller's are kept
		t.Errorf("%d files are open, %d were before", filesNow, files)
	}
	d, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range d {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if state, parent, ok := procStat(pid); ok && parent == os.Getpid() {
				t.Errorf("child %d is left in state %c", pid, state)
			}
		}
	}
}
