// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"strings"
	"time"

	def "gpu_exporter/collector/metrics/definition"
)

const (
	// window is the range of rates. It has at least four samples at a scrape interval of 60 s.
	window = "5m"
	// gap is the longest time without samples that increases bridge. Prometheus' own
	// look-back is as long.
	gap = "5m"
	// memory is how long the GPUs of a node that is no longer scraped count as unknown.
	memory = "1h"
	// activityInterval is the evaluation interval of the activity of namespaces and users.
	activityInterval = 2 * Interval
)

// The labels of records.
var (
	byGPU       = []string{"cluster", "hostname", "UUID"}
	byDevice    = append(byGPU[:3:3], "GPU_I_ID")
	byPod       = []string{"cluster", "hostname", "namespace", "pod", "workload", "workload_kind", "dra_claim_name"}
	byJob       = []string{"cluster", "source", "job_id", "job_name", "user", "account", "partition"}
	byUser      = []string{"cluster", "user", "account", "partition"}
	byNamespace = []string{"cluster", "namespace"}
	byNode      = []string{"cluster", "hostname"}
	byCluster   = []string{"cluster"}
)

// Level gpu: one series per device, which is a GPU or a MIG instance. The labels are only
// the identity, so a second scraping server, a pod's start or a driver update neither
// double nor split a series.
var (
	// A MIG instance is the part of its GPU that its slices are of the slices of all its
	// instances. The profile 2g.20gb has two slices.
	DeviceWeight = Record{"gpu:weight:ratio",
		fmt.Sprint(migSlices, "\n/ on (", list(byGPU), ") group_left ()\nsum by (", list(byGPU), ") (", migSlices, ")",
			"\nor\n(max by (", list(byDevice), ") (", &def.GPUInfo, `{GPU_I_ID=""}) unless on (`, list(byGPU), ") ", &def.GPUInfo, `{GPU_I_ID!=""})`),
		byDevice, "Part of its GPU that the device is: 1 for a GPU; the instances of a GPU add up to 1."}
	DeviceBusy = Record{"gpu:busy_seconds:total",
		fmt.Sprint("max by (", list(byDevice), ") (", &def.GPUBusySeconds, ")"),
		byDevice, "Counter of busy time, in seconds."}
	DeviceSMActive = Record{"gpu:sm_active_seconds:total",
		fmt.Sprint("max by (", list(byDevice), ") (", &def.GPUEngineActiveSeconds, `{engine="sm"})`),
		byDevice, "Counter of the active time of the SMs, weighted by activity, in seconds."}
	GPUEnergy = Record{"gpu:energy_joules:total",
		fmt.Sprint("max by (", list(byGPU), ") (", &def.GPUEnergyJoules, ")"),
		byGPU, "Counter of energy, in joules."}
	// The label state keeps the unhealthy GPUs apart from all GPUs until the outer max.
	GPUState = Record{"gpu:state:code",
		fmt.Sprint("max by (", list(byGPU), ") (\n2 - 2 * max by (", list(byGPU), ") (", &def.GPUUp, ")\nor\n",
			state("unhealthy", fmt.Sprint("1 + 0 * max by (", list(byGPU), ") (", unhealthy(), ")")), ")"),
		byGPU, "State of the GPU: 0 healthy, 1 unhealthy (a recovery action, failed health check, fabric fault, or memory that must be replaced), 2 not answering."}
	PodShare = share("pod", &def.GPUPodInfo, byPod[2:], "Part of a GPU that a pod holds. Pods that share a device have equal parts.")
	JobShare = share("job", &def.GPUJobInfo, byJob[1:], "Part of a GPU that a batch job holds. Jobs that share a device have equal parts.")
)

// Level pod. Increases are since the last evaluation, so that sum_over_time is the total of a
// pod or job after its end as well.
var (
	PodHeld     = held("pod", byPod, &PodShare)
	PodHeldIdle = heldIdle("pod", byPod, &PodShare)
	PodBusy     = busy("pod", byPod, &PodShare)
	PodEnergy   = energy("pod", byPod, &PodShare)
)

