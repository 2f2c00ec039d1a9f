// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"

	conf "gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector"
)

// collection is what is collected and how it is shown: the part of the
// configuration that a reload replaces.
type collection struct {
	cfg      config
	sampler  collector.SamplerConfig
	families *collector.Families
	compared bool // the models of the configuration were, with those of the GPUs
}

// newCollection sets up what a configuration asks for.
func (e *exporter) newCollection(cfg config) (*collection, error) {
	hostname, err := cfg.HostnameValue(os.Hostname)
	if err != nil {
		return nil, err
	}
	c := &collection{cfg: cfg}
	c.sampler = collector.SamplerConfig{
		Interval:     cfg.Interval,
		Fields:       watchedFields(cfg.Counters),
		Models:       cfg.Models,
		Derived:      collector.DerivedFields(),
		Tracked:      collector.TrackedFields(cfg.Counters, cfg.Resolution),
		Devices:      cfg.Devices,
		Switches:     cfg.Switches,
		CPUs:         cfg.CPUs,
		Hostengine:   cfg.Hostengine,
		DCGMLogLevel: cfg.DCGMLogLevel,
		Processes:    e.owners.needProcesses(),

		HealthInterval: cfg.HealthEvery(),
	}
	var source collector.OwnerSource // not a nil *owners, which is no nil interface
	if e.owners != nil {
		source = e.owners
	}
	c.families = collector.NewFamilies(collector.FamiliesConfig{
		Counters:      cfg.Counters,
		XIDs:          cfg.XIDs,
		HostnameLabel: cfg.HostnameLabel,
		Hostname:      hostname,
		OldNames:      cfg.UseOldNamespace,
		ReplaceBlanks: cfg.ReplaceBlanks,
		LinksFromOne:  cfg.LinksFromOne,
		MaxAge:        cfg.MaxAge,
		XIDWindow:     cfg.XIDWindow,

		ClockEventsWindow: cfg.ClockWindow,
		HealthInterval:    cfg.HealthEvery(),
		KernelLog:         e.kernelLog.status,
		Owners: collector.OwnerForm{
			UID:          cfg.PodUID,
			Workload:     cfg.Workload,
			SeriesLabels: cfg.ShowsPodLabels() && cfg.PodLabelsForm == conf.PodLabelsOnSeries,
			LabelsFamily: cfg.ShowsPodLabels() && cfg.PodLabelsForm == conf.PodLabelsInFamily,
			Claims:       cfg.DRA,
			HPCJobs:      cfg.HPCDir != "",
			VirtualGPUs:  cfg.VirtualGPUs,
			Usage:        cfg.Kubernetes && (cfg.PodUsage || cfg.VirtualGPUs),
		},
	}, e.node, e.supervisor, source)
	return c, nil
}

// unmatched returns the entries of models that fit none of the GPUs, each once.
func (c *collection) unmatched(gpus []string) (matches []string) {
	for _, match := range c.cfg.ModelMatches {
		expression, err := collector.ModelExpression(match)
		if err == nil && !slices.ContainsFunc(gpus, expression.MatchString) && !slices.Contains(matches, match) {
			matches = append(matches, match)
		}
	}
	return matches
}
