// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// Settings are the part of the configuration that a reload replaces.
type Settings struct {
	// Metrics has the counters to publish.
	Metrics metrics.Config
	// Sampler is completed from the counters and the selected families: its Fields,
	// Derived, Tracked, Peers and Revision are ignored. HealthInterval applies if something
	// needs it.
	Sampler wire.SamplerConfig
	// Resolution is the time between the readings that integrals are computed from.
	Resolution time.Duration
	// AllowNoGPUs declares that the node may have no GPU that answers.
	AllowNoGPUs bool
}

// configure creates what the settings result in.
func (c *Collector) configure(s Settings) *configured {
	s.Sampler.Fields = watchedFields(&s.Metrics)
	s.Sampler.Derived = s.Metrics.DerivedFields()
	s.Sampler.Tracked = state.TrackedFields(s.Metrics.Counters, s.Metrics.Integrates, s.Resolution)
	s.Sampler.MaxAge = s.Metrics.MaxAge
	s.Sampler.Peers = s.Metrics.NeedsPeers()
	if !s.Metrics.NeedsHealth() {
		s.Sampler.HealthInterval, s.Metrics.HealthInterval = 0, 0
	}
	s.Metrics.KernelLog = c.kernelLog.Status
	return &configured{s, s.Sampler, metrics.New(s.Metrics, c.state, c.supervisor, c.cfg.Owners)}
}

// Reconfigure replaces the settings. The previous ones remain visible until the first
// sample of the new ones, so that no scrape is empty. A sampler is replaced only if its
// configuration changes.
func (c *Collector) Reconfigure(settings Settings) {
	next := c.configure(settings)
	c.mu.Lock()
	next.sampler.Revision = c.latest.sampler.Revision
	changed := !reflect.DeepEqual(inOrder(next.sampler), inOrder(c.latest.sampler))
	if changed {
		next.sampler.Revision++
	} else {
		next.sampler = c.latest.sampler // the running one
	}
	c.latest = next
	c.mu.Unlock()
	if changed {
		c.supervisor.Reconfigure(next.sampler)
	}
}

// adopt switches to the settings of the newest sample and returns them.
func (c *Collector) adopt() *configured {
	inv, _ := c.state.Newest()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown == c.latest {
		return c.shown
	}
	if c.shown == nil || inv == nil || inv.Revision == c.latest.sampler.Revision {
		c.shown = c.latest
		c.shown.families.Keep()
		c.state.Track(c.shown.sampler.Tracked, c.shown.sampler.Interval)
	}
	return c.shown
}

// current returns the settings of the newest sample.
func (c *Collector) current() *configured {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown
}

// watchedFields returns the fields to read for each kind of entity, in the order of
// the counters, and those with the state of a switch if it is selected.
func watchedFields(cfg *metrics.Config) map[model.EntityKind][]model.FieldID {
	fields := map[model.EntityKind][]model.FieldID{}
	for kind := model.KindGPU; int(kind) < model.KindCount; kind++ {
		for _, c := range cfg.Counters {
			if c.On(kind) && !slices.Contains(fields[kind], c.Field.ID) {
				fields[kind] = append(fields[kind], c.Field.ID)
			}
		}
	}
	for _, f := range cfg.SwitchFields() {
		if !slices.Contains(fields[model.KindSwitch], f) {
			fields[model.KindSwitch] = append(fields[model.KindSwitch], f)
		}
	}
	return fields
}

// inOrder sorts the lists whose order has no meaning, to compare configurations.
func inOrder(c wire.SamplerConfig) wire.SamplerConfig {
	fields := make(map[model.EntityKind][]model.FieldID, len(c.Fields))
	for kind, ids := range c.Fields {
		fields[kind] = slices.Sorted(slices.Values(ids))
	}
	c.Fields = fields
	c.Tracked = slices.SortedFunc(slices.Values(c.Tracked), func(a, b model.TrackedField) int { return cmp.Compare(a.Field, b.Field) })
	c.Models = slices.SortedFunc(slices.Values(c.Models), func(a, b wire.ModelRule) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Match, b.Match))
	})
	return c
}
