// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

var gpuClockEventSeconds = definition{"gpu_clock_event_seconds_total", field.MetricCounter, "Time that the reason held the clocks down: the driver's own count since it was loaded (fields 1420 to 1424), or, for reasons and GPUs that it does not count, what the exporter saw from sample to sample (field 112).", []string{"reason"}}

// appendClockEvents appends the time by reason. What samples told stays; what the
// driver counts is there while a sample has it.
func (f *Families) appendClockEvents(families []Family, v state.View, fresh bool) []Family {
	family := gpuClockEventSeconds.family()
	for i := range v.Inventory.Entities {
		if v.Inventory.Entities[i].Kind != model.KindGPU || f.layout.entities[i].own == nil {
			continue
		}
		events, ok := v.ClockEvents[model.KeyOf(v.Inventory, i)]
		if !ok {
			continue
		}
		for bit := range field.ClockEventReasonCount {
			// The first of derivedRows are the reasons, with the same labels.
			switch events.Sources[bit] {
			case state.SourceUndecided:
			case state.SourceSamples:
				family.Series = append(family.Series, Series{f.derivedLabels(i, bit), Number(events.Seconds[bit])})
			case state.SourceDriver:
				column := slices.Index(v.Inventory.Derived, state.ClockEventCounter(bit))
				if !fresh || column < 0 || len(v.Sample.Derived) == 0 || len(v.Sample.Derived[i]) == 0 {
					continue
				}
				if c := v.Sample.Derived[i][column]; c.Status == model.StatusOK && c.Type == model.ValueInt64 {
					if value, ok := nanoseconds(c.Int64()); ok {
						family.Series = append(family.Series, Series{f.derivedLabels(i, bit), value})
					}
				}
			}
		}
	}
	return append(families, family)
}

// healthSettling is how long DCGM must have watched before these systems' checks can
// find anything (dcgmHealthSystems_t in dcgm_structs.h): until then that they have
// found nothing says nothing.
const healthSettling = time.Minute

var (
	gpuHealthStatus = definition{"gpu_health_status", field.MetricGauge, "What DCGM's health check makes of a system of the GPU, NVSwitch or CPU: 0 pass, 1 warning, 2 failure. The system device is for what concerns all of it.", []string{"system"}}
	gpuHealthInfo   = definition{"gpu_health_incident_info", field.MetricGauge, "What DCGM's health check found; always 1. error is DCGM's name for the code, DCGM_FR_ left out.",
		[]string{"code", "error", "severity", "system"}}

	healthUp       = definition{"gpu_exporter_health_check_up", field.MetricGauge, "Whether the last health check could be made and is fresh.", nil}
	healthLast     = definition{"gpu_exporter_health_check_last_success_timestamp_seconds", field.MetricGauge, "When the last health check that could be made was complete.", nil}
	healthDuration = definition{"gpu_exporter_health_check_duration_seconds", field.MetricGauge, "How long the last health check that could be made took.", nil}
	healthFailures = definition{"gpu_exporter_health_check_failures_total", field.MetricCounter, "Health checks that could not be made.", nil}
)

// healthMaxAge is how old the outcome of a health check may be: as old as a sample,
// or three checks.
func (cfg *Config) healthMaxAge() time.Duration { return max(cfg.MaxAge, 3*cfg.HealthInterval) }

// freshHealth returns the newest outcome, or nil where there is none that is fresh.
func (f *Families) freshHealth(v state.View) *model.Health {
	if f.cfg.HealthInterval <= 0 || v.Health.Newest == nil || v.Health.Age(f.node.Clock()) > f.cfg.healthMaxAge() {
		return nil
	}
	return v.Health.Newest
}

