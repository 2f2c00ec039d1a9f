// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/xid"
)

// Snapshot is the state of the node at one moment, for people. Its parts are immutable.
type Snapshot struct {
	state.View
	Time time.Time
	// Fresh: the values of the sample are those of now. Expired samples are no longer shown.
	Fresh    bool
	MaxAge   time.Duration // of a sample
	Interval time.Duration // between samples
	// Ownership belongs to the inventory; nil without one.
	Ownership *metrics.Ownership
	Sampler   model.SamplerStatus
	// Checked is the newest health check if it is fresh, or nil.
	Checked *model.Health
	// KernelLog is the state of the kernel log if KernelLogRead.
	KernelLog     model.KernelLogStatus
	KernelLogRead bool
	Counters      []field.Counter
	Catalogue     *xid.Catalogue
	// Ready and NotReady are the results of [Collector.Ready].
	Ready    bool
	NotReady string
}

// Snapshot returns the state of this moment. It only copies what is in memory, and waits for
// nothing.
func (c *Collector) Snapshot() Snapshot {
	settings := c.current()
	s := Snapshot{
		View: c.state.View(), Time: c.state.Clock(), Sampler: c.supervisor.Status(),
		MaxAge: settings.Metrics.MaxAge, Interval: settings.Sampler.Interval,
		Counters: settings.Metrics.Counters, Catalogue: settings.Metrics.XIDs,
	}
	s.Fresh = s.Sample != nil && s.Age <= s.MaxAge
	if s.Inventory != nil && c.cfg.Owners != nil {
		at := s.Time
		if s.Fresh {
			at = s.Sample.Time
		}
		s.Ownership = c.cfg.Owners.Ownership(s.Inventory, at)
	}
	if h := s.Health.Newest; h != nil && s.Health.Age(s.Time) <= settings.Metrics.HealthMaxAge() {
		s.Checked = h
	}
	s.KernelLog, s.KernelLogRead = c.kernelLog.Status()
	s.Ready, s.NotReady = c.Ready()
	return s
}

// Silence returns why the GPU at position i did not answer the newest reading, or "" if it
// did.
func (s *Snapshot) Silence(i int) string { return state.Silence(s.View, i) }
