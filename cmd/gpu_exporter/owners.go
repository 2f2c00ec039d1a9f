// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

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
	places    *places // nil unless the processes on the devices are read
	usage     bool    // what pods use is asked for
	noSlices  error   // why published is nil although it is asked for

	podTables    timeline[metadata.Pods]
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
	known     bool // all of them, as far as they are asked
}

// moment is what the owners depend on: the devices, the processes on them, and the time.
type moment struct {
	Inventory *collector.Inventory
	Processes *collector.Processes
	At        time.Time
}

// ownerSource implements collector.OwnerSource.
type ownerSource struct {
	*owners
	node *collector.Node
}

func (s ownerSource) Ownership(inv *collector.Inventory, at time.Time) *collector.Ownership {
	return s.at(moment{inv, s.node.Processes(), at})
}

func (o *owners) at(m moment) *collector.Ownership {
	now := sources{inventory: m.Inventory}
	if o.mapper != nil {
		now.table = o.mapper.TableAt(m.At)
	}
	if o.published != nil {
		now.published = o.published.Published()
	}
	if pods := o.podsNow(); pods != nil {
		now.pods = o.podTables.at(m.At, pods, time.Now())
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

	now.known = o.known(now)

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

// runningJobs are the Slurm jobs of the processes on each entity, of the newest
// reading that is known well enough.
func (o *owners) runningJobs(m moment) [][]cgroup.SlurmJob {
	if m.Processes == nil || o.places == nil || !o.jobs.Status().Slurm.Found {
		return nil
	}
	found, ok := o.places.of(m.Processes)
	if !ok {
		return o.lastRunning(m.Inventory)
	}
	running := make([][]cgroup.SlurmJob, len(m.Inventory.Entities))
	for _, d := range m.Processes.Devices {
		for _, p := range d.Processes {
			job, ok := found.jobs[p.PID]
			if !ok {
				continue
			}
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

func (o *owners) lastRunning(inv *collector.Inventory) [][]cgroup.SlurmJob {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of.inventory != inv {
		return nil
	}
	return o.running
}

// Places implements collector.OwnerSource.
func (o *owners) Places(p *collector.Processes) (map[uint32]collector.ProcessPlace, bool) {
	if o.places == nil {
		return nil, false
	}
	found, ok := o.places.of(p)
	if !ok {
		return nil, false
	}
	return found.pods, true
}

// ownership joins what the sources say, for each entity of the inventory.
func (s sources) ownership(match podmapper.Match, running [][]cgroup.SlurmJob) *collector.Ownership {
	o := &collector.Ownership{
		Known:     s.known,
		Mapped:    s.table != nil,
		Entities:  make([]collector.Holders, len(s.inventory.Entities)),
		Unmatched: match.Unmatched,
		Strays:    map[string]int{},
	}
	for i, owners := range match.Owners {
		for _, owner := range owners {
			o.Entities[i].Owners = append(o.Entities[i].Owners, collector.Owner{
				Namespace: owner.Namespace, Pod: owner.Pod, Container: owner.Container, Replica: cmp.Or(owner.Replica, owner.Claim.Share),
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
	m := s.engine.Match(engineDevices(s.inventory))
	o.Strays["docker"] = len(m.Unmatched)
	for i, all := range m.Containers {
		for _, c := range all {
			container := collector.Container{ID: c.ID, Name: c.Name, Image: c.Image, Project: c.ComposeProject, Service: c.ComposeService}
			for _, l := range c.Labels {
				container.Labels = append(container.Labels, collector.Label{Name: l.Key, Value: l.Value})
			}
			o.Entities[i].Containers = append(o.Entities[i].Containers, container)
		}
	}
}

func jobDevices(inv *collector.Inventory) []jobs.Device {
	all := make([]jobs.Device, len(inv.Entities))
	for i, d := range devices(inv) {
		all[i].Device = d
		if gpu, ok := inv.GPU(i); ok {
			all[i].ID, all[i].MIG = int(gpu.ID), gpu.MIGMode
		}
	}
	return all
}

// strays counts the holds by job files of devices that are not there. What Slurm's
// numbers mean on a node with MIG is told by the jobs' processes.
func strays(m jobs.Match) int {
	n := 0
	for _, h := range m.Unmatched {
		if h.Job.Source == jobs.SourceFile {
			n++
		}
	}
	return n
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
	m := s.jobs.Match(jobDevices(s.inventory), running)
	if n := strays(m); n > 0 {
		o.Strays["job_files"] = n
	}
	for i, all := range m.Jobs {
		o.Entities[i].Unknown = m.Unknown[i]
		for _, j := range all {
			job := collector.Job{ID: j.ID, Name: j.Name, User: j.User, Account: j.Account, Partition: j.Partition, Source: string(j.Source)}
			if job.User == "" {
				job.User = j.UID // better a number than nothing
			}
			o.Entities[i].Jobs = append(o.Entities[i].Jobs, job)
		}
	}
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
