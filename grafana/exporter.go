// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
)

// Metrics that are not families of the definitions: those of the exporter's program, which
// cmd/gpu_exporter defines, those of the Go client library, and those of Prometheus.
const (
	buildInfo        = "gpu_exporter_build_info"
	reloadSuccessful = "gpu_exporter_config_last_reload_successful"
	reloadTime       = "gpu_exporter_config_last_reload_success_timestamp_seconds"
	droppedRecords   = "gpu_exporter_log_records_dropped_total"

	processCPU    = "process_cpu_seconds_total"
	processMemory = "process_resident_memory_bytes"

	targetUp       = "up"
	scrapeDuration = "scrape_duration_seconds"
	scrapedSamples = "scrape_samples_scraped"
)

// exporter is the dashboard of the exporters themselves.
func exporter(Names) page {
	const sel = onTarget
	const id = "cluster, instance"
	one := func(family any) string { return newestOf(id, family, sel) }
	// A job can be selected by All, which includes the jobs of all programs.
	target := func(metric string) string {
		return e("max by (", id, ") (", metric, sel, " and on (cluster, job) ", &definition.SamplerUp, inFleet, ")")
	}
	count := func(title, description, expr, color string) *panel {
		return newStat(title, description, of("none", 0, "no exporter is scraped").zeroIsGood(color), query{expr, "exporters"}).size(6, 3)
	}
	age := e("clamp_min(time() - ", one(&definition.LastSample), ", 0)") // clocks differ
	legend := "{{instance}} {{cluster}}"
	top := func(expr string) string { return e("topk(20, ", expr, ")") }
	return page{
		name:        "exporter",
		title:       "Exporter",
		description: "The exporters: targets, sampler restarts, age and cost of samples, sources, missing fields with reasons, reloads and dropped log records.",
		variables:   []dashboard.VariableModel{clusters(), jobs(), instances()},
		rows: []row{
			{title: "Now", panels: []*panel{
				newStat("Exporters", "Number of exporters that are scraped.",
					of("none", 0, "no exporter is scraped").in(quantity),
					query{e("count(", one(&definition.SamplerUp), ")"), "exporters"}).size(6, 3),
				count("Targets down", "Number of targets of the selected jobs that cannot be scraped. What their nodes do is not known.", e("sum(", target(targetUp), " == bool 0)"), bad),
				count("Samplers down", "Number of exporters whose sampler delivers no samples.", e("sum(", one(&definition.SamplerUp), " == bool 0)"), bad),
				count("Samplers stuck", "Number of exporters whose killed sampler is stuck in the kernel. The node needs a reboot.", e("sum(", one(&definition.SamplerUnreapable), ")"), bad),
				newStat("Sampler restarts", "Number of restarts of samplers in the time range.", of("none", 0, "no exporter is scraped").zeroIsGood(serious),
					query{e("sum(max by (", id, ") (increase(", &definition.SamplerRestarts, sel, "[$__range])))"), "restarts"}).size(6, 3),
				newStat("Owner sources down", "Number of sources of owners whose last refresh failed.", of("none", 0, "no source of owners is configured").zeroIsGood(serious),
					query{e("sum(", newestOf(id+", source", &definition.OwnerSourceUp, sel), " == bool 0)"), "sources"}).size(6, 3),
				count("Failed reloads", "Number of exporters whose last reload of the configuration failed. They use the configuration before.", e("sum(", one(reloadSuccessful), " == bool 0)"), serious),
				newStat("Log records dropped", "Number of log records dropped in the time range, because the reader of the log stalled.", of("none", 0, "no exporter is scraped").zeroIsGood(caution),
					query{e("sum(max by (", id, ") (increase(", droppedRecords, sel, "[$__range])))"), "records"}).size(6, 3),
				newTable("Exporters", "One row for each exporter, the worst first.",
					[]label{{"cluster", "Cluster"}, {"instance", "Exporter"}}, "State",
					column{title: "State", expr: e("3 + 0 * (", one(&definition.SamplerUnreapable), " == 1) or 2 + (", one(&definition.SamplerUp), " == 0) or 1 + (", one(reloadSuccessful), " == 0) or 0 * ", one(&definition.SamplerUp)),
						style: of("none", 0, "").texts(value{0, "working", good}, value{1, "reload failed", caution}, value{2, "no samples", bad}, value{3, "sampler stuck", bad}), fill: true},
					column{title: "GPUs", expr: one(&definition.ExporterGPUs), style: of("none", 0, "not known now")},
					column{title: "Age of the sample", expr: age, style: of("s", 0, "never sampled").levels(step{color: good}, step{30, caution}, step{60, bad})},
					column{title: "Reading", expr: one(&definition.SampleDuration), style: of("s", 3, "not known now")},
					column{title: "Restarts", expr: e("max by (", id, ") (increase(", &definition.SamplerRestarts, sel, "[$__range]))"), style: of("none", 0, "").zeroIsGood(serious)},
					column{title: "Missing values", expr: one(&definition.FieldsMissing), style: of("none", 0, "not known now")},
					column{title: "Kernel log", expr: one(&definition.KernelLogUp), style: of("none", 0, "not configured").texts(value{0, "not readable", caution}, value{1, "read", good})},
					column{title: "Health checks", expr: one(&definition.HealthCheckUp), style: of("none", 0, "off").texts(value{0, "not known now", unknown}, value{1, "fresh", good})},
					column{title: "Owner sources down", expr: e("sum by (", id, ") (", newestOf(id+", source", &definition.OwnerSourceUp, sel), " == bool 0)"), style: of("none", 0, "none").zeroIsGood(serious)},
					column{title: "Memory", expr: target(processMemory), style: of("bytes", 0, "not known now")},
				).size(24, 9).ifEmpty("no exporter is scraped"),
			}},
			{title: "Samples", panels: []*panel{
				newTimeSeries("Age of the newest sample", "Age of the newest sample, of the 20 exporters with the oldest. Values of devices disappear when it exceeds --sample.max-age.",
					of("s", 0, "no sample yet").from0(), query{top(age), legend}),
				newTimeSeries("Time to read a sample", "Time that reading the newest sample took, of the 20 slowest exporters.",
					of("s", 3, "no sample yet").from0(), query{top(one(&definition.SampleDuration)), legend}),
				newTimeSeries("Sampler restarts by reason", "Restarts of samplers per hour, by reason.",
					of("none", 1, "no exporter is scraped").from0(),
					query{e("sum(max by (", id, ") (increase(", &definition.SamplerRestarts, sel, "[1h])))"), "all reasons"},
					query{e("sum by (reason) (max by (", id, ", reason) (increase(", &definition.SamplerRestartsByReason, sel, "[1h])))"), "{{reason}}"}),
				newTimeSeries("Rejected frames by reason", "Frames of samplers that were rejected per hour, by reason.",
					of("none", 1, "no exporter is scraped").from0(),
					query{e("sum(max by (", id, ") (increase(", &definition.FramesRejected, sel, "[1h])))"), "all reasons"},
					query{e("sum by (reason) (max by (", id, ", reason) (increase(", &definition.FramesRejectedByReason, sel, "[1h])))"), "{{reason}}"}),
			}},
			{title: "What is missing", panels: []*panel{
				newTimeSeries("Missing values by reason", "Number of pairs of device and field without a value, by reason. not_supported is normal for the model; blank is a value that the driver does not have now.",
					of("none", 0, "no value is missing").from0(),
					query{e("sum by (reason) (", newestOf(id+", reason", &definition.FieldsMissingByReason, sel), ")"), "{{reason}}"}).stack(),
				newTable("GPUs without profiling", "GPUs whose profiling fields do not work, and why.",
					append(gpuKeys(), label{"state", "Profiling"}), "Profiling",
					column{expr: e("max by (", gpuID, ", state) (", &definition.GPUProfilingStateInfo, sel, ")")},
				).size(12, 8).ifEmpty("the profiling fields of all reported GPUs work"),
			}},
			{title: "Sources", panels: []*panel{
				newTable("Sources of owners", "One row for each source of owners, the oldest refresh first.",
					[]label{{"cluster", "Cluster"}, {"instance", "Exporter"}, {"source", "Source"}}, "Age",
					column{title: "Age", expr: e("clamp_min(time() - ", newestOf(id+", source", &definition.OwnerSourceLastSuccess, sel), ", 0)"), style: of("s", 0, "never").levels(step{color: good}, step{60, caution}, step{300, bad})},
					column{title: "Last refresh", expr: newestOf(id+", source", &definition.OwnerSourceUp, sel), style: of("none", 0, "").texts(value{0, "failed", bad}, value{1, "ok", good})},
					column{title: "Unmatched devices", expr: newestOf(id+", source", &definition.OwnerSourceUnmatchedDevices, sel), style: of("none", 0, "not known now").zeroIsGood(serious)},
				).size(12, 8).ifEmpty("no source of owners is configured"),
				newTimeSeries("Failed refreshes by reason", "Failed refreshes of sources of owners per hour, by source and reason.",
					of("none", 1, "no refresh has failed").from0(),
					query{e("sum by (source, reason) (max by (", id, ", source, reason) (increase(", &definition.OwnerSourceFailuresByReason, sel, "[1h])))"), "{{source}} {{reason}}"}),
				newTimeSeries("Kernel log", "Records lost before they were read, and XIDs at addresses without a known GPU, per hour.",
					of("none", 1, "no exporter reads the kernel log").from0(),
					query{e("sum(max by (", id, ") (increase(", &definition.KernelLogLost, sel, "[1h])))"), "lost records"},
					query{e("sum(max by (", id, ") (increase(", &definition.KernelLogUnmatched, sel, "[1h])))"), "unmatched XIDs"}).size(12, 7),
				newTable("Sources of data", "From where XIDs, busy time and energy come, with the number of exporters.",
					[]label{{"data", "Data"}, {"source", "Source"}}, "Exporters",
					column{title: "Exporters", expr: e("count by (data, source) (max by (", id, ", data, source) (", &definition.SourceInfo, sel, "))"), style: of("none", 0, "")},
				).size(12, 7).ifEmpty("no exporter is scraped"),
			}},
			{title: "Cost and versions", panels: []*panel{
				newTimeSeries("Processor time", "Processor time of exporter processes, of the 20 with the most. The sampler is a process of its own.",
					of("percentunit", 1, "no exporter is scraped").from0(), query{top(e("max by (", id, ") (rate(", processCPU, sel, "[$__rate_interval]) and on (cluster, job) ", &definition.SamplerUp, inFleet, ")")), legend}),
				newTimeSeries("Memory", "Resident memory of exporter processes, of the 20 with the most.",
					of("bytes", 0, "no exporter is scraped").from0(), query{top(target(processMemory)), legend}),
				newTimeSeries("Scrape duration", "Time that a scrape took, of the 20 slowest targets.",
					of("s", 3, "no exporter is scraped").from0(), query{top(target(scrapeDuration)), legend}),
				newTimeSeries("Series per scrape", "Number of series on a page, of the 20 targets with the most.",
					of("none", 0, "no exporter is scraped").from0(), query{top(target(scrapedSamples)), legend}),
				newTable("Versions", "Versions of the exporter, with the number of exporters.",
					[]label{{"version", "Version"}}, "Exporters",
					column{title: "Exporters", expr: e("count by (version) (max by (", id, ", version) (", buildInfo, sel, "))"), style: of("none", 0, "")},
				).size(8, 7).ifEmpty("no exporter is scraped"),
				newTable("Groups of families", "Groups that --families selects, with the number of exporters. A group that not all exporters have makes panels incomplete.",
					[]label{{"group", "Group"}}, "Exporters",
					column{title: "Exporters", expr: e("count by (group) (max by (", id, ", group) (", &definition.SelectedGroup, sel, "))"), style: of("none", 0, "")},
				).least().size(6, 7).ifEmpty("no exporter is scraped"),
				newTable("Last reload", "Exporters by the time of the last successful reload, the oldest first.",
					[]label{{"cluster", "Cluster"}, {"instance", "Exporter"}}, "Reload",
					column{title: "Reload", expr: e(one(reloadTime), " * 1000"), style: of("dateTimeAsIso", 0, ""), width: 180},
				).least().size(10, 7).ifEmpty("no exporter is scraped"),
			}},
		},
	}
}
