// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"time"

	"gpu_exporter/collector/metrics/definition"
)

func waste() AlertGroup {
	busy := fmt.Sprint("rate(", &definition.GPUBusySeconds, span(loadWindow), ")")
	power := fmt.Sprint(worst(gpuLabels, "rate(", &definition.GPUEnergyJoules, span(loadWindow), ")"), " / ", ofGPU(&definition.GPUPowerLimit))
	free := fmt.Sprint(worst(deviceKey, &definition.GPUOwners), " == 0 and on (", gpuKey, ") ", worst(gpuKey, &definition.GPUUp), " == 1")
	requests := worst("cluster, namespace, pod, container, resource", podRequests, `{resource=~"nvidia_com_(gpu|mig_.+)"}`)
	return AlertGroup{
		Name:     "gpu-waste",
		About:    "GPUs are paid for, but not used: tell the owner.",
		Interval: 5 * time.Minute,
		Alerts: []*Alert{
			{
				Name: "GPUHeldIdle",
				Expr: withPod(fmt.Sprint(ofDevice(busy), " < ", IdleRatio, " and on (", deviceKey, ") ",
					worst(deviceKey, &definition.GPUOwners, " > 0")), &definition.GPUOwners),
				For:       time.Hour,
				Severity:  Info,
				Threshold: fmt.Sprint("< ", IdleRatio),
				Summary:   onDevice + " is held, but has been idle for an hour: busy during " + percent + " of the last 10 minutes" + deviceHeldBy(),
				Action:    "Ask the owner to end the job or to release the GPU.",
			},
			{
				Name: "GPUJobStalled",
				Expr: withPod(fmt.Sprint(power, " < ", stalledPowerRatio, " and on (", gpuKey, ") ",
					worst(gpuKey, fmt.Sprint("rate(", &definition.GPUBusySeconds, `{GPU_I_ID=""}`, span(loadWindow), ")")), " >= ", stalledBusyRatio), &definition.GPUUp),
				For:           10 * time.Minute,
				KeepFiringFor: 10 * time.Minute,
				Severity:      Info,
				Threshold:     fmt.Sprint("< ", stalledPowerRatio),
				Summary:       onGPU + " is busy, but uses only " + percent + " of its power limit, as a job that waits for a peer" + heldBy(),
				Action:        "Ask the owner whether the job makes progress, and look for a slow or lost peer.",
			},
			{
				Name: "GPUNamespaceInefficient",
				Expr: fmt.Sprintf("sum_over_time(%[1]s%[2]s) / (%[3]s * sum_over_time(%[4]s%[2]s)) < %[5]v and sum_over_time(%[4]s%[2]s) >= %[6]d",
					&NamespaceSMActive, span(inefficientWindow), seconds(Interval), &NamespaceHeld, inefficientRatio, inefficientGPUHours*int(time.Hour/Interval)),
				For:       time.Hour,
				Severity:  Info,
				Threshold: fmt.Sprint("< ", inefficientRatio),
				Summary:   "Namespace {{ $labels.namespace }} computed during only " + percent + " of the time in which it held GPUs, within a day.",
				Action:    "Send the owners their pods with the most idle GPU hours, and reduce the quota if nothing changes.",
			},
			{
				Name: "GPUFreeWhilePodsWait",
				Expr: fmt.Sprint("count by (cluster) (", free, ") and on (cluster) sum by (cluster) (", requests,
					" * on (cluster, namespace, pod) group_left () (", worst("cluster, namespace, pod", podUnschedulable), " == 1)) > 0"),
				For:      30 * time.Minute,
				Severity: Info,
				Summary:  "{{ $value }} GPUs or GPU instances are free{{ with $labels.cluster }} in cluster {{ . }}{{ end }} while pods wait for some.",
				Action:   "Read the events of the waiting pods, and check taints, cordons, quotas and fragmentation.",
			},
		},
	}
}