// Level namespace.
var (
	NamespaceHeld     = sumOf("namespace", byNamespace, &PodHeld)
	NamespaceHeldIdle = sumOf("namespace", byNamespace, &PodHeldIdle)
	NamespaceBusy     = sumOf("namespace", byNamespace, &PodBusy)
	NamespaceEnergy   = sumOf("namespace", byNamespace, &PodEnergy)
	NamespaceSMActive = smActive("namespace", byNamespace, &PodShare)
)

// Level job: batch jobs, for instance of Slurm.
var (
	JobHeld     = held("job", byJob, &JobShare)
	JobHeldIdle = heldIdle("job", byJob, &JobShare)
	JobBusy     = busy("job", byJob, &JobShare)
	JobEnergy   = energy("job", byJob, &JobShare)
)

// Level user: batch jobs by user, account and partition.
var (
	UserHeld     = sumOf("user", byUser, &JobHeld)
	UserHeldIdle = sumOf("user", byUser, &JobHeldIdle)
	UserBusy     = sumOf("user", byUser, &JobBusy)
	UserEnergy   = sumOf("user", byUser, &JobEnergy)
	UserSMActive = smActive("user", byUser, &JobShare)
)

// Level node.
var (
	NodeReported = Record{"node:gpus_reported:count",
		fmt.Sprint("count by (", list(byNode), ") (", &GPUState, ")"),
		byNode, "Number of GPUs that the exporter reports, whether or not they answer."}
	NodeStates = Record{"node:gpus:count",
		fmt.Sprint(
			state("healthy", fmt.Sprint("sum by (", list(byNode), ") (", &GPUState, " == bool 0)")), "\nor\n",
			state("unhealthy", fmt.Sprint("sum by (", list(byNode), ") (", &GPUState, " == bool 1)")), "\nor\n",
			state("not_answering", fmt.Sprint("sum by (", list(byNode), ") (", &GPUState, " == bool 2)")), "\nor\n",
			state("unknown", fmt.Sprint("(max_over_time(", &NodeReported, "[", memory, "]) - ", &NodeReported, ") or max_over_time(", &NodeReported, "[", memory, "])"))),
		append(byNode[:2:2], "state"), "Number of GPUs by state: healthy, unhealthy, not_answering, or unknown, which were reported in the last hour and are not now. The sum is all GPUs."}
	NodeAllocated = Record{"node:gpus_allocated:sum",
		weighted(fmt.Sprint("(max by (", list(byDevice), ") (", &def.GPUOwners, ") > bool 0)")),
		byNode, "Number of GPUs that are held; absent without a source of owners."}
	NodeHeldIdle = Record{"node:gpus_held_idle:sum",
		fmt.Sprint("sum by (", list(byNode), ") (\n  0 * (", idle("<"), " and on (", list(byDevice), ") max by (", list(byDevice), ") (", &def.GPUOwners, ") > 0)",
			"\n  + on (", list(byDevice), ") ", &DeviceWeight, "\n)\nor\n0 * ", &NodeAllocated),
		byNode, "Number of GPUs that are held and were idle for the last five minutes."}
	NodeBusy = Record{"node:gpus_busy:sum",
		weighted(fmt.Sprint("rate(", &DeviceBusy, "[", window, "])")),
		byNode, "Busy time of all GPUs in the last five minutes, divided by time: the number of GPUs that would be busy all the time."}
	NodeActive = Record{"node:gpus_active:sum",
		fmt.Sprint("sum by (", list(byNode), ", engine) (\n    ", active(`GPU_I_ID=""`), "\n  or\n    ", active(`GPU_I_ID!=""`), " * on (", list(byDevice), ") group_left () ", &DeviceWeight, "\n)"),
		append(byNode[:2:2], "engine"), "Active time of the engines sm, tensor and dram of all GPUs in the last five minutes, divided by time. Effective GPUs are those of the engine sm."}
	NodePower = Record{"node:gpu_power_watts:sum",
		fmt.Sprint("sum by (", list(byNode), ") (rate(", &GPUEnergy, "[", window, "]))"),
		byNode, "Mean power of all GPUs in the last five minutes, in watts."}
	NodeEnergy = Record{"node:gpu_energy_joules:increase",
		fmt.Sprint("sum by (", list(byNode), ") (", increase(&GPUEnergy, Interval), ")"),
		byNode, "Energy of all GPUs since the last evaluation, in joules."}
)

