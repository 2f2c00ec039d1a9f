// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
)

// health is the dashboard of faults.
func health(n Names) page {
	const sel = onNode
	perGPU := func(family any) string { return newestOf(gpuID, family, sel) }
	count := func(title, description string, expr, color string) *panel {
		return newStat(title, description, of("none", 0, "no exporter reports this").zeroIsGood(color), query{expr, "GPUs"}).size(6, 3)
	}
	gpus := func(title, description string, family *definition.Family, from int, color string) *panel {
		return count(title, description, e("sum(", perGPU(family), " >= bool ", from, ")"), color)
	}
	xids := func(severity string) string {
		return e("sum(max by (", deviceID, ") (increase(", &definition.GPUXIDErrors, and(sel, `severity="`+severity+`"`), "[$__range])))")
	}
	reduced := func(reasons string) string {
		of := and(sel, `reason=~"`+reasons+`"`)
		// The sum has fewer series than the rates, so what is not known is removed from the sum.
		sum := e("sum by (", gpuID, ") (max by (", gpuID, ", reason) (rate(", &definition.GPUClockEventSeconds, of, recent, ")))")
		return e("(", known(sum, &definition.GPUClockEventSeconds, of), ")")
	}
	unhealthy := e("(", stateOf(gpuID, sel), ") > 0")
	faulty := memoryFault(perGPU)
	remapped := e("topk(20, ", n.RemappedUncorrectable.By(gpuID, sel), " + ", n.RemappedCorrectable.By(gpuID, sel), " > 0)")
	return page{
		name:        "health",
		title:       "Health",
		description: "Faults of GPUs: XIDs with severity and action, recovery actions, row remaps, ECC errors, thermal and power limits, and incidents of DCGM's health checks.",
		variables:   []dashboard.VariableModel{clusters(), jobs(), nodes()},
		from:        "now-24h",
		rows: []row{
			{title: "Now", panels: []*panel{
				count("Not answering", "Number of GPUs that do not answer. Their values are not known.", e("sum(", perGPU(&definition.GPUUp), " == bool 0)"), bad),
				gpus("Actions requested", "Number of GPUs for which the driver requests a recovery action.", &definition.GPURecoveryAction, 1, bad),
				count("Critical XIDs", "Number of XID errors of severity critical in the time range.", xids("critical"), bad),
				count("XID warnings", "Number of XID errors of severity warning in the time range.", xids("warning"), serious),
				gpus("Row remaps failed", "Number of GPUs with a failed row remapping.", &definition.GPURowRemapFailed, 1, bad),
				gpus("Row remaps pending", "Number of GPUs with a row remapping that waits for a reset.", &definition.GPURowRemapPending, 1, serious),
				gpus("Health checks failed", "Number of GPUs and NVSwitches for which a health check of DCGM reports a failure.", &definition.GPUHealthStatus, 2, bad),
				gpus("Fabric faults", "Number of GPUs with an unhealthy NVLink fabric.", &definition.GPUFabricHealth, 1, bad),
				newTable("GPUs that need attention", "GPUs that do not answer or have a fault, the worst first. The columns are what makes a GPU unhealthy.",
					gpuKeys(), "State",
					column{title: "State", expr: unhealthy, style: gpuStates(), fill: true, links: []link{rowToGPU(), rowToNode()}},
					column{expr: e("max by (", gpuID, ", action) (", &definition.GPURecoveryActionInfo, sel, ") and on (", gpuID, ") (", unhealthy, ")"), labels: []label{{"action", "Requested action"}}},
					where(unhealthy, "Health check", e(perGPU(&definition.GPUHealthStatus)), of("none", 0, "").texts(value{0, "pass", good}, value{1, "warning", caution}, value{2, "failure", bad})),
					where(unhealthy, "Row remap failed", perGPU(&definition.GPURowRemapFailed), yesNo(bad)),
					where(unhealthy, "Memory unrepairable", perGPU(&definition.GPUMemoryUnrepairable), yesNo(bad)),
					where(unhealthy, "SRAM threshold", perGPU(&definition.GPUSRAMThresholdExceeded), yesNo(bad)),
					where(unhealthy, "Fabric registration failed", perGPU(&definition.GPUFabricState)+" > bool 3", yesNo(bad)),
					where(unhealthy, "Fabric fault", perGPU(&definition.GPUFabricHealth), of("none", 0, "").texts(value{0, "no", good}, value{2, "unhealthy", bad}, value{3, "limited capacity", serious})),
				).size(24, 8).ifEmpty("no reported GPU needs attention"),
			}},
			{title: "XIDs", panels: []*panel{
				newTimeSeries("XIDs by severity", "XID errors in the hour before, by severity.",
					of("none", 1, "XIDs are not known").from0(),
					query{e("sum by (severity) (max by (", deviceID, ", severity) (increase(", &definition.GPUXIDErrors, sel, "[1h])))"), "{{severity}}"}).size(12, 8),
				newTimeSeries("XIDs by node", "XID errors of severity warning or critical in the hour before, of the ten nodes with the most.",
					of("none", 1, "no node reported XIDs").from0(),
					query{e("topk(10, sum by (", nodeID, ") (max by (", deviceID, ", severity) (increase(", &definition.GPUXIDErrors, and(sel, `severity!="application"`), "[1h]))) > 0)"), "{{hostname}} {{cluster}}"}).link(seriesToNode()).size(12, 8),
				xidTable(sel, "selection").size(24, 10),
			}},
			{title: "Memory", panels: []*panel{
				newTable("Memory faults", "GPUs with a memory fault, the worst first. A failed remapping, unrepairable memory or an exceeded SRAM threshold needs a replacement. A pending remapping or retirement needs a reset.",
					gpuKeys(), "Fault",
					column{title: "Fault", expr: faulty, style: of("none", 0, "").texts(value{3, "replace", bad}, value{2, "reset", serious}, value{1, "few spare rows", caution}), fill: true, links: []link{rowToGPU()}},
					where(faulty, "Remap failed", perGPU(&definition.GPURowRemapFailed), yesNo(bad)),
					where(faulty, "Unrepairable", perGPU(&definition.GPUMemoryUnrepairable), yesNo(bad)),
					where(faulty, "SRAM threshold", perGPU(&definition.GPUSRAMThresholdExceeded), yesNo(bad)),
					where(faulty, "Remap pending", perGPU(&definition.GPURowRemapPending), yesNo(serious)),
					where(faulty, "Retirement pending", perGPU(&definition.GPURetiredPagesPending), yesNo(serious)),
					where(faulty, "Banks without spare rows", perGPU(&definition.GPURowRemapExhaustedBanks), of("none", 0, "").texts().zeroIsGood(caution)),
				).size(24, 7).ifEmpty("no reported GPU has a memory fault"),
				newTable("Uncorrectable ECC errors", "The 20 GPUs with the most uncorrectable ECC errors in the time range.",
					gpuKeys(), "Errors",
					column{title: "Errors", expr: e("topk(20, max by (", gpuID, ") (increase(", &definition.GPUECCErrors, and(sel, `type="uncorrectable"`), "[$__range])) > 0)"), style: of("none", 0, ""), links: []link{rowToGPU()}},
				).size(12, 7).ifEmpty("no reported GPU had uncorrectable errors in the time range"),
				newTable("Remapped rows", "The 20 GPUs with the most remapped rows over their life.",
					gpuKeys(), "Rows",
					column{title: "Rows", expr: remapped, style: of("none", 0, ""), links: []link{rowToGPU()}},
					where(remapped, "Uncorrectable", n.RemappedUncorrectable.By(gpuID, sel), of("none", 0, "").texts()),
				).size(12, 7).ifEmpty("no reported GPU has remapped rows"),
			}},
			{title: "Thermal and power limits", panels: []*panel{
				newTimeSeries("GPUs with reduced clocks", "Number of GPUs whose clocks were reduced in more than 5 % of the time, by cause.",
					of("none", 0, "not supported by these GPUs").from0(),
					query{e("sum(", reduced("sw_thermal|hw_thermal"), " > bool 0.05)"), "heat"},
					query{e("sum(", reduced("power_cap"), " > bool 0.05)"), "power limit"},
					query{e("sum(", reduced("hw_power_brake"), " > bool 0.05)"), "power brake"},
					query{e("sum(", reduced("hw_slowdown"), " > bool 0.05)"), "hardware slowdown"}),
				newTable("Least thermal margin", "The 20 GPUs nearest to the temperature at which they slow down, with the share of time with clocks reduced by heat.",
					gpuKeys(), "Margin",
					column{title: "Margin", expr: e("bottomk(20, ", perGPU(&definition.GPUThermalMargin), ")"), style: of("celsius", 0, "not known now").levels(step{color: bad}, step{5, caution}, step{10, good}), links: []link{rowToGPU()}},
					column{title: "Reduced by heat", expr: e(reduced("sw_thermal|hw_thermal"), " and on (", gpuID, ") bottomk(20, ", perGPU(&definition.GPUThermalMargin), ")"),
						style: of("percentunit", 1, "not known now").levels(step{color: good}, step{0.01, caution}, step{0.05, bad})},
				).least().size(12, 8).ifEmpty("no reported GPU supports the thermal margin"),
			}},
			{title: "DCGM's health checks", panels: []*panel{
				newTable("Incidents", "Incidents that the health checks report now, failures first.",
					[]label{{"cluster", "Cluster"}, {"hostname", "Node"}, {"gpu", "GPU"}, {"nvswitch", "NVSwitch"}, {"UUID", "UUID"}, {"system", "System"}, {"severity", "Severity"}, {"error", "Error"}, {"code", "Code"}}, "Severity",
					column{expr: e("max by (", gpuID, ", nvswitch, system, severity, error, code) (", &definition.GPUHealthIncidentInfo, sel, ")")},
				).least().size(24, 7).ifEmpty("the health checks that ran report no incident").colorText("Severity", coloredText{"fail", bad}, coloredText{"warn", serious}),
				newTable("Nodes without health checks", "Exporters whose last health check failed or is not fresh. Incidents on their nodes are not known.",
					[]label{{"cluster", "Cluster"}, {"instance", "Exporter"}}, "Health check",
					column{title: "Health check", expr: e(newestOf("cluster, instance", &definition.HealthCheckUp, inFleet), " == 0 and on (cluster, instance) ", &definition.GPUUp, sel), style: of("none", 0, "").texts(value{0, "not known now", unknown}), fill: true},
				).size(24, 5).ifEmpty("the health checks of all reporting exporters are fresh"),
			}},
		},
	}
}

// memoryFault returns what a GPU's memory needs: 3 a replacement, 2 a reset, 1 attention.
func memoryFault(perGPU func(any) string) string {
	is := func(need int, family *definition.Family) string {
		return e(need, " + 0 * (", perGPU(family), " > 0)")
	}
	return strings.Join([]string{
		is(3, &definition.GPURowRemapFailed), is(3, &definition.GPUMemoryUnrepairable), is(3, &definition.GPUSRAMThresholdExceeded),
		is(2, &definition.GPURowRemapPending), is(2, &definition.GPURetiredPagesPending), is(1, &definition.GPURowRemapExhaustedBanks),
	}, " or ")
}

// where is a column for the rows that an expression selects. A column with more GPUs than
// the first one would add rows.
func where(rows, title, expr string, s style) column {
	return column{title: title, expr: e("(", orWhy(expr, gpuID, onNode), ") and on (", gpuID, ") (", rows, ")"), style: s}
}
