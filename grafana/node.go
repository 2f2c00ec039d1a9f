// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
)

// node is the dashboard of the GPUs of a node.
func node(n Names) page {
	const sel = onNode
	perGPU := func(family any) string { return newestOf(gpuID, family, sel) }
	legend := "GPU {{gpu}}"
	return page{
		name:        "node",
		title:       "Node",
		description: "All GPUs of a node: state, owner, load, memory, temperature and margin, power and limit, clock reasons, links and XIDs.",
		variables:   []dashboard.VariableModel{clusters(), jobs(), oneNode()},
		rows: []row{
			{title: "Now", panels: []*panel{
				newStat("GPUs that answer", "Number of GPUs of the node that answer.",
					of("none", 0, "no exporter reports this node").in(quantity),
					query{e("sum(", perGPU(&definition.GPUUp), ")"), "GPUs"}).size(6, 3),
				newStat("Not answering", "Number of GPUs that the node has and that do not answer. Their values are not known.",
					of("none", 0, "no exporter reports this node").zeroIsGood(bad),
					query{e("sum(", perGPU(&definition.GPUUp), " == bool 0)"), "GPUs"}).size(6, 3),
				newStat("Held", "Number of GPUs that a container or job holds. It is not known until every configured source of owners has answered.",
					of("none", 0, "owners are not known").in(quantity),
					query{e("sum(", perGPU(&definition.GPUOwners), " > bool 0)"), "GPUs"}).size(6, 3),
				newStat("Busy", "Mean share of time in which the GPUs are busy. A GPU in MIG mode counts as its busiest instance.",
					of("percentunit", 0, "the busy time is not known").ofOne().in(quantity),
					query{e("avg(", rateOf(gpuID, &definition.GPUBusySeconds, sel), ")"), "busy"}).size(6, 3),
				newStat("Power", "Power of all GPUs of the node together.",
					of("watt", 0, "the power is not known").in(quantity),
					query{e("sum(", rateOf(gpuID, &definition.GPUEnergyJoules, sel), ")"), "power"}).size(6, 3),
				newStat("Least thermal margin", "Distance of the hottest GPU to the temperature at which it slows down.",
					of("celsius", 0, "not supported by these GPUs").levels(step{color: bad}, step{5, caution}, step{10, good}),
					query{e("min(", perGPU(&definition.GPUThermalMargin), ")"), "margin"}).size(6, 3),
				newStat("XIDs", "Number of XID errors of severity warning or critical in the time range.",
					of("none", 0, "XIDs are not known").zeroIsGood(bad),
					query{e("sum(max by (", deviceID, ", severity) (increase(", &definition.GPUXIDErrors, and(sel, `severity!="application"`), "[$__range])))"), "XIDs"}).size(6, 3),
				newStat("Actions requested", "Number of GPUs for which the driver requests a reset, a reboot or another recovery action.",
					of("none", 0, "not supported by these GPUs").zeroIsGood(bad),
					query{e("sum(", perGPU(&definition.GPURecoveryAction), " > bool 0)"), "GPUs"}).size(6, 3),
				nodeTable(n),
			}},
			{title: "Load", panels: []*panel{
				newTimeSeries("Busy", "Share of time in which the GPU or MIG instance was busy. A gap means that it was not known.",
					of("percentunit", 0, "the busy time is not known").ofOne(),
					query{rateOf(deviceID, &definition.GPUBusySeconds, sel), legend + " {{GPU_I_PROFILE}} {{GPU_I_ID}}"}).link(seriesToGPU()),
				newTimeSeries("Memory in use", "Device memory that is allocated, per GPU or MIG instance.",
					of("bytes", 1, "the memory is not known").from0(),
					query{n.MemoryUsed.By(deviceID, sel), legend + " {{GPU_I_PROFILE}} {{GPU_I_ID}}"}).link(seriesToGPU()),
				newTimeSeries("Tensor cores", "Share of cycles in which the tensor pipes were active.",
					of("percentunit", 0, "not supported by these GPUs, or profiling is not available").ofOne(),
					query{rateOf(deviceID, &definition.GPUEngineActiveSeconds, and(sel, `engine="tensor"`)), legend + " {{GPU_I_PROFILE}} {{GPU_I_ID}}"}).link(seriesToGPU()),
				newTimeSeries("Memory bandwidth", "Share of cycles in which the memory interface was active.",
					of("percentunit", 0, "not supported by these GPUs, or profiling is not available").ofOne(),
					query{rateOf(deviceID, &definition.GPUEngineActiveSeconds, and(sel, `engine="dram"`)), legend + " {{GPU_I_PROFILE}} {{GPU_I_ID}}"}).link(seriesToGPU()),
			}},
			{title: "Temperature, power and clocks", panels: []*panel{
				newTimeSeries("Temperature", "Temperature of the GPU.",
					of("celsius", 0, "the temperature is not known"),
					query{n.GPUTemperature.By(gpuID, sel), legend}).link(seriesToGPU()),
				newTimeSeries("Thermal margin", "Distance to the temperature at which the GPU slows down. At 0 it slows down.",
					of("celsius", 0, "not supported by these GPUs"),
					query{perGPU(&definition.GPUThermalMargin), legend}).link(seriesToGPU()).lowest(),
				newTimeSeries("Power", "Mean power of the board.",
					of("watt", 0, "the power is not known").from0(),
					query{rateOf(gpuID, &definition.GPUEnergyJoules, sel), legend}).link(seriesToGPU()),
				newTimeSeries("SM clock", "Clock of the streaming multiprocessors.",
					of("hertz", 2, "the clock is not known").from0(),
					query{n.SMClock.By(gpuID, sel), legend}).link(seriesToGPU()),
				newTimeSeries("Time with reduced clocks", "Share of time in which a reason reduced the clocks and cost performance. A flat line at 0 means full clocks.",
					of("percentunit", 0, "not supported by these GPUs").from0(),
					query{rateOf(gpuID+", reason", &definition.GPUClockEventSeconds, sel), legend + " {{reason}}"}).link(seriesToGPU()).size(24, 8),
			}},
			{title: "Links", panels: []*panel{
				newTimeSeries("NVLink traffic", "Data sent and received over all NVLinks of the GPU, headers included. Received data is negative.",
					of("Bps", 1, "these GPUs have no NVLinks, or profiling is not available"),
					query{rateOf(gpuID, &definition.GPUNVLinkBytes, and(sel, `direction="transmit"`)), legend + " sent"},
					query{"-" + rateOf(gpuID, &definition.GPUNVLinkBytes, and(sel, `direction="receive"`)), legend + " received"}).link(seriesToGPU()),
				newTimeSeries("PCIe traffic", "Data sent and received over PCIe, headers included. Received data is negative.",
					of("Bps", 1, "not supported by these GPUs, or profiling is not available"),
					query{rateOf(gpuID, &definition.GPUPCIeBytes, and(sel, `direction="transmit"`)), legend + " sent"},
					query{"-" + rateOf(gpuID, &definition.GPUPCIeBytes, and(sel, `direction="receive"`)), legend + " received"}).link(seriesToGPU()),
				newTimeSeries("NVLinks that are down", "Number of NVLinks of the GPU that are down.",
					of("none", 0, "these GPUs have no NVLinks").from0(),
					query{newestOf(gpuID, &definition.GPUNVLinks, and(sel, `state="down"`)), legend}).link(seriesToGPU()),
				newTimeSeries("Link errors", "NVLink errors and repeated PCIe packets per second.",
					of("cps", 2, "link errors are not known").from0(),
					query{rateOf(gpuID, &definition.GPUNVLinkErrors, sel), legend + " NVLink errors"},
					query{rateOf(gpuID, &definition.GPUPCIeReplays, sel), legend + " PCIe replays"}).link(seriesToGPU()),
			}},
			{title: "State over time", panels: []*panel{
				newTimeline("State", "State of each GPU. A gap means that the exporter was not scraped.",
					gpuStates(), query{stateOf(gpuID, sel), legend}).link(seriesToGPU()).size(12, 8),
				newTimeline("Owners", "Number of containers and jobs that hold each GPU or MIG instance. A gap means that it was not known.",
					of("none", 0, "owners are not known").texts(value{0, "free", absent}, value{1, "held", quantity}).levels(step{color: absent}, step{1, quantity}, step{2, "super-light-blue"}),
					query{newestOf(deviceID, &definition.GPUOwners, sel), legend + " {{GPU_I_PROFILE}} {{GPU_I_ID}}"}).link(seriesToGPU()).size(12, 8),
				xidTable(sel, "node").hide("UUID", "cluster", "hostname").size(24, 8),
			}},
		},
	}
}