// Level cluster.
var (
	ClusterStates    = sumOf("cluster", append(byCluster[:1:1], "state"), &NodeStates)
	ClusterAllocated = sumOf("cluster", byCluster, &NodeAllocated)
	ClusterHeldIdle  = sumOf("cluster", byCluster, &NodeHeldIdle)
	ClusterBusy      = sumOf("cluster", byCluster, &NodeBusy)
	ClusterActive    = sumOf("cluster", append(byCluster[:1:1], "engine"), &NodeActive)
	ClusterPower     = sumOf("cluster", byCluster, &NodePower)
	ClusterEnergy    = sumOf("cluster", byCluster, &NodeEnergy)
)

// RecordGroups returns all recording rules in the order of their evaluation. Prometheus
// evaluates groups in no order, so that a group reads the last results of the others.
//
// Numbers of GPUs that are summed over time need [Interval]. States and the rates of nodes
// change slowly, and the activity of namespaces and users is summed over hours: half of the
// evaluations saves a third of the cost.
func RecordGroups() []RecordGroup {
	return []RecordGroup{
		{"gpu", "GPUs and their owners", Interval, []*Record{
			&DeviceWeight, &DeviceBusy, &GPUEnergy, &PodShare, &JobShare,
			&PodHeld, &PodHeldIdle, &PodBusy, &PodEnergy,
			&NamespaceHeld, &NamespaceHeldIdle, &NamespaceBusy, &NamespaceEnergy,
			&JobHeld, &JobHeldIdle, &JobBusy, &JobEnergy,
			&UserHeld, &UserHeldIdle, &UserBusy, &UserEnergy,
			&NodeEnergy, &ClusterEnergy,
		}},
		{"gpu-activity", "Activity of namespaces and users", activityInterval, []*Record{
			&DeviceSMActive, &NamespaceSMActive, &UserSMActive,
		}},
		{"gpu-nodes", "States of GPUs, and nodes", 2 * Interval, []*Record{
			&GPUState, &NodeReported, &NodeStates, &NodeAllocated, &NodeHeldIdle, &NodeBusy, &NodeActive, &NodePower,
		}},
		{"gpu-clusters", "Clusters", Interval, []*Record{
			&ClusterStates, &ClusterAllocated, &ClusterHeldIdle, &ClusterBusy, &ClusterActive, &ClusterPower,
		}},
	}
}

// migSlices is the number of slices of each MIG instance.
var migSlices = func() string {
	var sizes []string
	for _, n := range []string{"1", "2", "3", "4", "6", "7"} {
		sizes = append(sizes, fmt.Sprint("0 * ", &def.GPUInfo, `{GPU_I_PROFILE=~"`, n, `g.*"} + `, n))
	}
	return fmt.Sprint("max by (", list(byDevice), ") (", strings.Join(sizes, " or "), ")")
}()

// unhealthy selects the GPUs with a condition that makes them unhealthy.
func unhealthy() string {
	var conditions []string
	for _, c := range def.Unhealthy() {
		selector := c.Family.Name
		if c.Family.Per == def.PerChecked {
			// The GPUs. The matcher UUID!="" would be slower: it reads the index of each UUID.
			selector += `{nvswitch="", cpu=""}`
		}
		conditions = append(conditions, fmt.Sprint(selector, " > ", c.Above))
	}
	return strings.Join(conditions, " or ")
}

func list(labels []string) string { return strings.Join(labels, ", ") }

