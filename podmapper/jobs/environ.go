// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package jobs

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/proc"
)

// environment has the variables that Slurm sets for the processes that it starts,
// see the output environment variables of sbatch(1) and srun(1), src/common/env.c
// and src/plugins/gres/common/gres_common.c.
type environment struct {
	job               Job // without Source
	sluid             string
	hetSize           int         // number of components of a heterogeneous job
	jobGPUs, stepGPUs []int       // nil: not set
	visible           []device.ID // UUIDs in CUDA_VISIBLE_DEVICES
}

const (
	// maxEnvironBytes bounds an environment. Slurm's variables precede those of the
	// user's shell. sbatch sends up to 3 MiB, but real environments are far smaller.
	maxEnvironBytes  = 1 << 20
	maxVariableBytes = 1024 // of a variable in use
	maxGPUs          = 256  // of a list of GPUs
)

// parseEnviron parses /proc/<pid>/environ. It keeps no variables but Slurm's.
func parseEnviron(content []byte) environment {
	var e environment
	texts := map[string]*string{
		"SLURM_JOB_ID":        &e.job.ID,
		"SLURM_JOB_SLUID":     &e.sluid,
		"SLURM_JOB_UID":       &e.job.UID,
		"SLURM_JOB_USER":      &e.job.User,
		"SLURM_JOB_ACCOUNT":   &e.job.Account,
		"SLURM_JOB_PARTITION": &e.job.Partition,
		"SLURM_JOB_NAME":      &e.job.Name,
	}
	for variable := range bytes.SplitSeq(content, []byte{0}) {
		key, value, ok := bytes.Cut(variable, []byte{'='})
		if !ok || len(value) > maxVariableBytes {
			continue
		}
		text := string(value)
		switch string(key) {
		case "SLURM_HET_SIZE":
			e.hetSize, _ = strconv.Atoi(text) // 0 if malformed
		case "SLURM_JOB_GPUS":
			e.jobGPUs = parseNumbers(text)
		case "SLURM_STEP_GPUS":
			e.stepGPUs = parseNumbers(text)
		case "CUDA_VISIBLE_DEVICES":
			e.visible = parseVisible(text)
		default:
			if field := texts[string(key)]; field != nil && isText(text) {
				*field = text
			}
		}
	}
	for _, id := range []*string{&e.job.ID, &e.job.UID} {
		if _, err := strconv.ParseUint(*id, 10, 32); err != nil {
			*id = ""
		}
	}
	return e
}

// parseNumbers parses a list such as 0,2,3. It returns nil for anything else,
// because Slurm did not write it.
func parseNumbers(list string) []int {
	var numbers []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || len(numbers) == maxGPUs {
			return nil
		}
		numbers = append(numbers, int(n))
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// parseVisible parses CUDA_VISIBLE_DEVICES if it has only complete UUIDs. Numbers
// depend on the process, and CUDA accepts the start of a UUID, which is ambiguous.
func parseVisible(list string) []device.ID {
	var ids []device.ID
	for s := range strings.SplitSeq(list, ",") {
		id, replica := device.ParseID(s)
		complete := false
		switch id.Form {
		case device.FormGPUUUID, device.FormMIGUUID:
			complete = len(id.UUID) == len("GPU-")+36
		case device.FormMIGPath:
			complete = true
		}
		if !complete || replica != "" || len(ids) == maxGPUs {
			return nil
		}
		ids = append(ids, id)
	}
	return ids
}

// isOf reports whether the environment is of a process of the job. Components of a
// heterogeneous job have consecutive IDs, but all environments have the first ID
// (src/slurmd/slurmstepd/task.c).
func (e environment) isOf(job cgroup.SlurmJob) bool {
	if job.SLUID != "" {
		return e.sluid == job.SLUID
	}
	if e.job.ID == job.ID {
		return e.job.ID != ""
	}
	first, err1 := strconv.ParseUint(e.job.ID, 10, 32)
	id, err2 := strconv.ParseUint(job.ID, 10, 32)
	return err1 == nil && err2 == nil && id > first && id-first < uint64(max(e.hetSize, 0))
}

// devices returns the devices of a step on this node.
//
// SLURM_JOB_GPUS has the devices of the job on the node of its batch or interactive
// step. Steps on different nodes inherit it, so it is valid only in these two.
// SLURM_STEP_GPUS has the devices of a step on its own node. Only
// CUDA_VISIBLE_DEVICES names MIG devices, by UUID.
func (e environment) devices(step string) []device.ID {
	numbers := e.stepGPUs
	if step == "batch" || step == "interactive" {
		numbers = e.jobGPUs
	}
	if numbers == nil {
		return nil // Slurm granted no GPU
	}
	mig := slices.ContainsFunc(e.visible, func(id device.ID) bool { return id.Form != device.FormGPUUUID })
	if mig || len(e.visible) == len(numbers) {
		return e.visible
	}
	// There are no UUIDs, or the user removed some.
	ids := make([]device.ID, len(numbers))
	for i, n := range numbers {
		ids[i] = device.ID{Form: device.FormSlurm, Number: n}
	}
	return ids
}

// readEnviron reads the environment of a process. The read takes the process's
// mmap_lock and may swap in its stack, so it hangs with a hung process, and no signal
// ends it.
func readEnviron(procRoot string, id proc.ID) (environment, error) {
	p, err := proc.Open(procRoot, id.PID)
	if err != nil {
		return environment{}, err
	}
	defer p.Close()
	if p.ID != id {
		return environment{}, proc.ErrGone
	}
	content, err := p.Read("environ", maxEnvironBytes)
	if err != nil {
		return environment{}, err
	}
	if len(content) == maxEnvironBytes {
		content = content[:bytes.LastIndexByte(content, 0)+1] // drop the truncated variable
	}
	return parseEnviron(content), nil
}
