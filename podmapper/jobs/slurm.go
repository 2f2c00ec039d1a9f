// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/proc"
)

// Bounds of one scan of Slurm's cgroups.
const (
	maxSlurmRoots = 16
	maxSlurmJobs  = 1024
	maxStepDirs   = 16384 // directories below those of jobs
	maxDepth      = 4     // of them: step, user, task, and a spare level
	// maxReads bounds the environments read in one scan. The next scans remember
	// them.
	maxReads     = 256
	maxProcesses = 32 // of a task, to find the oldest
	// maxTries bounds the reads of a process without Slurm's variables: it may be a
	// copy of slurmstepd that becomes the user's program.
	maxTries      = 3
	maxProcsBytes = 1 << 20 // of cgroup.procs and devices.list

	environTimeout  = time.Second
	maxEnvironReads = 4 // concurrent, including those that timed out
)

// slurmTree finds the jobs of this node in Slurm's cgroups. They are
//
//	v1: <controller>/slurm[_<node>]/uid_<uid>/job_<id>/step_<step>[/task_<n>]
//	v2: <slice>/[<node>_]slurmstepd.scope/(job_<id>|<SLUID>)/step_<step>/user/task_<n>
//
// (src/plugins/cgroup/v1/xcgroup.c and v2/cgroup_v2.c, cgroup_v2.html). With cgroup
// v1, devices.list may contain the GPUs of a job. With v2 a BPF program has them,
// which is not readable. The environment that Slurm gives to the first process of each
// task also has them, but the job can rewrite it, so it only makes devices unknown.
type slurmTree struct {
	cgroupRoot, procRoot string
	required             bool // the absence of Slurm is an error
	names                bool // keep the names of users and jobs
	readEnviron          func(procRoot string, id proc.ID) (environment, error)
	timeout              time.Duration // of reading an environment
	slots                chan struct{} // held by reads of environments

	// processes are those of the last scan, so that each environment is read once.
	processes map[proc.ID]*slurmProcess
}

type slurmProcess struct {
	environment environment
	tries       int
	err         error        // of the last try
	pending     *environRead // a read that timed out; it may never end
}

type environRead struct {
	environment environment
	err         error
	done        chan struct{}
}

var (
	errBlocked = poll.WithReason(reasonBlocked, errors.New("reading the environment timed out"))
	errNoSlot  = fmt.Errorf("%w for too many processes", errBlocked)
)

func newSlurmTree(cgroupRoot, procRoot string, required bool) *slurmTree {
	return &slurmTree{
		cgroupRoot: cgroupRoot,
		procRoot:   procRoot,
		required:   required,

		readEnviron: readEnviron,

		timeout:   environTimeout,
		slots:     make(chan struct{}, maxEnvironReads),
		processes: make(map[proc.ID]*slurmProcess),
	}
}

// roots finds Slurm's own directories, which have those of jobs (v2) or users (v1).
func (s *slurmTree) roots() []string {
	// v2, alone or in a hybrid set-up. CgroupSlice may be nested.
	alternatives := [][]string{{
		"*.slice/*slurmstepd.scope", "*.slice/*.slice/*slurmstepd.scope",
		"unified/*.slice/*slurmstepd.scope", "unified/*.slice/*.slice/*slurmstepd.scope",
	}}
	// v1: each controller has the same jobs, and devices also has their GPUs.
	for _, controller := range []string{"devices", "freezer", "memory", "cpuset", "cpu,cpuacct", "cpuacct"} {
		alternatives = append(alternatives, []string{controller + "/slurm", controller + "/slurm_*"})
	}
	var roots []string
	for _, patterns := range alternatives {
		for _, pattern := range patterns {
			paths, _ := filepath.Glob(filepath.Join(s.cgroupRoot, pattern)) // fails only for a malformed pattern
			roots = append(roots, slices.DeleteFunc(paths, func(path string) bool {
				info, err := os.Stat(path)
				return err != nil || !info.IsDir()
			})...)
		}
		if len(roots) > 0 {
			break
		}
	}
	return roots[:min(len(roots), maxSlurmRoots)]
}

// nodeOf returns Slurm's node name in the name of a root. It is empty unless Slurm is
// built for several slurmd per host.
func nodeOf(name string) string {
	if node, ok := strings.CutSuffix(name, "slurmstepd.scope"); ok {
		return strings.TrimSuffix(node, "_")
	}
	if node, ok := strings.CutPrefix(name, "slurm_"); ok {
		return node
	}
	return ""
}

var errNoSlurm = fmt.Errorf("no cgroup of Slurm: %w", fs.ErrNotExist)

// scan is one scan of the tree.
type scan struct {
	*slurmTree
	ctx   context.Context
	found *reading
	jobs  map[cgroup.SlurmJob]*jobFacts
	alive int // jobs
	dirs  int // below jobs
	reads int // of environments
	seen  map[proc.ID]*slurmProcess
	known int // environments that are read, by this scan or an earlier one
	// The causes of an incomplete scan.
	tooMany    bool
	unreadable map[poll.Reason]error // environments
}

