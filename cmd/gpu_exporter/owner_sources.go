// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"gpu_exporter/collector"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/docker"
	"gpu_exporter/podmapper/dra"
	"gpu_exporter/podmapper/jobs"
	"gpu_exporter/podmapper/metadata"
)

// newOwners sets up the sources that the configuration asks for. It returns nil
// if it asks for none, and touches nothing yet.
func newOwners(c config, logger *slog.Logger) (*owners, error) {
	o := &owners{log: logger}
	if c.Kubernetes {
		if err := o.addKubernetes(c); err != nil {
			return nil, err
		}
	}
	mode, err := jobs.ParseSlurmMode(slurmMode(c))
	if err != nil {
		return nil, err
	}
	if c.HPCDir != "" || mode != jobs.SlurmOff {
		o.jobs, err = jobs.New(jobs.Config{Dir: c.HPCDir, Slurm: mode, CgroupRoot: c.CgroupFS, ProcRoot: c.ProcFS, Logger: logger})
		if err != nil {
			return nil, err
		}
	}
	if c.DockerSocket != "" {
		if err := o.addDocker(c); err != nil {
			return nil, err
		}
	}
	if o.mapper == nil && o.jobs == nil && o.engine == nil {
		return nil, nil
	}
	o.usage = c.Kubernetes && (c.PodUsage || c.VirtualGPUs)
	if o.usage || slurmMode(c) != slurmOff {
		o.addProcesses(c)
	}
	return o, nil
}

// addProcesses sets up the reading of processes, if the exporter sees those of
// the host. If not, the driver hides the processes of others from it, and all
// would seem to use nothing.
func (o *owners) addProcesses(c config) {
	l := newPlaces(c.ProcFS, o.podsNow)
	host, err := l.reader.HostPIDs()
	if c.Simulate == "" && host {
		// The sampler asks the driver from the exporter's own namespace.
		host, err = cgroup.NewReader("").HostPIDs()
	}
	if host {
		o.places = l
		return
	}
	level := slog.LevelWarn
	if !o.usage && c.Slurm == slurmAuto {
		level = slog.LevelDebug
	}
	o.log.Log(context.Background(), level, "The processes on devices are not looked at: the exporter does not see the process IDs of the host",
		"procfs", c.ProcFS, "err", err, "hint", "run it with hostPID: true, or with --no-"+optPodUsage)
}

func (o *owners) podsNow() *metadata.Pods {
	if o.pods == nil {
		return nil
	}
	return o.pods.Pods()
}

// noHostPIDs is why processes cannot be told to belong to anybody.
const noHostPIDs = "no_host_pids"

func (o *owners) addDocker(c config) error {
	config := docker.Config{Socket: c.DockerSocket, Self: docker.OwnContainer(), Logger: o.log}
	var err error
	if len(c.DockerLabels) > 0 {
		if config.KeepLabel, err = metadata.ParseAllowlist(c.DockerLabels); err != nil {
			return fmt.Errorf("--%s: %w", optDockerLabels, err)
		}
	}
	o.engine, err = docker.New(config)
	return err
}

// slurmMode is that of --slurm.jobs; without a word of it, a node of Kubernetes
// has no jobs of Slurm.
func slurmMode(c config) string {
	if c.Slurm == slurmAuto && c.Kubernetes {
		return slurmOff
	}
	return c.Slurm
}

func (o *owners) addKubernetes(c config) error {
	idType, err := podmapper.ParseIDType(c.GPUIDType)
	if err != nil {
		return err
	}
	o.mapper, err = podmapper.New(podmapper.Config{
		Socket: c.KubeletSocket, ResourceNames: c.ResourceNames, IDType: idType, DRA: c.DRA, Logger: o.log,
	})
	if err != nil {
		return fmt.Errorf("setting up the pod mapping: %w", err)
	}
	if err := o.addMetadata(c); err != nil {
		return err
	}
	if !c.DRA {
		return nil
	}
	_, o.noSlices = apiConfig(c) // for check-config; the watcher tries it again
	o.published, err = dra.New(dra.Config{Kubeconfig: c.Kubeconfig, Node: c.nodeName(), Logger: o.log})
	return err
}

