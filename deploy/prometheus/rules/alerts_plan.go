// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"time"

	"gpu_exporter/collector/metrics/definition"
)

// programXIDs are XIDs that a program or a GPU can cause: NVSentinel attributes them to the
// GPU if they repeat on one GPU only.
const programXIDs = `xid=~"13|31"`

func plan() AlertGroup {
	return AlertGroup{
		Name:     "gpu-plan",
		About:    "Hardware degrades: plan a repair in working hours.",
		Interval: time.Minute,
		Alerts:   append(memoryAlerts(), append(xidAlerts(), stateAlerts()...)...),
	}
}

// planSlow has alerts about rates in a window of 15 minutes, settings and versions.
func planSlow() AlertGroup {
	return AlertGroup{
		Name:     "gpu-plan" + slow,
		About:    "Links or clocks are impaired, or nodes are not set up as they should: plan a repair in working hours.",
		Interval: 5 * time.Minute,
		Alerts:   append(rateAlerts(), settingAlerts()...),
	}
}

func memoryAlerts() []*Alert {
	return []*Alert{
		{
			Name:     "GPUMemoryRepairPending",
			Expr:     ofGPU(&definition.GPURowRemapPending, " == 1") + " or " + ofGPU(&definition.GPURetiredPagesPending, " == 1"),
			For:      5 * time.Minute,
			Severity: Warning,
			Summary:  "A memory repair waits for a reset of " + onGPU + heldBy(),
			Action:   action(definition.RemedyPending),
		},
		{
			Name:     "GPUSRAMThresholdExceeded",
			Expr:     ofGPU(&definition.GPUSRAMThresholdExceeded, " == 1"),
			For:      5 * time.Minute,
			Severity: Warning,
			Summary:  "Uncorrectable SRAM errors exceed the driver's threshold for a replacement on " + onGPU + heldBy(),
			Action:   action(definition.RemedyReplace),
		},
		{
			Name:      "GPUMemorySpareRowsExhausted",
			Expr:      ofGPU(&definition.GPURowRemapExhaustedBanks, " > 0"),
			For:       5 * time.Minute,
			Severity:  Warning,
			Threshold: "> 0",
			Summary:   "{{ $value }} memory banks have no spare rows on " + onGPU + heldBy(),
			Action:    "Plan a replacement: the next error in such a bank cannot be repaired.",
		},
		{
			Name:          "GPUECCUncorrectable",
			Expr:          ofGPU("increase(", &definition.GPUECCErrors, `{type="uncorrectable"}`, span(eccWindow), ") > 0"),
			For:           time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     "> 0",
			Summary:       "About {{ $value | printf `%.0f` }} uncorrectable ECC errors within an hour on " + onGPU + heldBy(),
			Action:        "Restart the affected jobs, and reset the GPU if a row remapping is pending.",
		},
	}
}

func rateAlerts() []*Alert {
	clocks := func(matcher string) string {
		return ofGPU("rate(", &definition.GPUClockEventSeconds, "{", matcher, "}", span(throttledWindow), ")") + fmt.Sprint(" > ", throttledRatio)
	}
	return []*Alert{
		{
			Name:          "GPUNVLinkErrors",
			Expr:          ofGPU("rate(", &definition.GPUNVLinkErrors, span(errorWindow), ")") + fmt.Sprint(" > ", linkErrorsPerSecond),
			For:           5 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint("> ", linkErrorsPerSecond),
			Summary:       "{{ $value | humanize }} NVLink errors per second on " + onGPU + heldBy(),
			Action:        "Plan a reset of the GPUs, and a check of cables or board if the errors return.",
		},
		{
			Name:          "GPUPCIeReplays",
			Expr:          ofGPU("60 * rate(", &definition.GPUPCIeReplays, span(errorWindow), ")") + fmt.Sprint(" > ", pcieReplaysPerMinute),
			For:           5 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint("> ", pcieReplaysPerMinute),
			Summary:       "{{ $value | humanize }} PCIe replays per minute on " + onGPU + heldBy(),
			Action:        "Plan a check of the GPU's slot, riser and cable.",
		},
		{
			Name:          "GPUThermalSlowdown",
			Expr:          clocks(`reason=~"sw_thermal|hw_thermal"`),
			For:           5 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint("> ", throttledRatio),
			Summary:       "Heat reduced the clocks during " + percent + " of 15 minutes on " + onGPU + heldBy(),
			Action:        action(definition.RemedyCooling),
		},
		{
			Name:          "GPUPowerBrake",
			Expr:          clocks(`reason="hw_power_brake"`),
			For:           5 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint("> ", throttledRatio),
			Summary:       "The power brake reduced the clocks during " + percent + " of 15 minutes on " + onGPU + heldBy(),
			Action:        action(definition.RemedyPower),
		},
	}
}

