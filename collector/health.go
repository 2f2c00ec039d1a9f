// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Health is the outcome of one health check by DCGM. It is immutable once
// published.
type Health struct {
	// Generation is the inventory that the entities are of.
	Generation uint64
	Time       time.Time     // when the check was complete
	Duration   time.Duration // how long it took
	// Failure is why the check could not be made; then there is no more of it.
	Failure string
	// Checked are in the order of their entities, each there once.
	Checked   []CheckedEntity
	Incidents []HealthIncident
}

// CheckedEntity is an entity that a health check covers.
type CheckedEntity struct {
	Entity int // position in [Inventory.Entities]
	// Since is since when DCGM has been gathering what its checks look at.
	Since time.Time
}

// HealthIncident is something that a health check found.
type HealthIncident struct {
	// Entity is a position in [Inventory.Entities], or Unknown for the node: DCGM has
	// incidents of no entity of its own, those of the IMEX domain.
	Entity int
	System HealthSystem
	Result HealthResult
	Code   uint32 // dcgmError_t; see [HealthErrorName]
}

// HealthSystem is the part of an entity that a health check is about: the number of
// the bit in dcgmHealthSystems_t.
type HealthSystem uint8

// The systems that are told apart here.
const (
	healthPCIe           HealthSystem = 0
	healthThermal        HealthSystem = 7
	healthPower          HealthSystem = 8
	healthSwitchNonFatal HealthSystem = 10
	healthSwitchFatal    HealthSystem = 11

	// HealthDevice stands for the entity as a whole. It is DCGM_HEALTH_WATCH_ALL,
	// which an incident has that is of no one system.
	HealthDevice HealthSystem = 14

	healthSystems = int(HealthDevice) + 1
)

var healthSystemNames = [healthSystems]string{
	"pcie", "nvlink", "pmu", "mcu", "memory", "sm", "inforom", "thermal", "power", "driver",
	"nvswitch_nonfatal", "nvswitch_fatal", "connectx", "imex", "device",
}

func (s HealthSystem) String() string {
	if int(s) < len(healthSystemNames) {
		return healthSystemNames[s]
	}
	return fmt.Sprintf("system(%d)", uint8(s))
}

// HealthResult is what a health check makes of a system; larger is worse.
type HealthResult uint8

// The results.
const (
	HealthPass HealthResult = iota
	HealthWarn
	HealthFail

	healthResults = int(HealthFail) + 1
)

var healthResultNames = [healthResults]string{"pass", "warn", "fail"}

func (r HealthResult) String() string {
	if int(r) < len(healthResultNames) {
		return healthResultNames[r]
	}
	return fmt.Sprintf("result(%d)", uint8(r))
}

// healthOf returns the systems of an entity of the kind that checks are about.
func healthOf(kind EntityKind) []HealthSystem {
	switch kind {
	case KindGPU:
		return []HealthSystem{healthPCIe, 1, 2, 3, 4, 5, 6, healthThermal, healthPower, 9, HealthDevice}
	case KindSwitch:
		return []HealthSystem{healthSwitchNonFatal, healthSwitchFatal}
	case KindCPU:
		return []HealthSystem{healthThermal, healthPower}
	}
	return nil
}

// healthSettling is how long DCGM must have watched before these systems' checks can
// find anything (dcgmHealthSystems_t in dcgm_structs.h): until then that they have
// found nothing says nothing.
const healthSettling = time.Minute

func (s HealthSystem) settles() bool {
	return s == healthPCIe || s == healthThermal || s == healthPower
}

// validate checks the outcome against the inventory that it says it belongs to.
func (h *Health) validate(inv *Inventory) error {
	last := -1
	for _, c := range h.Checked {
		if c.Entity <= last || c.Entity >= len(inv.Entities) {
			return fmt.Errorf("health of entity %d after that of %d, of %d entities", c.Entity, last, len(inv.Entities))
		}
		last = c.Entity
	}
	for _, i := range h.Incidents {
		if i.Entity < Unknown || i.Entity >= len(inv.Entities) {
			return fmt.Errorf("health incident on entity %d of %d", i.Entity, len(inv.Entities))
		}
		if int(i.System) >= healthSystems || int(i.Result) >= healthResults {
			return fmt.Errorf("health incident of %v with %v", i.System, i.Result)
		}
	}
	return nil
}

// result returns the worst that the check found on a system of an entity, and the
// code of that.
func (h *Health) result(entity int, system HealthSystem) (HealthResult, uint32) {
	worst, code := HealthPass, uint32(0)
	for _, i := range h.Incidents {
		if i.Entity == entity && i.System == system && i.Result > worst {
			worst, code = i.Result, i.Code
		}
	}
	return worst, code
}

// healthState is what a Node knows of health checks.
type healthState struct {
	newest   *Health // the newest that was made
	of       *Inventory
	received time.Time // with the monotonic clock
	failed   bool      // the one after it
	failures uint64
}

// set takes the outcome of a check on the entities of inv.
func (s *healthState) set(h *Health, inv *Inventory, now time.Time) error {
	if h.Failure != "" {
		s.failed = true
		s.failures++
		return nil
	}
	if inv == nil || inv.Generation != h.Generation {
		return &RejectError{Reason: rejectInventory, Err: fmt.Errorf("health of inventory %d", h.Generation)}
	}
	if err := h.validate(inv); err != nil {
		return &RejectError{Reason: rejectInvalid, Err: err}
	}
	if ahead := h.Time.Sub(now); ahead > futureTolerance {
		return &RejectError{Reason: rejectFuture, Err: fmt.Errorf("health is %v ahead of the clock", ahead.Round(time.Millisecond))}
	}
	s.newest, s.of, s.received, s.failed = h, inv, now, false
	return nil
}

