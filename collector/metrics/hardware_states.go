// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
)

// hardwareState computes families from several fields of a GPU. A family with the
// number of a state is 0 in the good state. Its info family has the state's name and
// exists only in another state.
type hardwareState struct {
	families []*definition.Family
	fields   []model.FieldID
	add      func(*gpuCells)
}

func (h *hardwareState) selected(s definition.Selection) bool {
	return slices.ContainsFunc(h.families, s.Has)
}

var hardwareStates = []*hardwareState{
	{[]*definition.Family{&definition.GPURecoveryAction, &definition.GPURecoveryActionInfo}, []model.FieldID{1523}, (*gpuCells).addRecoveryAction},
	{[]*definition.Family{&definition.GPUTemperature}, []model.FieldID{140, 150, 153}, (*gpuCells).addTemperature},
	{[]*definition.Family{&definition.GPUNVLinkErrors}, nvlinkErrorFields, (*gpuCells).addNVLinkErrors},
	{[]*definition.Family{&definition.GPUFabricState, &definition.GPUFabricStateInfo}, []model.FieldID{170, 171}, (*gpuCells).addFabricState},
	{[]*definition.Family{&definition.GPUFabricHealth, &definition.GPUFabricHealthInfo}, []model.FieldID{174, 175}, (*gpuCells).addFabricHealth},
	{[]*definition.Family{&definition.GPUFabricInfo}, []model.FieldID{172, 173}, (*gpuCells).addFabricInfo},
}

// nvlinkErrorFields are the totals over all links of a GPU. The last three are those of
// NVLink 5: packets with an error, link integrity errors and failed recoveries. Its
// remaining counters repeat these or count what was repaired.
var nvlinkErrorFields = []model.FieldID{409, 419, 429, 439, 1206, 1209, 1212}

// gpuCells are the derived fields of the GPU at a position.
type gpuCells struct {
	*page
	gpu   int
	cells []model.Cell
}

// number returns the value of a numeric field, and false without one.
func (g *gpuCells) number(field model.FieldID) (int64, bool) {
	column, ok := g.layout.derived[field]
	if !ok || g.cells[column].Status != model.StatusOK || !g.cells[column].Type.Numeric() {
		return 0, false
	}
	return int64(g.cells[column].Float64()), true
}

// unsupported reports whether the GPU never has a value of the field.
func (g *gpuCells) unsupported(field model.FieldID) bool {
	column, ok := g.layout.derived[field]
	return !ok || g.cells[column].Status.Lasting()
}

func (g *gpuCells) addRecoveryAction() {
	action, ok := g.number(1523)
	if !ok || action < 0 {
		return
	}
	g.addEntity(&definition.GPURecoveryAction, g.gpu, float64(action))
	if action > 0 {
		g.addEntity(&definition.GPURecoveryActionInfo, g.gpu, 1, nameFrom1(field.RecoveryActions(), action))
	}
}

// nameFrom1 returns the n-th name, or "other".
func nameFrom1(names []string, n int64) string {
	if n < 1 || n > int64(len(names)) {
		return "other"
	}
	return names[n-1]
}

// addTemperature adds the temperatures of a GPU that has no thermal margin, such as those
// before Ampere. A margin that is unknown for a moment does not count as none.
func (g *gpuCells) addTemperature() {
	if !g.unsupported(153) {
		return
	}
	for _, sensor := range []struct {
		field model.FieldID
		name  string
	}{{150, "gpu"}, {140, "memory"}} {
		if celsius, ok := g.number(sensor.field); ok {
			g.addEntity(&definition.GPUTemperature, g.gpu, float64(celsius), sensor.name)
		}
	}
}

// addNVLinkErrors adds the sum of the totals that the GPU has. If one of them is unknown
// for a moment, the sum is too: a smaller one would look like a reset of the counter.
func (g *gpuCells) addNVLinkErrors() {
	sum, known := int64(0), false
	for _, f := range nvlinkErrorFields {
		if g.unsupported(f) {
			continue
		}
		n, ok := g.number(f)
		if !ok || n < 0 {
			return
		}
		sum, known = sum+n, true
	}
	if known {
		g.addEntity(&definition.GPUNVLinkErrors, g.gpu, float64(sum))
	}
}

