// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package cgroup finds the container, pod and Slurm job of a process from the
// paths of its control groups (cgroup v1, v2 and hybrid).
//
// It must read only /proc/<pid>/cgroup and /proc/<pid>/stat, and must not run on
// the scrape path. It knows neither pods nor devices: callers resolve pod UIDs
// and container IDs.
package cgroup

// Names of runtimes, as in Kubernetes container IDs if Kubernetes supports them.
const (
	RuntimeContainerd = "containerd"
	RuntimeCRIO       = "cri-o"
	RuntimeDocker     = "docker"
	RuntimePodman     = "podman"
	RuntimeNspawn     = "systemd-nspawn"
)

// Place is the container and job of a process. Fields are empty if the paths do
// not contain them.
type Place struct {
	// Container is the innermost container; zero outside of containers.
	Container
	// Outer are the enclosing containers, innermost first. Example: a pod's
	// container in which Docker runs, or a kind node. Almost always empty.
	Outer []Container
	// Job is the Slurm job. Jobs can run in containers, and containers in jobs.
	Job SlurmJob
}

// Container is one container.
type Container struct {
	// Runtime is one of the constants above. It is empty if the path has only an
	// ID, as always with the cgroupfs driver.
	Runtime string
	// ContainerID has 64 hexadecimal digits, or is the machine name for
	// systemd-nspawn. It is empty for a process in a pod but in no container.
	ContainerID string
	// PodUID is the UID of the enclosing pod. For a static pod it is the
	// kubelet's UID, which the mirror pod has as the annotation
	// kubernetes.io/config.mirror.
	PodUID string
}

// SlurmJob is a Slurm job, as far as its cgroup path describes it.
type SlurmJob struct {
	// ID is the job number. It is empty if the path has only the SLUID.
	ID string
	// SLUID is "s" and 13 characters. Slurm 26.05 and later name the job's cgroup
	// after it, unless cgroup.conf has CgroupJobIdPaths=yes.
	SLUID string
	// Step is a number ("0", "0+1" in a heterogeneous job), "batch", "extern" or
	// "interactive".
	Step string
	// UID is the numeric user ID of the job. Only cgroup v1 paths have it.
	UID string
	// Node is Slurm's node name. Only builds for several slurmd per host have it.
	Node string
}

// NoContainer reports whether the process is in no container and no pod.
func (p Place) NoContainer() bool { return p.Container == Container{} }

// NoJob reports whether the process is in no Slurm job.
func (p Place) NoJob() bool { return p.Job.ID == "" && p.Job.SLUID == "" }