// appendHealth appends what the newest health check found, if that is fresh, and how
// the checks do.
func (f *Families) appendHealth(families []Family, v state.View) []Family {
	if f.cfg.HealthInterval <= 0 {
		return families
	}
	h := f.freshHealth(v)
	families = append(families,
		healthUp.single(Bool(v.Health.Newest != nil && !v.Health.Failed && v.Health.Age(f.node.Clock()) <= f.cfg.healthMaxAge())),
		healthFailures.single(Integer(v.Health.Failures)))
	if v.Health.Newest != nil {
		families = append(families,
			healthLast.single(Number(seconds(v.Health.Newest.Time))),
			healthDuration.single(Number(v.Health.Newest.Duration.Seconds())))
	}
	if h == nil {
		return families
	}
	status := gpuHealthStatus.family()
	for _, c := range h.Checked {
		if f.layout.entities[c.Entity].self == nil {
			continue
		}
		usual := model.HealthSystemsOf(v.Inventory.Entities[c.Entity].Kind)
		for system := range model.HealthSystem(model.HealthSystemCount) {
			result, _ := h.Result(c.Entity, system)
			if result == model.HealthPass && (!slices.Contains(usual, system) || system.Settles() && h.Time.Sub(c.Since) < healthSettling) {
				continue
			}
			status.Series = append(status.Series, Series{f.healthLabels(gpuHealthStatus.Name, c.Entity, int64(system), func() []Label {
				return []Label{{"system", system.String()}}
			}), Number(float64(result))})
		}
	}
	return append(families, status, f.healthInfo(h))
}

// healthInfo returns what was found, the same thing once.
func (f *Families) healthInfo(h *model.Health) Family {
	info := gpuHealthInfo.family()
	seen := map[model.HealthIncident]bool{}
	for _, i := range h.Incidents {
		if seen[i] || i.Result == model.HealthPass || i.Entity != model.Unknown && f.layout.entities[i.Entity].self == nil {
			continue
		}
		seen[i] = true
		key := int64(i.System)<<40 | int64(i.Result)<<32 | int64(i.Code)
		info.Series = append(info.Series, Series{f.healthLabels(gpuHealthInfo.Name, i.Entity, key, func() []Label {
			return []Label{{"code", fmt.Sprint(i.Code)}, {"error", model.HealthErrorName(i.Code)},
				{"severity", i.Result.String()}, {"system", i.System.String()}}
		}), Number(1)})
	}
	return info
}

// healthLabels returns the identity of an entity, or of the node, with more labels.
func (f *Families) healthLabels(family string, entity int, key int64, labels func() []Label) *LabelSet {
	return f.layout.render(renderedKey{entity, family, key, 0}, func() []Label {
		if entity == model.Unknown {
			return append(f.cfg.withHostname(nil), labels()...)
		}
		return slices.Concat(f.layout.entities[entity].identity, labels())
	})
}

var (
	gpuProfilingState = definition{"gpu_profiling_state", field.MetricGauge, "Whether profiling fields (DCGM_FI_PROF_*) of the GPU have values, and if not, why not: 1 for the state that it is in, 0 for the others.",
		[]string{"state"}}
	gpuProfilingRewatches = definition{"gpu_profiling_rewatches_total", field.MetricCounter, "Times that profiling fields of the GPU were watched anew because DCGM's values stood still, were 0 on a busy GPU, or had ceased to come.", nil}
	profilingPausedUntil  = definition{"gpu_exporter_profiling_paused_until_timestamp_seconds", field.MetricGauge, "When the pause of profiling ends that an operator asked for; absent while there is none.", nil}
)

// appendProfiling appends how profiling stands on the GPUs. The states are those
// of a running sampler; the counters go on without one.
func (f *Families) appendProfiling(families []Family, v state.View, fresh bool) []Family {
	if v.Profiling.Newest == nil {
		return families
	}
	state, rewatches := gpuProfilingState.family(), gpuProfilingRewatches.family()
	state.Series = make([]Series, 0, len(v.Profiling.Newest.GPUs)*model.ProfilingStateCount)
	for _, g := range v.Profiling.Newest.GPUs {
		l := &f.layout.entities[g.Entity]
		if l.own == nil {
			continue
		}
		rewatches.Series = append(rewatches.Series, Series{l.own, Number(float64(v.Profiling.Rewatches[v.Inventory.Entities[g.Entity].UUID]))})
		if !fresh {
			continue
		}
		for s := range model.ProfilingState(model.ProfilingStateCount) {
			labels := f.layout.render(renderedKey{g.Entity, gpuProfilingState.Name, int64(s), 0}, func() []Label {
				return append(append([]Label(nil), l.identity...), Label{"state", s.String()})
			})
			state.Series = append(state.Series, Series{labels, Bool(s == g.State)})
		}
	}
	return append(families, state, rewatches)
}

