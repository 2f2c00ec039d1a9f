// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"
	"time"

	"gpu_exporter/collector/model"
)

// seconds returns a Unix time in seconds.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// addExporter adds the families about the exporter itself. Those of health checks and
// integrals are next to their values.
func (p *page) addExporter() {
	status := p.supervisor.Status()
	p.addOwn(&samplerUp, bit(status.Sampling && p.fresh))
	addCounts(p, &samplerRestarts, status.Restarts)
	p.addOwn(&samplerUnreapable, bit(status.Unreapable))
	addCounts(p, &framesRejected, status.FramesRejected)
	if !status.ProfilingPausedUntil.IsZero() {
		p.addOwn(&profilingPausedUntil, seconds(status.ProfilingPausedUntil))
	}
	if p.v.Inventory != nil {
		p.addOwn(&migUp, bit(!p.v.Inventory.InstancesUnknown))
	}
	p.addSample()
	p.addOwn(&xidSource, 1, p.v.XIDSource.String())
	if p.cfg.KernelLog != nil {
		if log, followed := p.cfg.KernelLog(); followed {
			p.addOwn(&kernelLogUp, bit(log.Up))
			p.addOwn(&kernelLogLost, float64(log.Lost))
			p.addOwn(&kernelLogUnmatched, float64(p.v.StrayXIDs))
		}
	}
	if p.owners != nil {
		p.addProcessReading()
		p.addOwnerSources()
		p.addMapping()
	}
}

// addSample adds the families about the newest sample.
func (p *page) addSample() {
	s := p.v.Sample
	if s == nil {
		return
	}
	p.addOwn(&lastSample, seconds(s.Time))
	p.addOwn(&sampleDuration, s.Duration.Seconds())
	var without [model.StatusCount]int
	for _, row := range s.Rows {
		for _, c := range row {
			if int(c.Status) < model.StatusCount {
				without[c.Status]++
			}
		}
	}
	for status := model.StatusOK + 1; int(status) < model.StatusCount; status++ {
		p.addOwn(&fieldsUnsupported, float64(without[status]), status.String())
	}
	_, linksFresh := p.v.LinksFresh(p.cfg.MaxAge)
	p.addOwn(&linksUp, bit(linksFresh))
	if !s.LinksRead.IsZero() {
		p.addOwn(&linksLast, seconds(s.LinksRead))
	}
}

// addProcessReading adds the state of reading and attributing processes.
func (p *page) addProcessReading() {
	if p.usage.processes == nil {
		return
	}
	p.addOwn(&processesRead, seconds(p.usage.processes.Time))
	addCounts(p, &processesUnattributed, p.usage.troubles)
	for status := model.StatusOK + 1; int(status) < model.StatusCount; status++ {
		var lists, utilizations float64
		for _, d := range p.usage.processes.Devices {
			lists += bit(d.Listed == status)
			utilizations += bit(d.Utilization == status)
		}
		if lists > 0 {
			p.addOwn(&processesUnread, lists, "list", status.String())
		}
		if utilizations > 0 {
			p.addOwn(&processesUnread, utilizations, "utilization", status.String())
		}
	}
}

// addOwnerSources adds the state of each source of owners.
func (p *page) addOwnerSources() {
	sources := p.owners.Sources()
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		s := sources[name]
		if !s.Part {
			p.addOwn(&sourceUp, bit(s.Up), name)
		}
		if !s.LastSuccess.IsZero() {
			p.addOwn(&sourceAge, p.node.Clock().Sub(s.LastSuccess).Seconds(), name)
		}
		for _, reason := range slices.Sorted(maps.Keys(s.Failures)) {
			p.addOwn(&sourceFailures, float64(s.Failures[reason]), name, reason)
		}
	}
	if p.ownership != nil {
		addCounts(p, &sourceUnmatched, p.ownership.Strays)
	}
}

// addMapping adds the state of the kubelet's pod-resources API.
func (p *page) addMapping() {
	mapping, configured := p.owners.MappingStatus()
	if !configured {
		return
	}
	p.addOwn(&mappingUp, bit(mapping.Up))
	addCounts(p, &mappingFailures, mapping.Failures)
	if !mapping.LastSuccess.IsZero() {
		p.addOwn(&mappingAge, p.node.Clock().Sub(mapping.LastSuccess).Seconds())
		p.addOwn(&mappingDuration, mapping.Duration.Seconds())
	}
	if p.ownership != nil && p.ownership.Mapped {
		p.addOwn(&mappingUnmatched, float64(p.ownership.Unmatched))
	}
}

// addCounts adds a series for each key of the map, sorted.
func addCounts[K ~string, N uint64 | int](p *page, d *Definition, counts map[K]N) {
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		p.addOwn(d, float64(counts[key]), string(key))
	}
}
