// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package cgroup tells in which container, pod and Slurm job a process runs,
// from the paths of its control groups (cgroup v1, v2, and both at once).
//
// It reads /proc/<pid>/cgroup and /proc/<pid>/stat and nothing else. It knows
// neither pods nor devices: what a pod UID or a container ID belongs to is for
// others to say.
package cgroup

// Names of runtimes, as Kubernetes writes them in container IDs where it knows
// them.
const (
	RuntimeContainerd = "containerd"
	RuntimeCRIO       = "cri-o"
	RuntimeDocker     = "docker"
	RuntimePodman     = "podman"
	RuntimeNspawn     = "systemd-nspawn"
)

// Place is where a process runs. What the paths do not say is empty.
type Place struct {
	// Container is the innermost one; zero outside of containers.
	Container
	// Outer are the containers around it, the innermost first: the pod's one
	// around a container that Docker runs in it, a kind node around its pods.
	// Almost always empty.
	Outer []Container
	// Job is the Slurm job. A process can be in a job and in a container, and
	// either can be around the other.
	Job SlurmJob
}

// Container is one container.
type Container struct {
	// Runtime is one of the constants above; empty where a path has an ID only,
	// as all of them do under the cgroupfs driver.
	Runtime string
	// ContainerID has 64 hexadecimal digits; the machine's name for
	// systemd-nspawn. Empty for a process of a pod that is in none of its
	// containers.
	ContainerID string
	// PodUID is that of the pod around the container. For a static pod it is
	// the UID that the kubelet gave it, often 32 hexadecimal digits, and not
	// that of its mirror pod in the API server, whose annotation
	// kubernetes.io/config.mirror has it.
	PodUID string
}

// SlurmJob is a job of Slurm, as far as the paths say.
type SlurmJob struct {
	// ID is the job's number. Empty where only the SLUID is known.
	ID string
	// SLUID is "s" and 13 characters. Slurm 26.05 and newer name the job's
	// cgroup with it unless CgroupJobIdPaths=yes is in cgroup.conf.
	SLUID string
	// Step is a number ("0", "0+1" in a heterogeneous job), "batch", "extern"
	// or "interactive".
	Step string
	// UID is the number of the job's user. Only cgroup v1 tells.
	UID string
	// Node is the name of the node in Slurm. Only a Slurm that was built for
	// several slurmd on one host tells.
	Node string
}

// NoContainer says whether the process is in no container and no pod.
func (p Place) NoContainer() bool { return p.Container == Container{} }

// NoJob says whether the process is in no Slurm job.
func (p Place) NoJob() bool { return p.Job.ID == "" && p.Job.SLUID == "" }
