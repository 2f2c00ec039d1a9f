// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Health is the result of one health check by DCGM. It is immutable once published.
type Health struct {
	Generation uint64        // of the inventory
	Time       time.Time     // when the check was complete
	Duration   time.Duration // how long it took
	// Failure is the reason why the check failed. Checked and Incidents are then empty.
	Failure string
	// Checked is in the order of the entities, without duplicates.
	Checked   []CheckedEntity
	Incidents []HealthIncident
}

// CheckedEntity is an entity that a health check covers.
type CheckedEntity struct {
	Entity int // position in [Inventory.Entities]
	// Since is when DCGM started to gather the values that its checks examine.
	Since time.Time
}

// HealthIncident is a problem that a health check found.
type HealthIncident struct {
	// Entity is a position in [Inventory.Entities], or Unknown for the node. Incidents of
	// the IMEX domain have no entity.
	Entity int
	System HealthSystem
	Result HealthResult
	Code   uint32 // dcgmError_t; see [HealthErrorName]
}

// HealthSystem is the part of an entity that a health check examines: the number of the
// bit in dcgmHealthSystems_t.
type HealthSystem uint8

// The systems that the exporter distinguishes.
const (
	HealthPCIe           HealthSystem = 0
	HealthThermal        HealthSystem = 7
	HealthPower          HealthSystem = 8
	HealthSwitchNonFatal HealthSystem = 10
	HealthSwitchFatal    HealthSystem = 11

	// HealthDevice is the entity as a whole: DCGM_HEALTH_WATCH_ALL, the system of
	// incidents that concern several systems.
	HealthDevice HealthSystem = 14

	HealthSystemCount = int(HealthDevice) + 1
)

var healthSystemNames = []string{
	"pcie", "nvlink", "pmu", "mcu", "memory", "sm", "inforom", "thermal", "power", "driver",
	"nvswitch_nonfatal", "nvswitch_fatal", "connectx", "imex", "device",
}

func (s HealthSystem) String() string { return NameOf(healthSystemNames, s, "system") }

// HealthResult is the result of a health check of a system; larger is worse.
type HealthResult uint8

// The results.
const (
	HealthPass HealthResult = iota
	HealthWarn
	HealthFail

	healthResults = int(HealthFail) + 1
)

func (r HealthResult) String() string {
	return NameOf([]string{"pass", "warn", "fail"}, r, "result")
}

// HealthSystemsOf returns the systems that DCGM checks on entities of the kind.
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

// Validate checks the result against its inventory.
func (h *Health) Validate(inv *Inventory) error {
	last := -1
	for _, c := range h.Checked {
		if err := inv.checkEntity("health", c.Entity, last, anyKind); err != nil {
			return err
		}
		last = c.Entity
	}
	for _, i := range h.Incidents {
		if i.Entity != Unknown {
			if err := inv.checkEntity("health incident", i.Entity, -1, anyKind); err != nil {
				return err
			}
		}
		if int(i.System) >= HealthSystemCount || int(i.Result) >= healthResults {
			return fmt.Errorf("health incident of %v with %v", i.System, i.Result)
		}
	}
	return nil
}

// Result returns the worst result for a system of an entity, and its error code.
func (h *Health) Result(entity int, system HealthSystem) (HealthResult, uint32) {
	worst, code := HealthPass, uint32(0)
	for _, i := range h.Incidents {
		if i.Entity == entity && i.System == system && i.Result > worst {
			worst, code = i.Result, i.Code
		}
	}
	return worst, code
}
