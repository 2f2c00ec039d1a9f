// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
)

// gpu is the dashboard of one GPU over time.
func gpu(n Names) page {
	return page{
		name:        "gpu",
		title:       "GPU",
		description: "One GPU over time: engines, memory, clocks with reasons, power, energy, thermal margin, links, errors, XIDs, owners and MIG instances.",
		variables:   []dashboard.VariableModel{clusters(), jobs(), oneNode(), oneGPU()},
		rows: []row{
			{title: "Now", panels: append(gpuStats(n), gpuIdentity())},
			{title: "Load", panels: gpuLoad(n)},
			{title: "Clocks, power and temperature", panels: gpuClocks(n)},
			{title: "Links", panels: gpuLinks()},
			{title: "Errors", panels: gpuErrors(n)},
			{title: "Owners and MIG instances", panels: gpuOwners(n)},
			{title: "Details, with the preset full", collapsed: true, panels: gpuDetails()},
		},
	}
}

// instanceLegend is the legend of series of one GPU or its MIG instances.
const instanceLegend = "{{GPU_I_PROFILE}} {{GPU_I_ID}}"

func gpuStats(n Names) []*panel {
	const sel = onGPU
	one := func(title, description, expr, legend string, s style) *panel {
		return newStat(title, description, s, query{orWhy(expr, "UUID", sel), legend}).size(6, 3)
	}
	texts := func(unit string) style {
		return of(unit, 0, "no exporter reports this GPU").texts()
	}
	state := gpuStates()
	state.empty = "no exporter reports this GPU"
	used, free := n.MemoryUsed.Sum("UUID", sel), n.MemoryFree.Sum("UUID", sel)
	return []*panel{
		newStat("State", "Not answering: DCGM has no value of the GPU. Unhealthy: a recovery action, a failed health check, a fabric fault, a failed row remapping, unrepairable memory or an exceeded SRAM threshold.",
			state, query{stateOf("UUID", sel), "state"}).size(6, 3),
		newStat("Requested action", "Action that the driver requests to recover the GPU.",
			of("none", 0, "no exporter reports this GPU").texts(value{0, "none", good}, value{1, "GPU reset", bad}, value{2, "node reboot", bad}, value{3, "drain P2P", bad},
				value{4, "drain and reset", bad}, value{5, "recover IMEX domain", bad}, value{6, "bus reset", bad}, value{7, "system reboot", bad}),
			query{orWhy(newestOf("UUID", &definition.GPURecoveryAction, sel), "UUID", sel), "action"}).size(6, 3),
		one("Owners", "Number of containers and jobs that hold the GPU or its MIG instances.", e("sum by (UUID) (", newestOf("UUID, GPU_I_ID", &definition.GPUOwners, sel), ")"), "owners", ownersOf("no exporter reports this GPU")),
		one("Busy", "Share of time in which the GPU is busy. A GPU in MIG mode counts as its busiest instance.",
			rateOf("UUID", &definition.GPUBusySeconds, sel), "busy", texts("percentunit").in(quantity)),
		one("Memory in use", "Share of the device memory that is allocated, of all MIG instances together.",
			e(used, " / (", used, " + ", free, ")"), "memory", texts("percentunit").in(quantity)),
		one("Thermal margin", "Distance to the temperature at which the GPU slows down.",
			newestOf("UUID", &definition.GPUThermalMargin, sel), "margin", texts("celsius").levels(step{color: bad}, step{5, caution}, step{10, good})),
		one("Power of limit", "Mean power divided by the power limit in force.",
			e(rateOf("UUID", &definition.GPUEnergyJoules, sel), " / ", newestOf("UUID", &definition.GPUPowerLimit, sel)), "power", texts("percentunit").in(quantity)),
		one("XIDs", "Number of XID errors of severity warning or critical in the time range.",
			e("sum by (UUID) (max by (UUID, GPU_I_ID, severity) (increase(", &definition.GPUXIDErrors, and(sel, `severity!="application"`), "[$__range])))"), "XIDs", texts("none").zeroIsGood(bad)),
	}
}

