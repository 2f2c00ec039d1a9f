// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
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

// owners joins all that is known of who holds devices with an inventory: the only
// place where collector and podmapper meet. Sources that are not asked for are
// nil.
type owners struct {
	log       *slog.Logger
	mapper    *podmapper.Mapper
	published *dra.Watcher
	pods      *metadata.Store
	jobs      *jobs.Finder
	engine    *docker.Watcher
	processes *cgroup.Reader
	hostPIDs  bool // processes has the process IDs that the driver means
	usage     bool // what pods use is asked for

	jobTables    timeline[jobs.Table]
	engineTables timeline[docker.Table]

	mu        sync.Mutex
	of        sources
	running   [][]cgroup.SlurmJob  // of the processes, by entity
	match     podmapper.Match      // of the table in of
	ownership *collector.Ownership // of all in of, and of running
}

// sources are what an ownership was made of: immutable, so that pointers tell
// whether anything is new.
type sources struct {
	inventory *collector.Inventory
	table     *podmapper.Table
	published *podmapper.Published
	pods      *metadata.Pods
	jobs      *jobs.Table
	engine    *docker.Table
}

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
	o.processes = cgroup.NewReader(c.ProcFS)
	o.usage = c.Kubernetes && (c.PodUsage || c.VirtualGPUs)
	if o.hostPIDs, err = o.processes.HostPIDs(); !o.hostPIDs && o.usage {
		// The driver then hides the processes of others, and all would seem to use nothing.
		logger.Warn("What pods use of their devices is not told: the exporter does not see the process IDs of the host",
			"procfs", c.ProcFS, "err", err, "hint", "run it with hostPID: true, or with --no-"+optPodUsage)
	}
	return o, nil
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
	api, err := apiConfig(c)
	if err != nil {
		return fmt.Errorf("--%s: %w", optDRA, err)
	}
	o.published, err = dra.New(dra.Config{REST: api, Node: c.nodeName(), Logger: o.log})
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