// jobFacts collects what is known of a job.
type jobFacts struct {
	key     cgroup.SlurmJob
	alive   bool // it has processes
	job     Job  // from the environments of its processes; the first one wins
	devices []device.ID
	// minors are the GPUs that the kernel allows, if they are known and not all that
	// Slurm itself may use. Otherwise Slurm may not constrain devices.
	minors      []int
	constrained bool
}

// read scans all jobs. A failure of one job does not affect the others.
func (s *slurmTree) read(ctx context.Context) (*reading, error) {
	roots := s.roots()
	found := &reading{source: SourceSlurm, slurm: make(map[slurmKey]Job), found: len(roots) > 0}
	if !found.found && s.required {
		clear(s.processes)
		return nil, errNoSlurm
	}
	c := &scan{
		slurmTree:  s,
		ctx:        ctx,
		found:      found,
		jobs:       make(map[cgroup.SlurmJob]*jobFacts),
		seen:       make(map[proc.ID]*slurmProcess),
		unreadable: make(map[poll.Reason]error),
	}
	var failed error
	for _, root := range roots {
		if err := c.scanRoot(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = cmp.Or(failed, err)
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if failed != nil && c.alive == 0 {
		return nil, failed
	}
	s.processes = c.seen
	// Without a permission or the host's PIDs, nothing is known of any job.
	for _, reason := range []poll.Reason{poll.Forbidden, reasonNoHostPIDs} {
		if err := c.unreadable[reason]; err != nil && c.known == 0 {
			return nil, poll.WithReason(reason, err)
		}
	}
	for _, facts := range c.jobs {
		if facts.alive { // Slurm does not always remove the cgroups of ended jobs
			found.addSlurmJob(facts)
		}
	}
	if failed != nil {
		found.addProblem(s.cgroupRoot, failed)
	}
	if c.tooMany {
		found.addProblem(s.cgroupRoot, poll.WithReason(reasonTooMany, errors.New("more jobs, steps or processes of Slurm than one scan reads")))
	}
	for reason, err := range c.unreadable {
		found.addProblem("environ", poll.WithReason(reason, err))
	}
	found.incomplete = len(found.problems) > 0 // any of them may hide a device
	return found, nil
}

func (r *reading) addSlurmJob(facts *jobFacts) {
	key, job := facts.key, facts.job
	job.ID = cmp.Or(key.ID, job.ID, key.SLUID)
	job.UID = cmp.Or(key.UID, job.UID)
	r.slurm[keyOf(key)] = job

	devices, claimed := facts.devices, true
	// A job with MIG devices also has the device file of their GPU.
	mig := slices.ContainsFunc(devices, func(id device.ID) bool {
		return id.Form == device.FormMIGUUID || id.Form == device.FormMIGPath
	})
	if facts.constrained && !mig {
		devices, claimed = nil, false
		for _, n := range facts.minors {
			devices = append(devices, device.ID{Form: device.FormDeviceName, Number: n})
		}
	}
	for _, id := range devices {
		r.holds = append(r.holds, Hold{id, job, claimed})
	}
}

// scanRoot scans the jobs of one slurmd.
func (c *scan) scanRoot(root string) error {
	inherited, _ := c.readGPUs(root)
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case c.ctx.Err() != nil:
			return c.ctx.Err()
		case err != nil && path == root:
			return err
		case err != nil:
			return fs.SkipDir // the job has ended
		case !entry.IsDir() || path == root:
			return nil
		}
		key := cgroup.SlurmJob{Node: nodeOf(filepath.Base(root))}
		parts := strings.Split(path[len(root)+1:], "/") // [uid_<uid>/]job_<id>/step_<step>/…
		if uid, ok := strings.CutPrefix(parts[0], "uid_"); ok {
			key.UID = uid
			if parts = parts[1:]; len(parts) == 0 {
				return nil
			}
		}
		job, ok := cgroup.ParseSlurmDir(parts[0])
		if !ok {
			return fs.SkipDir
		}
		key.ID, key.SLUID = job.ID, job.SLUID
		if len(parts) > 1 {
			return c.scanStep(path, parts[1:], c.jobs[key])
		}
		if c.alive >= maxSlurmJobs {
			c.tooMany = true
			return fs.SkipDir
		}
		facts := &jobFacts{key: key, job: Job{Source: SourceSlurm}}
		c.jobs[key] = facts
		minors, known := c.readGPUs(path)
		facts.minors, facts.constrained = minors, known && !slices.Equal(minors, inherited)
		c.readPIDs(path, facts)
		return nil
	})
}

