// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"gpu_exporter/collector"
	"gpu_exporter/podmapper/jobs"
)

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
	stop := o.settle(ctx)
	defer stop()
	o.examineKubelet(e.node, d)
	if o.usage {
		if o.places != nil {
			d.add("processes", e.cfg.ProcFS, healthy, "process IDs of the host are visible", "")
		} else {
			d.add("processes", e.cfg.ProcFS, lacking, "process IDs of the host are not visible: what pods use is not told", "run with hostPID: true, or with --no-"+optPodUsage)
		}
	}
	o.examineMetadata(d)
	o.examineEngine(e.node, d)
	if o.published != nil {
		s := o.published.Status()
		if s.Up {
			d.add("ResourceSlices", "API server", healthy, fmt.Sprintf("%d devices in %d slices, resource.k8s.io/%s", s.Devices, s.Slices, s.APIVersion), "")
		} else {
			d.add("ResourceSlices", "API server", broken, errorText(s.Err), s.Hint)
		}
	}
	if o.jobs != nil {
		s := o.jobs.Status()
		o.examineStrays(e.node, d)
		examineJobs("job files", e.cfg.HPCDir, s.Files, d)
		if s.Slurm.Found || !s.Slurm.Up {
			examineJobs("Slurm", e.cfg.CgroupFS, s.Slurm, d)
		}
	}
}

// examineMetadata looks at what is known of pods.
func (o *owners) examineMetadata(d *diagnosis) {
	if o.pods == nil {
		return
	}
	all := o.pods.Status()
	known := false
	for _, s := range all {
		known = known || s.Up && s.InUse
	}
	for _, source := range slices.Sorted(maps.Keys(all)) {
		s := all[source]
		switch {
		case s.Up && s.InUse:
			d.add("pods", string(source), healthy, fmt.Sprintf("%d pods are known", len(o.pods.Pods().All())), "")
		case s.Up:
			d.add("pods", string(source), noted, "is there, and not needed", "")
		case s.Err != nil && known:
			d.add("pods", string(source), noted, errorText(s.Err), "another source stands in for it")
		case s.Err != nil:
			d.add("pods", string(source), lacking, errorText(s.Err), source.Hint(s.Reason))
		}
	}
	if !known {
		d.add("pods", "-", lacking, "no source says which pods there are: UIDs, labels and what pods use are not told", "see above")
	}
}

func (o *owners) examineEngine(node *collector.Node, d *diagnosis) {
	if o.engine == nil {
		return
	}
	s := o.engine.Status()
	if !s.Up {
		d.add("docker", "engine", broken, errorText(s.Err), s.Reason.Hint())
		return
	}
	d.add("docker", "engine", healthy, fmt.Sprintf("%s, %d of %d containers hold devices", s.Engine, s.Holds, s.Containers), "")
	if inv, _ := node.Newest(); inv != nil {
		for _, u := range o.engine.Table().Match(engineDevices(inv)).Unmatched {
			d.add("docker", u.Name, lacking, u.Request+": "+u.Reason, u.Hint)
		}
	}
}

func (o *owners) examineKubelet(node *collector.Node, d *diagnosis) {
	if o.mapper == nil {
		return
	}
	s := o.mapper.Status()
	if !s.Up {
		d.add("kubelet", "pod-resources", broken, errorText(s.Err), s.Hint)
		return
	}
	d.add("kubelet", "pod-resources", healthy, fmt.Sprintf("%d device IDs held by containers", s.Assignments), "")
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
			Resource: r.Owner.Resource, Form: r.Known.Form.String(), Devices: []string{}, Why: r.Reason, Advice: r.Hint,
		}
		for _, i := range r.Devices {
			f.Devices = append(f.Devices, entityName(inv, i))
		}
		d.Devices = append(d.Devices, f)
	}
}

// examineStrays names the GPUs of job files that are not there.
func (o *owners) examineStrays(node *collector.Node, d *diagnosis) {
	inv, _ := node.Newest()
	if inv == nil {
		return
	}
	for _, h := range o.jobs.Table().Match(jobDevices(inv), nil).Unmatched {
		if h.Job.Source == jobs.SourceFile {
			d.add("job files", h.Device.String(), lacking, "job "+h.Job.ID+" is on a device that this node does not have", "see the scheduler's prolog")
		}
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