// Ownership implements collector.OwnerSource.
func (o *owners) Ownership(m collector.Moment) *collector.Ownership {
	now := sources{inventory: m.Inventory}
	if o.mapper != nil {
		now.table = o.mapper.TableAt(m.At)
	}
	if o.published != nil {
		now.published = o.published.Published()
	}
	if o.pods != nil {
		now.pods = o.pods.Pods()
	}
	var running [][]cgroup.SlurmJob
	if o.jobs != nil {
		table := o.jobs.Table()
		now.jobs = o.jobTables.at(m.At, table, table.Time)
		running = o.runningJobs(m)
	}
	if o.engine != nil {
		if table := o.engine.Table(); table != nil { // it is nil once it is too old
			now.engine = o.engineTables.at(m.At, table, table.Time)
		}
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	if now == o.of && slices.EqualFunc(running, o.running, slices.Equal[[]cgroup.SlurmJob]) {
		return o.ownership
	}
	if o.mapper != nil && (now.inventory != o.of.inventory || now.table != o.of.table || now.published != o.of.published) {
		o.match = now.table.Match(devices(m.Inventory), now.published)
		if now.table == o.mapper.Table() {
			o.mapper.LogUnmatched(o.match)
		}
	}
	o.of, o.running = now, running
	o.ownership = now.ownership(o.match, running)
	return o.ownership
}

// runningJobs are the Slurm jobs of the processes on each entity.
func (o *owners) runningJobs(m collector.Moment) [][]cgroup.SlurmJob {
	if m.Processes == nil || !o.hostPIDs {
		return nil
	}
	running := make([][]cgroup.SlurmJob, len(m.Inventory.Entities))
	for _, d := range m.Processes.Devices {
		for _, p := range d.Processes {
			place, err := o.processes.Place(int(p.PID))
			if err != nil || place.NoJob() {
				continue
			}
			job := place.Job
			job.Step = "" // the steps of a job are one job
			for at := d.Entity; ; at = m.Inventory.Entities[at].Parent {
				if !slices.Contains(running[at], job) {
					running[at] = append(running[at], job)
				}
				// A GPU instance is held by the jobs on its compute instances.
				if m.Inventory.Entities[at].Kind != collector.KindComputeInstance {
					break
				}
			}
		}
	}
	return running
}

// Place implements collector.OwnerSource.
func (o *owners) Place(pid uint32) collector.ProcessPlace {
	if !o.hostPIDs {
		return collector.ProcessPlace{Trouble: collector.ProcessNoHostPIDs}
	}
	place, err := o.processes.Place(int(pid))
	switch {
	case errors.Is(err, cgroup.ErrGone):
		return collector.ProcessPlace{Trouble: collector.ProcessGone}
	case errors.Is(err, cgroup.ErrForbidden):
		return collector.ProcessPlace{Trouble: collector.ProcessForbidden}
	case errors.Is(err, cgroup.ErrNoContainer):
		return collector.ProcessPlace{Trouble: collector.ProcessOutside}
	case err != nil:
		return collector.ProcessPlace{Trouble: collector.ProcessUnreadable}
	}
	container, ok := podContainer(place)
	if !ok {
		return collector.ProcessPlace{Trouble: collector.ProcessOutside}
	}
	if o.pods == nil {
		return collector.ProcessPlace{Trouble: collector.ProcessUnknownPod}
	}
	pods := o.pods.Pods()
	pod, name := pods.ByContainerID(container.ContainerID)
	if pod == nil {
		pod = pods.ByCgroupUID(container.PodUID)
	}
	if pod == nil {
		return collector.ProcessPlace{Trouble: collector.ProcessUnknownPod}
	}
	return collector.ProcessPlace{Namespace: pod.Namespace, Pod: pod.Name, Container: name}
}

// podContainer returns the innermost container that is one of a pod: a process in
// a container that a pod's own Docker runs is the pod's.
func podContainer(p cgroup.Place) (cgroup.Container, bool) {
	for _, c := range append([]cgroup.Container{p.Container}, p.Outer...) {
		if c.PodUID != "" {
			return c, true
		}
	}
	return cgroup.Container{}, false
}

// ownership joins what the sources say, for each entity of the inventory.
func (s sources) ownership(match podmapper.Match, running [][]cgroup.SlurmJob) *collector.Ownership {
	o := &collector.Ownership{Entities: make([]collector.Holders, len(s.inventory.Entities)), Unmatched: match.Unmatched}
	for i, owners := range match.Owners {
		for _, owner := range owners {
			o.Entities[i].Owners = append(o.Entities[i].Owners, collector.Owner{
				Namespace: owner.Namespace, Pod: owner.Pod, Container: owner.Container, Replica: owner.Replica,
				Claim: collector.Claim{
					Namespace: owner.Claim.Namespace, Name: owner.Claim.Name,
					Driver: owner.Claim.Driver, Pool: owner.Claim.Pool, Device: owner.Claim.Device,
					MIGProfile: owner.Claim.MIGProfile, MIGUUID: owner.Claim.MIGUUID,
				},
				Metadata: podMetadata(s.pods.ByName(owner.Namespace, owner.Pod)),
			})
		}
	}
	if s.jobs != nil {
		s.addJobs(o, running)
	}
	if s.engine != nil {
		s.addContainers(o)
	}
	return o
}

func (s sources) addContainers(o *collector.Ownership) {
	for i, all := range s.engine.Match(engineDevices(s.inventory)).Containers {
		for _, c := range all {
			container := collector.Container{ID: c.ID, Name: c.Name, Image: c.Image, Project: c.ComposeProject, Service: c.ComposeService}
			for _, l := range c.Labels {
				container.Labels = append(container.Labels, collector.Label{Name: l.Key, Value: l.Value})
			}
			o.Entities[i].Containers = append(o.Entities[i].Containers, container)
		}
	}
}

func engineDevices(inv *collector.Inventory) []docker.Device {
	all := make([]docker.Device, len(inv.Entities))
	for i, d := range devices(inv) {
		all[i] = docker.Device{Device: d, MIGIndex: docker.NoIndex}
		if gpu, ok := inv.GPU(i); ok {
			all[i].MIG = gpu.MIGMode
		}
	}
	return all
}

func podMetadata(p *metadata.Pod) *collector.PodMetadata {
	if p == nil {
		return nil
	}
	return &collector.PodMetadata{
		UID: p.UID, Labels: labels(p.Labels), Annotations: labels(p.Annotations),
		WorkloadKind: p.Workload.Kind, Workload: p.Workload.Name,
	}
}

func labels(all []metadata.KeyValue) []collector.Label {
	named := make([]collector.Label, len(all))
	for i, kv := range all {
		named[i] = collector.Label{Name: kv.Key, Value: kv.Value}
	}
	return named
}

func (s sources) addJobs(o *collector.Ownership, running [][]cgroup.SlurmJob) {
	known := make([]jobs.Device, len(s.inventory.Entities))
	for i, d := range devices(s.inventory) {
		known[i].Device = d
		if gpu, ok := s.inventory.GPU(i); ok {
			known[i].ID, known[i].MIG = int(gpu.ID), gpu.MIGMode
		}
	}
	for i, all := range s.jobs.Match(known, running).Jobs {
		for _, j := range all {
			job := collector.Job{ID: j.ID, Name: j.Name, User: j.User, Account: j.Account, Partition: j.Partition, Source: string(j.Source)}
			if job.User == "" {
				job.User = j.UID // better a number than nothing
			}
			o.Entities[i].Jobs = append(o.Entities[i].Jobs, job)
		}
	}
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
		s := collector.SourceStatus{Up: o.hostPIDs, Failures: map[string]uint64{noHostPIDs: 0}}
		if !o.hostPIDs {
			s.Failures[noHostPIDs] = 1
		}
		all["processes"] = s
	}
	if o.pods != nil {
		for source, s := range o.pods.Status() {
			all[string(source)] = sourceStatus(s.Up, s.LastSuccess, 0, source.Reasons(), s.Failures)
		}
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

// needProcesses says whether the processes on the devices are to be read.
func (o *owners) needProcesses(c config) bool {
	return o != nil && o.hostPIDs && (o.usage || slurmMode(c) != slurmOff)
}

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
// cannot; not for long.
func (o *owners) settle(ctx context.Context) {
	if o == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	running, stop := context.WithCancel(ctx)
	defer stop()
	if o.published != nil {
		wg.Go(func() { _ = o.published.Run(running) })
	}
	if o.pods != nil {
		wg.Go(func() { _ = o.pods.Run(running) })
	}
	if o.mapper != nil {
		_ = o.mapper.Refresh(ctx) // which logs why it fails
	}
	if o.jobs != nil {
		_ = o.jobs.Refresh(ctx) // the same
	}
	if o.engine != nil {
		_ = o.engine.Refresh(ctx) // the same
	}
	for ctx.Err() == nil && !o.answered() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// settleTime is how long the sources of owners have for their first answer where
// nothing goes on without it.
const settleTime = 5 * time.Second

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
	waiting := false
	for _, s := range o.pods.Status() {
		if s.Up && s.InUse {
			return true
		}
		waiting = waiting || !s.Up && s.Err == nil
	}
	return !waiting
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

// timeline remembers what a source said before, so that a sample is joined with
// what was known at its own time.
type timeline[T any] struct {
	mu          sync.Mutex
	now, before *T
	since       time.Time // of now
}

// at returns what was known at t. Current is what the source says now, and since
// when it does.
func (l *timeline[T]) at(t time.Time, current *T, since time.Time) *T {
	l.mu.Lock()
	defer l.mu.Unlock()
	if current != l.now {
		l.before, l.now, l.since = l.now, current, since
	}
	if l.before != nil && t.Before(l.since) {
		return l.before
	}
	return l.now
}

// devices describes the entities of an inventory that a container can hold, at
// the entities' positions.
func devices(inv *collector.Inventory) []podmapper.Device {
	all := make([]podmapper.Device, len(inv.Entities))
	for i := range inv.Entities {
		e := &inv.Entities[i]
		gpu, ok := inv.GPU(i)
		if !ok {
			continue
		}
		d := podmapper.Device{
			GPUUUID:         gpu.UUID,
			Index:           gpu.Index,
			Minor:           gpu.Minor,
			PCIBusID:        gpu.PCIBusID,
			GPUInstance:     collector.Unknown,
			ComputeInstance: collector.Unknown,
			PlacementStart:  podmapper.NotPublished,
		}
		switch e.Kind {
		case collector.KindGPU:
			d.Kind = podmapper.KindGPU
		case collector.KindGPUInstance:
			d.Kind, d.GPUInstance, d.Profile, d.PlacementStart = podmapper.KindGPUInstance, e.InstanceID, e.Profile, e.PlacementStart
			for _, child := range inv.Entities[i+1:] {
				if child.Kind == collector.KindComputeInstance && child.Parent == i && child.UUID != "" {
					d.MIGUUIDs = append(d.MIGUUIDs, child.UUID)
				}
			}
		case collector.KindComputeInstance:
			parent := &inv.Entities[e.Parent]
			d.Kind, d.GPUInstance, d.ComputeInstance = podmapper.KindComputeInstance, parent.InstanceID, e.InstanceID
			d.Profile, d.PlacementStart = parent.Profile, parent.PlacementStart
			if e.UUID != "" {
				d.MIGUUIDs = []string{e.UUID}
			}
		default:
			continue
		}
		all[i] = d
	}
	return all
}
