// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/proc"
)

const (
	migUUID = "MIG-265a219d-a49f-578a-825d-222c72699c16"
	gpuUUID = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"
)

// node is a node with cgroups and processes, of ordinary files.
type node struct {
	t             *testing.T
	cgroups, proc string
}

func newNode(t *testing.T) *node { return &node{t, t.TempDir(), t.TempDir()} }

func (n *node) write(path, content string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// cgroup makes a cgroup with processes, and its parents without any.
func (n *node) cgroup(path string, pids ...int) {
	n.t.Helper()
	if dir := filepath.Dir(path); dir != "." {
		if _, err := os.Stat(filepath.Join(n.cgroups, dir, "cgroup.procs")); err != nil {
			n.cgroup(dir)
		}
	}
	var b strings.Builder
	for _, pid := range pids {
		fmt.Fprintln(&b, pid)
	}
	n.write(filepath.Join(n.cgroups, path, "cgroup.procs"), b.String())
}

// devices writes the devices.list of a v1 cgroup.
func (n *node) devices(path string, lines ...string) {
	n.t.Helper()
	n.write(filepath.Join(n.cgroups, path, "devices.list"), strings.Join(lines, "\n")+"\n")
}

// process makes a process. Its start time is its PID.
func (n *node) process(pid int, environ ...string) {
	n.t.Helper()
	dir := filepath.Join(n.proc, strconv.Itoa(pid))
	n.write(filepath.Join(dir, "stat"), fmt.Sprintf("%d (train) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", pid, pid))
	n.write(filepath.Join(dir, "environ"), strings.Join(environ, "\x00")+"\x00")
}

func (n *node) remove(path string) {
	n.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tree() *slurmTree { return newSlurmTree(n.cgroups, n.proc, false) }

func scanOnce(t *testing.T, s *slurmTree) *reading {
	t.Helper()
	found, err := s.read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wantHolds scans once and compares the holds.
func wantHolds(t *testing.T, s *slurmTree, want ...string) *reading {
	t.Helper()
	found := scanOnce(t, s)
	if got := texts(found.holds); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	return found
}

const scope = "system.slice/slurmstepd.scope"

func TestSlurmV2(t *testing.T) {
	n := newNode(t)
	n.cgroup(scope+"/system", 90)
	n.process(90)
	// An idle batch job with an adopted login.
	n.cgroup(scope+"/job_42/step_batch/slurm", 100)
	n.cgroup(scope+"/job_42/step_batch/user/task_0", 102, 101) // not in the order of start times
	n.cgroup(scope+"/job_42/step_extern/user/task_0", 99)
	n.process(99, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=7", "SLURM_STEP_GPUS=7")
	n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=7")
	n.process(101, "PATH=/bin", "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=1,2", "SLURM_JOB_USER=ada", "SLURM_JOB_UID=1000",
		"SLURM_JOB_ACCOUNT=physics", "SLURM_JOB_PARTITION=a100", "SLURM_JOB_NAME=train me", "CUDA_VISIBLE_DEVICES=0,1")
	n.process(102, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=5", "SLURM_JOB_USER=mallory")
	// A job with only steps on this node. Each step has its own GPUs.
	n.cgroup(scope+"/job_43/step_0/user/task_0", 110)
	n.cgroup(scope+"/job_43/step_0/user/task_1", 111)
	n.cgroup(scope+"/job_43/step_1/user/task_0", 112)
	n.process(110, "SLURM_JOB_ID=43", "SLURM_JOB_GPUS=6", "SLURM_STEP_GPUS=0", "SLURM_JOB_USER=bob") // JOB_GPUS is from the batch host
	n.process(111, "SLURM_JOB_ID=43", "SLURM_JOB_GPUS=6", "SLURM_STEP_GPUS=3", "SLURM_JOB_PARTITION=a100")
	n.process(112, "SLURM_JOB_ID=43", "SLURM_JOB_GPUS=6") // a step without GPUs
	// An interactive step that shares GPU 1.
	n.cgroup(scope+"/job_44/step_interactive/user/task_0", 120)
	n.process(120, "SLURM_JOB_ID=44", "SLURM_JOB_GPUS=1")
	// A job without GPUs.
	n.cgroup(scope+"/job_45/step_batch/user/task_0", 130)
	n.process(130, "SLURM_JOB_ID=45", "CUDA_VISIBLE_DEVICES="+gpuUUID)
	// An ended job whose cgroup Slurm did not remove.
	n.cgroup(scope + "/job_46/step_batch/user/task_0")
	// A starting job with slurmstepd only.
	n.cgroup(scope+"/job_47/step_batch/slurm", 140)
	n.process(140)

	tree := n.tree()
	for _, job := range scanOnce(t, n.tree()).slurm {
		if job.User != "" || job.Name != "" {
			t.Errorf("the names of job %s are kept: %+v", job.ID, job)
		}
	}
	tree.names = true
	found := wantHolds(t, tree,
		"Slurm GPU 0: 43?", "Slurm GPU 1: 42?", "Slurm GPU 1: 44?", "Slurm GPU 2: 42?", "Slurm GPU 3: 43?")
	if !found.found || len(found.problems) != 0 || !slices.Equal(tree.roots(), []string{filepath.Join(n.cgroups, scope)}) {
		t.Errorf("found %v in %v, problems %v", found.found, tree.roots(), found.problems)
	}
	want := map[slurmKey]Job{
		{id: "42"}: {ID: "42", UID: "1000", User: "ada", Account: "physics", Partition: "a100", Name: "train me", Source: SourceSlurm},
		{id: "43"}: {ID: "43", User: "bob", Partition: "a100", Source: SourceSlurm},
		{id: "44"}: {ID: "44", Source: SourceSlurm},
		{id: "45"}: {ID: "45", Source: SourceSlurm},
		{id: "47"}: {ID: "47", Source: SourceSlurm},
	}
	if !reflect.DeepEqual(found.slurm, want) {
		t.Errorf("jobs %+v\nwant %+v", found.slurm, want)
	}
}

// TestSlurmForms has the variants of directories and environments.
func TestSlurmForms(t *testing.T) {
	for _, tt := range []struct {
		name    string
		dir     string // of the task
		environ []string
		want    []string
	}{
		{"several slurmd", "system.slice/node7_slurmstepd.scope/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"custom slice", "hpc.slice/slurmstepd.scope/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"own slice in a slice", "hpc.slice/hpc-gpu.slice/slurmstepd.scope/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"hybrid", "unified/system.slice/slurmstepd.scope/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"SLUID", scope + "/sEKNKTV3WPV500/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_SLUID=sEKNKTV3WPV500", "SLURM_JOB_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"SLUID of a different run", scope + "/sEKNKTV3WPV500/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_SLUID=sEKNKTV3WPV501", "SLURM_JOB_GPUS=0"}, nil},
		{"v1, freezer", "freezer/slurm/uid_1000/job_42/step_batch",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"v1, several slurmd", "memory/slurm_node7/uid_1000/job_42/step_0/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_STEP_GPUS=0"}, []string{"Slurm GPU 0: 42?"}},
		{"heterogeneous, second component", scope + "/job_43/step_0+1/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_HET_SIZE=2", "SLURM_STEP_GPUS=0"}, []string{"Slurm GPU 0: 43?"}},
		{"environment of a different job", scope + "/job_43/step_0/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_STEP_GPUS=0"}, nil},
		{"MIG", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=3", "CUDA_VISIBLE_DEVICES=" + migUUID}, []string{migUUID + ": 42?"}},
		{"MIG before R470", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=3", "CUDA_VISIBLE_DEVICES=MIG-" + gpuUUID + "/3/0"}, []string{"MIG-" + gpuUUID + "/3/0: 42?"}},
		{"env_uuid in gres.conf", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=3", "CUDA_VISIBLE_DEVICES=" + gpuUUID}, []string{gpuUUID + ": 42?"}},
		{"reduced by the user", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=2,3", "CUDA_VISIBLE_DEVICES=" + gpuUUID}, []string{"Slurm GPU 2: 42?", "Slurm GPU 3: 42?"}},
		{"start of a UUID", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=3", "CUDA_VISIBLE_DEVICES=GPU-604ac76c"}, []string{"Slurm GPU 3: 42?"}},
		{"malformed list", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS=all"}, nil},
		{"empty list", scope + "/job_42/step_batch/user/task_0",
			[]string{"SLURM_JOB_ID=42", "SLURM_JOB_GPUS="}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.cgroup(tt.dir, 100)
			n.process(100, tt.environ...)
			if found := wantHolds(t, n.tree(), tt.want...); len(found.slurm) != 1 {
				t.Errorf("jobs %v", found.slurm)
			}
		})
	}
}

// TestSlurmDevicesList: with cgroup v1, devices.list has the GPUs of a job if the
// default is to deny devices, as in containers.
func TestSlurmDevicesList(t *testing.T) {
	const root = "devices/slurm/"
	common := []string{"c 1:3 rwm", "c 5:0 rw", "c 195:255 rwm", "c 195:254 rwm", "c 508:* rwm"}
	list := func(minors ...int) []string {
		lines := slices.Clone(common)
		for _, m := range minors {
			lines = append(lines, fmt.Sprintf("c 195:%d rwm", m))
		}
		return lines
	}
	newJob := func(n *node, id, pid int, environ string) string {
		dir := fmt.Sprintf("%suid_1000/job_%d", root, id)
		n.cgroup(dir+"/step_batch", pid)
		n.process(pid, fmt.Sprintf("SLURM_JOB_ID=%d", id), environ)
		return dir
	}

	t.Run("constrained", func(t *testing.T) {
		n := newNode(t)
		n.devices(root, list(0, 1, 2, 3)...)
		// Minor numbers may differ from the bus order, so they take precedence.
		n.devices(newJob(n, 42, 100, "SLURM_JOB_GPUS=0,1"), list(2, 3)...)
		n.devices(newJob(n, 43, 101, "X=y"), list(1)...)             // no variables
		n.devices(newJob(n, 44, 102, "SLURM_JOB_GPUS=3"), list()...) // inherited from the submitting shell
		n.devices(newJob(n, 45, 103, "SLURM_JOB_GPUS=0,1,2,3"), list(0, 1, 2, 3)...)
		wantHolds(t, n.tree(),
			"nvidia1: 43", "nvidia2: 42", "nvidia3: 42",
			"Slurm GPU 0: 45?", "Slurm GPU 1: 45?", "Slurm GPU 2: 45?", "Slurm GPU 3: 45?")
	})
	t.Run("not constrained", func(t *testing.T) {
		n := newNode(t)
		n.devices(root, list(0, 1)...)
		n.devices(newJob(n, 42, 100, "X=y"), list(0, 1)...) // no known GPU
		n.devices(newJob(n, 43, 101, "SLURM_JOB_GPUS=1"), list(0, 1)...)
		wantHolds(t, n.tree(), "Slurm GPU 1: 43?")
	})
	t.Run("everything is allowed", func(t *testing.T) {
		n := newNode(t)
		n.devices(root, "a *:* rwm")
		n.devices(newJob(n, 42, 100, "SLURM_JOB_GPUS=1"), "a *:* rwm")
		wantHolds(t, n.tree(), "Slurm GPU 1: 42?")
	})
	t.Run("MIG", func(t *testing.T) {
		n := newNode(t)
		n.devices(root, list(0, 1)...)
		dir := newJob(n, 42, 100, "SLURM_JOB_GPUS=4")
		n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=4", "CUDA_VISIBLE_DEVICES="+migUUID)
		n.devices(dir, list(1)...)
		wantHolds(t, n.tree(), migUUID+": 42?")
	})
	t.Run("malformed", func(t *testing.T) {
		n := newNode(t)
		n.devices(root, list(0, 1)...)
		n.devices(newJob(n, 42, 100, "SLURM_JOB_GPUS=1"), "malformed")
		if found := wantHolds(t, n.tree(), "Slurm GPU 1: 42?"); len(found.problems) != 1 {
			t.Errorf("problems %v", found.problems)
		}
	})
}

func TestParseDeviceList(t *testing.T) {
	for _, tt := range []struct {
		content string
		want    []int
		known   bool
		bad     bool
	}{
		{"a *:* rwm\n", nil, false, false},
		{"c 195:1 rwm\nc 195:0 rw\nb 8:0 rwm\nc 195:255 rwm\nc 1:3 rwm\nc 195:1 r\n", []int{0, 1}, true, false},
		{"c *:* m\nc 195:7 m\n", nil, true, false}, // only creation of device files
		{"c 195:* rwm\n", nil, false, false},
		{"c *:* rwm\n", nil, false, false},
		{"", nil, true, false},
		{"c 195:1\n", nil, false, true},
		{"c 195 rwm\n", nil, false, true},
		{"d 195:1 rwm\n", nil, false, true},
		{"c 195:x rwm\n", nil, false, true},
	} {
		got, known, err := parseDeviceList(tt.content)
		if !slices.Equal(got, tt.want) || known != tt.known || (err != nil) != tt.bad {
			t.Errorf("parseDeviceList(%q) = %v, %v, %v", tt.content, got, known, err)
		}
	}
}

// TestSlurmReadsEachProcessOnce checks that environments are cached.
func TestSlurmReadsEachProcessOnce(t *testing.T) {
	n := newNode(t)
	task := scope + "/job_42/step_batch/user/task_0"
	n.cgroup(task, 100)
	s := n.tree()

	// A copy of slurmstepd becomes the user's program.
	n.process(100, "PATH=/bin")
	wantHolds(t, s)
	n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=1")
	wantHolds(t, s, "Slurm GPU 1: 42?")
	n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=2")
	wantHolds(t, s, "Slurm GPU 1: 42?")

	// A different process with the same PID is read.
	n.process(100, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=3")
	n.write(filepath.Join(n.proc, "100/stat"), "100 (train) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 999 0 0\n")
	wantHolds(t, s, "Slurm GPU 3: 42?")

	// A process without the variables is read a bounded number of times.
	n.cgroup(task, 200)
	n.process(200, "PATH=/bin")
	for range maxTries {
		wantHolds(t, s)
	}
	n.process(200, "SLURM_JOB_ID=42", "SLURM_JOB_GPUS=1")
	wantHolds(t, s)

	// Ended processes are dropped from the cache.
	n.remove(filepath.Join(n.cgroups, scope, "job_42"))
	if found := wantHolds(t, s); !found.found || len(found.slurm) != 0 || len(s.processes) != 0 {
		t.Errorf("found %v, jobs %v, processes %v", found.found, found.slurm, s.processes)
	}
}

// TestSlurmProcessHangs imitates processes whose environment is not readable with
// FIFOs that have an idle writer.
func TestSlurmProcessHangs(t *testing.T) {
	n := newNode(t)
	const jobs = maxEnvironReads + 2
	for i := range jobs {
		n.cgroup(fmt.Sprintf("%s/job_%d/step_batch/user/task_0", scope, 42+i), 100+i)
		n.process(100+i, fmt.Sprintf("SLURM_JOB_ID=%d", 42+i), "SLURM_JOB_GPUS=1")
	}
	// The processes of all jobs except the first and the last hang.
	hanging := make([]proc.ID, maxEnvironReads)
	writers := make([]*os.File, maxEnvironReads)
	for i := range hanging {
		hanging[i] = proc.ID{PID: 101 + i, Start: uint64(101 + i)}
		fifo := filepath.Join(n.proc, strconv.Itoa(101+i), "environ")
		n.remove(fifo)
		if err := syscall.Mkfifo(fifo, 0o644); err != nil {
			t.Fatal(err)
		}
		var err error
		if writers[i], err = os.OpenFile(fifo, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
	}
	s := n.tree()
	s.timeout = time.Millisecond // any timeout is exceeded by a hung process
	blocked := func() (n int) {
		for _, id := range hanging {
			if p := s.processes[id]; p != nil && p.pending != nil {
				n++
			}
		}
		return n
	}

	// The others may exceed the short timeout as well, and are read later.
	for blocked() < len(hanging) {
		scanOnce(t, s)
	}
	found := scanOnce(t, s)
	if len(found.slurm) != jobs {
		t.Errorf("jobs %v", found.slurm)
	}
	if len(found.problems) != 1 || found.problems[0].Reason != reasonBlocked || !errors.Is(found.problems[0].Err, errBlocked) {
		t.Errorf("problems %v", found.problems)
	}
	if got := len(s.slots); got != maxEnvironReads {
		t.Errorf("%d readers, want the %d that hang", got, maxEnvironReads)
	}

	// The hung processes continue, and everything is read.
	for i, p := range hanging {
		writers[i].Close()
		n.remove(filepath.Join(n.proc, strconv.Itoa(p.PID), "environ"))
		n.process(p.PID, fmt.Sprintf("SLURM_JOB_ID=%d", p.PID-58), "SLURM_JOB_GPUS=1")
	}
	for range maxEnvironReads {
		s.slots <- struct{}{}
	}
	for range maxEnvironReads {
		<-s.slots
	}
	s.timeout = time.Minute
	scanOnce(t, s) // the results of the late reads, which are empty
	if found := scanOnce(t, s); len(found.holds) != jobs || len(found.problems) != 0 {
		t.Errorf("holds %v, problems %v", found.holds, found.problems)
	}
}

// TestSlurmUnreadable checks that the source fails where it can read no process of a job:
// without the host's PIDs, or without CAP_SYS_PTRACE. One readable process suffices.
func TestSlurmUnreadable(t *testing.T) {
	for name, tt := range map[string]struct {
		reason poll.Reason
		pid    int
	}{
		"a different PID namespace": {reasonNoHostPIDs, 0},
		"no permission":             {poll.Forbidden, 100},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.cgroup(scope+"/job_42/step_batch/user/task_0", tt.pid)
			n.process(100)
			tree := n.tree()
			tree.readEnviron = func(root string, id proc.ID) (environment, error) {
				if id.PID == 100 {
					return environment{}, &fs.PathError{Op: "read", Path: "environ", Err: syscall.EACCES}
				}
				return readEnviron(root, id)
			}
			f, _ := newFinder(t, Config{Slurm: SlurmOn, CgroupRoot: n.cgroups, ProcRoot: n.proc})
			f.sources[0].read = func(ctx context.Context) (*reading, time.Duration, error) {
				r, err := tree.read(ctx)
				return r, 0, err
			}
			if err := f.Refresh(t.Context()); poll.ReasonOf(err) != tt.reason {
				t.Errorf("error %v, want %s", err, tt.reason)
			}
			if s := f.Status().Slurm; s.Up || s.Known || s.Reason != tt.reason || s.Hint == "" || !s.Found {
				t.Errorf("status %+v", s)
			}
			n.cgroup(scope+"/job_43/step_batch/user/task_0", 101)
			n.process(101, "SLURM_JOB_ID=43")
			found := scanOnce(t, tree)
			if len(found.slurm) != 2 || len(found.problems) != 1 || found.problems[0].Reason != tt.reason || !found.incomplete {
				t.Errorf("with a readable process: jobs %v, problems %v", found.slurm, found.problems)
			}
		})
	}
}

func TestSlurmIsBounded(t *testing.T) {
	n := newNode(t)
	for i := range maxSlurmJobs + 1 {
		n.cgroup(fmt.Sprintf("%s/job_%d", scope, i+1), 1)
	}
	found := scanOnce(t, n.tree())
	if len(found.slurm) != maxSlurmJobs || !found.incomplete || len(found.problems) != 1 || found.problems[0].Reason != reasonTooMany {
		t.Errorf("%d jobs, problems %v", len(found.slurm), found.problems)
	}

	// The next scan continues with the environments beyond the bound of one scan.
	n = newNode(t)
	for i := range maxReads + 1 {
		n.cgroup(fmt.Sprintf("%s/job_%d/step_batch", scope, i+1), i+1)
		n.process(i+1, fmt.Sprintf("SLURM_JOB_ID=%d", i+1), "SLURM_JOB_GPUS=0")
	}
	s := n.tree()
	if found := scanOnce(t, s); len(found.holds) != maxReads || len(found.problems) != 1 || found.problems[0].Reason != reasonTooMany {
		t.Errorf("%d holds, problems %v", len(found.holds), found.problems)
	}
	if found := scanOnce(t, s); len(found.holds) != maxReads+1 || len(found.problems) != 0 {
		t.Errorf("%d holds, problems %v", len(found.holds), found.problems)
	}
}

// TestSlurmOnRealCgroups scans the cgroups of this machine.
func TestSlurmOnRealCgroups(t *testing.T) {
	tree := newSlurmTree(DefaultCgroupRoot, proc.DefaultRoot, false)
	found := scanOnce(t, tree)
	t.Logf("found %v, jobs %v, problems %v", tree.roots(), found.slurm, found.problems)
	if found.found != (len(tree.roots()) > 0) {
		t.Errorf("found %v in %v", found.found, tree.roots())
	}
}

func TestReadEnviron(t *testing.T) {
	n := newNode(t)
	n.process(100, "SLURM_JOB_ID=42")
	if e, err := readEnviron(n.proc, proc.ID{PID: 100, Start: 100}); err != nil || e.job.ID != "42" {
		t.Errorf("%+v, %v", e, err)
	}
	for name, p := range map[string]proc.ID{"exited": {PID: 101, Start: 101}, "reused PID": {PID: 100, Start: 99}} {
		if _, err := readEnviron(n.proc, p); !errors.Is(err, proc.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A variable that the bound truncates is not used.
	n.process(100, "SLURM_JOB_ID=42", "X="+strings.Repeat("x", maxEnvironBytes-2*16-4), "SLURM_JOB_GPUS=1,2,3,4,5")
	if e, err := readEnviron(n.proc, proc.ID{PID: 100, Start: 100}); err != nil || e.job.ID != "42" || e.jobGPUs != nil {
		t.Errorf("%+v, %v", e, err)
	}
	// The procfs of this machine.
	self, err := proc.Open(proc.DefaultRoot, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if _, err := readEnviron(proc.DefaultRoot, self.ID); err != nil {
		t.Errorf("own process: %v", err)
	}
}

func TestParseEnviron(t *testing.T) {
	long := strings.Repeat("x", maxVariableBytes+1)
	e := parseEnviron([]byte(strings.Join([]string{
		"SLURM_JOB_ID=4294967293", "SLURM_JOB_UID=x", "SLURM_JOB_NAME=" + long, "SLURM_JOB_USER=a\x01b", "SLURM_JOB_ACCOUNT=a=b",
		"SLURM_JOB_GPUS=3,1,1", "SLURM_STEP_GPUS=0-3", "CUDA_VISIBLE_DEVICES=" + strings.ToUpper(gpuUUID[4:]), "noequals", "=",
	}, "\x00")))
	want := environment{job: Job{ID: "4294967293", Account: "a=b"}, jobGPUs: []int{1, 3}}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("%+v\nwant %+v", e, want)
	}
}

func FuzzParseEnviron(f *testing.F) {
	f.Add([]byte("SLURM_JOB_ID=42\x00SLURM_JOB_GPUS=0,1\x00CUDA_VISIBLE_DEVICES="+migUUID+"\x00"), "42", "batch")
	f.Add([]byte("SLURM_JOB_ID=42\x00SLURM_HET_SIZE=-9\x00SLURM_STEP_GPUS=65535\x00"), "43", "0+1")
	f.Add([]byte("SLURM_JOB_NAME=\xff\x00=\x00\x00"), "", "")
	f.Fuzz(func(t *testing.T, content []byte, id, step string) {
		e := parseEnviron(content)
		for _, s := range []string{e.job.ID, e.sluid, e.job.UID, e.job.User, e.job.Account, e.job.Partition, e.job.Name} {
			if len(s) > maxVariableBytes || !isText(s) || !strings.Contains(string(content), s) {
				t.Errorf("text %q", s)
			}
		}
		if e.isOf(cgroup.SlurmJob{ID: id}) && e.job.ID == "" {
			t.Errorf("an environment without a job matches %q", id)
		}
		refs := e.devices(step)
		if len(refs) > maxGPUs {
			t.Errorf("%d devices", len(refs))
		}
		for _, r := range refs {
			if r.Form == device.FormUnknown || r.Form == device.FormDCGM {
				t.Errorf("device %+v", r)
			}
		}
	})
}

func FuzzParseDeviceList(f *testing.F) {
	f.Add("a *:* rwm\n")
	f.Add("c 195:0 rwm\nc 195:255 rwm\n")
	f.Add("c :: x\n\n \n")
	f.Fuzz(func(t *testing.T, content string) {
		minors, known, err := parseDeviceList(content)
		if len(minors) > 0 && (!known || err != nil) {
			t.Errorf("%v, %v, %v", minors, known, err)
		}
		for i, m := range minors {
			if m < 0 || m > maxMinor || i > 0 && m <= minors[i-1] {
				t.Errorf("%v", minors)
			}
		}
	})
}