// nodeTable has a row for each GPU of the node.
func nodeTable(n Names) *panel {
	const sel = onNode
	column1 := func(title, expr string, s style) column {
		// Ten columns are too narrow for the usual texts.
		for i := range s.values {
			switch s.values[i].text {
			case "not supported":
				s.values[i].text = "unsupported"
			case "not known now":
				s.values[i].text = "unknown"
			}
		}
		return column{title: title, expr: orWhy(expr, gpuID, sel), style: s, width: 98}
	}
	perGPU := func(family any) string { return newestOf(gpuID, family, sel) }
	used, free := n.MemoryUsed.Sum(gpuID, sel), n.MemoryFree.Sum(gpuID, sel)
	return newTable("GPUs", "One row for each GPU of the node, the worst first. A GPU in MIG mode is busy as its busiest instance, and its memory is that of all instances.",
		gpuKeys(), "State",
		column{title: "State", expr: stateOf(gpuID, sel), style: gpuStates(), fill: true, links: []link{rowToGPU()}, width: 120},
		column1("Owners", newestOf(gpuID, &definition.GPUOwners, sel), ownersOf("")),
		heldBy(gpuID, sel),
		column1("Busy", rateOf(gpuID, &definition.GPUBusySeconds, sel), of("percentunit", 0, "").texts().ofOne()),
		column1("Memory", e(used, " / (", used, " + ", free, ")"), of("percentunit", 0, "").texts().ofOne()),
		column1("Temperature", n.GPUTemperature.By(gpuID, sel), of("celsius", 0, "").texts()),
		column1("Margin", perGPU(&definition.GPUThermalMargin), of("celsius", 0, "").texts().levels(step{color: bad}, step{5, caution}, step{10, good})),
		column1("Power", n.Power.By(gpuID, sel), of("watt", 0, "").texts()),
		column1("Limit", perGPU(&definition.GPUPowerLimit), of("watt", 0, "").texts()),
		column1("Reduced clocks", e("sum by (", gpuID, ") (", rateOf(gpuID+", reason", &definition.GPUClockEventSeconds, sel), ")"),
			of("percentunit", 0, "").texts().levels(step{color: good}, step{0.01, caution}, step{0.05, serious})),
		column1("Links down", newestOf(gpuID, &definition.GPUNVLinks, and(sel, `state="down"`)), of("none", 0, "").texts().zeroIsGood(bad)),
		column1("XIDs", e("sum by (", gpuID, ") (max by (", deviceID, ", severity) (increase(", &definition.GPUXIDErrors, and(sel, `severity!="application"`), "[$__range])))"),
			of("none", 0, "").texts().zeroIsGood(bad)),
	).hide("UUID", "cluster", "hostname").size(24, 10).ifEmpty("no exporter reports this node")
}
