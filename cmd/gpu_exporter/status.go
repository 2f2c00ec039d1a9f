// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/status"
	"gpu_exporter/cmd/gpu_exporter/internal/web"
	"gpu_exporter/collector"
)

// effective is the running configuration as the status page shows it. The page must not wait
// for a reload, which holds the lock of the configuration.
type effective struct {
	config config.Config
	node   string // its name
}

// setEffective shows a configuration on the status page.
func (e *exporter) setEffective(cfg config.Config, settings *collector.Settings) {
	e.effective.Store(&effective{cfg, cmp.Or(settings.Metrics.Hostname, cfg.Host())})
}

// statusPages returns the status page, or nil if it is off. Nothing is computed for it
// before a request.
func (e *exporter) statusPages() *web.Status {
	if !e.cfg.StatusPage {
		return nil
	}
	pages := status.NewPages(func() *status.Status {
		now := e.effective.Load()
		return status.Build(&status.Input{
			Snapshot: e.collector.Snapshot(), Owners: e.owners.Report(), Config: &now.config, Node: now.node,
			Summary: e.env.Summary, Steering: e.env.Steering,
		})
	}, e.cfg.Pprof)
	return &web.Status{Page: pages.HTML, JSON: pages.JSON, Policy: status.Policy()}
}

// steering returns an example of a command line that steers the simulated node; empty
// without the program.
func (e *exporter) steering() string {
	if e.env.Steering == "" {
		return ""
	}
	return e.env.Steering + " 'xid 79 gpu 0'"
}
