// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/state"
)

// Integrates reports whether the family of an integral is selected.
func (cfg *Config) Integrates(q state.Quantity) bool { return cfg.Selected.Has(integralFamilies[q]) }

// NeedsPeers reports whether a family or counter needs the connections between GPUs.
func (cfg *Config) NeedsPeers() bool {
	return cfg.Selected.Has(&definition.GPUP2PStatus) || cfg.counts(field.P2PStatus)
}

// NeedsHealth reports whether a family or counter needs DCGM's health checks, which
// also read the connections between GPUs.
func (cfg *Config) NeedsHealth() bool {
	return cfg.Selected.Has(&definition.GPUHealthStatus) || cfg.Selected.Has(&definition.GPUHealthSystemStatus) || cfg.NeedsPeers() || cfg.counts(field.GPUHealthStatus)
}

// NeedsUsage reports whether a series needs the processes on the devices.
func (cfg *Config) NeedsUsage() bool {
	return cfg.Selected.Has(&definition.GPUPodProcesses) || cfg.Selected.Has(&definition.GPUPodProcessMemoryUsed) || cfg.Owners.VirtualGPUs
}

// counts reports whether the counters include one of the computed ones.
func (cfg *Config) counts(computed ...field.ComputedCounter) bool {
	return slices.ContainsFunc(cfg.Counters, func(c field.Counter) bool { return slices.Contains(computed, c.Computed) })
}
