// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
)

// Metrics of inference servers. Triton's are in its user guide ("Metrics"), vLLM's in its
// documentation ("Production Metrics"). Their targets need the labels namespace and pod.
const (
	tritonSuccesses   = "nv_inference_request_success"
	tritonFailures    = "nv_inference_request_failure"
	tritonDuration    = "nv_inference_request_duration_us"
	tritonPending     = "nv_inference_pending_request_count"
	tritonUtilization = "nv_gpu_utilization" // of the GPU gpu_uuid, 0 to 1

	vllmSuccesses    = "vllm:request_success_total"
	vllmWaiting      = "vllm:num_requests_waiting"
	vllmTokens       = "vllm:generation_tokens_total"
	vllmLatencySum   = "vllm:e2e_request_latency_seconds_sum"
	vllmLatencyCount = "vllm:e2e_request_latency_seconds_count"
	vllmCache        = "vllm:kv_cache_usage_perc"  // 0 to 1
	vllmCacheBefore  = "vllm:gpu_cache_usage_perc" // its name before vLLM 0.10
)

// workloads is the dashboard of pods and their owners.
func workloads(Names) page {
	inNamespaces := and(ofRecords, `namespace=~"$namespace"`)
	inPods := and(inNamespaces, `pod=~"$pod"`)
	namespaceKeys, byNamespace := ownerLabels(label{"cluster", "Cluster"}, label{"namespace", "Namespace"})
	workloadKeys, byWorkload := ownerLabels(append(namespaceKeys[:2:2], label{"workload_kind", "Kind"}, label{"workload", "Workload"})...)
	claimKeys, byClaim := ownerLabels(append(namespaceKeys[:2:2], label{"dra_claim_name", "Claim"})...)
	podKeys, byPod := ownerLabels(append(namespaceKeys[:2:2], label{"pod", "Pod"}, label{"hostname", "Node"})...)
	byNamespaces := owners{namespaceRecords(), byNamespace, inNamespaces}
	byWorkloads := owners{podRecords(), byWorkload, and(inPods, `workload!=""`)}
	byClaims := owners{podRecords(), byClaim, and(inPods, `dra_claim_name!=""`)}
	byPods := owners{podRecords(), byPod, inPods}
	toNamespace := link{"Pods of ${__data.fields.Namespace}", "workloads", [][2]string{{"namespace", "${__data.fields.Namespace}"}}}
	toPod := link{"Pod ${__data.fields.Pod}", "workloads", [][2]string{{"namespace", "${__data.fields.Namespace}"}, {"pod", "${__data.fields.Pod}"}}}
	noPods := "no pod held a GPU, or " + noRules

	return page{
		name:  "workloads",
		title: "Workloads",
		description: "GPUs by namespace, pod, workload and claim: held, busy and idle GPU hours, and energy, also of pods that ended. " +
			"A shared GPU counts once.",
		rules: true, from: "now-24h",
		variables: []dashboard.VariableModel{clusters(), jobs(), namespaces(), pods()},
		rows: []row{
			{title: "Selected pods", panels: byPods.summary("pod")},
			{title: "Namespaces and pods", panels: []*panel{
				newTable("Namespaces", aboutOwners+"The 100 namespaces with the most idle hours.",
					namespaceKeys, idleHours, byNamespaces.columns()...).ifEmpty(noPods).link(toNamespace),
				newTable("Pods", aboutOwners+"The 100 pods with the most idle hours.",
					podKeys, idleHours, append(byPods.columns(),
						column{title: "Memory in use", expr: byPods.worst(100, e("sum by (", byPod, ") (max by (", deviceID, ", namespace, pod, container) (", &definition.GPUPodMemoryUsed, and(inPods, `job=~"$job"`), "))")),
							style: of("bytes", 1, ""), width: 95})...).ifEmpty(noPods).link(toPod, rowToNode()).size(24, 12),
			}},
			{title: "Over time", panels: byNamespaces.overTime("namespace", "{{namespace}} {{cluster}}")},
			{title: "Inference servers: needs Triton or vLLM as targets with the labels namespace and pod", panels: inference(and(inPods, `pod!=""`), byPods)},
			{title: "Workloads and claims", panels: []*panel{
				newTable("Workloads", aboutOwners+"The 100 workloads with the most idle hours. A workload is the topmost owner of pods, such as a Deployment. Needs --kubernetes.workload.",
					workloadKeys, idleHours, byWorkloads.columns()...).ifEmpty("no workload held a GPU, or needs --kubernetes.workload and the recording rules").size(24, 9),
				newTable("Claims", aboutOwners+"The 100 ResourceClaims with the most idle hours. Needs --kubernetes.dra.",
					claimKeys, idleHours, byClaims.columns()...).ifEmpty("no claim held a GPU, or needs --kubernetes.dra and the recording rules").size(24, 9),
			}},
		},
	}
}

