// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
)

// Bounds of one look at Slurm's cgroups.
const (
	maxSlurmRoots = 16
	maxSlurmJobs  = 1024
	maxStepDirs   = 16384 // directories below those of jobs
	maxDepth      = 4     // of them: step, user, task, and one to spare
	// The environments that one look reads, which the next ones then remember,
	// and the processes of a task among which the oldest is looked for.
	maxReads     = 256
	maxProcesses = 32
	// maxTries is how often a process that says nothing is asked: it may be on
	// the way from slurmstepd to the user's program.
	maxTries = 3
	// maxProcsBytes bounds what is read of a cgroup.procs and a devices.list.
	maxProcsBytes = 1 << 20
)

// slurmTree finds the jobs of this node in Slurm's cgroups. They are
//
//	v1: <controller>/slurm[_<node>]/uid_<uid>/job_<id>/step_<step>[/task_<n>]
//	v2: <slice>/[<node>_]slurmstepd.scope/(job_<id>|<SLUID>)/step_<step>/user/task_<n>
//
// (src/plugins/cgroup/v1/xcgroup.c and v2/cgroup_v2.c, cgroup_v2.html). Which
// GPUs a job has is in its devices.list with cgroup v1, sometimes; with v2 it is
// in a BPF program, which is not read. Otherwise the environment tells that
// Slurm gave the first process of each task, also while the job uses no GPU.
type slurmTree struct {
	cgroupRoot, procRoot string
	patterns             []string // of Slurm's own directories; empty: the usual ones
	required             bool     // not finding any is an error
	environ              *environReader

	// seen are the processes of the last look, so that each is read once.
	seen map[process]*seenProcess
}

type seenProcess struct {
	environment environment
	tries       int
	err         error // of the last try
}

// done says whether the process need not be read again.
func (s *seenProcess) done() bool { return s.environment.hasAnything || s.tries >= maxTries }

func newSlurmTree(cgroupRoot, procRoot string, patterns []string, required bool) *slurmTree {
	return &slurmTree{
		cgroupRoot: cgroupRoot,
		procRoot:   procRoot,
		patterns:   patterns,
		required:   required,
		environ:    newEnvironReader(procRoot),
		seen:       make(map[process]*seenProcess),
	}
}

// slurmRoot is a directory that has those of jobs, or of users with jobs.
type slurmRoot struct {
	path string
	node string
}

// roots finds Slurm's own directories.
func (s *slurmTree) roots() ([]slurmRoot, error) {
	var paths []string
	add := func(patterns ...string) error {
		for _, pattern := range patterns {
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(s.cgroupRoot, pattern)
			}
			found, err := filepath.Glob(pattern)
			if err != nil {
				return fmt.Errorf("cgroups of Slurm %q: %w", pattern, err)
			}
			paths = append(paths, found...)
		}
		return nil
	}
	if len(s.patterns) > 0 {
		if err := add(s.patterns...); err != nil {
			return nil, err
		}
	} else {
		// v2, and v2 beside v1; CgroupSlice may be a slice in a slice.
		for _, base := range []string{"", "unified"} {
			for _, slice := range []string{"*.slice", "*.slice/*.slice"} {
				if err := add(filepath.Join(base, slice, "*slurmstepd.scope")); err != nil {
					return nil, err
				}
			}
		}
		// v1: the same jobs in each controller that Slurm uses. One is enough,
		// and devices says more than others.
		for _, controller := range []string{"devices", "freezer", "memory", "cpuset", "cpu,cpuacct", "cpuacct"} {
			if len(paths) > 0 {
				break
			}
			if err := add(filepath.Join(controller, "slurm"), filepath.Join(controller, "slurm_*")); err != nil {
				return nil, err
			}
		}
	}
	var roots []slurmRoot
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() && len(roots) < maxSlurmRoots {
			roots = append(roots, slurmRoot{path: path, node: nodeOf(filepath.Base(path))})
		}
	}
	return roots, nil
}

// nodeOf gives the node's name that is in the name of one of Slurm's
// directories, if Slurm was built for several slurmd.
func nodeOf(name string) string {
	if node, ok := strings.CutSuffix(name, "slurmstepd.scope"); ok {
		return strings.TrimSuffix(node, "_")
	}
	node, ok := strings.CutPrefix(name, "slurm_")
	if !ok {
		return ""
	}
	return node
}

// errNoSlurm counts as an absence, not as a failure to look.
var errNoSlurm = fmt.Errorf("no cgroup of Slurm: %w", fs.ErrNotExist)

// look is one look at the tree.
type look struct {
	*slurmTree
	ctx   context.Context
	found *reading
	dirs  int // that were opened below jobs
	reads int // of environments
	asked map[process]*seenProcess
	holds map[Hold]bool
	// What kept it from being complete.
	tooMany    bool
	unreadable map[Reason]error // environments, by reason
}

