// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// costly are the bits of the reasons that cost performance. The remaining ones are
// settings, idleness, or the clocks of a slower GPU (nvml.h, nvmlClocksEventReasons).
const costly = 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// addClockEvents adds the time by reason. Times that were counted from samples remain
// without a fresh sample; those that the driver counts need one.
func (p *page) addClockEvents() {
	for i := range p.v.Inventory.Entities {
		if p.v.Inventory.Entities[i].Kind != model.KindGPU || !p.layout.entities[i].device {
			continue
		}
		events, ok := p.v.ClockEvents[model.KeyOf(p.v.Inventory, i)]
		if !ok {
			continue
		}
		for reason := range field.ClockEventReasonCount {
			value, ok := events.Seconds[reason], false
			switch events.Sources[reason] {
			case state.SourceUndecided:
			case state.SourceSamples:
				ok = true
			case state.SourceDriver:
				value, ok = p.driverSeconds(i, reason)
			}
			family := &definition.GPUClockPolicySeconds
			if costly>>reason&1 != 0 {
				family = &definition.GPUClockEventSeconds
			}
			if ok {
				p.addEntity(family, i, value, field.ClockEventReason(reason))
			}
		}
	}
}

// driverSeconds returns the driver's own count of a reason on a GPU.
func (p *page) driverSeconds(gpu, reason int) (float64, bool) {
	if !p.fresh || len(p.v.Sample.Derived) == 0 || len(p.v.Sample.Derived[gpu]) == 0 {
		return 0, false
	}
	cells := gpuCells{p, gpu, p.v.Sample.Derived[gpu]}
	ns, ok := cells.number(state.ClockEventCounter(reason))
	return float64(ns) / 1e9, ok && ns >= 0
}

// healthSettling is how long DCGM must watch before the checks of some systems can
// find anything (dcgmHealthSystems_t in dcgm_structs.h). A pass before is meaningless.
const healthSettling = time.Minute

// HealthMaxAge is the age limit of a health check: that of a sample, or three checks.
func (cfg *Config) HealthMaxAge() time.Duration { return max(cfg.MaxAge, 3*cfg.HealthInterval) }

// freshHealth returns the newest health check, or nil if none is fresh.
func (p *page) freshHealth() *model.Health {
	if p.cfg.HealthInterval <= 0 || p.v.Health.Newest == nil || p.v.Health.Age(p.node.Clock()) > p.cfg.HealthMaxAge() {
		return nil
	}
	return p.v.Health.Newest
}

// addHealth adds the results of a fresh health check, and the state of the checks.
func (p *page) addHealth() {
	if p.cfg.HealthInterval <= 0 {
		return
	}
	h := p.freshHealth()
	p.addOwn(&definition.HealthCheckUp, bit(h != nil && !p.v.Health.Failed))
	p.addOwn(&definition.HealthCheckFailures, float64(p.v.Health.Failures))
	if newest := p.v.Health.Newest; newest != nil {
		p.addOwn(&definition.HealthCheckLastSuccess, seconds(newest.Time))
		p.addOwn(&definition.HealthCheckDuration, newest.Duration.Seconds())
	}
	if h == nil {
		return
	}
	for _, c := range h.Checked {
		if p.layout.entities[c.Entity].identity == nil {
			continue
		}
		usual := model.HealthSystemsOf(p.v.Inventory.Entities[c.Entity].Kind)
		worst, known := model.HealthPass, false
		for system := range model.HealthSystem(model.HealthSystemCount) {
			result, _ := h.Result(c.Entity, system)
			if result == model.HealthPass && (!slices.Contains(usual, system) || system.Settles() && h.Time.Sub(c.Since) < healthSettling) {
				continue
			}
			worst, known = max(worst, result), true
			p.addEntity(&definition.GPUHealthSystemStatus, c.Entity, float64(result), system.String())
		}
		if known {
			p.addEntity(&definition.GPUHealthStatus, c.Entity, float64(worst))
		}
	}
	p.addIncidents(h)
}

// addIncidents adds each incident of a health check once.
func (p *page) addIncidents(h *model.Health) {
	seen := map[model.HealthIncident]bool{}
	for _, i := range h.Incidents {
		identity := p.cfg.withHostname(nil) // an incident of the node
		if i.Entity != model.Unknown {
			identity = p.layout.entities[i.Entity].identity
		}
		if seen[i] || i.Result == model.HealthPass || i.Entity != model.Unknown && identity == nil {
			continue
		}
		seen[i] = true
		p.add(&definition.GPUHealthIncidentInfo, p.labels(&definition.GPUHealthIncidentInfo, i.Entity, identity,
			decimal(i.Code), model.HealthErrorName(i.Code), i.Result.String(), i.System.String()), 1)
	}
}

// addProfiling adds the state of the profiling fields of each GPU. The states need a
// fresh sample, the counters do not.
func (p *page) addProfiling() {
	if p.v.Profiling.Newest == nil {
		return
	}
	for _, g := range p.v.Profiling.Newest.GPUs {
		if !p.layout.entities[g.Entity].device {
			continue
		}
		p.addEntity(&definition.GPUProfilingRewatches, g.Entity, float64(p.v.Profiling.Rewatches[p.v.Inventory.Entities[g.Entity].UUID]))
		if !p.fresh {
			continue
		}
		p.addEntity(&definition.GPUProfilingState, g.Entity, float64(g.State))
		if g.State != model.ProfilingActive {
			p.addEntity(&definition.GPUProfilingStateInfo, g.Entity, 1, g.State.String())
		}
	}
}

// peersMaxAge is the age limit of the topology between GPUs, which is read once a
// minute together with a health check.
const peersMaxAge = 5 * time.Minute

// freshPeers returns the newest topology, or nil if it is not fresh.
func (p *page) freshPeers() *model.Peers {
	if p.v.Peers.Newest == nil || p.v.Peers.Age(p.node.Clock()) > max(peersMaxAge, p.cfg.HealthMaxAge()) {
		return nil
	}
	return p.v.Peers.Newest
}

// addPeers adds the connections between GPUs.
func (p *page) addPeers() {
	peers := p.freshPeers()
	if peers == nil {
		return
	}
	for _, pair := range peers.Pairs {
		if !p.layout.entities[pair.Entity].device {
			continue
		}
		gpu := &p.v.Inventory.Entities[pair.Peer]
		id := decimal(gpu.ID)
		if pair.P2P != model.Unknown {
			p.addEntity(&definition.GPUP2PStatus, pair.Entity, float64(pair.P2P), id, gpu.UUID)
		}
		if pair.NVLinks != model.Unknown {
			p.addEntity(&definition.GPUPeerNVLinks, pair.Entity, float64(pair.NVLinks), id, gpu.UUID)
		}
		if pair.Path != model.PeerPathUnknown {
			p.addEntity(&definition.GPUTopologyInfo, pair.Entity, 1, pair.Path.String(), id, gpu.UUID)
		}
	}
}
