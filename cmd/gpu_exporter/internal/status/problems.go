// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/xid"
)

// xidWindow is how long an XID decides the state of a GPU. The exporter cannot observe
// whether its remedy was applied; after a day, the XID is history.
const xidWindow = 24 * time.Hour

// addAvailability adds why the GPU at position i does not answer, or why that is unknown.
func (b *builder) addAvailability(g *GPU, i int) {
	e := &b.Inventory.Entities[i]
	switch {
	case e.State == model.EntityDetached:
		g.Problems = append(g.Problems, Problem{Lost, "Detached from the driver", "Bind it to the driver again, unless this is intended"})
	case e.State == model.EntityLost:
		g.Problems = append(g.Problems, Problem{Lost, "It fell off the bus, or the driver cannot reach it", definition.RemedyLost.For(e.UUID)})
	case b.Sample == nil:
		g.Problems = append(g.Problems, Problem{Unknown, "No sample yet", ""})
	case !b.Fresh:
		g.Problems = append(g.Problems, Problem{Unknown, "Not observed for " + duration(b.Age.Seconds()), ""})
	case b.Sampler.EngineGone:
		g.Problems = append(g.Problems, Problem{Unknown, "DCGM's engine failed after the newest sample", ""})
	default:
		if why := b.Silence(i); why != "" {
			g.Problems = append(g.Problems, Problem{Lost, "It does not answer: " + why, definition.RemedyLost.For(e.UUID)})
		}
	}
}

// defect is a field of a GPU, and its family, that report a defect with any value but 0.
type defect struct {
	field  model.FieldID
	family *definition.Family
	text   string
	remedy definition.Remedy
}

func defects() []defect {
	return []defect{
		{395, &definition.GPURowRemapFailed, "A memory row could not be remapped", definition.RemedyReplace},
		{1507, &definition.GPUMemoryUnrepairable, "The memory has an error that cannot be repaired", definition.RemedyReplace},
		{346, &definition.GPUSRAMThresholdExceeded, "The SRAM has more errors than its threshold", definition.RemedyReplace},
		{396, &definition.GPURowRemapPending, "A memory row waits for remapping", definition.RemedyPending},
		{392, &definition.GPURetiredPagesPending, "A memory page waits for retirement", definition.RemedyPending},
	}
}

// slowdowns are the reasons of reduced clocks that call for attention. The remaining ones
// are normal under load, or settings.
func slowdowns() map[string]Problem {
	cooling, power := string(definition.RemedyCooling), string(definition.RemedyPower)
	return map[string]Problem{
		"hw_slowdown":    {Warning, "The hardware reduces the clocks", "Check the cooling and the power supply"},
		"sw_thermal":     {Warning, "The driver reduces the clocks because of the temperature", cooling},
		"hw_thermal":     {Warning, "The hardware reduces the clocks because of the temperature", cooling},
		"hw_power_brake": {Warning, "The power brake reduces the clocks", power},
	}
}

// addHardware adds the problems that fields of the GPU at position i report.
func (b *builder) addHardware(g *GPU, i int) {
	add := func(state State, text string, remedy definition.Remedy) {
		g.Problems = append(g.Problems, Problem{state, text, remedy.For(g.UUID)})
	}
	number := func(id model.FieldID) float64 { // 0 if it is unknown
		if v := b.value(i, id); v.Value != nil {
			return *v.Value
		}
		return 0
	}
	if action := number(1523); action > 0 {
		g.Problems = append(g.Problems, recoveryProblem(action, g.UUID))
	}
	for _, d := range defects() {
		if value := number(d.field); value > 0 {
			add(stateOf(d.family, value), d.text, d.remedy)
		}
	}
	known := slowdowns()
	specific := false
	for _, reason := range g.ClockReasons {
		specific = specific || reason == "hw_thermal" || reason == "hw_power_brake"
	}
	for _, reason := range g.ClockReasons {
		if p, ok := known[reason]; ok && (reason != "hw_slowdown" || !specific) {
			g.Problems = append(g.Problems, p)
		}
	}
	if state, _ := metrics.FabricState(int64(number(170))); state > 0 {
		text := "The fabric manager has not set up the GPU yet"
		severity := stateOf(&definition.GPUFabricState, float64(state))
		if severity == Unhealthy {
			text = "The fabric manager failed to set up the GPU"
		}
		add(severity, text, definition.RemedyFabric)
	}
	if health, faults, _ := metrics.FabricHealth(int64(number(174)), int64(number(175))); health > 0 {
		text := "The NVLink fabric of the GPU is not healthy"
		if len(faults) > 0 {
			text += ": " + strings.ReplaceAll(strings.Join(faults, ", "), "_", " ")
		}
		add(stateOf(&definition.GPUFabricHealth, float64(health)), text, definition.RemedyFabric)
	}
	if g.NVLinks != nil && g.NVLinks.Down > 0 {
		add(Warning, fmt.Sprintf("%d of %d NVLinks are down", g.NVLinks.Down, g.NVLinks.Up+g.NVLinks.Down), definition.RemedyLinks)
	}
}