// addMetadata sets up what is known of pods, beside who holds what: all that was
// asked for, and the UIDs by which processes are told apart.
func (o *owners) addMetadata(c config) error {
	want := metadata.Want{Workload: c.Workload, UID: c.PodUID}
	var err error
	if c.PodLabels {
		if want.Labels, err = metadata.ParseAllowlist(c.LabelAllow); err != nil {
			return fmt.Errorf("--%s: %w", optPodLabelAllow, err)
		}
	}
	if len(c.AnnotationAllow) > 0 {
		if want.Annotations, err = metadata.ParseAllowlist(c.AnnotationAllow); err != nil {
			return fmt.Errorf("--%s: %w", optAnnotations, err)
		}
	}
	asked := want.Labels != nil || want.Annotations != nil || want.Workload || want.UID
	if !asked && !c.PodUsage && !c.VirtualGPUs {
		return nil
	}
	o.pods, err = metadata.New(metadata.Config{
		Node:       c.nodeName(),
		PodsSocket: c.PodsSocket,
		REST:       func() (*rest.Config, error) { return apiConfig(c) },
		LogDir:     c.PodLogs, ContainerLogDir: filepath.Join(filepath.Dir(c.PodLogs), "containers"),
		Want:   want,
		Source: metadataSource(c.MetadataSource),
		Logger: o.log,
	})
	return err
}

func metadataSource(flag string) metadata.Source {
	switch flag {
	case metadataKubelet:
		return metadata.SourcePodsAPI
	case metadataAPIServer:
		return metadata.SourceAPIServer
	}
	return metadata.SourceAuto
}

// apiConfig says how to reach the API server.
func apiConfig(c config) (*rest.Config, error) {
	if c.Kubeconfig == "" {
		api, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reaching the API server: %w (give --%s outside of a pod)", err, optKubeconfig)
		}
		return api, nil
	}
	api, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading --%s=%s: %w", optKubeconfig, c.Kubeconfig, err)
	}
	return api, nil
}

// MappingStatus implements collector.OwnerSource.
func (o *owners) MappingStatus() (collector.SourceStatus, bool) {
	if o.mapper == nil {
		return collector.SourceStatus{}, false
	}
	s := o.mapper.Status()
	return sourceStatus(s.Up, s.LastSuccess, s.Duration, podmapper.Reasons(), s.Failures), true
}