// gpuIdentity has one row, and one more after an update in the time range.
func gpuIdentity() *panel {
	keys := []label{{"modelName", "Model"}, {"hostname", "Node"}, {"gpu", "GPU"}, {"UUID", "UUID"}, {"serial", "Serial"}, {"pci_bus_id", "PCI address"},
		{"minor", "Minor"}, {"driver_version", "Driver"}, {"vbios_version", "VBIOS"}}
	labels := "modelName, hostname, gpu, UUID, serial, pci_bus_id, minor, driver_version, vbios_version"
	last := e("max by (", labels, ") (last_over_time(timestamp(", &definition.GPUInfo, onGPU, ")[$__range:1m]))")
	return newTable("Identity", "Versions and addresses of the GPU. An update of driver or VBIOS in the time range adds a row.", keys, "Last reported",
		column{title: "Last reported", expr: e(last, " * 1000"), style: of("dateTimeAsIso", 0, ""), width: 180}).hide("hostname", "gpu").size(24, 4).ifEmpty("no exporter reported this GPU in the time range")
}

func gpuLoad(n Names) []*panel {
	const sel = onGPU
	const device = "UUID, GPU_I_ID, GPU_I_PROFILE"
	return []*panel{
		newTimeSeries("Engines", "Share of time in which the GPU was busy, and activity of its engines and pipes. A high busy share with low SM activity is a stalled workload.",
			of("percentunit", 0, "the load is not known").ofOne(),
			query{rateOf(device, &definition.GPUBusySeconds, sel), "busy " + instanceLegend},
			query{rateOf(device+", engine", &definition.GPUEngineActiveSeconds, sel), "{{engine}} " + instanceLegend}).size(12, 9),
		newTimeSeries("Utilization by the driver", "Share of time in which a kernel ran and in which memory was read or written, as nvidia-smi reports. It does not show how much of the GPU was used.",
			of("percentunit", 0, "not supported in MIG mode").ofOne(),
			query{n.GPUUtilization.By("UUID", sel), "GPU"},
			query{n.MemoryUtilization.By("UUID", sel), "memory"},
			query{n.Encoder.By("UUID", sel), "encoder"},
			query{n.Decoder.By("UUID", sel), "decoder"}).size(12, 9),
		newTimeSeries("Memory", "Device memory: in use, reserved by driver and firmware, and free.",
			of("bytes", 1, "the memory is not known").from0(),
			query{n.MemoryUsed.By(device, sel), "in use " + instanceLegend},
			query{n.MemoryReserved.By(device, sel), "reserved " + instanceLegend},
			query{n.MemoryFree.By(device, sel), "free " + instanceLegend}).stack(),
		newTimeSeries("Memory of pods", "Device memory of the processes of each container.",
			of("bytes", 1, "no container uses memory of this GPU, or processes cannot be read").from0(),
			query{newestOf("UUID, GPU_I_ID, namespace, pod, container", &definition.GPUPodMemoryUsed, sel), "{{namespace}}/{{pod}} {{container}} {{GPU_I_ID}}"}),
	}
}

func gpuClocks(n Names) []*panel {
	const sel = onGPU
	return []*panel{
		newTimeSeries("Clocks", "Clocks of the streaming multiprocessors and of the memory.",
			of("hertz", 2, "the clocks are not known").from0(),
			query{n.SMClock.By("UUID", sel), "SM"}, query{n.MemoryClock.By("UUID", sel), "memory"}),
		newTimeSeries("Time with reduced clocks", "Share of time in which a reason reduced the clocks and cost performance: power_cap is the power limit, sw_thermal and hw_thermal are heat, hw_power_brake is the power supply.",
			of("percentunit", 0, "not supported by this GPU").from0(),
			query{rateOf("UUID, reason", &definition.GPUClockEventSeconds, sel), "{{reason}}"}),
		newTimeSeries("Power", "Mean power of the board, and the limit in force.",
			of("watt", 0, "the power is not known").from0(),
			query{rateOf("UUID", &definition.GPUEnergyJoules, sel), "power"},
			query{newestOf("UUID", &definition.GPUPowerLimit, sel), "limit"}),
		newTimeSeries("Energy per hour", "Energy of the board in the hour before.",
			of("watth", 0, "the energy is not known").from0(),
			query{e("max by (UUID) (increase(", &definition.GPUEnergyJoules, sel, "[1h])) / 3600"), "energy"}),
		newTimeSeries("Temperature", "Temperature of GPU and memory, and the temperature at which the GPU slows down.",
			of("celsius", 0, "the temperature is not known"),
			query{n.GPUTemperature.By("UUID", sel), "GPU"},
			query{n.MemoryTemperature.By("UUID", sel), "memory"},
			query{newestOf("UUID", &definition.GPUSlowdownTemperature, sel), "slowdown"}),
		newTimeSeries("Thermal margin over time", "Distance to the temperature at which the GPU slows down. At 0 it slows down.",
			of("celsius", 0, "not supported by this GPU"),
			query{newestOf("UUID", &definition.GPUThermalMargin, sel), "margin"}).lowest(),
	}
}