// read looks at all jobs. It never fails for the sake of one of them.
func (s *slurmTree) read(ctx context.Context) (reading, error) {
	roots, err := s.roots()
	if err != nil {
		return reading{}, err
	}
	found := reading{slurm: make(map[slurmKey]Job)}
	if len(roots) == 0 {
		clear(s.seen)
		if s.required {
			return reading{}, errNoSlurm
		}
		return found, nil
	}
	found.found = true
	l := &look{
		slurmTree:  s,
		ctx:        ctx,
		found:      &found,
		asked:      make(map[process]*seenProcess),
		holds:      make(map[Hold]bool),
		unreadable: make(map[Reason]error),
	}
	var failed error
	for _, root := range roots {
		found.roots = append(found.roots, root.path)
		if err := l.root(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = cmp.Or(failed, err)
		}
	}
	if ctx.Err() != nil {
		return reading{}, ctx.Err()
	}
	if failed != nil && len(found.slurm) == 0 {
		return reading{}, failed
	}
	if failed != nil {
		found.problem(s.cgroupRoot, treeReason(failed), failed)
	}
	s.seen = l.asked
	for hold := range l.holds {
		found.holds = append(found.holds, hold)
	}
	if l.tooMany {
		found.problem(s.cgroupRoot, ReasonTooMany, errors.New("more jobs, steps or processes of Slurm than are looked at"))
	}
	for reason, err := range l.unreadable {
		found.problem("environ", reason, err)
	}
	found.incomplete = len(found.problems) > 0 // whatever failed, it may have told of a device
	return found, nil
}

func treeReason(err error) Reason {
	if errors.Is(err, fs.ErrPermission) {
		return ReasonForbidden
	}
	return ReasonUnreadable
}

// root looks at the jobs of one slurmd.
func (l *look) root(root slurmRoot) error {
	entries, err := readDir(root.path)
	if err != nil {
		return err
	}
	around, _ := l.gpuFiles(root.path)
	for _, entry := range entries {
		path := filepath.Join(root.path, entry)
		uid, ok := strings.CutPrefix(entry, "uid_")
		if !ok {
			l.job(path, root.node, "", around)
			continue
		}
		jobs, err := readDir(path)
		if err != nil {
			continue // its last job has ended
		}
		for _, name := range jobs {
			l.job(filepath.Join(path, name), root.node, uid, around)
		}
	}
	return nil
}

// job looks at the directory of a job. around are the GPUs that Slurm itself may
// use.
func (l *look) job(path, node, uid string, around []int) {
	key, ok := cgroup.ParseSlurmDir(filepath.Base(path))
	if !ok || l.ctx.Err() != nil {
		return
	}
	if len(l.found.slurm) >= maxSlurmJobs {
		l.tooMany = true
		return
	}
	key.Node, key.UID = node, uid
	facts := jobFacts{of: key, job: Job{Source: SourceSlurm}}
	steps, err := readDir(path)
	if err != nil {
		return // it has ended
	}
	for _, name := range steps {
		if step, ok := strings.CutPrefix(name, "step_"); ok {
			l.step(filepath.Join(path, name), step, 1, &facts)
		}
	}
	if !facts.alive && !l.hasProcesses(path) {
		return // Slurm does not always remove the cgroups of a job that has ended
	}
	job := facts.job
	job.ID = cmp.Or(key.ID, job.ID, key.SLUID)
	job.UID = cmp.Or(uid, job.UID)
	l.found.slurm[keyOf(key)] = job

	refs := facts.devices
	if minors, told := l.gpuFiles(path); told && !slices.Equal(minors, around) && !facts.mig() {
		// What the kernel enforces. With the same GPUs as Slurm itself the job
		// may have all of them, or Slurm may not constrain devices.
		refs = nil
		for _, n := range minors {
			refs = append(refs, DeviceRef{Kind: RefID, ID: podmapper.DeviceID{Form: podmapper.FormDeviceName, Number: n}})
		}
	}
	for _, ref := range refs {
		l.holds[Hold{ref, job}] = true
	}
}

// jobFacts is what is gathered of a job.
type jobFacts struct {
	of      cgroup.SlurmJob
	alive   bool
	job     Job // what the environments of its processes say, the first one first
	devices []DeviceRef
}

// describe adds what an environment says of the job.
func (j *Job) describe(e environment) {
	j.ID = cmp.Or(j.ID, e.jobID)
	j.UID = cmp.Or(j.UID, e.uid)
	j.User = cmp.Or(j.User, e.user)
	j.Account = cmp.Or(j.Account, e.account)
	j.Partition = cmp.Or(j.Partition, e.partition)
	j.Name = cmp.Or(j.Name, e.name)
}

