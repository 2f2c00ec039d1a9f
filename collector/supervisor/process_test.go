// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
)

// processTest is a supervisor of real processes that delivers to a real Node.
type processTest struct {
	t      *testing.T
	dir    string
	s      *Supervisor
	node   *state.Node
	logs   logRecords
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	samples atomic.Int64 // accepted ones
	driver  atomic.Value // string: driver version of the newest inventory
}

// startSupervisor runs a supervisor of samplers with the given behaviour until the test
// ends. change may be nil.
func startSupervisor(t *testing.T, behaviour string, change func(*Config)) *processTest {
	t.Helper()
	st := &processTest{t: t, dir: t.TempDir(), node: state.NewNode(slog.New(slog.DiscardHandler), &xid.Catalogue{}), done: make(chan struct{})}
	st.driver.Store("")
	cfg := Config{
		Command: samplerCommand(st.dir, behaviour),
		Logger:  slog.New(&st.logs),
		Records: &st.logs,
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
	st.s.Reconfigure(wire.SamplerConfig{Interval: 20 * time.Millisecond})
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
			t.Errorf("samplers %v ran at the same time as another one", overlap)
		}
		for _, pid := range st.notes("pids") {
			if alive(atoi(t, pid)) {
				t.Errorf("sampler %s still runs", pid)
			}
		}
	})
	return st
}

// stop ends the supervisor and returns the time until Run returned.
func (st *processTest) stop() time.Duration {
	begin := time.Now()
	st.cancel()
	select {
	case <-st.done:
	case <-time.After(2 * time.Minute):
		st.t.Fatal("Run does not return")
	}
	return time.Since(begin)
}

// notes returns the words that samplers wrote to a file.
func (st *processTest) notes(file string) []string {
	b, err := os.ReadFile(filepath.Join(st.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		st.t.Error(err)
	}
	return strings.Fields(string(b))
}

// moreSamples waits for n more accepted samples.
func (st *processTest) moreSamples(n int64) {
	st.t.Helper()
	want := st.samples.Load() + n
	eventually(st.t, "samples arrive", func() bool { return st.samples.Load() >= want })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for: %s", what)
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

// alive reports whether a process exists and is not a zombie.
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
	st := startSupervisor(t, "healthy", nil)
	begin := time.Now()
	st.moreSamples(20)
	status := st.s.Status()
	if !status.Running || !alive(status.PID) || status.Unreapable || !status.NextStart.IsZero() ||
		status.Started.After(time.Now()) || status.Started.Before(begin.Add(-time.Minute)) || status.LastFailure != (model.Failure{}) {
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
	// The sampler was allowed to exit by itself.
	if eof := st.notes("eof"); !slices.Equal(eof, []string{strconv.Itoa(status.PID)}) {
		t.Errorf("samplers %v saw the end of standard input, want %d", eof, status.PID)
	}
	if st.err != nil {
		t.Errorf("Run: %v", st.err)
	}
}

// A node without GPUs is valid.
func TestSupervisorRunsWithoutGPU(t *testing.T) {
	st := startSupervisor(t, "no GPU", nil)
	st.moreSamples(500) // takes 10 s, longer than the limit on silence
	if n := len(st.notes("pids")); n != 1 {
		t.Errorf("%d samplers were started, want 1", n)
	}
}

// A faulty sampler is replaced and the reason reported, and samples continue.
func TestSupervisorRestarts(t *testing.T) {
	for behaviour, c := range map[string]struct {
		reason   string
		rejected string // a reason for rejected frames
		message  string
	}{
		"hangs":                      {restartTimeout, "", "the sampler sent no frame for "},
		"exits":                      {restartExit, "", "exit status 3"},
		"Go fault":                   {restartCrash, "", "exit status 2"},
		"native fault":               {restartCrash, "", "segmentation fault"},
		"garbage":                    {restartBadFrame, rejectBadFrame, "exceeds the limit"},
		"truncated frame, continues": {restartBadFrame, rejectBadFrame, "bad frame"},
		"truncated frame, exits":     {restartExit, rejectBadFrame, "exit status 0 in the middle of a frame"},
		"child":                      {restartExit, "", "exit status 3"},
		"exits at start":             {restartExit, "", "exit status 3"},
	} {
		t.Run(behaviour, func(t *testing.T) {
			st := startSupervisor(t, "once "+behaviour, nil)
			eventually(t, "the first is replaced", func() bool { return st.s.Status().Restarts[c.reason] == 1 })
			failure := st.s.Status().LastFailure
			st.moreSamples(20)
			if failure.Reason != c.reason || !strings.Contains(failure.Message, c.message) {
				t.Errorf("failure %+v, want %s with %q", failure, c.reason, c.message)
			}
			status := st.s.Status()
			if c.rejected != "" && status.FramesRejected[c.rejected] == 0 {
				t.Errorf("rejected frames %v, want reason %s", status.FramesRejected, c.rejected)
			}
			pids := st.notes("pids")
			if !status.Running || len(pids) != 2 || pids[0] == pids[1] || strconv.Itoa(status.PID) != pids[1] {
				t.Errorf("samplers %v, status %+v", pids, status)
			}
			for _, child := range st.notes("child") {
				if alive(atoi(t, child)) {
					t.Errorf("child %s of the first sampler still runs", child)
				}
			}
			if !strings.Contains(st.logs.String(), "reason="+c.reason) {
				t.Errorf("the reason is missing from the log:\n%s", &st.logs)
			}
		})
	}
}

// The stack trace that the Go runtime prints for a fault is logged.
func TestSupervisorLogsTraceOfCrash(t *testing.T) {
	st := startSupervisor(t, "once fault", nil)
	eventually(t, "the crash", func() bool { return st.s.Status().Restarts[restartCrash] == 1 })
	eventually(t, "a trace in the log", func() bool {
		log := st.logs.String()
		return strings.Contains(log, "nil pointer dereference") && strings.Contains(log, "actors_test.go") &&
			strings.Contains(log, "component=dcgm")
	})
}

func TestSupervisorRestartsKilledSampler(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			st := startSupervisor(t, "healthy", nil)
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

// A stopped sampler reacts only to SIGKILL.
func TestSupervisorKillsStoppedSampler(t *testing.T) {
	st := startSupervisor(t, "healthy", nil)
	st.moreSamples(3)
	pid := st.s.Status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartTimeout] == 1 })
	st.moreSamples(20)
}