func gpuLinks() []*panel {
	const sel = onGPU
	direction := func(family *definition.Family, direction string) string {
		return rateOf("UUID", family, and(sel, `direction="`+direction+`"`))
	}
	return []*panel{
		newTimeSeries("NVLink traffic", "Data over all NVLinks, headers included. Received data is negative.",
			of("Bps", 1, "this GPU has no NVLinks, or profiling is not available"),
			query{direction(&definition.GPUNVLinkBytes, "transmit"), "sent"}, query{"-" + direction(&definition.GPUNVLinkBytes, "receive"), "received"}),
		newTimeSeries("PCIe traffic", "Data over PCIe, headers included. Received data is negative.",
			of("Bps", 1, "profiling is not available"),
			query{direction(&definition.GPUPCIeBytes, "transmit"), "sent"}, query{"-" + direction(&definition.GPUPCIeBytes, "receive"), "received"}),
		newTimeSeries("NVLinks", "Number of NVLinks by state.",
			of("none", 0, "this GPU has no NVLinks").from0(),
			query{newestOf("UUID, state", &definition.GPUNVLinks, sel), "{{state}}"}).size(8, 8),
		newTimeSeries("PCIe lanes", "PCIe lanes in use, and the most that GPU and slot support.",
			of("none", 0, "not supported by this GPU").from0(),
			query{newestOf("UUID", &definition.GPUPCIeLinkWidth, sel), "in use"}, query{newestOf("UUID", &definition.GPUPCIeLinkWidthMax, sel), "most"}).size(8, 8),
		newTimeSeries("Link errors", "NVLink errors and repeated PCIe packets per second.",
			of("cps", 2, "link errors are not known").from0(),
			query{rateOf("UUID", &definition.GPUNVLinkErrors, sel), "NVLink errors"}, query{rateOf("UUID", &definition.GPUPCIeReplays, sel), "PCIe replays"}).size(8, 8),
	}
}

func gpuErrors(n Names) []*panel {
	const sel = onGPU
	flag := func(title, description string, family *definition.Family, color string) *panel {
		s := yesNo(color)
		s.empty = "no exporter reports this GPU"
		return newStat(title, description, s, query{orWhy(newestOf("UUID", family, sel), "UUID", sel), title}).size(4, 4)
	}
	remapped := newStat("Remapped rows", "Number of memory rows that were remapped over the life of the GPU.",
		of("none", 0, "no exporter reports this GPU").texts(),
		query{orWhy(e(n.RemappedUncorrectable.By("UUID", sel), " + ", n.RemappedCorrectable.By("UUID", sel)), "UUID", sel), "rows"}).size(4, 4)
	return []*panel{
		flag("Row remap pending", "Whether a row remapping waits for a reset of the GPU.", &definition.GPURowRemapPending, serious),
		flag("Row remap failed", "Whether a row remapping failed. The GPU must be replaced.", &definition.GPURowRemapFailed, bad),
		flag("Memory unrepairable", "Whether the memory has an error that cannot be repaired.", &definition.GPUMemoryUnrepairable, bad),
		flag("SRAM threshold", "Whether uncorrectable SRAM errors exceed the threshold for replacement.", &definition.GPUSRAMThresholdExceeded, bad),
		flag("Pages pending", "Whether a page retirement waits for a reset of the GPU. GPUs before Ampere retire pages.", &definition.GPURetiredPagesPending, serious),
		remapped,
		newTimeSeries("ECC errors", "ECC errors per hour, by type.",
			of("none", 1, "this GPU has no ECC, or it is off").from0(),
			query{e("max by (UUID, type) (increase(", &definition.GPUECCErrors, sel, "[1h]))"), "{{type}}"}),
		newTimeSeries("XIDs by severity", "XID errors per hour, by severity.",
			of("none", 1, "XIDs are not known").from0(),
			query{e("sum by (UUID, severity) (max by (UUID, GPU_I_ID, severity) (increase(", &definition.GPUXIDErrors, sel, "[1h])))"), "{{severity}}"}),
		xidTable(sel, "GPU").hide("UUID", "cluster", "hostname", "gpu").size(24, 8),
		newTable("DCGM health incidents", "Incidents that DCGM's health checks report now.",
			[]label{{"system", "System"}, {"severity", "Severity"}, {"error", "Error"}, {"code", "Code"}}, "System",
			column{expr: e("max by (system, severity, error, code) (", &definition.GPUHealthIncidentInfo, sel, ")")},
		).size(24, 6).ifEmpty("the health checks report no incident of this GPU").colorText("Severity", coloredText{"fail", bad}, coloredText{"warn", serious}),
	}
}