// age returns how old the newest outcome is.
func (s *healthState) age(now time.Time) time.Duration {
	return max(0, s.received.Sub(s.newest.Time)) + now.Sub(s.received)
}

func (n *Node) setHealth(h *Health) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health.set(h, n.latest, n.now())
}

var (
	gpuHealthStatus = definition{"gpu_health_status", MetricGauge, "What DCGM's health check makes of a system of the GPU, NVSwitch or CPU: 0 pass, 1 warning, 2 failure. The system device is for what concerns all of it.", []string{"system"}}
	gpuHealthInfo   = definition{"gpu_health_incident_info", MetricGauge, "What DCGM's health check found; always 1. error is DCGM's name for the code, DCGM_FR_ left out.",
		[]string{"code", "error", "severity", "system"}}

	healthUp       = definition{"gpu_exporter_health_check_up", MetricGauge, "Whether the last health check could be made and is fresh.", nil}
	healthLast     = definition{"gpu_exporter_health_check_last_success_timestamp_seconds", MetricGauge, "When the last health check that could be made was complete.", nil}
	healthDuration = definition{"gpu_exporter_health_check_duration_seconds", MetricGauge, "How long the last health check that could be made took.", nil}
	healthFailures = definition{"gpu_exporter_health_check_failures_total", MetricCounter, "Health checks that could not be made.", nil}
)

// healthMaxAge is how old the outcome of a health check may be: as old as a sample,
// or three checks.
func (cfg *FamiliesConfig) healthMaxAge() time.Duration { return max(cfg.MaxAge, 3*cfg.HealthInterval) }

// freshHealth returns the newest outcome, or nil where there is none that is fresh.
func (f *Families) freshHealth(v nodeView) *Health {
	if f.cfg.HealthInterval <= 0 || v.health.newest == nil || v.health.age(f.node.now()) > f.cfg.healthMaxAge() {
		return nil
	}
	return v.health.newest
}

// at returns the state of those entities of its inventory that are up in another: not
// each inventory has been checked yet, and what stayed goes on.
func (s healthState) at(inv *Inventory) healthState {
	if s.newest == nil || s.of == inv || inv == nil {
		return s
	}
	positions := s.of.positionsIn(inv)
	moved := *s.newest
	moved.Checked, moved.Incidents = nil, nil
	for _, c := range s.newest.Checked {
		if c.Entity = positions[c.Entity]; c.Entity != Unknown {
			moved.Checked = append(moved.Checked, c)
		}
	}
	slices.SortFunc(moved.Checked, func(a, b CheckedEntity) int { return cmp.Compare(a.Entity, b.Entity) })
	for _, i := range s.newest.Incidents {
		if i.Entity != Unknown {
			if i.Entity = positions[i.Entity]; i.Entity == Unknown {
				continue
			}
		}
		moved.Incidents = append(moved.Incidents, i)
	}
	s.newest, s.of = &moved, inv
	return s
}

// appendHealth appends what the newest health check found, if that is fresh, and how
// the checks do.
func (f *Families) appendHealth(families []Family, v nodeView) []Family {
	if f.cfg.HealthInterval <= 0 {
		return families
	}
	h := f.freshHealth(v)
	families = append(families,
		healthUp.single(Bool(v.health.newest != nil && !v.health.failed && v.health.age(f.node.now()) <= f.cfg.healthMaxAge())),
		healthFailures.single(Integer(v.health.failures)))
	if v.health.newest != nil {
		families = append(families,
			healthLast.single(Number(seconds(v.health.newest.Time))),
			healthDuration.single(Number(v.health.newest.Duration.Seconds())))
	}
	if h == nil {
		return families
	}
	status := gpuHealthStatus.family()
	for _, c := range h.Checked {
		if f.layout.entities[c.Entity].self == nil {
			continue
		}
		usual := healthOf(v.inventory.Entities[c.Entity].Kind)
		for system := range HealthSystem(healthSystems) {
			result, _ := h.result(c.Entity, system)
			if result == HealthPass && (!slices.Contains(usual, system) || system.settles() && h.Time.Sub(c.Since) < healthSettling) {
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
func (f *Families) healthInfo(h *Health) Family {
	info := gpuHealthInfo.family()
	seen := map[HealthIncident]bool{}
	for _, i := range h.Incidents {
		if seen[i] || i.Result == HealthPass || i.Entity != Unknown && f.layout.entities[i.Entity].self == nil {
			continue
		}
		seen[i] = true
		key := int64(i.System)<<40 | int64(i.Result)<<32 | int64(i.Code)
		info.Series = append(info.Series, Series{f.healthLabels(gpuHealthInfo.Name, i.Entity, key, func() []Label {
			return []Label{{"code", fmt.Sprint(i.Code)}, {"error", HealthErrorName(i.Code)},
				{"severity", i.Result.String()}, {"system", i.System.String()}}
		}), Number(1)})
	}
	return info
}

// healthLabels returns the identity of an entity, or of the node, with more labels.
func (f *Families) healthLabels(family string, entity int, key int64, labels func() []Label) *LabelSet {
	return f.layout.render(renderedKey{entity, family, key, 0}, func() []Label {
		if entity == Unknown {
			return append(f.cfg.withHostname(nil), labels()...)
		}
		return slices.Concat(f.layout.entities[entity].identity, labels())
	})
}
