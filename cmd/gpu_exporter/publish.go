// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
)

// gatherInterval bounds how often the process's own metrics are gathered. That
// costs as much as all other metrics together.
const gatherInterval = time.Second

// publishLoop publishes an exposition for every sample and every change of the
// owners, and at least one per interval.
func (e *exporter) publishLoop(ctx context.Context) error {
	timer := time.NewTimer(e.shown().cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-e.node.Changed():
		case <-e.owners.Changed():
		case <-e.reloaded:
			e.gathered = time.Time{} // the process's own metrics report the reload
		}
		e.publish()
		// Series that become stale are withheld at that moment, not an interval later.
		cfg := e.shown().cfg
		wait := cfg.Interval
		for _, freshness := range []func(time.Duration) (time.Duration, bool){e.node.Freshness, e.node.LinksFreshness} {
			if left, fresh := freshness(cfg.MaxAge); fresh {
				wait = min(wait, left+time.Millisecond)
			}
		}
		timer.Reset(wait)
	}
}

// publish builds a new exposition for the scrapes and returns it.
func (e *exporter) publish() *metrics.Exposition {
	e.gather()
	inv, sample := e.node.Newest()
	c := e.adopt()
	families := c.families.Build()
	for now := e.adopt(); now != c; now = e.adopt() { // the first sample of a new configuration arrived meanwhile
		c, families = now, now.families.Build()
	}
	exposition := &metrics.Exposition{Families: families, Process: e.process}
	e.metrics.Publish(exposition.Append)
	if sample != nil {
		e.served.Store(true)
		e.compareModels(c, inv)
	}
	return exposition
}

// gather gathers the process's own metrics, unless that was just done.
func (e *exporter) gather() {
	if time.Since(e.gathered) < gatherInterval {
		return
	}
	process, err := e.registry.Gather()
	if err != nil {
		// The families without an error are returned all the same.
		e.log.Warn("Some metrics of the exporter process cannot be gathered", "err", err)
	}
	e.process, e.gathered = process, time.Now()
}

// compareModels logs, once per configuration, the entries of models that match no
// GPU.
func (e *exporter) compareModels(c *collection, inv *model.Inventory) {
	if c.compared {
		return
	}
	var gpus []string
	for i := range inv.Entities {
		if gpu := &inv.Entities[i]; gpu.Kind == model.KindGPU {
			gpus = append(gpus, gpu.Model)
		}
	}
	if len(gpus) == 0 {
		return // GPUs may appear later
	}
	c.compared = true
	slices.Sort(gpus)
	gpus = slices.Compact(gpus)
	for _, match := range c.unmatched(gpus) {
		e.log.Info("An entry of models matches no GPU here", "file", c.cfg.ConfigFile, "match", match, "gpus", strings.Join(gpus, ", "))
	}
}