// scanStep scans a directory of a step. parts is its path below that of the job.
func (c *scan) scanStep(path string, parts []string, facts *jobFacts) error {
	step, ok := strings.CutPrefix(parts[0], "step_")
	if !ok {
		return fs.SkipDir
	}
	if c.dirs >= maxStepDirs || len(parts) > maxDepth {
		c.tooMany = true
		return fs.SkipDir
	}
	c.dirs++
	pids := c.readPIDs(path, facts)
	if parts[len(parts)-1] == "slurm" {
		return fs.SkipDir // slurmstepd
	}
	// The extern step has only a sleep, without variables, and adopted logins.
	if step != "extern" {
		c.scanTask(pids, step, facts)
	}
	return nil
}

// scanTask uses the oldest process of a task that has the job's environment, which
// is the one that Slurm started. User programs can change the environments of later
// processes.
func (c *scan) scanTask(pids []int, step string, facts *jobFacts) {
	if len(pids) > maxProcesses {
		pids = pids[:maxProcesses] // v1 sorts PIDs, v2 lists older ones first
	}
	var ids []proc.ID
	for _, pid := range pids {
		if p, err := proc.Open(c.procRoot, pid); err == nil {
			ids = append(ids, p.ID)
			p.Close()
		}
	}
	slices.SortFunc(ids, func(a, b proc.ID) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
	})
	for _, id := range ids {
		if e := c.environ(id); e.isOf(facts.key) {
			if !c.names {
				e.job.User, e.job.Name = "", ""
			}
			facts.job.complete(e.job)
			facts.devices = append(facts.devices, e.devices(step)...)
			break
		}
	}
}

// environ returns the environment of a process. It reads it once.
func (c *scan) environ(id proc.ID) environment {
	p := c.processes[id]
	if p == nil {
		p = &slurmProcess{}
	}
	c.seen[id] = p
	timeout := time.Duration(0) // of a read by an earlier scan
	if p.pending == nil && p.environment.job.ID == "" && p.tries < maxTries {
		if c.reads >= maxReads {
			c.tooMany = true
			return p.environment
		}
		c.reads++
		timeout = c.timeout
		p.pending, p.err = c.startRead(id)
	}
	if p.pending != nil {
		p.await(c.ctx, timeout)
	}
	if p.tries > 0 {
		c.known++
	}
	if p.err != nil && c.ctx.Err() == nil {
		if reason := reasonOf(SourceSlurm, p.err); c.unreadable[reason] == nil {
			c.unreadable[reason] = fmt.Errorf("environment of process %d: %w", id.PID, p.err)
		}
	}
	return p.environment
}

// startRead reads an environment in a goroutine that may never end.
func (s *slurmTree) startRead(id proc.ID) (*environRead, error) {
	select {
	case s.slots <- struct{}{}:
	default:
		return nil, errNoSlot
	}
	read := &environRead{done: make(chan struct{})}
	go func() {
		read.environment, read.err = s.readEnviron(s.procRoot, id)
		close(read.done)
		<-s.slots
	}()
	return read, nil
}

// await waits for the pending read.
func (p *slurmProcess) await(ctx context.Context, timeout time.Duration) {
	select {
	case <-p.pending.done:
	case <-time.After(timeout):
	case <-ctx.Done():
	}
	select {
	case <-p.pending.done:
		p.environment, p.err = p.pending.environment, p.pending.err
		p.pending = nil
	default:
		p.err = errBlocked
		return
	}
	if p.err == nil {
		p.tries++
	} else if errors.Is(p.err, proc.ErrGone) {
		p.err = nil
	}
}

// readGPUs reads the GPUs in devices.list of a v1 cgroup.
func (c *scan) readGPUs(path string) (minors []int, known bool) {
	content, err := proc.ReadFile(filepath.Join(path, "devices.list"), maxProcsBytes)
	if err != nil {
		return nil, false // a different controller, or the job has ended
	}
	minors, known, err = parseDeviceList(string(content))
	if err != nil {
		c.found.addProblem(path, err)
	}
	return minors, known
}

// readPIDs returns the PIDs of a cgroup of a job. 0 is a process outside of the
// exporter's PID namespace. cgroup.procs of a threaded v2 domain is unreadable, but
// its children have theirs.
func (c *scan) readPIDs(dir string, facts *jobFacts) []int {
	content, err := proc.ReadFile(filepath.Join(dir, "cgroup.procs"), maxProcsBytes)
	if err != nil {
		return nil
	}
	var pids []int
	for _, field := range strings.Fields(string(content)) {
		if pid, err := strconv.Atoi(field); err == nil && pid >= 0 {
			pids = append(pids, pid)
		}
	}
	if len(pids) > 0 && !facts.alive {
		facts.alive = true
		c.alive++
	}
	if slices.Contains(pids, 0) && c.unreadable[reasonNoHostPIDs] == nil {
		c.unreadable[reasonNoHostPIDs] = fmt.Errorf("processes in %s are not in the exporter's PID namespace", dir)
	}
	return pids
}
