// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"fmt"
	"maps"
	"slices"

	"gpu_exporter/collector/model"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/jobs"
)

// State is how well something works.
type State string

// The states.
const (
	OK      State = "ok"
	Noted   State = "note"   // worth knowing; everything configured works
	Lacking State = "warn"   // part of what is configured does not work
	Broken  State = "broken" // what is configured does not work
)

// Finding is the state of a source, or of something that it read. The command doctor
// prints it as JSON.
type Finding struct {
	About  string `json:"about"` // such as kubelet
	Name   string `json:"name"`  // such as pod-resources
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"`
}

// DeviceFinding is what a device ID of the kubelet stands for.
type DeviceFinding struct {
	ID                                  string
	Namespace, Pod, Container, Resource string
	Form                                string
	Entities                            []int // positions in the inventory; empty: no device
	Why, Advice                         string
}

// Report is the result of an examination.
type Report struct {
	Findings []Finding
	Devices  []DeviceFinding
}

func (r *Report) add(about, name string, state State, detail, advice string) {
	r.Findings = append(r.Findings, Finding{about, name, state, detail, advice})
}

// Examine reports the state of every source, and what the owners hold on the
// devices of inv, which may be nil. Settle must have started the sources.
func (o *Owners) Examine(inv *model.Inventory) Report {
	var r Report
	o.examineMapping(&r, inv)
	if o.usage() {
		if o.processes != nil {
			r.add("processes", o.cfg.ProcFS, OK, "the host's process IDs are visible", "")
		} else {
			r.add("processes", o.cfg.ProcFS, Lacking, "the host's process IDs are not visible: the usage of pods is not reported", "run with hostPID: true, or with --no-kubernetes.pod-usage")
		}
	}
	o.examineMetadata(&r)
	o.examineEngine(&r, inv)
	if o.published != nil {
		if s := o.published.Status(); s.Up {
			r.add("ResourceSlices", "API server", OK, fmt.Sprintf("%d devices in %d slices, resource.k8s.io/%s", s.Devices, s.Slices, s.APIVersion), "")
		} else {
			r.add("ResourceSlices", "API server", Broken, errorText(s.Err), s.Hint)
		}
	}
	if o.jobs != nil {
		o.examineJobs(&r, inv)
	}
	return r
}

func (o *Owners) examineMapping(r *Report, inv *model.Inventory) {
	if o.mapper == nil {
		return
	}
	s := o.mapper.Status()
	if !s.Up {
		r.add("kubelet", "pod-resources", Broken, errorText(s.Err), s.Hint)
		return
	}
	r.add("kubelet", "pod-resources", OK, fmt.Sprintf("%d device IDs held by containers", s.Assignments), "")
	if inv == nil {
		return
	}
	in := o.inputs()
	for _, res := range in.mapping.Match(devices(inv), in.published).Resolutions {
		r.Devices = append(r.Devices, DeviceFinding{
			ID: res.ID, Namespace: res.Owner.Namespace, Pod: res.Owner.Pod, Container: res.Owner.Container,
			Resource: res.Owner.Resource, Form: res.Known.Form.String(), Entities: res.Devices, Why: res.Reason, Advice: res.Hint,
		})
	}
}

func (o *Owners) examineMetadata(r *Report) {
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
			r.add("pods", string(source), OK, fmt.Sprintf("%d pods are known", len(o.pods.Pods().All())), "")
		case s.Up:
			r.add("pods", string(source), Noted, "available, and not needed", "")
		case s.Err != nil && known:
			r.add("pods", string(source), Noted, errorText(s.Err), "another source replaces it")
		case s.Err != nil:
			r.add("pods", string(source), Lacking, errorText(s.Err), s.Hint)
		}
	}
	if !known {
		r.add("pods", "-", Lacking, "no source lists the pods: UIDs, labels and the usage of pods are not reported", "see above")
	}
}

func (o *Owners) examineEngine(r *Report, inv *model.Inventory) {
	if o.engine == nil {
		return
	}
	s := o.engine.Status()
	if !s.Up {
		r.add("docker", "engine", Broken, errorText(s.Err), s.Hint)
		return
	}
	r.add("docker", "engine", OK, fmt.Sprintf("%s, %d of %d containers hold devices", s.Engine, s.Holds, s.Containers), "")
	if inv != nil {
		for _, u := range o.engine.Table().Match(device.NewIndex(devices(inv), device.IDTypeUID)).Unmatched {
			r.add("docker", u.Name, Lacking, u.Request+": "+u.Reason, u.Hint)
		}
	}
}

func (o *Owners) examineJobs(r *Report, inv *model.Inventory) {
	if inv != nil {
		for _, h := range strays(o.jobs.Table().Match(device.NewIndex(devices(inv), device.IDTypeUID), nil)) {
			r.add("job files", h.Device.String(), Lacking, "job "+h.Job.ID+" is on a device that this node does not have", "see the scheduler's prolog")
		}
	}
	source := func(about, name string, s jobs.SourceStatus) {
		if !s.Up {
			r.add(about, name, Broken, errorText(s.Err), "")
			return
		}
		r.add(about, name, OK, fmt.Sprintf("%d holds of devices", s.Holds), "")
		for _, p := range s.Problems {
			r.add(about, p.Name, Lacking, errorText(p.Err), "")
		}
	}
	s := o.jobs.Status()
	if s.Files.Enabled {
		source("job files", o.cfg.HPCDir, s.Files)
	}
	if s.Slurm.Enabled && (s.Slurm.Found || !s.Slurm.Up) {
		source("Slurm", o.cfg.CgroupFS, s.Slurm)
	}
}

func errorText(err error) string {
	if err == nil {
		return "no answer yet"
	}
	return err.Error()
}
