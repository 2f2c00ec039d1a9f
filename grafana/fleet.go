// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
)

// fleet is the dashboard of all GPUs of the clusters.
func fleet(n Names) page {
	return page{
		name:  "fleet",
		title: "Fleet",
		description: "All GPUs: how many are allocated, busy and effective, which are unhealthy or unknown, the worst nodes, " +
			"versions that differ, power and energy, and racks.",
		rules:     true,
		variables: []dashboard.VariableModel{clusters(), jobs()},
		from:      "now-6h",
		rows: []row{
			{title: "Now", panels: fleetNow()},
			{title: "Over time", panels: fleetOverTime()},
			{title: "Worst nodes and GPUs", panels: fleetWorst()},
			{title: "Power and energy", panels: fleetPower()},
			{title: "Versions", panels: fleetVersions()},
			{title: "Racks", panels: []*panel{fleetRacks(n)}},
		},
	}
}

// total adds up a record over the clusters.
func total(record *rules.Record, matchers string) string {
	selector := ofRecords
	if matchers != "" {
		selector = and(selector, matchers)
	}
	return e("sum(", record, selector, ")")
}

func state(name string) string { return total(&rules.ClusterStates, `state="`+name+`"`) }

// funnel is the number of GPUs that remain at each step.
func funnel() []query {
	return []query{
		{total(&rules.ClusterStates, ""), "total"},
		{state("healthy"), "healthy"},
		{total(&rules.ClusterAllocated, ""), "allocated"},
		{total(&rules.ClusterBusy, ""), "busy"},
		{total(&rules.ClusterActive, `engine="sm"`), "effective"},
	}
}

func fleetNow() []*panel {
	count := func(title, description, expr, color string) *panel {
		return newStat(title, description, of("none", 0, noRules).zeroIsGood(color), query{expr, "GPUs"}).size(4, 4)
	}
	return []*panel{
		newBars("Funnel", "GPUs in total, healthy, allocated to an owner, busy and effective. Busy and effective are means of five minutes: "+
			"two GPUs that are busy half of the time count as one. Effective counts the activity of the SMs. Allocated counts only nodes with a source of owners.",
			of("none", 1, noRules).from0().in(quantity), funnel()...).size(12, 8),
		count("Not answering", "Number of GPUs that their exporter reports and that do not answer.", state("not_answering"), bad),
		count("Unhealthy", "Number of GPUs with a requested recovery action, a failed health check, a fabric fault, a failed row remapping, unrepairable memory or an exceeded SRAM threshold.", state("unhealthy"), serious),
		count("Unknown", "Number of GPUs that were reported in the last hour and are not now, because their exporter is not scraped.", state("unknown"), unknown),
		newStat("Held and idle", "Number of GPUs that an owner holds and that were idle for five minutes.",
			of("none", 1, "owners are not known").in(caution), query{total(&rules.ClusterHeldIdle, ""), "GPUs"}).size(4, 4),
		newStat("Power", "Power of all GPUs together.", of("watt", 1, noRules).in(quantity), query{total(&rules.ClusterPower, ""), "power"}).size(4, 4),
		newStat("Energy", "Energy of all GPUs in the time range.", of("kwatth", 1, noRules).in(quantity),
			query{e("sum(sum_over_time(", &rules.ClusterEnergy, ofRecords, "[$__range])) / 3.6e6"), "energy"}).size(4, 4),
	}
}

func fleetOverTime() []*panel {
	return []*panel{
		newTimeSeries("Funnel over time", "GPUs in total, healthy, allocated, busy and effective. The distance between allocated and effective is the waste.",
			of("none", 0, noRules).from0(), funnel()...),
		newTimeSeries("States", "GPUs by state. Unknown GPUs were reported in the hour before, and their exporter is not scraped.",
			of("none", 0, noRules).from0(), query{e("sum by (state) (", &rules.ClusterStates, ofRecords, ")"), "{{state}}"}).stack().
			colors([][2]string{{"healthy", good}, {"unhealthy", serious}, {"not_answering", bad}, {"unknown", unknown}}),
	}
}

