// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"time"

	"gpu_exporter/collector/metrics/definition"
)

// recoveryRemedies has a remedy for each recovery action of the driver. The names are those
// of nvmlGpuRecoveryAction_t in nvml.h; none has no series.
var recoveryRemedies = []remedy{
	{[]string{"gpu_reset"}, "Stop the processes on the GPU and reset it: nvidia-smi --gpu-reset -i {{ $labels.UUID }}."},
	{[]string{"node_reboot"}, "Drain the node and reboot it: a GPU reset does not help."},
	{[]string{"drain_p2p"}, "Stop the jobs that use peer-to-peer access to the GPU; other jobs continue."},
	{[]string{"drain_and_reset"}, "Accept no new jobs on the GPU, let its jobs end, and reset it."},
	{[]string{"recover_imex_domain"}, "Restart the IMEX domain: nvidia-imex on all its nodes."},
	{[]string{"bus_reset"}, "Drain the node and reset the GPU's PCIe bus or slot, or power-cycle the node."},
	{[]string{"system_reboot"}, "Drain and reboot the whole system, including the other nodes of its NVLink domain."},
}

// xidRemedies has a remedy for each immediate action of critical XIDs in NVIDIA's catalogue.
var xidRemedies = []remedy{
	{[]string{"RESET_GPU"}, "Drain the GPU and reset it: nvidia-smi --gpu-reset -i {{ $labels.UUID }}."},
	{[]string{"RESTART_BM"}, "Drain the node and power-cycle it."},
	{[]string{"RESTART_VM"}, "Restart the virtual machine."},
	{[]string{"WORKFLOW_XID_48"}, "Drain the GPU, reset it, and check for failed row remaps."},
	{[]string{"WORKFLOW_NVLINK_ERR", "WORKFLOW_NVLINK5_ERR"}, "Drain the node, reset its GPUs, and check links and NVSwitches."},
}

// uncontainedXID has an alert of its own.
const uncontainedXID = "95"

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
				Action:   "Drain the node, read the XIDs of the GPU, and power-cycle the node.",
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
				Action:   remedyFor("action", recoveryRemedies, "Read the action of nvidia-smi -q -d RECOVERY_ACTION, which is newer than these rules."),
			},
			{
				Name:     "GPUXIDCritical",
				Expr:     xidsOf(`severity="critical", xid!="` + uncontainedXID + `"`),
				For:      30 * time.Second, // the consequences of the fault join the notification
				Severity: Critical,
				Summary:  "XID {{ $labels.xid }} ({{ $labels.name }}) {{ $value | humanizeDuration }} ago on " + onDevice + heldBy(),
				Action:   remedyFor("action", xidRemedies, "Follow the action {{ $labels.action }} of NVIDIA's XID catalogue."),
			},
			{
				Name:     "GPUMemoryErrorUncontained",
				Expr:     xidsOf(`xid="` + uncontainedXID + `"`),
				For:      30 * time.Second,
				Severity: Critical,
				Summary:  "An uncontained memory error (XID {{ $labels.xid }}) {{ $value | humanizeDuration }} ago affects all processes on " + onDevice + heldBy(),
				Action:   "Drain the GPU, reset it, and discard the results of all its jobs since the error.",
			},
			{
				Name:     "GPURowRemapFailed",
				Expr:     ofGPU(&definition.GPURowRemapFailed, " == 1"),
				For:      2 * time.Minute,
				Severity: Critical,
				Summary:  "A memory row could not be remapped on " + onGPU + heldBy(),
				Action:   "Drain the GPU and have it replaced.",
			},
			{
				Name:     "GPUMemoryUnrepairable",
				Expr:     ofGPU(&definition.GPUMemoryUnrepairable, " == 1"),
				For:      2 * time.Minute,
				Severity: Critical,
				Summary:  "Memory has an error that cannot be repaired on " + onGPU + heldBy(),
				Action:   "Drain the GPU and have it replaced.",
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
				Action: "Drain the node, check nvidia-fabricmanager or nvidia-imex, and reset the GPU.",
			},
			{
				Name:     "GPUNVSwitchDown",
				Expr:     worst("cluster, hostname, nvswitch", whileSampling(&definition.GPUNVSwitchUp)) + " == 0",
				For:      2 * time.Minute,
				Severity: Critical,
				Summary:  "{{ $labels.nvswitch }} on node {{ $labels.hostname }} does not answer.",
				Action:   "Drain the node, restart nvidia-fabricmanager, and reboot the node if the NVSwitch remains down.",
			},
			{
				Name: "GPUHealthCheckFailed",
				Expr: worst(gpuLabels+", nvswitch, cpu, system, error", &definition.GPUHealthIncidentInfo,
					`{severity="fail", system!~"memory|nvlink|nvswitch_fatal|nvswitch_nonfatal|thermal"}`) + " == 1", // these have other alerts
				For:      5 * time.Minute,
				Severity: Critical,
				Summary: "DCGM's health check of {{ $labels.system }} fails with {{ $labels.error }} on node {{ $labels.hostname }}" +
					"{{ with $labels.UUID }}, GPU {{ $labels.gpu }} ({{ . }}){{ end }}{{ with $labels.nvswitch }}, {{ . }}{{ end }}{{ with $labels.cpu }}, CPU {{ . }}{{ end }}.",
				Action: "Drain the node and run dcgmi diag -r 2.",
			},
		},
	}
}
