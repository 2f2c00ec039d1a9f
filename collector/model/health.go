// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
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
	HealthPCIe           HealthSystem = 0
	HealthThermal        HealthSystem = 7
	HealthPower          HealthSystem = 8
	HealthSwitchNonFatal HealthSystem = 10
	HealthSwitchFatal    HealthSystem = 11

	// HealthDevice stands for the entity as a whole. It is DCGM_HEALTH_WATCH_ALL,
	// which an incident has that is of no one system.
	HealthDevice HealthSystem = 14

	HealthSystemCount = int(HealthDevice) + 1
)

var healthSystemNames = [HealthSystemCount]string{
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

// HealthSystemsOf returns the systems of an entity of the kind that checks are about.
func HealthSystemsOf(kind EntityKind) []HealthSystem {
	switch kind {
	case KindGPU:
		return []HealthSystem{HealthPCIe, 1, 2, 3, 4, 5, 6, HealthThermal, HealthPower, 9, HealthDevice}
	case KindSwitch:
		return []HealthSystem{HealthSwitchNonFatal, HealthSwitchFatal}
	case KindCPU:
		return []HealthSystem{HealthThermal, HealthPower}
	}
	return nil
}

// Settles reports whether checks of the system find nothing in the first minute of a watch.
func (s HealthSystem) Settles() bool {
	return s == HealthPCIe || s == HealthThermal || s == HealthPower
}

// Validate checks the outcome against the inventory that it says it belongs to.
func (h *Health) Validate(inv *Inventory) error {
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
		if int(i.System) >= HealthSystemCount || int(i.Result) >= healthResults {
			return fmt.Errorf("health incident of %v with %v", i.System, i.Result)
		}
	}
	return nil
}

// Result returns the worst that the check found on a system of an entity, and the
// code of that.
func (h *Health) Result(entity int, system HealthSystem) (HealthResult, uint32) {
	worst, code := HealthPass, uint32(0)
	for _, i := range h.Incidents {
		if i.Entity == entity && i.System == system && i.Result > worst {
			worst, code = i.Result, i.Code
		}
	}
	return worst, code
}
