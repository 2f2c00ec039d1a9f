// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"bytes"
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
	"sync"
	"syscall"
	"time"

	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
)

// environment is what a process's environment says of its Slurm job. Slurm
// gives it to the processes that it starts; see the section on output
// environment variables in sbatch(1) and srun(1), src/common/env.c and
// src/plugins/gres/common/gres_common.c.
type environment struct {
	jobID, sluid                         string
	uid, user, account, partition, name  string
	jobGPUs, stepGPUs                    []int
	visible                              []podmapper.DeviceID // UUIDs in CUDA_VISIBLE_DEVICES
	hetSize                              int                  // jobs in a heterogeneous job
	hasJobGPUs, hasStepGPUs, hasAnything bool
}

const (
	// maxEnvironBytes bounds what is read of an environment. Slurm's variables
	// stand before those that the user's shell adds; sbatch sends 3 MiB at most,
	// but such an environment has never been seen.
	maxEnvironBytes = 1 << 20
	// maxVariableBytes bounds a variable that is used.
	maxVariableBytes = 1024
	// maxGPUs bounds a list of GPUs.
	maxGPUs = 256
)

// parseEnviron takes the content of a /proc/<pid>/environ apart. It keeps
// nothing but the variables that it looks for.
func parseEnviron(content []byte) environment {
	var e environment
	for variable := range bytes.SplitSeq(content, []byte{0}) {
		key, value, ok := bytes.Cut(variable, []byte{'='})
		if !ok || len(value) > maxVariableBytes {
			continue
		}
		var text *string
		switch string(key) {
		case "SLURM_JOB_ID":
			text = &e.jobID
		case "SLURM_JOB_SLUID":
			text = &e.sluid
		case "SLURM_JOB_UID":
			text = &e.uid
		case "SLURM_JOB_USER":
			text = &e.user
		case "SLURM_JOB_ACCOUNT":
			text = &e.account
		case "SLURM_JOB_PARTITION":
			text = &e.partition
		case "SLURM_JOB_NAME":
			text = &e.name
		case "SLURM_HET_SIZE":
			e.hetSize, _ = strconv.Atoi(string(value)) // zero is as good as none
		case "SLURM_JOB_GPUS":
			e.jobGPUs, e.hasJobGPUs = parseNumbers(string(value))
		case "SLURM_STEP_GPUS":
			e.stepGPUs, e.hasStepGPUs = parseNumbers(string(value))
		case "CUDA_VISIBLE_DEVICES":
			e.visible = parseVisible(string(value))
		}
		if text != nil && isText(string(value)) {
			*text = string(value)
		}
	}
	for _, id := range []*string{&e.jobID, &e.uid} {
		if _, err := strconv.ParseUint(*id, 10, 32); err != nil {
			*id = ""
		}
	}
	e.hasAnything = e.jobID != ""
	return e
}

// parseNumbers takes a list such as 0,2,3. With anything else in it, it is not
// Slurm's, and is not used.
func parseNumbers(list string) ([]int, bool) {
	var numbers []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || len(numbers) == maxGPUs {
			return nil, false
		}
		numbers = append(numbers, int(n))
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), true
}

// parseVisible gives the devices of a CUDA_VISIBLE_DEVICES that has nothing but
// whole UUIDs. Numbers in it depend on the process; what CUDA also takes, the
// beginning of a UUID, means no certain device.
func parseVisible(list string) []podmapper.DeviceID {
	var ids []podmapper.DeviceID
	for s := range strings.SplitSeq(list, ",") {
		id, replica := podmapper.ParseDeviceID(s)
		whole := false
		switch id.Form {
		case podmapper.FormGPUUUID, podmapper.FormMIGUUID:
			whole = len(id.UUID) == len("GPU-")+36
		case podmapper.FormMIGPath:
			whole = true
		}
		if !whole || replica != "" || len(ids) == maxGPUs {
			return nil
		}
		ids = append(ids, id)
	}
	return ids
}

// of says whether the environment is that of a process of the job. A
// heterogeneous job has a number for each component; the environment has the
// first (src/slurmd/slurmstepd/task.c).
func (e environment) of(job cgroup.SlurmJob) bool {
	if job.SLUID != "" {
		return e.sluid == job.SLUID
	}
	if e.jobID == job.ID {
		return e.jobID != ""
	}
	first, err1 := strconv.ParseUint(e.jobID, 10, 32)
	id, err2 := strconv.ParseUint(job.ID, 10, 32)
	return err1 == nil && err2 == nil && id > first && id-first < uint64(max(e.hetSize, 0))
}

