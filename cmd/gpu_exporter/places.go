// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"sync/atomic"

	"gpu_exporter/collector"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/metadata"
)

// places finds out where the processes of the newest reading run, in the
// background: procfs can make a reader wait.
type places struct {
	reader *cgroup.Reader
	pods   func() *metadata.Pods

	wanted chan *collector.Processes // the newest one only
	found  atomic.Pointer[placed]
	notice chan struct{}
}

// placed is where the processes of one reading run.
type placed struct {
	of   *collector.Processes
	pods map[uint32]collector.ProcessPlace
	jobs map[uint32]cgroup.SlurmJob // of those that are in one
}

func newPlaces(procfs string, pods func() *metadata.Pods) *places {
	return &places{
		reader: cgroup.NewReader(procfs),
		pods:   pods,
		wanted: make(chan *collector.Processes, 1),
		notice: make(chan struct{}, 1),
	}
}

// of returns where the processes of a reading run. If that is not known yet it
// says false, and Run finds it out.
func (l *places) of(p *collector.Processes) (*placed, bool) {
	if found := l.found.Load(); found != nil && found.of == p {
		return found, true
	}
	select {
	case <-l.wanted: // an older one
	default:
	}
	select {
	case l.wanted <- p:
	default: // another caller was quicker
	}
	return nil, false
}

// run finds out what of was asked for, until ctx ends.
func (l *places) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-l.wanted:
			l.find(p)
			select {
			case l.notice <- struct{}{}:
			default:
			}
		}
	}
}

// find looks at each process.
func (l *places) find(p *collector.Processes) {
	result := &placed{of: p, pods: map[uint32]collector.ProcessPlace{}, jobs: map[uint32]cgroup.SlurmJob{}}
	for _, d := range p.Devices {
		for _, process := range d.Processes {
			if _, done := result.pods[process.PID]; done {
				continue
			}
			place, err := l.reader.Place(int(process.PID))
			result.pods[process.PID] = l.pod(place, err)
			if err == nil && !place.NoJob() {
				place.Job.Step = "" // the steps of a job are one job
				result.jobs[process.PID] = place.Job
			}
		}
	}
	l.found.Store(result)
}

// pod says which pod's a place is.
func (l *places) pod(place cgroup.Place, err error) collector.ProcessPlace {
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
	pods := l.pods()
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
