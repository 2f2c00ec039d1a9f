// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"context"
	"errors"
	"slices"
	"time"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/metadata"
)

// reading is a reading of processes and the inventory that it belongs to.
type reading struct {
	inventory *model.Inventory
	processes *model.Processes
}

// placed is where the processes of a reading run. It is immutable.
type placed struct {
	reading
	pods    map[uint32]metrics.ProcessPlace // by PID
	running [][]cgroup.SlurmJob             // by entity
}

// Places returns where the processes of a reading run, by PID. It returns false
// until they are located.
func (o *Owners) Places(p *model.Processes) (map[uint32]metrics.ProcessPlace, bool) {
	where := o.table.Load().placed
	if where == nil || where.processes != p {
		return nil, false
	}
	return where.pods, true
}

// locateLater hands over a reading in place of an older one.
func (o *Owners) locateLater(r reading) {
	select {
	case <-o.readings:
	default:
	}
	o.readings <- r // Observe is the only sender
}

// locateReadings locates the processes of each reading until ctx ends. It runs in
// its own goroutine, because procfs can block a reader.
func (o *Owners) locateReadings(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-o.readings:
			if o.processes == nil {
				continue
			}
			where := o.locate(r)
			if o.cfg.Simulate != "" {
				o.placeSimulated(where)
			}
			o.mu.Lock()
			o.publish(o.inputs(), where)
			o.mu.Unlock()
		}
	}
}

func (o *Owners) locate(r reading) *placed {
	where := &placed{reading: r, pods: map[uint32]metrics.ProcessPlace{}, running: make([][]cgroup.SlurmJob, len(r.inventory.Entities))}
	var pods *metadata.Pods
	if o.pods != nil {
		pods = o.pods.Pods()
	}
	jobs := map[uint32]cgroup.SlurmJob{}
	for _, d := range r.processes.Devices {
		for _, p := range d.Processes {
			if _, known := where.pods[p.PID]; !known {
				place, err := o.processes.Place(int(p.PID))
				where.pods[p.PID] = podOf(pods, place, err)
				if err == nil && !place.NoJob() {
					place.Job.Step = "" // the steps of a job are one job
					jobs[p.PID] = place.Job
				}
			}
			if job, ok := jobs[p.PID]; ok {
				where.addJob(d.Entity, job)
			}
		}
	}
	return where
}

// placeSimulated places the processes of a simulated node that do not exist on this
// machine in the first container that holds their device. Without them, busy GPUs would
// have no processes.
func (o *Owners) placeSimulated(where *placed) {
	held := o.Ownership(where.inventory, time.Now())
	if held == nil {
		return
	}
	for _, d := range where.processes.Devices {
		at := d.Entity
		if where.inventory.Entities[at].Kind == model.KindComputeInstance {
			at = where.inventory.Entities[at].Parent
		}
		for _, p := range d.Processes {
			if owners := held.Entities[at].Owners; len(owners) > 0 && where.pods[p.PID].Trouble == metrics.ProcessGone {
				where.pods[p.PID] = metrics.ProcessPlace{Namespace: owners[0].Namespace, Pod: owners[0].Pod, Container: owners[0].Container}
			}
		}
	}
}

// addJob adds a job to an entity. A job on a compute instance is also one on the
// GPU instance around it.
func (p *placed) addJob(entity int, job cgroup.SlurmJob) {
	for at := entity; ; at = p.inventory.Entities[at].Parent {
		if !slices.Contains(p.running[at], job) {
			p.running[at] = append(p.running[at], job)
		}
		if p.inventory.Entities[at].Kind != model.KindComputeInstance {
			return
		}
	}
}

// podOf returns the pod that a place belongs to, or why there is none.
func podOf(pods *metadata.Pods, place cgroup.Place, err error) metrics.ProcessPlace {
	switch {
	case errors.Is(err, cgroup.ErrGone):
		return metrics.ProcessPlace{Trouble: metrics.ProcessGone}
	case errors.Is(err, cgroup.ErrForbidden):
		return metrics.ProcessPlace{Trouble: metrics.ProcessForbidden}
	case errors.Is(err, cgroup.ErrNoContainer):
		return metrics.ProcessPlace{Trouble: metrics.ProcessOutside}
	case err != nil:
		return metrics.ProcessPlace{Trouble: metrics.ProcessUnreadable}
	}
	// The innermost container with a pod: a container that a pod's own Docker runs
	// belongs to the pod.
	containers := append([]cgroup.Container{place.Container}, place.Outer...)
	i := slices.IndexFunc(containers, func(c cgroup.Container) bool { return c.PodUID != "" })
	if i < 0 {
		return metrics.ProcessPlace{Trouble: metrics.ProcessOutside}
	}
	pod, name := pods.ByContainerID(containers[i].ContainerID)
	if pod == nil {
		pod = pods.ByCgroupUID(containers[i].PodUID)
	}
	if pod == nil {
		return metrics.ProcessPlace{Trouble: metrics.ProcessUnknownPod}
	}
	return metrics.ProcessPlace{Namespace: pod.Namespace, Pod: pod.Name, Container: name}
}