// share divides each device equally among the owners in an info family.
func share(level string, info *def.Family, owner []string, help string) Record {
	by := append(byDevice[:4:4], owner...)
	rows := fmt.Sprint("group by (", list(by), ") (", info, ")")
	return Record{"gpu:" + level + "_share:ratio",
		fmt.Sprint(rows, "\n* on (", list(byDevice), ") group_left ()\n(", &DeviceWeight, " / on (", list(byDevice), ") count by (", list(byDevice), ") (", rows, "))"),
		by, help}
}

// increase is the increase of a counter since the last evaluation of a group with the
// interval. It is 0 after a reset, and for the first value of a new counter, which is the
// total since the exporter started.
func increase(counter *Record, interval time.Duration) string {
	return fmt.Sprint("clamp_min(", counter, " - last_over_time(", counter, "[", gap, "] offset ", seconds(interval), "s), 0)")
}

// active is the activity of the engines of devices. Weights are joined only for instances of
// MIG, because the join of all GPUs is half of the cost.
func active(matcher string) string {
	return fmt.Sprint("max by (", list(byDevice), ", engine) (rate(", &def.GPUEngineActiveSeconds, `{engine=~"sm|tensor|dram",`, matcher, "}[", window, "]))")
}

// idle selects the devices that were idle and answer. The comparison may have bool.
func idle(less string) string {
	return fmt.Sprint("(rate(", &DeviceBusy, "[", window, "]) ", less, " ", IdleRatio, " unless on (", list(byGPU), ") ", &def.GPUUp, " == 0)")
}

func held(level string, by []string, share *Record) Record {
	return Record{level + ":gpus_held:sum", fmt.Sprint("sum by (", list(by), ") (", share, ")"),
		by, "Number of GPUs that are held. Divide the sum over time by 120 for GPU hours."}
}

func heldIdle(level string, by []string, share *Record) Record {
	return Record{level + ":gpus_held_idle:sum",
		fmt.Sprint("sum by (", list(by), ") (", share, " * on (", list(byDevice), ") group_left () ", idle("< bool"), ")"),
		by, "Number of GPUs that are held and were idle for the last five minutes."}
}

func busy(level string, by []string, share *Record) Record {
	return Record{level + ":gpu_busy_seconds:increase",
		fmt.Sprint("sum by (", list(by), ") (", share, " * on (", list(byDevice), ") group_left () ", increase(&DeviceBusy, Interval), ")"),
		by, "Busy time of the held GPUs since the last evaluation, in seconds."}
}

func smActive(level string, by []string, share *Record) Record {
	return Record{level + ":gpu_sm_active_seconds:increase",
		fmt.Sprint("sum by (", list(by), ") (", share, " * on (", list(byDevice), ") group_left () ", increase(&DeviceSMActive, activityInterval), ")"),
		by, "Active time of the SMs of the held GPUs since the last evaluation, in seconds."}
}

func energy(level string, by []string, share *Record) Record {
	return Record{level + ":gpu_energy_joules:increase",
		fmt.Sprint("sum by (", list(by), ") (", share, " * on (", list(byGPU), ") group_left () ", increase(&GPUEnergy, Interval), ")"),
		by, "Energy of the held GPUs since the last evaluation, in joules."}
}

// sumOf adds up a record of the level below.
func sumOf(level string, by []string, r *Record) Record {
	_, name, _ := strings.Cut(r.Name, ":")
	return Record{level + ":" + name, fmt.Sprint("sum by (", list(by), ") (", r, ")"), by, r.Help}
}

// weighted adds up values of the devices of a node, MIG instances as parts of their GPUs.
func weighted(expr string) string {
	return fmt.Sprint("sum by (", list(byNode), ") (\n  ", expr, "\n  * on (", list(byDevice), ") ", &DeviceWeight, "\n)")
}

func state(name, expr string) string {
	return fmt.Sprintf("label_replace(%s, %q, %q, %q, %q)", expr, "state", name, "", "")
}