// inference is the row of inference servers. Their requests are joined with the GPUs of
// their pods by namespace and pod, and Triton's utilization by the GPU's UUID.
func inference(inPods string, pods owners) []*panel {
	keys, by := ownerLabels(label{"cluster", "Cluster"}, label{"namespace", "Namespace"}, label{"pod", "Pod"})
	pods.by = by
	none := "no target of Triton or vLLM has the labels namespace and pod"
	sum := func(expr string) string { return "sum by (" + by + ") (" + expr + ")" }
	over := func(function, metric, window string) string {
		return sum(function + "(" + metric + inPods + window + ")")
	}
	either := func(exprs ...string) string { return "(" + strings.Join(exprs, " or ") + ")" }
	per := func(numerator, denominator string) string { return numerator + " / (" + denominator + " > 0)" }
	requests := func(function, window string) string {
		return either(over(function, tritonSuccesses, window), over(function, vllmSuccesses, window))
	}
	waiting := either(sum(vllmWaiting+inPods), sum(tritonPending+inPods))
	server := func(name, metric string) string {
		return `group by (` + by + `, server) (label_replace(` + metric + inPods + `, "server", "` + name + `", "", ""))`
	}
	servers := either(server("Triton", tritonSuccesses), server("vLLM", vllmWaiting))
	triton := `max by (UUID) (label_replace(` + tritonUtilization + ofRecords + `, "UUID", "$1", "gpu_uuid", "(.+)"))`
	onTriton := e(" and on (UUID) ", triton)
	gpu := e("max by (", gpuID, ") (", &definition.GPUUp, inFleet, ")")
	number := func(unit string, decimals int) style { return of(unit, decimals, "") }
	legend := "{{namespace}}/{{pod}} {{cluster}}"
	const window = "[$__range]"
	return []*panel{
		newTable("Inference servers", "Newest load of Triton and vLLM, and the GPUs of their pods. Latency, utilization and energy are for the time range. Energy per request and per token divides the energy of the pod's GPUs by its requests and generated tokens.",
			keys, "Waiting", append([]column{{expr: servers, labels: []label{{"server", "Server"}}}}, cells(88,
				column{title: "Waiting", expr: waiting, style: of("none", 0, "").levels(step{0, good}, step{10, caution})},
				column{title: "Requests/s", expr: requests("rate", recent), style: number("none", 2)},
				column{title: "Failed/s", expr: over("rate", tritonFailures, recent), style: of("none", 2, "").zeroIsGood(bad)},
				column{title: "Mean latency", expr: either(
					per(over("increase", tritonDuration, window), over("increase", tritonSuccesses, window))+" / 1e6",
					per(over("increase", vllmLatencySum, window), over("increase", vllmLatencyCount, window))), style: number("s", 2)},
				column{title: "Tokens/s", expr: over("rate", vllmTokens, recent), style: number("none", 0)},
				column{title: "KV cache", expr: "max by (" + by + ") (" + vllmCache + inPods + " or " + vllmCacheBefore + inPods + ")", style: ratioCell(), gauge: true},
				column{title: "GPUs now", expr: pods.now(pods.held) + " and on (" + by + ") " + servers, style: number("none", 2)},
				column{title: "Utilization", expr: pods.ratio(pods.busy, window) + " and on (" + by + ") " + servers, style: ratioCell(), gauge: true},
				column{title: "Energy per request", expr: pods.total(pods.energy) + " / on (" + by + ") (" + requests("increase", window) + " > 0)", style: number("joule", 1)},
				column{title: "Energy per token", expr: pods.total(pods.energy) + " / on (" + by + ") (" + over("increase", vllmTokens, window) + " > 0)", style: number("joule", 2)},
			)...)...).ifEmpty(none).size(24, 8),
		newTimeSeries("Requests", "Successful requests per second by pod. The 20 pods with the most.", of("reqps", 2, none).from0(),
			query{"topk(20, " + requests("rate", "[$__rate_interval]") + ")", legend}).size(8, 8),
		newTimeSeries("Waiting requests", "Requests that wait, by pod. The 20 pods with the most. If requests wait while the GPU is idle, the server is the limit.",
			of("none", 0, none).from0(), query{"topk(20, " + waiting + ")", legend}).size(8, 8),
		newTimeSeries("Requests per busy GPU second", "Requests divided by the busy time of the pod's GPUs. A fall means that requests cost more GPU time.",
			of("none", 2, none).from0(),
			query{"topk(20, " + requests("increase", "[$__rate_interval]") + " / on (" + by + ") (" + pods.totalIn(&rules.PodBusy, "[$__rate_interval]") + " > 0))", legend}).size(8, 8),
		newTable("GPUs of Triton", "GPUs that Triton reports, joined by their UUID. Both utilizations are for the whole GPU; Triton's is the driver's at the moment.",
			gpuKeys(), "Busy",
			column{expr: e("max by (", gpuID, ", namespace, pod) (", &definition.GPUPodInfo, inFleet, ")", onTriton), labels: []label{{"namespace", "Namespace"}, {"pod", "Pod"}}},
			column{title: "Utilization by Triton", expr: e(gpu, " * 0 + on (UUID) group_left () ", triton), style: ratioCell(), gauge: true},
			column{title: "Busy", expr: "(" + rateOf(gpuID, &definition.GPUBusySeconds, and(inFleet, `GPU_I_ID=""`)) + ")" + onTriton, style: ratioCell(), gauge: true},
			column{title: "Power", expr: "(" + rateOf(gpuID, &definition.GPUEnergyJoules, inFleet) + ")" + onTriton, style: number("watt", 0)},
		).least().ifEmpty("no target of Triton reports its GPUs").link(rowToGPU()).size(24, 7),
	}
}
