// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// reload replaces the running configuration by next, or returns an error and changes
// nothing.
func (e *exporter) reload(next config.Config) (changed bool, err error) {
	e.mu.Lock()
	latest := e.latest
	e.mu.Unlock()
	cfg, restart := config.Reload(latest.cfg, next)
	if len(restart) > 0 {
		e.log.Warn("Changed settings need a restart, and remain as they were", "settings", strings.Join(restart, ", "))
	}
	replacement, err := e.newCollection(cfg)
	if err != nil {
		return false, err
	}
	replacement.sampler.Revision = latest.sampler.Revision
	sameSampler := reflect.DeepEqual(inOrder(replacement.sampler), inOrder(latest.sampler))
	if sameSampler && reflect.DeepEqual(cfg, latest.cfg) {
		return false, nil
	}
	if sameSampler {
		replacement.sampler = latest.sampler // the running one
	} else {
		replacement.sampler.Revision++
	}
	e.mu.Lock()
	e.latest = replacement
	e.mu.Unlock()
	if !sameSampler {
		e.supervisor.Reconfigure(replacement.sampler)
	}
	return true, nil
}

// reloadEnded publishes the metrics of a reload.
func (e *exporter) reloadEnded() {
	select {
	case e.reloaded <- struct{}{}:
	default:
	}
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

// adopt switches to the collection of the newest sample, and returns it. Until the first
// sample of a new configuration, that is the previous collection: no scrape is empty.
func (e *exporter) adopt() *collection {
	inv, _ := e.node.Newest()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.collected == e.latest {
		return e.latest
	}
	if e.collected == nil || inv == nil || inv.Revision == e.latest.sampler.Revision {
		e.collected = e.latest
		e.collected.families.Keep()
		e.node.Track(e.collected.sampler.Tracked, e.collected.sampler.Interval)
	}
	return e.collected
}

// shown returns the collection of the newest sample.
func (e *exporter) shown() *collection {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.collected
}
