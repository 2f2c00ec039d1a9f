// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/docker"
	"gpu_exporter/podmapper/dra"
	"gpu_exporter/podmapper/jobs"
	"gpu_exporter/podmapper/metadata"
)

func (o *Owners) addKubernetes() error {
	c := o.cfg
	if !c.Kubernetes {
		return nil
	}
	idType, err := device.ParseIDType(c.GPUIDType)
	if err != nil {
		return err
	}
	mapping := podmapper.Config{
		Socket: c.KubeletSocket, ResourceNames: c.ResourceNames, IDType: idType, DRA: c.DRA, Node: c.Host(), Self: podmapper.OwnPod(), Logger: o.log,
	}
	if c.DRA {
		if o.published, err = dra.New(dra.Config{Kubeconfig: c.Kubeconfig, Node: c.Host(), Logger: o.log}); err != nil {
			return fmt.Errorf("setting up the reading of ResourceSlices: %w", err)
		}
		o.sources = append(o.sources, o.published)
		mapping.AdminAccess = o.published.AdminAccess
	}
	o.mapper, err = podmapper.New(mapping)
	if err != nil {
		return fmt.Errorf("setting up the pod mapping: %w", err)
	}
	o.sources = append(o.sources, o.mapper)
	return o.addMetadata()
}

// addMetadata sets up the store of pods. Usage needs it for the UIDs that
// identify the pod of a process.
func (o *Owners) addMetadata() error {
	c := o.cfg
	sources := map[string]metadata.Source{config.MetadataKubelet: metadata.SourcePodsAPI, config.MetadataAPIServer: metadata.SourceAPIServer}
	want := metadata.Want{Workload: c.Workload, UID: c.PodUID}
	var err error
	if c.PodLabels {
		if want.Labels, err = metadata.ParseAllowlist(c.LabelAllow); err != nil {
			return fmt.Errorf("reading the allowlist of pod labels: %w", err)
		}
	}
	if len(c.AnnotationAllow) > 0 {
		if want.Annotations, err = metadata.ParseAllowlist(c.AnnotationAllow); err != nil {
			return fmt.Errorf("reading the allowlist of pod annotations: %w", err)
		}
	}
	if want.Labels == nil && want.Annotations == nil && !want.Workload && !want.UID && !o.usage() {
		return nil
	}
	o.pods, err = metadata.New(metadata.Config{
		Node:       c.Host(),
		PodsSocket: c.PodsSocket,
		Kubeconfig: c.Kubeconfig,
		LogDir:     c.PodLogs, ContainerLogDir: filepath.Join(filepath.Dir(c.PodLogs), "containers"),
		Want:   want,
		Source: sources[c.MetadataSource], // none: the store decides
		Logger: o.log,
	})
	if err != nil {
		return fmt.Errorf("setting up the reading of pod metadata: %w", err)
	}
	o.sources = append(o.sources, o.pods)
	return nil
}

func (o *Owners) addJobs() (err error) {
	c := o.cfg
	if c.HPCDir == "" && c.SlurmMode() == config.SlurmOff {
		return nil
	}
	o.jobs, err = jobs.New(jobs.Config{Dir: c.HPCDir, Slurm: jobs.SlurmMode(c.SlurmMode()), UserNames: c.SlurmUserNames, CgroupRoot: c.CgroupFS, ProcRoot: c.ProcFS, Logger: o.log})
	if err != nil {
		return fmt.Errorf("setting up the reading of jobs: %w", err)
	}
	o.sources = append(o.sources, o.jobs)
	return nil
}

func (o *Owners) addDocker() error {
	c := o.cfg
	if c.DockerSocket == "" {
		return nil
	}
	engine := docker.Config{Socket: c.DockerSocket, Self: docker.OwnContainer(), Logger: o.log}
	var err error
	if len(c.DockerLabels) > 0 {
		if engine.KeepLabel, err = metadata.ParseAllowlist(c.DockerLabels); err != nil {
			return fmt.Errorf("reading the allowlist of container labels: %w", err)
		}
	}
	if o.engine, err = docker.New(engine); err != nil {
		return fmt.Errorf("setting up the Docker engine: %w", err)
	}
	o.sources = append(o.sources, o.engine)
	return nil
}

// addProcesses sets up the reading of processes if the host's process IDs are
// visible. In another PID namespace the driver hides the processes, so every pod
// would appear to use nothing.
func (o *Owners) addProcesses() {
	c := o.cfg
	reader := cgroup.NewReader(c.ProcFS)
	host, err := reader.HostPIDs()
	if c.Simulate == "" && host {
		// The sampler calls the driver from the exporter's own namespace.
		host, err = cgroup.NewReader("").HostPIDs()
	}
	if host {
		o.processes = reader
		return
	}
	level := slog.LevelWarn
	if !o.usage() && c.Slurm == config.SlurmAuto {
		level = slog.LevelDebug
	}
	o.log.Log(context.Background(), level, "Processes are not attributed: the exporter does not see the host's process IDs",
		"procfs", c.ProcFS, "err", err, "hint", "set hostPID: true, or --no-kubernetes.pod-usage")
}
