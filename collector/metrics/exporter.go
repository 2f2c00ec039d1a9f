// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
)

// seconds returns a Unix time in seconds.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// addExporter adds the families about the exporter itself. Those of health checks and
// integrals are next to their values.
func (p *page) addExporter() {
	for _, group := range p.cfg.Selected.Groups() {
		p.addOwn(&definition.SelectedGroup, 1, group)
	}
	status := &p.status
	p.addOwn(&definition.SamplerUp, bit(status.Sampling && p.fresh))
	p.addTotal(&definition.SamplerRestarts, &definition.SamplerRestartsByReason, status.Restarts)
	p.addOwn(&definition.SamplerUnreapable, bit(status.Unreapable))
	p.addTotal(&definition.FramesRejected, &definition.FramesRejectedByReason, status.FramesRejected)
	if !status.ProfilingPausedUntil.IsZero() {
		p.addOwn(&definition.ProfilingPausedUntil, seconds(status.ProfilingPausedUntil))
	}
	if p.v.Inventory != nil {
		gpus := 0
		for i := range p.v.Inventory.Entities {
			if e := &p.v.Inventory.Entities[i]; e.Kind == model.KindGPU && e.Selected {
				gpus++
			}
		}
		p.addOwn(&definition.ExporterGPUs, float64(gpus))
		p.addOwn(&definition.MIGReadUp, bit(!p.v.Inventory.InstancesUnknown))
	}
	p.addSample()
	p.addOwn(&definition.SourceInfo, 1, "xid", p.v.XIDSource.String())
	if p.cfg.KernelLog != nil {
		if log, followed := p.cfg.KernelLog(); followed {
			p.addOwn(&definition.KernelLogUp, bit(log.Up))
			p.addOwn(&definition.KernelLogLost, float64(log.Lost))
			p.addOwn(&definition.KernelLogUnmatched, float64(p.v.StrayXIDs))
		}
	}
	if p.owners != nil {
		p.addProcessReading()
		p.addOwnerSources()
	}
}

// addSample adds the families about the newest sample.
func (p *page) addSample() {
	s := p.v.Sample
	if s == nil {
		return
	}
	p.addOwn(&definition.LastSample, seconds(s.Time))
	p.addOwn(&definition.SampleDuration, s.Duration.Seconds())
	var without [model.StatusCount]int
	for _, row := range s.Rows {
		for _, c := range row {
			without[c.Status]++
		}
	}
	missing := 0
	for status := model.StatusOK + 1; int(status) < model.StatusCount; status++ {
		missing += without[status]
		if without[status] > 0 {
			p.addOwn(&definition.FieldsMissingByReason, float64(without[status]), status.String())
		}
	}
	p.addOwn(&definition.FieldsMissing, float64(missing))
	_, linksFresh := p.v.LinksFresh(p.cfg.MaxAge)
	p.addOwn(&definition.NVLinkReadUp, bit(linksFresh))
	if !s.LinksRead.IsZero() {
		p.addOwn(&definition.NVLinkLastRead, seconds(s.LinksRead))
	}
}

// addProcessReading adds the state of reading and attributing processes.
func (p *page) addProcessReading() {
	if p.usage.processes == nil {
		return
	}
	p.addOwn(&definition.ProcessesLastRead, seconds(p.usage.processes.Time))
	for _, trouble := range slices.Sorted(maps.Keys(p.usage.troubles)) {
		if n := p.usage.troubles[trouble]; n > 0 {
			p.addOwn(&definition.ProcessesUnattributed, float64(n), string(trouble))
		}
	}
	for status := model.StatusOK + 1; int(status) < model.StatusCount; status++ {
		var lists, utilizations float64
		for _, d := range p.usage.processes.Devices {
			lists += bit(d.Listed == status)
			utilizations += bit(d.Utilization == status)
		}
		if lists > 0 {
			p.addOwn(&definition.ProcessesUnreadDevices, lists, "list", status.String())
		}
		if utilizations > 0 {
			p.addOwn(&definition.ProcessesUnreadDevices, utilizations, "utilization", status.String())
		}
	}
}

// podResources is the name of the kubelet's pod-resources API among the sources.
const podResources = "pod_resources"

// addOwnerSources adds the state of each source of owners.
func (p *page) addOwnerSources() {
	sources := p.owners.Sources()
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		s := sources[name]
		if !s.Part {
			p.addOwn(&definition.OwnerSourceUp, bit(s.Up), name)
		}
		p.addRefreshes(name, s.LastSuccess, s.Failures)
	}
	if p.ownership != nil {
		for _, name := range slices.Sorted(maps.Keys(p.ownership.Strays)) {
			p.addOwn(&definition.OwnerSourceUnmatchedDevices, float64(p.ownership.Strays[name]), name)
		}
	}
	mapping, configured := p.owners.MappingStatus()
	if !configured {
		return
	}
	p.addOwn(&definition.OwnerSourceUp, bit(mapping.Up), podResources)
	p.addRefreshes(podResources, mapping.LastSuccess, mapping.Failures)
	if !mapping.LastSuccess.IsZero() {
		p.addOwn(&definition.PodResourcesRefreshDuration, mapping.Duration.Seconds())
	}
	if p.ownership != nil && p.ownership.Mapped {
		p.addOwn(&definition.OwnerSourceUnmatchedDevices, float64(p.ownership.Unmatched), podResources)
	}
}

// addRefreshes adds the refreshes of a source of owners.
func (p *page) addRefreshes(source string, last time.Time, failures map[string]uint64) {
	if !last.IsZero() {
		p.addOwn(&definition.OwnerSourceLastSuccess, seconds(last), source)
	}
	p.addTotal(&definition.OwnerSourceFailures, &definition.OwnerSourceFailuresByReason, failures, source)
}

// addTotal adds the sum of counts, and a series for each key that has occurred. Both have
// the labels, and the key follows them.
func (p *page) addTotal(total, byKey *definition.Family, counts map[string]uint64, labels ...string) {
	var sum uint64
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[key]; n > 0 {
			sum += n
			p.addOwn(byKey, float64(n), append(labels[:len(labels):len(labels)], key)...)
		}
	}
	p.addOwn(total, float64(sum), labels...)
}
