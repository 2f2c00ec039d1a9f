// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package owners

import (
	"maps"
	"time"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/metadata"
)

// noHostPIDs is the failure of a node on which processes cannot be attributed.
const noHostPIDs = "no_host_pids"

// MappingStatus returns the status of the kubelet's pod-resources API, and false
// if it is not configured.
func (o *Owners) MappingStatus() (metrics.SourceStatus, bool) {
	if o.mapper == nil {
		return metrics.SourceStatus{}, false
	}
	s := o.mapper.Status()
	return sourceStatus(s.Up, s.LastSuccess, s.Duration, s.Failures), true
}

// Sources returns the status of the other sources in use, by name.
func (o *Owners) Sources() map[string]metrics.SourceStatus {
	all := map[string]metrics.SourceStatus{}
	if o.usage() {
		s := metrics.SourceStatus{Up: o.processes != nil, Failures: map[string]uint64{noHostPIDs: 0}}
		if !s.Up {
			s.Failures[noHostPIDs] = 1
		}
		all["processes"] = s
	}
	if o.pods != nil {
		for source, s := range inUse(o.pods.Status()) {
			all[string(source)] = sourceStatus(s.Up, s.LastSuccess, 0, s.Failures)
		}
		workloads := sourceStatus(true, time.Time{}, 0, o.pods.OwnerFailures())
		workloads.Part = true
		all["workloads"] = workloads
	}
	if o.published != nil {
		s := o.published.Status()
		all["resource_slices"] = sourceStatus(s.Up, s.LastSuccess, 0, s.Failures)
	}
	if o.engine != nil {
		s := o.engine.Status()
		all["docker"] = sourceStatus(s.Up, s.LastSuccess, s.Duration, s.Failures)
	}
	if o.jobs != nil {
		s := o.jobs.Status()
		if s.Files.Enabled {
			all["job_files"] = sourceStatus(s.Files.Up, s.Files.LastSuccess, s.Files.Duration, s.Files.Failures)
		}
		if s.Slurm.Enabled && (s.Slurm.Found || !s.Slurm.Up) {
			all["slurm"] = sourceStatus(s.Slurm.Up, s.Slurm.LastSuccess, s.Slurm.Duration, s.Slurm.Failures)
		}
	}
	return all
}

// inUse leaves out the sources of pods that another source replaces.
func inUse(all map[metadata.Source]metadata.SourceStatus) map[metadata.Source]metadata.SourceStatus {
	used := maps.Clone(all)
	maps.DeleteFunc(used, func(_ metadata.Source, s metadata.SourceStatus) bool { return !s.InUse })
	if len(used) == 0 {
		return all
	}
	return used
}

// sourceStatus converts a status. Every reason gets a count.
func sourceStatus(up bool, success time.Time, took time.Duration, failures map[podmapper.Reason]uint64) metrics.SourceStatus {
	s := metrics.SourceStatus{Up: up, LastSuccess: success, Duration: took, Failures: make(map[string]uint64, len(failures))}
	for reason, n := range failures {
		s.Failures[string(reason)] = n
	}
	return s
}
