// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector"
)

// settings returns the collector's part of a configuration.
func (e *exporter) settings(cfg config.Config) (collector.Settings, error) {
	hostname, err := cfg.HostnameValue(os.Hostname)
	if err != nil {
		return collector.Settings{}, err
	}
	s := collector.Settings{Resolution: cfg.Resolution, AllowNoGPUs: cfg.AllowNoGPUs}
	s.Sampler.Interval = cfg.Interval
	s.Sampler.Models = cfg.Models
	s.Sampler.Devices = cfg.Devices
	s.Sampler.Switches = cfg.Switches
	s.Sampler.CPUs = cfg.CPUs
	s.Sampler.Hostengine = cfg.Hostengine
	s.Sampler.DCGMLogLevel = cfg.DCGMLogLevel
	s.Sampler.HealthInterval = cfg.HealthEvery()

	s.Metrics.Counters = cfg.Counters
	s.Metrics.Selected = cfg.Families
	s.Metrics.XIDs = cfg.XIDs
	s.Metrics.HostnameLabel = cfg.HostnameLabel
	s.Metrics.Hostname = hostname
	s.Metrics.OldNames = cfg.UseOldNamespace
	s.Metrics.ReplaceBlanks = cfg.ReplaceBlanks
	s.Metrics.LinksFromOne = cfg.LinksFromOne
	s.Metrics.MaxAge = cfg.MaxAge
	s.Metrics.XIDWindow = cfg.XIDWindow
	s.Metrics.ClockEventsWindow = cfg.ClockWindow
	s.Metrics.HealthInterval = cfg.HealthEvery()
	owners := &s.Metrics.Owners
	owners.UID = cfg.PodUID
	owners.Workload = cfg.Workload
	owners.SeriesLabels = cfg.ShowsPodLabels() && cfg.PodLabelsForm == config.PodLabelsOnSeries
	owners.LabelsFamily = cfg.ShowsPodLabels() && cfg.PodLabelsForm == config.PodLabelsInFamily
	owners.Claims = cfg.DRA
	owners.HPCJobs = cfg.HPCDir != ""
	owners.VirtualGPUs = cfg.VirtualGPUs
	owners.Usage = cfg.Kubernetes && (cfg.PodUsage || cfg.VirtualGPUs) && s.Metrics.NeedsUsage()
	s.Sampler.Processes = e.owners.NeedsProcesses() && (owners.Usage || cfg.SlurmMode() != config.SlurmOff)
	return s, nil
}

// reload replaces the running configuration by next, or returns an error and changes
// nothing.
func (e *exporter) reload(next config.Config) (changed bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	cfg, restart := config.Reload(e.cfg, next)
	if len(restart) > 0 {
		e.log.Warn("Changed settings need a restart, and remain as they were", "settings", strings.Join(restart, ", "))
	}
	settings, err := e.settings(cfg)
	if err != nil {
		return false, err
	}
	if reflect.DeepEqual(cfg, e.cfg) {
		return false, nil
	}
	if section := e.cfg.Web.Weaker(cfg.Web); section != "" {
		return false, fmt.Errorf("%s: %s is no longer set: restart the exporter to serve without it", cfg.WebConfigFile, section)
	}
	if e.webFile != nil {
		if err := e.webFile.Replace(cfg.Web); err != nil {
			return false, err
		}
	}
	e.cfg, e.compared = cfg, false
	e.setEffective(cfg, &settings)
	e.collector.Reconfigure(settings)
	return true, nil
}

// compareModels logs, once per configuration, the entries of models that match no
// GPU.
func (e *exporter) compareModels() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.compared {
		return
	}
	gpus := e.collector.Models()
	if len(gpus) == 0 {
		return // GPUs may appear later
	}
	e.compared = true
	for _, match := range e.cfg.UnmatchedModels(gpus) {
		e.log.Info("An entry of models matches no GPU here", "file", e.cfg.ConfigFile, "match", match, "gpus", strings.Join(slices.Compact(gpus), ", "))
	}
}
