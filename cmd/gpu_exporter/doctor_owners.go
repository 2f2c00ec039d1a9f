// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/podmapper/jobs"
)

// settleTime is how long the sources of owners have for their first answer.
const settleTime = 5 * time.Second

// examineOwners asks every source of owners once, and resolves the device IDs.
func (e *exporter) examineOwners(ctx context.Context, d *diagnosis) {
	if !e.cfg.Kubernetes {
		if _, err := os.Stat(e.cfg.KubeletSocket); err == nil {
			d.add("kubelet", e.cfg.KubeletSocket, noted, "is there, but pods are not mapped", "give --kubernetes")
		}
	}
	o := e.owners
	if o == nil {
		return
	}
	o.settle(ctx)
	o.examineKubelet(e.node, d)
	if o.usage {
		if o.hostPIDs {
			d.add("processes", e.cfg.ProcFS, healthy, "process IDs of the host are visible", "")
		} else {
			d.add("processes", e.cfg.ProcFS, lacking, "process IDs of the host are not visible: what pods use is not told", "run with hostPID: true, or with --no-"+optPodUsage)
		}
	}
	if o.published != nil {
		s := o.published.Status()
		if s.Up {
			d.add("ResourceSlices", "API server", healthy, fmt.Sprintf("%d devices in %d slices, resource.k8s.io/%s", s.Devices, s.Slices, s.APIVersion), "")
		} else {
			d.add("ResourceSlices", "API server", broken, errorText(s.Err), s.Reason.Hint())
		}
	}
	if o.jobs != nil {
		s := o.jobs.Status()
		examineJobs("job files", e.cfg.HPCDir, s.Files, d)
		if s.Slurm.Found || !s.Slurm.Up {
			examineJobs("Slurm", e.cfg.CgroupFS, s.Slurm, d)
		}
	}
}

// settle runs the sources until they have had time to answer.
func (o *owners) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { o.refresh(ctx) })
	if o.published != nil {
		running, stop := context.WithCancel(ctx)
		defer stop()
		wg.Go(func() { _ = o.published.Run(running) })
		for s := o.published.Status(); !s.Up && s.Err == nil && ctx.Err() == nil; s = o.published.Status() {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		stop()
	}
	wg.Wait()
}

func (o *owners) examineKubelet(node *collector.Node, d *diagnosis) {
	if o.mapper == nil {
		return
	}
	s := o.mapper.Status()
	if !s.Up {
		d.add("kubelet", "pod-resources", broken, errorText(s.Err), s.Reason.Hint())
		return
	}
	how := "polled"
	if s.Watching {
		how = "watched by its checkpoint"
	}
	d.add("kubelet", "pod-resources", healthy, fmt.Sprintf("%d device IDs held by containers, %s", s.Assignments, how), "")
	inv, _ := node.Newest()
	if inv == nil {
		return
	}
	published := sources{}.published
	if o.published != nil {
		published = o.published.Published()
	}
	for _, r := range o.mapper.Table().Match(devices(inv), published).Resolutions {
		f := deviceFinding{
			ID: r.ID, Namespace: r.Owner.Namespace, Pod: r.Owner.Pod, Container: r.Owner.Container,
			Resource: r.Owner.Resource, Form: r.Known.Form.String(), Why: r.Reason, Advice: r.Hint,
		}
		for _, i := range r.Devices {
			f.Devices = append(f.Devices, entityName(inv, i))
		}
		d.Devices = append(d.Devices, f)
	}
}

func examineJobs(about, name string, s jobs.SourceStatus, d *diagnosis) {
	switch {
	case !s.Enabled:
	case !s.Up:
		d.add(about, name, broken, errorText(s.Err), "")
	default:
		d.add(about, name, healthy, fmt.Sprintf("%d holds of devices", s.Holds), "")
		for _, p := range s.Problems {
			d.add(about, p.Name, lacking, errorText(p.Err), "")
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return "no answer yet"
	}
	return err.Error()
}
