// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"time"

	"gpu_exporter/collector/metrics/definition"
)

// uncontainedXID has an alert of its own.
const uncontainedXID = "95"

// xidAction is a remedy by the XID and its action.
func xidAction() string { return chosen(definition.XIDRemedies()) }

// xidsOf returns the new XIDs that match.
func xidsOf(matchers string) string {
	return fmt.Sprint("time() - ", worst(deviceLabels+", xid, name, action", &definition.GPUXIDCodeLastTimestamp, "{", matchers, "}"), " < ", seconds(xidWindow))
}

func actNow() AlertGroup {
	return AlertGroup{
		Name:     "gpu-act-now",
		About:    "Work is lost, or will be soon: act at any hour.",
		Interval: Interval,
		Alerts: []*Alert{
			{
				Name:     "GPUDown",
				Expr:     ofGPU(whileSampling(&definition.GPUUp)) + " == 0",
				For:      2 * time.Minute, // a driver update detaches GPUs for some seconds
				Severity: Critical,
				Summary:  onGPU + " does not answer" + heldBy(),
				Action:   action(definition.RemedyLost),
			},
			{
				Name: "GPUMissing",
				Expr: withHostname(fmt.Sprint(worst(exporterLabels, &definition.ExporterGPUs), " < ",
					worst(exporterLabels, "max_over_time(", &definition.ExporterGPUs, span(lostWindow), ")"),
					" and on (", exporterLabels, ") ", worst(exporterLabels, &definition.SamplerUp), " == 1")),
				For:      5 * time.Minute,
				Severity: Critical,
				Summary:  "Node {{ $labels.hostname }} has {{ $value }} GPUs, fewer than within the last hour.",
				Action:   "Find the GPU that lspci or nvidia-smi no longer lists, and power-cycle the node.",
			},
			{
				Name:     "GPURecoveryActionRequested",
				Expr:     worst(gpuLabels+", action", &definition.GPURecoveryActionInfo, " == 1"),
				For:      time.Minute,
				Severity: Critical,
				Summary:  "The driver requests {{ $labels.action }} for " + onGPU + heldBy(),
				Action:   chosen(definition.RecoveryRemedies()),
			},
			{
				Name:      "GPUXIDCritical",
				Expr:      xidsOf(`severity="critical", xid!="` + uncontainedXID + `"`),
				For:       30 * time.Second, // the consequences of the fault join the notification
				Severity:  Critical,
				Threshold: "< " + seconds(xidWindow),
				Summary:   "XID {{ $labels.xid }} ({{ $labels.name }}) {{ $value | humanizeDuration }} ago on " + onDevice + heldBy(),
				Action:    xidAction(),
			},
			{
				Name:      "GPUMemoryErrorUncontained",
				Expr:      xidsOf(`xid="` + uncontainedXID + `"`),
				For:       30 * time.Second,
				Severity:  Critical,
				Threshold: "< " + seconds(xidWindow),
				Summary:   "An uncontained memory error (XID {{ $labels.xid }}) {{ $value | humanizeDuration }} ago affects all processes on " + onDevice + heldBy(),
				Action:    action(definition.XIDRemedies().Choose(map[string]string{"xid": uncontainedXID})),
			},
			{
				Name:     "GPURowRemapFailed",
				Expr:     ofGPU(&definition.GPURowRemapFailed, " == 1"),
				For:      2 * time.Minute,
				Severity: Critical,
				Summary:  "A memory row could not be remapped on " + onGPU + heldBy(),
				Action:   action(definition.RemedyReplace),
			},
			{
				Name:     "GPUMemoryUnrepairable",
				Expr:     ofGPU(&definition.GPUMemoryUnrepairable, " == 1"),
				For:      2 * time.Minute,
				Severity: Critical,
				Summary:  "Memory has an error that cannot be repaired on " + onGPU + heldBy(),
				Action:   action(definition.RemedyReplace),
			},
			{
				Name: "GPUFabricFault",
				// A failed state has a bad health: one alert has the error of the state.
				Expr: worst(gpuLabels+", state, error", &definition.GPUFabricStateInfo) + " == 1 or on (" + gpuKey + ") " +
					worst(gpuLabels+", state, fault", &definition.GPUFabricHealthInfo) + " == 1",
				For:      5 * time.Minute, // registration after a boot takes minutes
				Severity: Critical,
				Summary: "The NVLink fabric is in the state {{ $labels.state }}{{ with $labels.fault }}, fault {{ . }}{{ end }}{{ with $labels.error }}, error {{ . }}{{ end }} for " +
					onGPU + heldBy(),
				Action: action(definition.RemedyFabric),
			},
			{
				Name:     "GPUNVSwitchDown",
				Expr:     worst("cluster, hostname, nvswitch", whileSampling(&definition.GPUNVSwitchUp)) + " == 0",
				For:      2 * time.Minute,
				Severity: Critical,
				Summary:  "{{ $labels.nvswitch }} on node {{ $labels.hostname }} does not answer.",
				Action:   action(definition.RemedySwitch),
			},
			{
				Name: "GPUHealthCheckFailed",
				Expr: worst(gpuLabels+", nvswitch, cpu, system, error", &definition.GPUHealthIncidentInfo,
					`{severity="fail", system!~"memory|nvlink|nvswitch_fatal|nvswitch_nonfatal|thermal"}`) + " == 1", // these have other alerts
				For:      5 * time.Minute,
				Severity: Critical,
				Summary: "DCGM's health check of {{ $labels.system }} fails with {{ $labels.error }} on node {{ $labels.hostname }}" +
					"{{ with $labels.UUID }}, GPU {{ $labels.gpu }} ({{ . }}){{ end }}{{ with $labels.nvswitch }}, {{ . }}{{ end }}{{ with $labels.cpu }}, CPU {{ . }}{{ end }}.",
				Action: action(definition.RemedyDiagnose),
			},
		},
	}
}