// Sources implements collector.OwnerSource.
func (o *owners) Sources() map[string]collector.SourceStatus {
	all := map[string]collector.SourceStatus{}
	if o.usage {
		s := collector.SourceStatus{Up: o.places != nil, Failures: map[string]uint64{noHostPIDs: 0}}
		if o.places == nil {
			s.Failures[noHostPIDs] = 1
		}
		all["processes"] = s
	}
	if o.pods != nil {
		for source, s := range inUse(o.pods.Status()) {
			all[string(source)] = sourceStatus(s.Up, s.LastSuccess, 0, source.Reasons(), s.Failures)
		}
		owners := sourceStatus(true, time.Time{}, 0, metadata.OwnerReasons(), o.pods.OwnerFailures())
		owners.Part = true
		all["workloads"] = owners
	}
	if o.published != nil {
		s := o.published.Status()
		all["resource_slices"] = sourceStatus(s.Up, s.LastSuccess, 0, dra.Reasons(), s.Failures)
	}
	if o.engine != nil {
		s := o.engine.Status()
		all["docker"] = sourceStatus(s.Up, s.LastSuccess, s.Duration, docker.Reasons(), s.Failures)
	}
	if o.jobs != nil {
		s := o.jobs.Status()
		if s.Files.Enabled {
			all["job_files"] = sourceStatus(s.Files.Up, s.Files.LastSuccess, s.Files.Duration, jobs.Reasons(jobs.SourceFile), s.Files.Failures)
		}
		if s.Slurm.Enabled && (s.Slurm.Found || !s.Slurm.Up) {
			all["slurm"] = sourceStatus(s.Slurm.Up, s.Slurm.LastSuccess, s.Slurm.Duration, jobs.Reasons(jobs.SourceSlurm), s.Slurm.Failures)
		}
	}
	return all
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// inUse leaves out the sources of pods that another one stands in for.
func inUse(all map[metadata.Source]metadata.SourceStatus) map[metadata.Source]metadata.SourceStatus {
	used := maps.Collect(maps.All(all))
	maps.DeleteFunc(used, func(_ metadata.Source, s metadata.SourceStatus) bool { return !s.InUse })
	if len(used) == 0 {
		return all
	}
	return used
}

// known says whether there are sources of holders, and each has answered, not too
// long ago. To look for Slurm where there is none is to ask nobody.
func (o *owners) known(s sources) bool {
	asked := o.mapper != nil || o.engine != nil
	if o.jobs != nil {
		status := o.jobs.Status()
		asked = asked || status.Files.Enabled || status.Slurm.Found
		for _, source := range []jobs.SourceStatus{status.Files, status.Slurm} {
			if source.Enabled && !source.Known {
				return false
			}
		}
	}
	claims := o.published == nil || s.published != nil
	return asked && claims && (o.mapper == nil || s.table != nil) && (o.engine == nil || s.engine != nil)
}

// needProcesses says whether the processes on the devices are to be read.
func (o *owners) needProcesses() bool { return o != nil && o.places != nil }

// parts are the sources in use.
func (o *owners) parts() []part {
	if o == nil {
		return nil
	}
	var all []part
	if o.mapper != nil {
		all = append(all, part{"pod mapping", o.mapper.Run})
	}
	if o.pods != nil {
		all = append(all, part{"pod metadata", o.pods.Run})
	}
	if o.places != nil {
		all = append(all, part{"processes", o.places.run})
	}
	if o.published != nil {
		all = append(all, part{"ResourceSlices", o.published.Run})
	}
	if o.jobs != nil {
		all = append(all, part{"jobs", o.jobs.Run})
	}
	if o.engine != nil {
		all = append(all, part{"Docker", o.engine.Run})
	}
	return all
}

// settle asks every source, and waits until each has answered or has said why it
// cannot; not for long. What goes on by itself does so until stop is called.
func (o *owners) settle(ctx context.Context) (stop func()) {
	if o == nil {
		return func() {}
	}
	running, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	if o.published != nil {
		background.Go(func() { _ = o.published.Run(running) })
	}
	if o.pods != nil {
		background.Go(func() { _ = o.pods.Run(running) })
	}
	ctx, done := context.WithTimeout(ctx, settleTime)
	defer done()
	var asking sync.WaitGroup // each logs why it fails
	if o.mapper != nil {
		asking.Go(func() { _ = o.mapper.Refresh(ctx) })
	}
	if o.jobs != nil {
		asking.Go(func() { _ = o.jobs.Refresh(ctx) })
	}
	if o.engine != nil {
		asking.Go(func() { _ = o.engine.Refresh(ctx) })
	}
	asking.Wait()
	for ctx.Err() == nil && !o.answered() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return func() {
		cancel()
		background.Wait()
	}
}

// settleTime is how long the sources of owners have for their first answer where
// nothing goes on without it.
const settleTime = podmapper.DefaultTimeout + 3*time.Second

// answered says whether the sources that go on by themselves have said something,
// or why they cannot.
func (o *owners) answered() bool {
	if o.published != nil {
		if s := o.published.Status(); !s.Up && s.Err == nil {
			return false
		}
	}
	if o.pods == nil {
		return true
	}
	for _, s := range o.pods.Status() {
		if s.InUse && !s.Up && s.Err == nil {
			return false
		}
	}
	return true
}

// placed delivers when the places of processes have been found out.
func (o *owners) placed() <-chan struct{} {
	if o == nil || o.places == nil {
		return nil
	}
	return o.places.notice
}

// changed delivers when the kubelet's owners have changed: a sample that is shown
// may be of that time already. Nil if the kubelet is not asked.
func (o *owners) changed() <-chan struct{} {
	if o == nil || o.mapper == nil {
		return nil
	}
	return o.mapper.Changed()
}

// sourceStatus gives every reason a count.
func sourceStatus[R ~string](up bool, success time.Time, took time.Duration, reasons []R, failures map[R]uint64) collector.SourceStatus {
	s := collector.SourceStatus{Up: up, LastSuccess: success, Duration: took, Failures: make(map[string]uint64, len(reasons))}
	for _, r := range reasons {
		s.Failures[string(r)] = failures[r]
	}
	return s
}