func fleetWorst() []*panel {
	trouble := e("sum by (", nodeID, ") (", &rules.NodeStates, and(ofRecords, `state!="healthy"`), ") > 0")
	of1 := func(title, state, color string) column {
		return column{title: title, expr: e("sum by (", nodeID, ") (", &rules.NodeStates, and(ofRecords, `state="`+state+`"`), ") and on (", nodeID, ") (", trouble, ")"),
			style: of("none", 0, "0").zeroIsGood(color)}
	}
	record := func(title string, r *rules.Record, s style) column {
		return column{title: title, expr: e("sum by (", nodeID, ") (", r, ofRecords, ") and on (", nodeID, ") (", trouble, ")"), style: s}
	}
	idle := e("topk(20, sum by (", nodeID, ") (", &rules.NodeHeldIdle, ofRecords, ") > 0)")
	worst := e("sum by (cluster, hostname, UUID) (", &rules.GPUState, ofRecords, ") > 0")
	return []*panel{
		newTable("Worst nodes", "Nodes with GPUs that are not healthy, the most GPUs first.", nodeKeys(), "Not healthy",
			column{title: "Not healthy", expr: trouble, style: of("none", 0, "").levels(step{color: serious}), links: []link{rowToNode()}, fill: true},
			of1("Not answering", "not_answering", bad), of1("Unhealthy", "unhealthy", serious), of1("Unknown", "unknown", unknown),
			record("GPUs", &rules.NodeStates, of("none", 0, "")),
			record("Busy", &rules.NodeBusy, of("none", 1, "not known now")),
			record("Power", &rules.NodePower, of("watt", 0, "not known now")),
		).size(24, 8).ifEmpty("all reported GPUs are healthy"),
		newTable("Worst GPUs", "GPUs that do not answer or are unhealthy. GPUs of nodes that are not scraped are in the table of nodes.",
			gpuKeys(), "State",
			column{title: "State", expr: e("(", worst, ") * on (cluster, hostname, UUID) group_left (gpu) max by (", gpuID, ") (1 + 0 * ", &definition.GPUUp, inFleet, ")"),
				style: gpuStates(), fill: true, links: []link{rowToGPU(), rowToNode()}},
		).size(12, 9).ifEmpty("all reported GPUs are healthy"),
		newTable("Most GPUs held and idle", "The 20 nodes with the most GPUs that an owner holds and that were idle for five minutes.", nodeKeys(), "Held and idle",
			column{title: "Held and idle", expr: idle, style: of("none", 1, ""), links: []link{rowToNode()}},
		).size(12, 9).ifEmpty("no held GPU is idle, or owners are not known"),
	}
}

func fleetPower() []*panel {
	return []*panel{
		newTimeSeries("Power by cluster", "Power of all GPUs of a cluster.", of("watt", 1, noRules).from0(),
			query{e("sum by (cluster) (", &rules.ClusterPower, ofRecords, ")"), "GPUs {{cluster}}"}).stack(),
		newTimeSeries("Power by node", "Power of the GPUs of the 20 nodes with the most.", of("watt", 0, noRules).from0(),
			query{e("topk(20, sum by (", nodeID, ") (", &rules.NodePower, ofRecords, "))"), "{{hostname}} {{cluster}}"}).link(seriesToNode()),
	}
}

func fleetVersions() []*panel {
	versions := "modelName, driver_version, vbios_version"
	gpus := e("max by (cluster, hostname, UUID, ", versions, ") (", &definition.GPUInfo, and(inFleet, `GPU_I_ID=""`), ")")
	return []*panel{
		newTable("Driver and VBIOS", "Combinations of model, driver and VBIOS, the rarest first, with one of their nodes.",
			[]label{{"modelName", "Model"}, {"driver_version", "Driver"}, {"vbios_version", "VBIOS"}}, "GPUs",
			column{title: "GPUs", expr: e("count by (", versions, ") (", gpus, ")"), style: of("none", 0, ""), width: 80},
			column{title: "Nodes", expr: e("count by (", versions, ") (count by (", nodeID, ", ", versions, ") (", gpus, "))"), style: of("none", 0, ""), width: 80},
			column{expr: e("topk by (", versions, ") (1, max by (hostname, ", versions, ") (", &definition.GPUInfo, and(inFleet, `GPU_I_ID=""`), "))"), labels: []label{{"hostname", "Node"}}},
		).least().size(16, 8).ifEmpty("no exporter reports GPUs"),
		newTable("Exporter", "Versions of the exporter, the rarest first.", []label{{"version", "Version"}}, "Exporters",
			column{title: "Exporters", expr: e("count by (version) (max by (cluster, instance, version) (", buildInfo, inFleet, "))"), style: of("none", 0, "")},
		).least().size(8, 8).ifEmpty("no exporter is scraped"),
	}
}

// fleetRacks has a row for each chassis. The slot of a GPU that was lost in the last hour is
// still known.
func fleetRacks(n Names) *panel {
	chassis := n.ChassisSerial.Name
	slots := e("max by (cluster, hostname, UUID, ", chassis, ") (last_over_time(", n.ChassisSlot, and(inFleet, chassis+`!=""`), "[1h]))")
	sum := func(expr string) string {
		return e("sum by (cluster, ", chassis, ") ((", slots, " * 0 + 1) * on (cluster, hostname, UUID) group_left () (", expr, "))")
	}
	states := e("max by (cluster, hostname, UUID) (", &rules.GPUState, ofRecords, ")")
	return newTable("Racks", "GPUs by chassis, the most GPUs that are not healthy first. The counters file must have the chassis' serial number as a label and the slot as a gauge: see grafana/README.md.",
		[]label{{"cluster", "Cluster"}, {chassis, "Chassis"}}, "Not healthy",
		column{title: "Not healthy", expr: sum(states + " > bool 0"), style: of("none", 0, "not known now").zeroIsGood(serious)},
		column{title: "GPUs", expr: e("count by (cluster, ", chassis, ") (", slots, ")"), style: of("none", 0, "")},
		column{title: "Nodes", expr: e("count by (cluster, ", chassis, ") (count by (cluster, hostname, ", chassis, ") (", slots, "))"), style: of("none", 0, "")},
		column{title: "Power", expr: sum(e("sum by (cluster, hostname, UUID) (rate(", &rules.GPUEnergy, ofRecords, "[$__rate_interval]))")), style: of("watt", 0, "not known now")},
	).size(24, 7).ifEmpty("no GPU reports a chassis")
}