// Values of dcgmFabricManagerStatus_t (dcgm_structs.h).
const (
	fabricUnsupported = 0
	fabricSuccess     = 3
	fabricNVMLTooOld  = 6
)

// FabricState returns the state of the registration with the fabric from field 170: 0 is
// registered, otherwise it is DCGM's number. It is not known for GPUs without a fabric.
func FabricState(status int64) (state int64, known bool) {
	switch {
	case status == fabricSuccess:
		return 0, true
	case status <= fabricUnsupported, status == fabricNVMLTooOld:
		return 0, false
	}
	return status, true
}

func (g *gpuCells) addFabricState() {
	status, _ := g.number(170)
	state, known := FabricState(status)
	if !known {
		return
	}
	g.addEntity(&definition.GPUFabricState, g.gpu, float64(state))
	if state == 0 {
		return
	}
	code := ""
	if n, ok := g.number(171); ok && n != 0 {
		code = decimal(n)
	}
	g.addEntity(&definition.GPUFabricStateInfo, g.gpu, 1, nameFrom1([]string{"not_started", "in_progress", "success", "failure"}, state), code)
}

// Values of NVML_GPU_FABRIC_HEALTH_* (nvml.h), of which 0 is "not supported".
const (
	fabricHealthy   = 1
	fabricUnhealthy = 2
)

// FabricHealth returns the health of the fabric from the mask of field 174 and the summary of
// field 175, of which 0 is unknown: 0 is healthy, otherwise it is the driver's number. Drivers
// without the summary have only the mask. A fault in the mask is never healthy.
func FabricHealth(mask, summary int64) (health int64, faults []string, known bool) {
	faults, known = fabricFaults(mask)
	switch {
	case summary > fabricHealthy:
		return summary, faults, true
	case len(faults) > 0:
		return fabricUnhealthy, faults, true
	}
	return 0, nil, known || summary == fabricHealthy
}

func (g *gpuCells) addFabricHealth() {
	mask, _ := g.number(174)
	summary, _ := g.number(175)
	health, faults, known := FabricHealth(mask, summary)
	if !known {
		return
	}
	g.addEntity(&definition.GPUFabricHealth, g.gpu, float64(health))
	if health == 0 {
		return
	}
	if len(faults) == 0 {
		faults = []string{""}
	}
	for _, fault := range faults {
		g.addEntity(&definition.GPUFabricHealthInfo, g.gpu, 1, nameFrom1([]string{"healthy", "unhealthy", "limited_capacity"}, health), fault)
	}
}

// fabricFaults returns the faults in the fabric's health mask, and whether it has a
// known sub-field. In a sub-field, 0 is unknown. In one of two bits, 1 is a fault and 2 is
// none. In the last one, of four bits, 1 is none and larger values are faults
// (NVML_GPU_FABRIC_HEALTH_MASK_* in nvml.h).
func fabricFaults(mask int64) (faults []string, known bool) {
	if mask < 0 {
		return nil, false
	}
	for _, f := range []struct {
		name    string
		shift   int
		bits    int64
		isFault func(int64) bool
	}{
		{"access_timeout_recovery", 6, 3, func(v int64) bool { return v == 1 }},
		{"degraded_bandwidth", 0, 3, func(v int64) bool { return v == 1 }},
		{"incorrect_configuration", 8, 15, func(v int64) bool { return v > 1 }},
		{"route_recovery", 2, 3, func(v int64) bool { return v == 1 }},
		{"route_unhealthy", 4, 3, func(v int64) bool { return v == 1 }},
	} {
		sub := mask >> f.shift & f.bits
		known = known || sub != 0
		if sub != 0 && f.isFault(sub) {
			faults = append(faults, f.name)
		}
	}
	return faults, known
}

// noCluster is the cluster UUID of GPUs whose fabric ends at their own node.
const noCluster = "00000000-0000-0000-0000-000000000000"

func (g *gpuCells) addFabricInfo() {
	cluster, known := g.layout.derived[172]
	clique, ok := g.number(173)
	if !known || !ok || g.cells[cluster].Status != model.StatusOK {
		return
	}
	if uuid := g.v.Sample.String(g.cells[cluster]); uuid != "" && uuid != noCluster {
		g.addEntity(&definition.GPUFabricInfo, g.gpu, 1, decimal(clique), uuid)
	}
}