// mig says whether the job has MIG devices. The device file of the GPU around
// them is then the job's too.
func (f *jobFacts) mig() bool {
	return slices.ContainsFunc(f.devices, func(d DeviceRef) bool {
		return d.ID.Form == podmapper.FormMIGUUID || d.ID.Form == podmapper.FormMIGPath
	})
}

// step looks at a directory of a step, and those below it.
func (l *look) step(path, step string, depth int, facts *jobFacts) {
	if l.dirs >= maxStepDirs || depth > maxDepth {
		l.tooMany = true
		return
	}
	l.dirs++
	// A cgroup around threaded ones (v2) cannot be read; those below it count.
	pids, _ := readProcs(path)
	facts.alive = facts.alive || len(pids) > 0
	if slices.Contains(pids, 0) && l.unreadable[ReasonNoHostPIDs] == nil {
		l.unreadable[ReasonNoHostPIDs] = fmt.Errorf("processes in %s are not in the exporter's PID namespace", path)
	}
	// The extern step has a sleep, which knows nothing, and what was adopted from
	// logins.
	if step != "extern" {
		l.task(pids, step, facts)
	}
	below, err := readDir(path)
	if err != nil {
		return
	}
	for _, name := range below {
		if name == "slurm" {
			continue // slurmstepd
		}
		l.step(filepath.Join(path, name), step, depth+1, facts)
	}
}

// task asks the oldest of the processes of a task that knows its job: the one
// that Slurm started. Later ones have what the user's program gave them.
func (l *look) task(pids []int, step string, facts *jobFacts) {
	if len(pids) > maxProcesses {
		pids = pids[:maxProcesses] // v1 sorts them, and v2 has the older ones first
	}
	var processes []process
	for _, pid := range pids {
		if pid == 0 {
			continue
		}
		if start, err := startTime(l.procRoot, pid); err == nil {
			processes = append(processes, process{pid, start})
		}
	}
	slices.SortFunc(processes, func(a, b process) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.pid, b.pid))
	})
	for _, p := range processes {
		e := l.ask(p)
		if !e.of(facts.of) {
			continue
		}
		facts.job.describe(e)
		facts.devices = append(facts.devices, e.devices(step)...)
		break
	}
}

// ask gives the environment of a process, as it was read in an earlier look if
// there was one.
func (l *look) ask(p process) environment {
	s := l.seen[p]
	if s == nil {
		s = &seenProcess{}
	}
	l.asked[p] = s
	switch {
	case s.done():
	case l.reads >= maxReads:
		l.tooMany = true
	default:
		l.reads++
		s.environment, s.err = l.environ.read(l.ctx, p)
		switch {
		case s.err == nil:
			s.tries++
		case errors.Is(s.err, errGone):
			s.err = nil
		}
	}
	if s.err != nil && l.ctx.Err() == nil {
		reason := treeReason(s.err)
		if errors.Is(s.err, errBlocked) {
			reason = ReasonBlocked
		}
		if l.unreadable[reason] == nil {
			l.unreadable[reason] = fmt.Errorf("environment of process %d: %w", p.pid, s.err)
		}
	}
	return s.environment
}

// gpuFiles gives the GPUs of a cgroup v1's list of devices.
func (l *look) gpuFiles(path string) (minors []int, told bool) {
	content, err := readBounded(filepath.Join(path, "devices.list"))
	if err != nil {
		return nil, false // not the controller devices, or ended
	}
	minors, told, err = parseDeviceList(content)
	if err != nil {
		l.found.problem(path, ReasonUnreadable, err)
		return nil, false
	}
	return minors, told
}

// hasProcesses: with cgroup v1 a job's own directory may have some.
func (l *look) hasProcesses(path string) bool {
	pids, err := readProcs(path)
	if err == nil && len(pids) > 0 {
		return true
	}
	// slurmstepd alone, before the first task.
	procs, _ := filepath.Glob(filepath.Join(path, "step_*", "slurm"))
	return slices.ContainsFunc(procs, func(dir string) bool {
		pids, err := readProcs(dir)
		return err == nil && len(pids) > 0
	})
}

func startTime(procRoot string, pid int) (uint64, error) {
	content, err := readBounded(filepath.Join(procRoot, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	stat, err := cgroup.ParseStat(content)
	return stat.Start, err
}

// readProcs gives the processes of a cgroup. 0 is one that the reader's PID
// namespace does not have.
func readProcs(dir string) ([]int, error) {
	content, err := readBounded(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(content) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid >= 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func readBounded(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxProcsBytes))
	return string(content), err
}

// readDir gives the names of the directories in a directory, sorted.
func readDir(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
