// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"cmp"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/jobs"
	"gpu_exporter/podmapper/metadata"
)

// owners converts the matches of all sources, for each entity of the inventory.
func (j *join) owners() *metrics.Ownership {
	o := &metrics.Ownership{
		Known:     j.inputs.complete,
		Mapped:    j.inputs.mapping != nil,
		Entities:  make([]metrics.Holders, len(j.inventory.Entities)),
		Unmatched: j.match.Unmatched,
		Strays:    map[string]int{},
	}
	for i, owners := range j.match.Owners {
		for _, owner := range owners {
			claim := owner.Claim
			o.Entities[i].Owners = append(o.Entities[i].Owners, metrics.Owner{
				Namespace: owner.Namespace, Pod: owner.Pod, Container: owner.Container, Replica: cmp.Or(owner.Replica, claim.Share),
				Claim: metrics.Claim{
					Namespace: claim.Namespace, Name: claim.Name, Driver: claim.Driver, Pool: claim.Pool, Device: claim.Device,
					MIGProfile: claim.MIGProfile, MIGUUID: claim.MIGUUID,
				},
				Metadata: podMetadata(j.inputs.pods.ByName(owner.Namespace, owner.Pod)),
			})
		}
	}
	for _, r := range j.match.Resolutions {
		if len(r.Devices) == 0 {
			markUnknown(o, r.Maybe)
		}
	}
	x := device.NewIndex(devices(j.inventory), device.IDTypeUID)
	if j.inputs.jobs != nil {
		j.addJobs(o, x)
	}
	if j.inputs.engine != nil {
		j.addContainers(o, x)
	}
	return o
}

// markUnknown records that a holder without a device may hold any of these entities.
// Nil means all entities.
func markUnknown(o *metrics.Ownership, maybe []int) {
	if maybe == nil {
		o.Known = false
	}
	for _, i := range maybe {
		o.Entities[i].Unknown = true
	}
}

func (j *join) addJobs(o *metrics.Ownership, x *device.Index) {
	m := j.inputs.jobs.Match(x, j.running)
	if n := len(strays(m)); n > 0 {
		o.Strays["job_files"] = n
	}
	for i, all := range m.Jobs {
		o.Entities[i].Unknown = o.Entities[i].Unknown || m.Unknown[i]
		for _, job := range all {
			o.Entities[i].Jobs = append(o.Entities[i].Jobs, metrics.Job{
				ID: job.ID, Name: job.Name, User: cmp.Or(job.User, job.UID), // both names only if configured
				Account: job.Account, Partition: job.Partition, Source: string(job.Source),
			})
		}
	}
}

// strays returns the holds by job files of devices that the node does not have.
// Slurm's numbers are left out: on a node with MIG they may name nothing, and the
// processes of the jobs decide.
func strays(m jobs.Match) []jobs.Hold {
	var all []jobs.Hold
	for _, h := range m.Unmatched {
		if h.Job.Source == jobs.SourceFile {
			all = append(all, h)
		}
	}
	return all
}

func (j *join) addContainers(o *metrics.Ownership, x *device.Index) {
	m := j.inputs.engine.At(j.places, j.inputs.contained).Match(x)
	o.Strays["docker"] = len(m.Unmatched)
	for _, u := range m.Unmatched {
		markUnknown(o, u.Maybe)
	}
	for i, all := range m.Containers {
		for _, c := range all {
			container := metrics.Container{ID: c.ID, Name: c.Name, Image: c.Image, Project: c.ComposeProject, Service: c.ComposeService}
			for _, l := range c.Labels {
				container.Labels = append(container.Labels, metrics.Label{Name: l.Key, Value: l.Value})
			}
			o.Entities[i].Containers = append(o.Entities[i].Containers, container)
		}
	}
}

func podMetadata(p *metadata.Pod) *metrics.PodMetadata {
	if p == nil {
		return nil
	}
	return &metrics.PodMetadata{
		UID: p.UID, Labels: labels(p.Labels), Annotations: labels(p.Annotations),
		WorkloadKind: p.Workload.Kind, Workload: p.Workload.Name,
	}
}

func labels(all []metadata.KeyValue) []metrics.Label {
	named := make([]metrics.Label, len(all))
	for i, kv := range all {
		named[i] = metrics.Label{Name: kv.Key, Value: kv.Value}
	}
	return named
}

// devices describes the entities that a container can hold, at the positions of
// the entities.
func devices(inv *model.Inventory) []device.Device {
	all := make([]device.Device, len(inv.Entities))
	for i := range inv.Entities {
		e := &inv.Entities[i]
		gpu, ok := inv.GPU(i)
		if !ok {
			continue
		}
		d := device.Device{
			GPUUUID: gpu.UUID, Index: gpu.Index, Minor: gpu.Minor, DCGMID: int(gpu.ID), PCIBusID: gpu.PCIBusID, MIGMode: gpu.MIGMode,
			GPUInstance: device.Unknown, ComputeInstance: device.Unknown, MIGIndex: device.Unknown, PlacementStart: device.Unknown,
		}
		switch e.Kind {
		case model.KindGPU:
			d.Kind = device.KindGPU
		case model.KindGPUInstance:
			d.Kind, d.GPUInstance, d.Profile, d.PlacementStart = device.KindGPUInstance, e.InstanceID, e.Profile, e.PlacementStart
			for _, child := range inv.Entities[i+1:] {
				if child.Kind == model.KindComputeInstance && child.Parent == i && child.UUID != "" {
					d.MIGUUIDs = append(d.MIGUUIDs, child.UUID)
				}
			}
		case model.KindComputeInstance:
			parent := &inv.Entities[e.Parent]
			d.Kind, d.GPUInstance, d.ComputeInstance = device.KindComputeInstance, parent.InstanceID, e.InstanceID
			d.Profile, d.PlacementStart, d.MIGIndex = parent.Profile, parent.PlacementStart, e.Index
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
