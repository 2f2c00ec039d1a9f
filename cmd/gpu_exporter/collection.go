// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// collection is what a reload replaces: the configuration of the sampler and the
// builder of the metric families.
type collection struct {
	cfg      config.Config
	sampler  wire.SamplerConfig
	families *metrics.Families
	compared bool // with the models of the node's GPUs
}

// newCollection creates the collection of a configuration.
func (e *exporter) newCollection(cfg config.Config) (*collection, error) {
	hostname, err := cfg.HostnameValue(os.Hostname)
	if err != nil {
		return nil, err
	}
	c := &collection{cfg: cfg}
	c.sampler = wire.SamplerConfig{
		Interval:     cfg.Interval,
		Fields:       watchedFields(cfg.Counters),
		Models:       cfg.Models,
		Derived:      metrics.DerivedFields(),
		Tracked:      state.TrackedFields(cfg.Counters, cfg.Resolution),
		Devices:      cfg.Devices,
		Switches:     cfg.Switches,
		CPUs:         cfg.CPUs,
		Hostengine:   cfg.Hostengine,
		DCGMLogLevel: cfg.DCGMLogLevel,
		Processes:    e.owners.NeedsProcesses(),

		HealthInterval: cfg.HealthEvery(),
	}
	c.families = metrics.New(metrics.Config{
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
		KernelLog:         e.kernelLogStatus,
		Owners: metrics.OwnerForm{
			UID:          cfg.PodUID,
			Workload:     cfg.Workload,
			SeriesLabels: cfg.ShowsPodLabels() && cfg.PodLabelsForm == config.PodLabelsOnSeries,
			LabelsFamily: cfg.ShowsPodLabels() && cfg.PodLabelsForm == config.PodLabelsInFamily,
			Claims:       cfg.DRA,
			HPCJobs:      cfg.HPCDir != "",
			VirtualGPUs:  cfg.VirtualGPUs,
			Usage:        cfg.Kubernetes && (cfg.PodUsage || cfg.VirtualGPUs),
		},
	}, e.node, e.supervisor, e.owners)
	return c, nil
}

// unmatched returns the entries of models that match none of the GPUs, each once.
func (c *collection) unmatched(gpus []string) (matches []string) {
	for _, match := range c.cfg.ModelMatches {
		expression, err := wire.ModelExpression(match)
		if err == nil && !slices.ContainsFunc(gpus, expression.MatchString) && !slices.Contains(matches, match) {
			matches = append(matches, match)
		}
	}
	return matches
}

// watchedFields returns the fields to read for each kind of entity, in the order of
// the counters. Fields with the state of a switch are always read.
func watchedFields(counters []field.Counter) map[model.EntityKind][]model.FieldID {
	fields := map[model.EntityKind][]model.FieldID{}
	for _, kind := range config.CollectedKinds() {
		for _, c := range counters {
			if c.On(kind) && !slices.Contains(fields[kind], c.Field.ID) {
				fields[kind] = append(fields[kind], c.Field.ID)
			}
		}
	}
	for _, f := range metrics.SwitchFields() {
		if !slices.Contains(fields[model.KindSwitch], f) {
			fields[model.KindSwitch] = append(fields[model.KindSwitch], f)
		}
	}
	return fields
}
