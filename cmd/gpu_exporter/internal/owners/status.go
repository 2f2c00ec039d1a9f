// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/jobs"
)

// noHostPIDs is the failure of a node on which processes cannot be attributed.
const noHostPIDs = "no_host_pids"

// kubelet is the source that metrics report as the mapping.
const kubelet = "kubelet"

// sourceState is the state of one source.
type sourceState struct {
	name     string // in metrics; empty: not in use
	part     bool   // a part of another source, which cannot be down
	status   podmapper.SourceStatus
	findings []Finding
}

// states returns the state of each configured source.
func (o *Owners) states() (all []sourceState) {
	// add adds a state. Detail is for a source that is up, down for one that is not.
	add := func(name, about, place string, down State, s podmapper.SourceStatus, detail string) *sourceState {
		f := Finding{about, place, OK, detail, ""}
		if !s.Up {
			f = Finding{about, place, down, errorText(s.Err), s.Hint}
		}
		all = append(all, sourceState{name: name, status: s, findings: []Finding{f}})
		return &all[len(all)-1]
	}
	if o.mapper != nil {
		s := o.mapper.Status()
		add(kubelet, "kubelet", "pod-resources", Broken, s.Status, fmt.Sprintf("%d device IDs held by containers", s.Assignments))
	}
	if o.usage() {
		s := podmapper.SourceStatus{Up: o.processes != nil, Failures: map[podmapper.Reason]uint64{noHostPIDs: 0}}
		if !s.Up {
			s.Failures[noHostPIDs] = 1
			s.Err = errors.New("the host's process IDs are not visible: the usage of pods is not reported")
			s.Hint = "run with hostPID: true, or with --no-kubernetes.pod-usage"
		}
		add("processes", "processes", o.cfg.ProcFS, Limited, s, "the host's process IDs are visible")
	}
	if o.pods != nil {
		all = append(all, o.podStates()...)
	}
	if o.engine != nil {
		s := o.engine.Status()
		add("docker", "docker", "engine", Broken, s.Status, fmt.Sprintf("%s, %d of %d containers hold devices", s.Engine, s.Holds, s.Containers))
	}
	if o.published != nil {
		s := o.published.Status()
		s.Duration = 0 // it receives changes
		add("resource_slices", "ResourceSlices", "API server", Broken, s.Status,
			fmt.Sprintf("%d devices in %d slices, resource.k8s.io/%s", s.Devices, s.Slices, s.APIVersion))
	}
	if o.jobs == nil {
		return all
	}
	addJobs := func(name, about, place string, s jobs.SourceStatus) {
		added := add(name, about, place, Broken, s.Status, fmt.Sprintf("%d holds of devices", s.Holds))
		for _, p := range s.Problems {
			added.findings = append(added.findings, Finding{about, p.Name, Limited, errorText(p.Err), ""})
		}
	}
	s := o.jobs.Status()
	if s.Files.Enabled {
		addJobs("job_files", "job files", o.cfg.HPCDir, s.Files)
	}
	if s.Slurm.Enabled && (s.Slurm.Found || !s.Slurm.Up) {
		addJobs("slurm", "Slurm", o.cfg.CgroupFS, s.Slurm)
	}
	return all
}

// MappingStatus returns the status of the kubelet's pod-resources API, and false
// if it is not configured.
func (o *Owners) MappingStatus() (metrics.SourceStatus, bool) {
	if o.mapper == nil {
		return metrics.SourceStatus{}, false
	}
	return sourceStatus(sourceState{status: o.mapper.Status().Status}), true
}

// Sources returns the status of the other sources in use, by name.
func (o *Owners) Sources() map[string]metrics.SourceStatus {
	all := map[string]metrics.SourceStatus{}
	for _, s := range o.states() {
		if s.name != kubelet && s.name != "" {
			all[s.name] = sourceStatus(s)
		}
	}
	return all
}

// Source is the state of one source of owners.
type Source struct {
	Findings    []Finding
	LastSuccess time.Time // zero before the first
}

// Report returns the state of each configured source. It only reads what is in memory.
func (o *Owners) Report() []Source {
	var all []Source
	for _, s := range o.states() {
		if len(s.findings) > 0 {
			all = append(all, Source{s.findings, s.status.LastSuccess})
		}
	}
	return all
}

// sourceStatus converts a status. Every reason gets a count.
func sourceStatus(s sourceState) metrics.SourceStatus {
	status := metrics.SourceStatus{Up: s.status.Up, LastSuccess: s.status.LastSuccess, Duration: s.status.Duration, Part: s.part,
		Failures: make(map[string]uint64, len(s.status.Failures))}
	for reason, n := range s.status.Failures {
		status.Failures[string(reason)] = n
	}
	return status
}

// podStates returns the states of the sources of pods. Those that are not in use have
// no name.
func (o *Owners) podStates() []sourceState {
	workloads := sourceState{name: "workloads", part: true, status: podmapper.SourceStatus{Up: true, Failures: o.pods.OwnerFailures()}}
	status := o.pods.Status()
	known := false
	for _, s := range status {
		known = known || s.Up && s.InUse
	}
	missing := Limited
	if c := o.cfg; !c.PodLabels && !c.PodUID && !c.Workload && len(c.AnnotationAllow) == 0 && !c.VirtualGPUs {
		missing = Noted // only the usage of pods, which is on by default, needs them
	}
	if !known {
		workloads.findings = []Finding{{"pods", "-", missing, "no source lists the pods: UIDs, labels and the usage of pods are not reported", "see above"}}
	}
	var all []sourceState
	for _, source := range slices.Sorted(maps.Keys(status)) {
		s := status[source]
		s.Duration = 0 // these sources receive changes
		state := sourceState{status: s.Status}
		if s.InUse {
			state.name = string(source)
		}
		f := Finding{"pods", string(source), missing, errorText(s.Err), s.Hint}
		switch {
		case s.Up && s.InUse:
			f.State, f.Detail = OK, fmt.Sprintf("%d pods are known", len(o.pods.Pods().All()))
		case s.Up:
			f.State, f.Detail = Noted, "available, and not needed"
		case known:
			f.State, f.Advice = Noted, "another source replaces it"
		}
		if s.Up || s.Err != nil {
			state.findings = []Finding{f}
		}
		all = append(all, state)
	}
	return append(all, workloads)
}