func gpuOwners(n Names) []*panel {
	const sel = onGPU
	history := func(title, description string, keys []label, labels string, family *definition.Family) *panel {
		rows := e("max by (", labels, ") (timestamp(", family, sel, "))")
		return newTable(title, description, keys, "Until",
			column{title: "Until", expr: e("max_over_time(", rows, "[$__range:1m]) * 1000"), style: of("dateTimeAsIso", 0, ""), width: 180},
			column{title: "From", expr: e("min_over_time(", rows, "[$__range:1m]) * 1000"), style: of("dateTimeAsIso", 0, ""), width: 180},
			column{title: "Held", expr: e("count_over_time(", rows, "[$__range:1m]) * 60"), style: of("s", 0, ""), width: 120})
	}
	const device = "UUID, GPU_I_ID, GPU_I_PROFILE"
	return []*panel{
		history("Pods", "Containers that held the GPU or a MIG instance in the time range, to the minute.",
			[]label{{"namespace", "Namespace"}, {"pod", "Pod"}, {"container", "Container"}, {"GPU_I_ID", "Instance"}},
			"namespace, pod, container, GPU_I_ID", &definition.GPUPodInfo).size(24, 6).ifEmpty("no container held this GPU in the time range"),
		history("Jobs", "Batch jobs that held the GPU or a MIG instance in the time range, to the minute.",
			[]label{{"source", "Source"}, {"job_id", "Job"}, {"job_name", "Name"}, {"user", "User"}, {"account", "Account"}, {"GPU_I_ID", "Instance"}},
			"source, job_id, job_name, user, account, GPU_I_ID", &definition.GPUJobInfo).size(24, 6).ifEmpty("no batch job held this GPU in the time range"),
		newTable("MIG instances", "MIG instances of the GPU now, the busiest first.",
			[]label{{"GPU_I_ID", "Instance"}, {"GPU_I_PROFILE", "Profile"}, {"UUID", "UUID"}}, "Busy",
			column{title: "Busy", expr: rateOf(device, &definition.GPUBusySeconds, and(sel, `GPU_I_ID!=""`)), style: of("percentunit", 0, "not known now").ofOne()},
			column{title: "SM activity", expr: rateOf(device, &definition.GPUEngineActiveSeconds, and(sel, `GPU_I_ID!="", engine="sm"`)), style: of("percentunit", 0, "not known now").ofOne()},
			column{title: "Memory in use", expr: n.MemoryUsed.By(device, and(sel, `GPU_I_ID!=""`)), style: of("bytes", 1, "not known now")},
			column{title: "Owners", expr: newestOf(device, &definition.GPUOwners, and(sel, `GPU_I_ID!=""`)), style: of("none", 0, "not known now")},
		).size(24, 7).ifEmpty("this GPU has no MIG instances"),
	}
}

// gpuDetails are panels of families outside the default preset.
func gpuDetails() []*panel {
	const sel = onGPU
	const absentDetail = "the preset full has these series; the default preset omits them"
	return []*panel{
		newTimeSeries("Clocks by setting or idleness", "Share of time in which a setting or idleness determined the clocks. These reasons are no faults.",
			of("percentunit", 0, absentDetail).from0(),
			query{rateOf("UUID, reason", &definition.GPUClockPolicySeconds, sel), "{{reason}}"}),
		newTimeSeries("Driver's violation counters", "Share of time in which a policy limited the clocks, as the driver counts it.",
			of("percentunit", 0, absentDetail).from0(),
			query{rateOf("UUID, policy", &definition.GPUViolationSeconds, sel), "{{policy}}"}),
		newTimeSeries("ECC errors by memory", "ECC errors per hour, by memory and type.",
			of("none", 1, absentDetail).from0(),
			query{e("max by (UUID, location, type) (increase(", &definition.GPUECCLocationErrors, sel, "[1h]))"), "{{location}} {{type}}"}),
		newBars("Memory banks by spare rows", "Number of memory banks by the spare rows that remain.",
			of("none", 0, absentDetail).in(quantity),
			query{newestOf("UUID, availability", &definition.GPURowRemapBanks, sel), "{{availability}}"}),
	}
}
