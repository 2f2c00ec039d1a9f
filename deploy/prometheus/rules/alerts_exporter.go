// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"time"

	"gpu_exporter/collector/metrics/definition"
)

func exporterAlerts() AlertGroup {
	return AlertGroup{
		Name:     "gpu-exporter",
		About:    "GPUs are not observed, or values are missing.",
		Interval: Interval,
		Alerts:   samplerAlerts(),
	}
}

func exporterSlow() AlertGroup {
	return AlertGroup{
		Name:     "gpu-exporter" + slow,
		About:    "Exporters are down, or sources of values fail.",
		Interval: time.Minute,
		Alerts:   sourceAlerts(),
	}
}

func samplerAlerts() []*Alert {
	restarts := func(matcher string, window time.Duration) string {
		return fmt.Sprint("increase(", &definition.SamplerRestartsByReason, "{", matcher, "}", span(window), ")")
	}
	samplerUp := worst(exporterLabels, &definition.SamplerUp)
	return []*Alert{
		{
			Name:     "GPUExporterAbsent",
			Expr:     fmt.Sprint("absent(", &definition.SamplerUp, ")"),
			For:      15 * time.Minute,
			Severity: Critical,
			Summary:  "Prometheus has no metrics of any gpu_exporter.",
			Action:   "Check the scrape configuration and whether any exporter runs.",
		},
		{
			Name:     "GPUSamplerDown",
			Expr:     ofExporter("", &definition.SamplerUp) + " == 0",
			For:      2 * time.Minute,
			Severity: Critical,
			Summary:  onExporter + " has no samples: the state of its GPUs is unknown.",
			Action:   "Run gpu_exporter doctor on the node, and look for a hung driver.",
		},
		{
			Name:     "GPUSamplerUnreapable",
			Expr:     ofExporter("", &definition.SamplerUnreapable) + " == 1",
			For:      2 * time.Minute,
			Severity: Critical,
			Summary:  onExporter + " cannot end its sampler, which hangs in the driver.",
			Action:   "Drain the node and reboot it.",
		},
		{
			Name: "GPUSamplerRestarting",
			Expr: withHostname(fmt.Sprint("sum by (", exporterLabels, ") (",
				worst(exporterLabels+", reason", restarts(`reason!~"driver_loaded|library_updated|reconfigured"`, restartWindow)), ")")) +
				fmt.Sprint(" >= ", samplerRestarts),
			For:           5 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Threshold:     fmt.Sprint(">= ", samplerRestarts),
			Summary:       onExporter + " restarted its sampler about {{ $value | printf `%.0f` }} times within an hour.",
			Action:        "Read the reason in the exporter's log, and see the table of reasons in the runbook.",
		},
		{
			Name: "GPULibraryMissing",
			Expr: ofExporter(", reason", restarts(`reason=~"library_missing|library_symbol_missing"`, lossWindow)) +
				" > 0 and on (" + exporterLabels + ") " + samplerUp + " == 0",
			For:      5 * time.Minute,
			Severity: Warning,
			Summary:  onExporter + " cannot load DCGM's library: {{ $labels.reason }}.",
			Action:   "Install DCGM 4 (datacenter-gpu-manager-4-core), or set --dcgm.library-path.",
		},
		{
			Name: "GPUSampleStale",
			Expr: withHostname(fmt.Sprint("abs(time() - ", worst(exporterLabels, &definition.LastSample), ")")) + " > " + seconds(clockSkew) +
				" unless on (" + exporterLabels + ") " + samplerUp + " == 0",
			For:       5 * time.Minute,
			Severity:  Warning,
			Threshold: "> " + seconds(clockSkew),
			Summary:   onExporter + " has a newest sample whose time differs by {{ $value | humanizeDuration }} from Prometheus' clock.",
			Action:    "Synchronise the clocks of the node and of Prometheus: alerts about XIDs compare them.",
		},
	}
}

func sourceAlerts() []*Alert {
	return []*Alert{
		{
			Name: "GPUExporterDown",
			// The jobs of exporters are those that had a family of an exporter within a day: a job
			// whose exporters are all down has none now.
			Expr:     withHostname(worst(targetKey, targetUp, " and on (cluster, job) group by (cluster, job) (present_over_time(", &definition.SamplerUp, span(jobWindow), "))")) + " == 0",
			For:      5 * time.Minute,
			Severity: Warning,
			Summary:  onExporter + " cannot be scraped: the state of its GPUs is unknown.",
			Action:   "Check that the node is up, then the exporter's pod or service and its log.",
		},
		{
			Name: "GPUOwnerMappingFailing",
			Expr: ofExporter(", source", &definition.OwnerSourceUp) + " == 0 or " +
				ofExporter(", source", &definition.OwnerSourceUnmatchedDevices) + " > 0",
			For:      10 * time.Minute,
			Severity: Warning,
			Summary: onExporter + " does not know all owners: the source {{ $labels.source }} " +
				"{{ if eq $value 0.0 }}fails{{ else }}has {{ $value }} devices that match no GPU{{ end }}.",
			Action: "Run gpu_exporter doctor on the node with the exporter's flags.",
		},
		{
			Name: "GPUKernelLogFailing",
			Expr: ofExporter("", &definition.KernelLogUp) + " == 0 or " +
				ofExporter("", "increase(", &definition.KernelLogLost, span(lossWindow), ")") + " > 0",
			For:           15 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Info,
			Summary:       onExporter + " {{ if eq $value 0.0 }}cannot read the kernel log{{ else }}lost about {{ $value | printf `%.0f` }} records of the kernel log{{ end }}, so XIDs may be missing.",
			Action:        "Grant CAP_SYSLOG and mount /dev/kmsg, or enlarge the kernel's log buffer.",
		},
		{
			Name:          "GPUProfilingFailed",
			Expr:          worst(gpuLabels+", state", &definition.GPUProfilingStateInfo, `{state!~"paused|unsupported"}`) + " == 1",
			For:           15 * time.Minute,
			KeepFiringFor: 15 * time.Minute,
			Severity:      Warning,
			Summary:       "Profiling fields have no values ({{ $labels.state }}) for " + onGPU + ".",
			Action: chosen(definition.Remedies{
				{Label: "state", Values: []string{"locked"}, Remedy: "End the other client of the profiling hardware, such as Nsight or a second DCGM"},
				{Label: "state", Values: []string{"not_permitted"}, Remedy: "Run the exporter or the host engine as root with CAP_SYS_ADMIN"},
				{Label: "state", Values: []string{"module_not_loaded"}, Remedy: "Install datacenter-gpu-manager-4-proprietary"},
				{Remedy: "Read the exporter's log, and restart the host engine if one is used"},
			}),
		},
		{
			Name:     "GPUExporterReloadFailed",
			Expr:     ofExporter("", reloadSuccessful) + " == 0",
			For:      5 * time.Minute,
			Severity: Warning,
			Summary:  onExporter + " rejected its new configuration, and uses the old one.",
			Action:   "Run gpu_exporter check-config with the exporter's flags, and correct the file.",
		},
		{
			Name:     "GPUScrapeMisconfigured",
			Expr:     fmt.Sprint("count by (cluster, job) (", &definition.GPUPodInfo, `{exported_pod!=""} or `, &definition.GPUUp, `{pod!=""}) > 0`),
			For:      15 * time.Minute,
			Severity: Warning,
			Summary:  "Labels of the scrape target replace the owners of {{ $value }} series of job {{ $labels.job }}.",
			Action:   "Use honor_labels and drop the target labels pod, namespace and container, as in examples/prometheus.yaml.",
		},
	}
}