// stateOf returns the state of a GPU of which a family has a value that is a problem.
func stateOf(family *definition.Family, value float64) State {
	for _, c := range definition.Unhealthy() {
		if c.Family == family && value > c.Above {
			return Unhealthy
		}
	}
	return Warning
}

// recoveryProblem returns the problem of a recovery action, by its number in field 1523.
func recoveryProblem(action float64, uuid string) Problem {
	name := fmt.Sprint(action)
	if names, n := field.RecoveryActions(), int(action)-1; action == math.Trunc(action) && n >= 0 && n < len(names) {
		name = names[n]
	}
	remedy := definition.RecoveryRemedies().Choose(map[string]string{"action": name})
	return Problem{Recovery, "The driver requests the recovery action " + name, remedy.For(uuid)}
}

// addHealth adds the incidents of the GPU at position i and its instances.
func (b *builder) addHealth(g *GPU, i int) {
	if b.Checked == nil {
		return
	}
	requested := slices.ContainsFunc(g.Problems, func(p Problem) bool { return p.State == Recovery })
	for _, incident := range b.Checked.Incidents {
		if incident.Entity == model.Unknown || b.Inventory.GPUAt(incident.Entity) != i {
			continue
		}
		if requested && strings.HasPrefix(model.HealthErrorName(incident.Code), "GPU_RECOVERY_") {
			continue // DCGM repeats the recovery action of field 1523
		}
		if p, ok := healthProblem(incident); ok && !slices.Contains(g.Problems, p) {
			g.Problems = append(g.Problems, p)
		}
	}
}

// healthProblem converts an incident of a health check.
func healthProblem(incident model.HealthIncident) (Problem, bool) {
	var p Problem
	switch incident.Result {
	case model.HealthFail:
		p.Text, p.Remedy = "Health check: "+incident.System.String()+" failed", string(definition.RemedyDiagnose)
	case model.HealthWarn:
		p.Text, p.Remedy = "Health check: "+incident.System.String()+" warns", "Run dcgmi diag -r 2 when the GPU is idle"
	default:
		return p, false
	}
	p.State = stateOf(&definition.GPUHealthStatus, float64(incident.Result))
	if incident.Code != 0 {
		p.Text += " (" + model.HealthErrorName(incident.Code) + ")"
	}
	return p, true
}

// xidProblem returns the problem of an XID that calls for action and is recent.
func xidProblem(x *XID, now time.Time) (Problem, bool) {
	if x.Severity == xid.Application.String() || x.Last != nil && now.Sub(*x.Last) >= xidWindow {
		return Problem{}, false
	}
	p := Problem{Warning, fmt.Sprintf("XID %d: %s", x.Code, strings.TrimSuffix(x.Meaning, ".")), x.Remedy}
	if x.Severity == xid.Critical.String() {
		p.State = CriticalXID
	}
	if x.Instance != "" {
		p.Text += " (instance " + x.Instance + ")"
	}
	return p, true
}

// xidRemedy returns the remedy of an XID on the GPU with the UUID. An XID without an action that
// concerns only the application has none.
func xidRemedy(x xid.XID, uuid string) string {
	if x.Action == "" && x.Severity == xid.Application {
		return ""
	}
	labels := map[string]string{"xid": strconv.FormatInt(x.Code, 10), "action": x.Action}
	return definition.XIDRemedies().Choose(labels).For(uuid)
}
