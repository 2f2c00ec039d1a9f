// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
)

// idleWindow is the time in which the busy time of a held instance is less than
// [rules.IdleRatio], as in the recording rules.
const idleWindow = "[5m]"

// States of a GPU instance, the worst last.
const (
	stateBusy = iota
	stateFree
	stateIdle
)

// slicesOfModels are the compute slices of GPUs that have fewer than seven ("Supported
// GPUs" in NVIDIA's MIG user guide).
var slicesOfModels = []struct{ models, slices string }{
	{`.*(A30|RTX PRO 6000).*`, "4"},
	{`.*RTX PRO (4500|5000).*`, "2"},
	{`.*`, "7"},
}

// mig is the dashboard of GPU instances.
func mig(n Names) page {
	devices := and(onGPU, `GPU_I_ID!=""`)
	instances := e("max by (", deviceID, ") (", &definition.GPUInfo, devices, ")")
	// Counters of a lost GPU do not increase, which is not idleness.
	owners := e("(max by (", deviceID, ") (", &definition.GPUOwners, devices, ") and on (", gpuID, ") max by (", gpuID, ") (", &definition.GPUUp, onGPU, ") == 1)")
	idle := e("(max by (", deviceID, ") (rate(", &definition.GPUBusySeconds, devices, idleWindow, ")) < ", rules.IdleRatio, ")")
	held, free := "("+owners+" > 0)", "("+owners+" == 0)"
	heldBusy, heldIdle := "("+held+" unless "+idle+")", "("+held+" and "+idle+")"
	unknownOwners := "(" + instances + " unless " + owners + ")"
	// A GPU without an answer, or an exporter that cannot read the instances.
	unread := e("(max by (", gpuID, ") (", &definition.GPUUp, onGPU, ") == 0 or max by (", gpuID, ") (", &definition.GPUUp, onGPU,
		" * on (cluster, job, instance) group_left () max by (cluster, job, instance) (", &definition.MIGReadUp, inFleet, ")) == 0)")
	answering := e("count(", &definition.GPUUp, onGPU, " == 1)")

	// number counts instances. It is 0 without instances, and has no result while the owners
	// of all instances are unknown.
	number := func(which string) query {
		return query{"count(" + which + ") or 0 * count(" + owners + ") or (0 * " + answering + " unless count(" + instances + "))", "instances"}
	}
	ofProfile := func(which string) string {
		return "count by (GPU_I_PROFILE) (" + which + ") or 0 * count by (GPU_I_PROFILE) (" + owners + ")" +
			e(" or (0 * count by (GPU_I_PROFILE) (", instances, ") - ", -notKnown, ")")
	}
	slices := slicesOf(devices)
	ofGPU := func(which string) string {
		return "sum by (" + gpuID + ") (" + slices + " and " + which + ") or 0 * count by (" + gpuID + ") (" + owners + ")" +
			e(" or (0 * count by (", gpuID, ") (", instances, ") - ", -notKnown, ")")
	}
	inAll := func(which string) string {
		return "sum(" + slices + " and " + which + ") or 0 * sum(" + slices + ")"
	}
	unpartitioned := "(" + slicesOfGPUs(onGPU) + " - sum by (" + gpuID + ") (" + slices + "))"
	busy := func(window string) string {
		return rateIn(deviceID, &definition.GPUBusySeconds, devices, window)
	}
	engine := func(name string) string {
		return rateOf(deviceID, &definition.GPUEngineActiveSeconds, and(devices, `engine="`+name+`"`))
	}
	memory := n.MemoryUsed.By(deviceID, devices)
	memoryFree := n.MemoryFree.By(deviceID, devices)
	legend := "{{hostname}} GPU {{gpu}} {{GPU_I_PROFILE}} instance {{GPU_I_ID}} {{cluster}}"

	count := of("none", 0, "not known now: no GPU answers").in(quantity)
	owned := of("none", 0, "owners not known").in(quantity)
	wasted := of("none", 0, "owners not known").zeroIsGood(caution)
	cell := of("none", 0, "").texts().neutral()
	wastedCell := of("none", 0, "").zeroIsGood(caution).texts()
	ratio := of("percentunit", 0, "").ofOne().texts().levels(step{color: quantity})
	noInstances := "no GPU instances"

	keys := append(gpuKeys(), label{"GPU_I_PROFILE", "Profile"}, label{"GPU_I_ID", "Instance"})
	return page{
		name:        "mig",
		title:       "MIG",
		description: "GPU instances by profile: held, idle and free, with their activity.",
		variables:   []dashboard.VariableModel{clusters(), jobs(), nodes(), gpus()},
		rows: []row{
			{title: "Now", panels: []*panel{
				newStat("GPU instances", "Number of GPU instances of MIG on the selected GPUs.", count,
					query{"count(" + instances + ") or 0 * " + answering, "instances"}),
				newStat("Held and busy", "Instances that a container or job holds, and that were busy for at least 1 % of the last five minutes.", owned, number(heldBusy)),
				newStat("Held and idle", "Instances that a container or job holds, and that were busy for less than 1 % of the last five minutes.", wasted, number(heldIdle)),
				newStat("Free", "Instances that no container or job holds.", owned, number(free)),
				newStat("Owners unknown", "Instances without a known number of owners: no source of owners is configured, one has not answered, or the GPU does not answer.",
					of("none", 0, "not known now: no GPU answers").zeroIsGood(unknown),
					query{"count(" + unknownOwners + ") or 0 * " + answering, "instances"}),
				newStat("GPUs with unknown instances", "GPUs that do not answer, or whose instances cannot be read. Their instances are on no panel.",
					of("none", 0, "no exporter reports the selected GPUs").zeroIsGood(unknown),
					query{e("count(", unread, ") or 0 * count(", &definition.GPUUp, onGPU, ")"), "GPUs"}),
			}},
			{title: "Profiles", panels: []*panel{
				newTable("Profiles", "Instances of each profile now. Activity is the newest share of busy time. The memory in use is the share of the memory of all instances of the profile.",
					[]label{{"GPU_I_PROFILE", "Profile"}}, "Held and idle",
					column{title: "Instances", expr: "count by (GPU_I_PROFILE) (" + instances + ")", style: cell},
					column{title: "Held and busy", expr: ofProfile(heldBusy), style: cell},
					column{title: "Held and idle", expr: ofProfile(heldIdle), style: wastedCell},
					column{title: "Free", expr: ofProfile(free), style: cell},
					column{title: "Activity", expr: "avg by (GPU_I_PROFILE) (" + busy(recent) + ")", style: ratio, gauge: true},
					column{title: "Memory in use", expr: "sum by (GPU_I_PROFILE) (" + memory + ") / sum by (GPU_I_PROFILE) (" + memory + " + " + memoryFree + ")", style: ratio, gauge: true},
				).ifEmpty(noInstances).size(24, 7),
				newTimeSeries("Held instances", "Instances of each profile that a container or job holds.",
					of("none", 0, noInstances+", or their owners are not known").from0(),
					query{"count by (GPU_I_PROFILE) (" + held + ") or 0 * count by (GPU_I_PROFILE) (" + owners + ")", "{{GPU_I_PROFILE}}"}),
				newTimeSeries("Free instances", "Instances of each profile that no container or job holds.",
					of("none", 0, noInstances+", or their owners are not known").from0(),
					query{"count by (GPU_I_PROFILE) (" + free + ") or 0 * count by (GPU_I_PROFILE) (" + owners + ")", "{{GPU_I_PROFILE}}"}),
			}},
			{title: "Slices", panels: []*panel{
				newTable("GPUs", "Compute slices of the partitioned GPUs. A profile such as 3g.40gb has three slices. Slices outside of instances may be too few for a further instance.",
					gpuKeys(), "Held and idle",
					column{title: "Instances", expr: "count by (" + gpuID + ") (" + instances + ")", style: cell},
					column{title: "Held and busy", expr: ofGPU(heldBusy), style: cell},
					column{title: "Held and idle", expr: ofGPU(heldIdle), style: wastedCell},
					column{title: "Free", expr: ofGPU(free), style: cell},
					column{title: "Outside of instances", expr: unpartitioned, style: cell},
					column{title: "Activity", expr: "sum by (" + gpuID + ") (" + slices + " * " + busy(recent) + ") / sum by (" + gpuID + ") (" + slices + ")",
						style: ratio, gauge: true},
				).ifEmpty(noInstances).link(rowToGPU()).size(14, 9),
				newTimeSeries("Compute slices", "Compute slices of the partitioned GPUs by what happens to them. Idle is less than 1 % busy in the last five minutes.",
					of("none", 0, noInstances).from0(),
					query{inAll(heldBusy), "held and busy"},
					query{inAll(heldIdle), "held and idle"},
					query{inAll(free), "free"},
					query{inAll(unknownOwners), "owners unknown"},
					query{"sum(" + unpartitioned + ")", "outside of instances"}).stack().size(10, 9).
					colors([][2]string{{"held and busy", good}, {"held and idle", caution}, {"free", quantity}, {"owners unknown", unknown}, {"outside of instances", absent}}),
			}},
			{title: "Instances", panels: []*panel{
				newTable("Instances", "Each instance with the container or job that holds it. Activity is the newest share of busy time.",
					keys, "State",
					column{title: "State", expr: e("(", heldIdle, " * 0 + ", stateIdle, ") or (", free, " + ", stateFree, ") or (", held, " * 0 + ", stateBusy, ") or (", instances, " - 1 - ", -notKnown, ")"),
						style: of("none", 0, "").texts(value{stateIdle, "held, idle", caution}, value{stateFree, "free", quantity}, value{stateBusy, "held, busy", good}, value{notKnown, "not known now", unknown}), fill: true},
					heldBy(deviceID, devices),
					column{title: "Activity", expr: busy(recent) + e(" or (", instances, " - 1 - ", -notKnown, ")"), style: ratio, gauge: true},
					column{title: "SM", expr: engine("sm") + orInstance(instances), style: ratio},
					column{title: "Tensor", expr: engine("tensor") + orInstance(instances), style: ratio},
					column{title: "Memory in use", expr: memory + orInstance(instances), style: of("bytes", 1, "").texts().neutral()},
					column{title: "Memory", expr: memory + " / (" + memory + " + " + memoryFree + ")" + orInstance(instances), style: ratio, gauge: true},
				).ifEmpty(noInstances).link(rowToGPU()).size(24, 12),
				newTimeSeries("Activity", "Share of time in which an instance was busy. The 30 instances that are busiest at the end of the time range.",
					of("percentunit", 0, noInstances).ofOne(),
					query{busy("[$__rate_interval]") + " and topk(30, " + busy(recent+" @ end()") + ")", legend}),
				newTimeSeries("Memory in use", "Framebuffer memory that is in use. The 30 instances with the most at the end of the time range.",
					of("bytes", 1, noInstances).from0(),
					query{memory + " and topk(30, " + n.MemoryUsed.By(deviceID, devices+" @ end()") + ")", legend}),
			}},
			{title: "Owners over time", collapsed: true, panels: []*panel{
				newTimeline("Owners", "Whether a container or job holds an instance. A gap is a time in which the owners were not known or the instance did not exist. Select a node or a GPU.",
					of("none", 0, noInstances+", or their owners are not known").texts(value{0, "free", quantity}, value{1, "held", good}),
					query{held + " * 0 + 1 or " + owners, legend}).size(24, 12),
			}},
		},
	}
}

// orInstance completes an expression with a series for each instance without a value.
func orInstance(instances string) string {
	return e(" or (", instances, " - 1 - ", -notKnown, ")")
}

// slicesOf returns the number of compute slices of each instance: 3 for 3g.40gb.
func slicesOf(devices string) string {
	var sizes []string
	for _, g := range []string{"1", "2", "3", "4", "6", "7"} {
		sizes = append(sizes, e(g, " * max by (", deviceID, ") (", &definition.GPUInfo, and(devices, `GPU_I_PROFILE=~"`+g+`g.*"`), ")"))
	}
	return "(" + strings.Join(sizes, " or ") + ")"
}

// slicesOfGPUs returns the number of compute slices of each GPU that has instances.
func slicesOfGPUs(selector string) string {
	var models []string
	for _, m := range slicesOfModels {
		models = append(models, e(m.slices, " * max by (", gpuID, ") (", &definition.GPUInfo, and(selector, `GPU_I_ID!="", modelName=~"`+m.models+`"`), ")"))
	}
	return "(" + strings.Join(models, " or ") + ")"
}