// devices gives the devices of the job's step on this node.
//
// SLURM_JOB_GPUS has those of the job on the node of the batch or interactive
// step; a step on another node has it too, from there, so that it is only good
// in those two. SLURM_STEP_GPUS has those of the step, on each node its own.
// Neither names a MIG device, which CUDA_VISIBLE_DEVICES does, by UUID.
func (e environment) devices(step string) []DeviceRef {
	numbers, ok := e.stepGPUs, e.hasStepGPUs
	if step == "batch" || step == "interactive" {
		numbers, ok = e.jobGPUs, e.hasJobGPUs
	}
	if !ok {
		return nil // no GPU, whatever the user made visible
	}
	var refs []DeviceRef
	mig := slices.ContainsFunc(e.visible, func(id podmapper.DeviceID) bool { return id.Form != podmapper.FormGPUUUID })
	if mig || len(e.visible) == len(numbers) {
		for _, id := range e.visible {
			refs = append(refs, DeviceRef{Kind: RefID, ID: id})
		}
		return refs
	}
	// No UUIDs, or the user has narrowed what Slurm wrote.
	for _, n := range numbers {
		refs = append(refs, DeviceRef{Kind: RefSlurm, Number: n})
	}
	return refs
}

// environReader reads environments of processes.
//
// That needs the process's mmap_lock, and may have to read the process's stack
// back from swap. It hangs with a process that hangs, in a way that no signal
// ends, so each read is a goroutine (and then a thread) that may be left behind,
// and there is a fixed number of them.
type environReader struct {
	procRoot string
	timeout  time.Duration
	places   chan struct{}

	mu    sync.Mutex
	stuck map[process]bool // being read for longer than the timeout
}

// process is one process, also if its ID is given to another.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
}

const (
	environTimeout = time.Second
	maxEnvironRead = 4 // at once, those left behind included
)

var (
	errGone    = errors.New("the process is gone")
	errBlocked = errors.New("its environment could not be read in time")
	// errBusy: too many processes are blocked already.
	errBusy = fmt.Errorf("%w, as those of other processes could not", errBlocked)
)

func newEnvironReader(procRoot string) *environReader {
	return &environReader{
		procRoot: procRoot,
		timeout:  environTimeout,
		places:   make(chan struct{}, maxEnvironRead),
		stuck:    make(map[process]bool),
	}
}

// read reads the environment of a process, or gives up after a while.
func (r *environReader) read(ctx context.Context, p process) (environment, error) {
	r.mu.Lock()
	stuck := r.stuck[p]
	r.mu.Unlock()
	if stuck {
		return environment{}, errBlocked
	}
	select {
	case r.places <- struct{}{}:
	default:
		return environment{}, errBusy
	}
	type result struct {
		environment
		error
	}
	done := make(chan result, 1)
	go func() {
		e, err := readEnviron(r.procRoot, p)
		done <- result{e, err}
		r.mu.Lock()
		delete(r.stuck, p)
		r.mu.Unlock()
		<-r.places
	}()
	timer := time.NewTimer(r.timeout)
	defer timer.Stop()
	select {
	case got := <-done:
		return got.environment, got.error
	case <-timer.C:
	case <-ctx.Done():
		return environment{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case got := <-done: // after all
		return got.environment, got.error
	default:
		r.stuck[p] = true
	}
	return environment{}, errBlocked
}

func readEnviron(procRoot string, p process) (environment, error) {
	// As in cgroup.Reader: all that is read below dir is of one process.
	dir, err := os.OpenRoot(filepath.Join(procRoot, strconv.Itoa(p.pid)))
	if err != nil {
		return environment{}, processError(err)
	}
	defer func() { _ = dir.Close() }()
	stat, err := readStat(dir)
	if err != nil {
		return environment{}, processError(err)
	}
	if stat.Start != p.start {
		return environment{}, errGone
	}
	file, err := dir.Open("environ")
	if err != nil {
		return environment{}, processError(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxEnvironBytes))
	if err != nil {
		return environment{}, processError(err)
	}
	if len(content) == maxEnvironBytes {
		content = content[:bytes.LastIndexByte(content, 0)+1] // the last variable is cut off
	}
	return parseEnviron(content), nil
}

func readStat(dir *os.Root) (cgroup.Stat, error) {
	file, err := dir.Open("stat")
	if err != nil {
		return cgroup.Stat{}, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, 4<<10))
	if err != nil {
		return cgroup.Stat{}, err
	}
	return cgroup.ParseStat(string(content))
}

// processError marks the errors of a process that has ended.
func processError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}