func TestSupervisorRestartsSamplerOfRejectedFrames(t *testing.T) {
	st := startSupervisor(t, "once future", func(c *Config) { c.timing.startup = c.timing.silence })
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartTimeout] >= 1 })
	failure := st.s.Status().LastFailure
	st.moreSamples(20)
	if n := st.s.Status().FramesRejected[model.RejectFuture]; n < 10 {
		t.Errorf("%d frames from the future counted, want at least 10", n)
	}
	if !strings.Contains(failure.Message, "were rejected, the last because of future") {
		t.Errorf("failure %+v", failure)
	}
	if n := st.logs.count(slog.LevelWarn, "Frame rejected"); n != 1 {
		t.Errorf("the rejection was logged %d times, want once", n)
	}
}

func TestSupervisorKillsSamplerThatNeverSamples(t *testing.T) {
	st := startSupervisor(t, "once no frames", func(c *Config) { c.timing.startup = c.timing.silence })
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartTimeout] >= 1 })
	st.moreSamples(20)
}

// While the library is missing, starts are retried. They succeed once it is installed.
func TestSupervisorWaitsForLibrary(t *testing.T) {
	st := startSupervisor(t, "library missing", nil)
	eventually(t, "retries", func() bool { return st.s.Status().Restarts[model.FailureLibraryMissing] >= 5 })
	if st.samples.Load() != 0 {
		t.Error("samples arrived without a library")
	}
	if n := st.logs.countFrom(slog.LevelInfo); n != 1 {
		t.Errorf("%d log lines, want one:\n%s", n, &st.logs)
	}
	if err := os.WriteFile(filepath.Join(st.dir, "library"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	st.moreSamples(20)
}

// The frames of a dead sampler are still delivered.
func TestSupervisorDrainsDeadSampler(t *testing.T) {
	st := startSupervisor(t, "once reports failure", func(c *Config) {
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

// A sampler that ignores the end of its standard input is killed.
func TestSupervisorStopsUnresponsiveSampler(t *testing.T) {
	st := startSupervisor(t, "ignores stdin", nil)
	st.moreSamples(3)
	pid := st.s.Status().PID
	if d := st.stop(); d < quick.stop {
		t.Errorf("Run returned after %v, the sampler had %v to exit", d, quick.stop)
	}
	if alive(pid) || st.err != nil {
		t.Errorf("sampler alive: %v, Run: %v", alive(pid), st.err)
	}
}

func TestSupervisorReplacesRunningSampler(t *testing.T) {
	for _, behaviour := range []string{"healthy", "ignores stdin"} {
		t.Run(behaviour, func(t *testing.T) {
			st := startSupervisor(t, behaviour, nil)
			st.moreSamples(3)
			st.s.Reconfigure(wire.SamplerConfig{Interval: 10 * time.Millisecond, Devices: "g:1"})
			eventually(t, "the new configuration", func() bool { return st.driver.Load() == "g:1" })
			st.moreSamples(20)
			if status := st.s.Status(); status.Restarts[restartReconfigured] != 1 || len(st.notes("pids")) != 2 {
				t.Errorf("status %+v", status)
			} // startSupervisor checks that the two did not overlap
		})
	}
}

func TestSupervisorReplacesLeakingSampler(t *testing.T) {
	const limit = 256 << 20
	st := startSupervisor(t, "once leak", func(c *Config) {
		c.MemoryLimit, c.timing.silence = limit, time.Minute // a busy machine may stop the sampler for seconds
	})
	eventually(t, "restart", func() bool { return st.s.Status().Restarts[restartMemory] == 1 })
	st.moreSamples(20)
	if n := len(st.notes("pids")); n != 2 {
		t.Errorf("%d samplers were started, want 2", n)
	}
}

// A flood of output delays no frames, and only a limited part of it is logged.
func TestSupervisorReadsFloodOfOutput(t *testing.T) {
	st := startSupervisor(t, "flood", nil)
	st.moreSamples(100)
	if n := len(st.notes("pids")); n != 1 {
		t.Errorf("%d samplers were started, want 1", n)
	}
	st.stop()
	if n := st.logs.countFrom(slog.LevelDebug); n > 2*outputLinesPerWindow {
		t.Errorf("%d log lines", n)
	}
	log := st.logs.String()
	for _, want := range []string{"a line of libdcgm", "truncated=true", "stream=stdout", "stream=stderr", "lines were dropped"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is missing from the log", want)
		}
	}
}

func TestSupervisorLogsOutput(t *testing.T) {
	st := startSupervisor(t, "log", nil)
	for _, want := range []string{
		`level=INFO msg="printed by the library" stream=stdout component=dcgm`,
		`level=ERROR msg="cannot watch" field=150`,
		`level=WARN msg="complained by the library" stream=stderr component=dcgm`,
	} {
		eventually(t, want, func() bool { return strings.Contains(st.logs.String(), want+"\n") })
	}
}

func TestSupervisorSetsEnvironment(t *testing.T) {
	st := startSupervisor(t, "env", func(c *Config) { c.Env = []string{"SUPERVISOR_TEST=on"} })
	st.moreSamples(1)
	if got := st.notes("env"); !slices.Equal(got, []string{"on"}) {
		t.Errorf("the sampler's variable is %q, want on", got)
	}
}

func TestSupervisorReportsMissingBinary(t *testing.T) {
	for name, command := range map[string][]string{"no such file": {filepath.Join(t.TempDir(), "gone")}, "no command": nil} {
		t.Run(name, func(t *testing.T) {
			st := startSupervisor(t, "", func(c *Config) { c.Command = command })
			eventually(t, "retries", func() bool { return st.s.Status().Restarts[restartStart] >= 3 })
		})
	}
}

// A process in a frozen cgroup of version 1 is like one stuck in a driver call: after
// SIGKILL it exists until it thaws.
func TestSupervisorWaitsForFrozenSampler(t *testing.T) {
	const root = "/sys/fs/cgroup/freezer"
	cgroup, err := os.MkdirTemp(root, "gpu_exporter_test")
	if err != nil {
		t.Skipf("cannot create a freezer cgroup of version 1: %v", err)
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
	freeze := func(st *processTest) int {
		t.Helper()
		st.moreSamples(3)
		pid := st.s.Status().PID
		put("cgroup.procs", strconv.Itoa(pid))
		put("freezer.state", "FROZEN")
		eventually(t, "the sampler is frozen", func() bool {
			b, _ := os.ReadFile(filepath.Join(cgroup, "freezer.state"))
			return strings.TrimSpace(string(b)) == "FROZEN"
		})
		return pid
	}
	thaw := func() { _ = os.WriteFile(filepath.Join(cgroup, "freezer.state"), []byte("THAWED"), 0) }
	t.Cleanup(thaw)

	t.Run("starts the next after it is gone", func(t *testing.T) {
		st := startSupervisor(t, "healthy", nil)
		pid := freeze(st)
		t.Cleanup(thaw)
		eventually(t, "the status reports it", func() bool { return st.s.Status().Unreapable })
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
	t.Run("Run returns", func(t *testing.T) {
		st := startSupervisor(t, "healthy", nil)
		pid := freeze(st)
		t.Cleanup(thaw) // before startSupervisor's check for running samplers
		st.stop()
		if st.err == nil || !strings.Contains(st.err.Error(), strconv.Itoa(pid)) || !st.s.Status().Unreapable {
			t.Errorf("Run returned %v with %d frozen, status %+v", st.err, pid, st.s.Status())
		}
		thaw()
		eventually(t, "the sampler exits", func() bool { return !alive(pid) })
	})
}