// appendPause appends until when profiling is paused.
func appendPause(families []Family, until time.Time) []Family {
	if until.IsZero() {
		return families
	}
	return append(families, profilingPausedUntil.single(Number(seconds(until))))
}

// peersMaxAge is how old the topology between GPUs may be: it is read each minute,
// with a health check.
const peersMaxAge = 5 * time.Minute

var (
	gpuP2PStatus    = definition{"gpu_p2p_status", field.MetricGauge, "Whether the GPU reaches the peer over NVLink: 0 yes; 1 chipset, 2 GPU or 3 topology not supported; 4 disabled by a registry key; 5 not supported; 6 unknown.", []string{"peer_gpu", "peer_uuid"}}
	gpuPeerLinks    = definition{"gpu_peer_nvlinks", field.MetricGauge, "NVLinks that are up between the GPU and the peer, directly or over switches.", []string{"peer_gpu", "peer_uuid"}}
	gpuTopologyInfo = definition{"gpu_topology_info", field.MetricGauge, "What PCIe traffic between the GPU and the peer goes through at the most: BOARD one board, PIX one switch, PXB several switches, PHB a host bridge, NODE one CPU, SYS the link between CPUs; always 1.",
		[]string{"path", "peer_gpu", "peer_uuid"}}
)

// freshPeers returns the newest topology, or nil where there is none that is fresh.
func (f *Families) freshPeers(v state.View) *model.Peers {
	if v.Peers.Newest == nil || f.node.Clock().Sub(v.Peers.Received) > max(peersMaxAge, f.cfg.healthMaxAge()) {
		return nil
	}
	return v.Peers.Newest
}

// appendPeers appends how the GPUs reach each other.
func (f *Families) appendPeers(families []Family, v state.View) []Family {
	p := f.freshPeers(v)
	if p == nil {
		return families
	}
	status, links, path := gpuP2PStatus.family(), gpuPeerLinks.family(), gpuTopologyInfo.family()
	for _, family := range []*Family{&status, &links, &path} {
		family.Series = f.buffer(family.Name)
	}
	for _, pair := range p.Pairs {
		l := &f.layout.entities[pair.Entity]
		if l.own == nil {
			continue
		}
		peer := func() []Label {
			gpu := &v.Inventory.Entities[pair.Peer]
			return []Label{{"peer_gpu", strconv.FormatUint(uint64(gpu.ID), 10)}, {"peer_uuid", gpu.UUID}}
		}
		both := f.layout.render(renderedKey{pair.Entity, gpuP2PStatus.Name, int64(pair.Peer), 0}, func() []Label {
			return slices.Concat(l.identity, peer())
		})
		if pair.P2P != model.Unknown {
			status.Series = append(status.Series, Series{both, Number(float64(pair.P2P))})
		}
		if pair.NVLinks != model.Unknown {
			links.Series = append(links.Series, Series{both, Number(float64(pair.NVLinks))})
		}
		if pair.Path != model.PeerPathUnknown {
			path.Series = append(path.Series, Series{f.layout.render(renderedKey{pair.Entity, gpuTopologyInfo.Name, int64(pair.Peer), int(pair.Path)}, func() []Label {
				return slices.Concat(l.identity, []Label{{"path", pair.Path.String()}}, peer())
			}), Number(1)})
		}
	}
	return append(families, status, links, path)
}