func xidAlerts() []*Alert {
	return []*Alert{
		{
			Name:      "GPUXIDWarning",
			Expr:      xidsOf(`severity="warning", xid!="154"`), // 154 announces a recovery action, which has an alert
			For:       30 * time.Second,
			Severity:  Warning,
			Threshold: "< " + seconds(xidWindow),
			Summary:   "XID {{ $labels.xid }}{{ with $labels.name }} ({{ . }}){{ end }} {{ $value | humanizeDuration }} ago on " + onDevice + heldBy(),
			Action:    xidAction(),
		},
		{
			Name: "GPUXIDRepeated",
			Expr: worst(deviceLabels+", xid, name", "changes(", &definition.GPUXIDCodeLastTimestamp, `{severity!="application"}`, span(xidRepeatWindow), ")") +
				fmt.Sprint(" >= ", xidRepeats),
			For:       time.Minute,
			Severity:  Warning,
			Threshold: fmt.Sprint(">= ", xidRepeats),
			Summary:   "XID {{ $labels.xid }}{{ with $labels.name }} ({{ . }}){{ end }} occurred again {{ $value }} times within a day on " + onDevice + heldBy(),
			Action:    "Drain the GPU, run dcgmi diag -r 3, and contact the vendor.",
		},
		{
			Name: "GPUApplicationXIDRepeated",
			Expr: worst(deviceLabels+", xid, name", "changes(", &definition.GPUXIDCodeLastTimestamp, "{", programXIDs, "}", span(xidRepeatWindow), ")") +
				fmt.Sprint(" >= ", applicationXIDRepeats) + " and on (cluster, hostname) count by (cluster, hostname) (" +
				fmt.Sprint("time() - ", worst(gpuKey, &definition.GPUXIDCodeLastTimestamp, "{", programXIDs, "}"), " < ", seconds(xidRepeatWindow)) + ") == 1",
			For:       time.Minute,
			Severity:  Warning,
			Threshold: fmt.Sprint(">= ", applicationXIDRepeats),
			Summary:   "XID {{ $labels.xid }} occurred again {{ $value }} times within a day on no GPU of the node but " + onDevice + heldBy(),
			Action:    "Run dcgmi diag -r 3 on the GPU; if it passes, the application is the cause.",
		},
	}
}

func stateAlerts() []*Alert {
	temperature := func(sensor string) string {
		return ofGPU(&definition.GPUTemperature, `{sensor="`, sensor, `"}`)
	}
	slowdown := ofGPU(&definition.GPUSlowdownTemperature)
	return []*Alert{
		{
			Name:          "GPUNVLinkDown",
			Expr:          ofGPU(afterStart(fmt.Sprint(&definition.GPUNVLinks, `{state="down"} > 0`))),
			For:           5 * time.Minute,
			KeepFiringFor: 5 * time.Minute,
			Severity:      Warning,
			Threshold:     "> 0",
			Summary:       "{{ $value }} NVLinks that were up are down on " + onGPU + heldBy(),
			Action:        action(definition.RemedyLinks),
		},
		{
			Name:          "GPUThermalMarginLow",
			Expr:          ofGPU(&definition.GPUThermalMargin) + fmt.Sprint(" <= ", thermalMarginCelsius),
			For:           time.Minute, // three samples; a single one is noise (NVSentinel)
			KeepFiringFor: 5 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint("<= ", thermalMarginCelsius),
			Summary:       "The thermal margin is {{ $value }} °C on " + onGPU + heldBy(),
			Action:        action(definition.RemedyCooling),
		},
		{
			Name: "GPUTemperatureHigh",
			Expr: fmt.Sprint(temperature("gpu"), " >= ", slowdown, " or ",
				"(", temperature("gpu"), " unless on (", gpuKey, ") ", slowdown, ") >= ", hotGPUCelsius, " or ",
				temperature("memory"), " >= ", hotMemoryCelsius),
			For:           5 * time.Minute,
			KeepFiringFor: 5 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint(">= ", hotGPUCelsius),
			Summary:       "A temperature is {{ $value }} °C on " + onGPU + heldBy(),
			Action:        action(definition.RemedyCooling),
		},
	}
}

func settingAlerts() []*Alert {
	return []*Alert{
		{
			Name: "GPUPCIeWidthReduced",
			Expr: ofGPU(&definition.GPUPCIeLinkWidth) + " < " + ofGPU(&definition.GPUPCIeLinkWidthMax) +
				" and on (" + gpuKey + ") " + worst(gpuKey, "rate(", &definition.GPUBusySeconds, span(loadWindow), ")") + fmt.Sprint(" > ", loadedRatio),
			For:           15 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint("> ", loadedRatio),
			Summary:       "PCIe uses only {{ $value }} lanes under load on " + onGPU + heldBy(),
			Action:        "Plan to reseat the GPU and to check its slot.",
		},
		{
			Name:     "GPUPersistenceModeOff",
			Expr:     ofGPU(&definition.GPUPersistenceMode) + " == 0",
			For:      30 * time.Minute,
			Severity: Info,
			Summary:  "Persistence mode is off for " + onGPU + ".",
			Action:   "Enable nvidia-persistenced on the node.",
		},
		{
			Name:      "GPUVersionDrift",
			Expr:      fmt.Sprint("count by (cluster, modelName, component) (", versions("driver", "driver_version"), " or ", versions("vbios", "vbios_version"), ") > 1"),
			For:       24 * time.Hour, // longer than a rolling update
			Severity:  Info,
			Threshold: "> 1",
			Summary:   "{{ $value }} versions of {{ $labels.component }} are in use for {{ $labels.modelName }}{{ with $labels.cluster }} in cluster {{ . }}{{ end }}.",
			Action:    "Update the nodes with the older version.",
		},
	}
}

// versions returns a series for each model and version of a component.
func versions(component, label string) string {
	return fmt.Sprintf(`label_replace(group by (cluster, modelName, %[2]s) (%[3]s{%[2]s!=""}), "component", %[1]q, "", "")`, component, label, &definition.GPUInfo)
}
