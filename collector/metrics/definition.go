// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"slices"

	"gpu_exporter/collector/field"
)

// definition describes a family that is ours, as opposed to one that a counters
// file names.
type definition struct {
	Name   string
	Type   field.MetricType
	Help   string
	Labels []string // beside the identity labels, which the gpu_* families have
}

// The families that are ours. gpu_* are about devices and have their identity
// labels; gpu_exporter_* are about the exporter.
var (
	gpuInfo = definition{"gpu_info", field.MetricGauge, "What is known of a GPU or GPU instance; always 1.",
		[]string{"brand", "driver_version", "minor", "nvml_index", "serial", "vbios_version"}}
	gpuUp      = definition{"gpu_up", field.MetricGauge, "Whether the GPU answers: 1 if the newest sample is fresh and has values of it; 0 if it is lost, detached or silent, or if there is no fresh sample.", nil}
	gpuPodInfo = definition{"gpu_pod_info", field.MetricGauge, "Which container holds the device or, with a replica, a share of it; always 1.",
		[]string{"container", "namespace", "pod", "replica"}}
	gpuPodLabels = definition{"gpu_pod_labels", field.MetricGauge, "Labels, with label_ in front, and annotations, with annotation_ in front, of a pod that holds a device, or of one that shares a device where labels are on the devices' series; always 1.",
		[]string{"namespace", "pod"}}
	gpuPodProcesses = definition{"gpu_pod_processes", field.MetricGauge, "Processes of the container on the device.", []string{"container", "namespace", "pod"}}
	gpuPodMemory    = definition{"gpu_pod_memory_used_bytes", field.MetricGauge, "Device memory that the container's processes use.", []string{"container", "namespace", "pod"}}
	gpuPodKinds     = definition{"gpu_pod_process_memory_used_bytes", field.MetricGauge, "Device memory that the container's processes of one type use; the types add up to gpu_pod_memory_used_bytes.",
		[]string{"container", "namespace", "pod", "type"}}
	gpuPodSM      = definition{"gpu_pod_sm_utilization_ratio", field.MetricGauge, "Part of the time since the last sample in which kernels of the container ran on the device.", []string{"container", "namespace", "pod"}}
	gpuPodEncoder = definition{"gpu_pod_encoder_utilization_ratio", field.MetricGauge, "Part of the time since the last sample in which the container used the device's encoders.", []string{"container", "namespace", "pod"}}
	gpuPodDecoder = definition{"gpu_pod_decoder_utilization_ratio", field.MetricGauge, "Part of the time since the last sample in which the container used the device's decoders.", []string{"container", "namespace", "pod"}}
	gpuJobInfo    = definition{"gpu_job_info", field.MetricGauge, "Which batch job holds the device; always 1. What is not known of the job is empty.",
		[]string{"account", "job_id", "job_name", "partition", "source", "user"}}
	gpuContainerInfo = definition{"gpu_container_info", field.MetricGauge, "Which container, of an engine without Kubernetes, holds the device; always 1.",
		[]string{"compose_project", "compose_service", "container_id", "container_name", "image"}}
	gpuOwners = definition{"gpu_owners", field.MetricGauge, "How many containers and jobs are known to hold the device. 0 is a free one: it is absent where nobody is asked for owners, and while one who is asked has not answered or can tell only in part.", nil}

	samplerUp         = definition{"gpu_exporter_sampler_up", field.MetricGauge, "Whether the running sampler process delivers samples and the newest is fresh.", nil}
	samplerRestarts   = definition{"gpu_exporter_sampler_restarts_total", field.MetricCounter, "Times that the sampler process had to be replaced, by what ended it.", []string{"reason"}}
	samplerUnreapable = definition{"gpu_exporter_sampler_unreapable", field.MetricGauge, "Whether a killed sampler is stuck in the kernel, so that no new one can start.", nil}
	framesRejected    = definition{"gpu_exporter_frames_rejected_total", field.MetricCounter, "Frames of the sampler that were not used, by reason.", []string{"reason"}}
	lastSample        = definition{"gpu_exporter_last_sample_timestamp_seconds", field.MetricGauge, "When the newest sample was read.", nil}
	sampleDuration    = definition{"gpu_exporter_sample_duration_seconds", field.MetricGauge, "How long reading the newest sample took.", nil}
	fieldsUnsupported = definition{"gpu_exporter_fields_unsupported", field.MetricGauge, "Pairs of entity and field that the newest sample has no value for, by reason.", []string{"reason"}}

	migUp = definition{"gpu_exporter_mig_read_up", field.MetricGauge, "Whether it is known which instances the GPUs in MIG mode have. While it is 0, nothing of instances is shown, nor of these GPUs what instances would have in their place.", nil}

	mappingUp        = definition{"gpu_exporter_pod_mapping_up", field.MetricGauge, "Whether the last refresh of the device owners succeeded.", nil}
	mappingAge       = definition{"gpu_exporter_pod_mapping_age_seconds", field.MetricGauge, "Time since the device owners were last read.", nil}
	mappingDuration  = definition{"gpu_exporter_pod_mapping_refresh_duration_seconds", field.MetricGauge, "How long the last refresh of the device owners took.", nil}
	mappingFailures  = definition{"gpu_exporter_pod_mapping_failures_total", field.MetricCounter, "Refreshes of the device owners that failed, by reason.", []string{"reason"}}
	mappingUnmatched = definition{"gpu_exporter_pod_mapping_unmatched_devices", field.MetricGauge, "Allocated device IDs that are no known GPU; gpu_exporter doctor explains them.", nil}

	sourceUp       = definition{"gpu_exporter_owner_source_up", field.MetricGauge, "Whether the last refresh from this source of what is known of owners succeeded.", []string{"source"}}
	sourceAge      = definition{"gpu_exporter_owner_source_age_seconds", field.MetricGauge, "Time since the source was last read.", []string{"source"}}
	sourceStrays   = definition{"gpu_exporter_owner_source_unmatched_devices", field.MetricGauge, "Devices that somebody holds according to the source and that are none of this node; gpu_exporter doctor names them.", []string{"source"}}
	sourceFailures = definition{"gpu_exporter_owner_source_failures_total", field.MetricCounter, "Refreshes from the source that failed, by reason.", []string{"source", "reason"}}

	processesRead         = definition{"gpu_exporter_processes_last_read_timestamp_seconds", field.MetricGauge, "When the processes on the devices were last read.", nil}
	processesUnattributed = definition{"gpu_exporter_processes_unattributed", field.MetricGauge, "Processes on devices that are no owner's use, by reason.", []string{"reason"}}
	processesUnread       = definition{"gpu_exporter_processes_unread_devices", field.MetricGauge, "Devices whose processes, or their utilization, cannot be read, by what and reason.", []string{"what", "reason"}}
)

func (d *definition) family(series ...Series) Family {
	return Family{Name: d.Name, Help: d.Help, Type: d.Type, Series: series}
}

// single returns the family with one series without labels.
func (d *definition) single(v Value) Family {
	return d.family(Series{&LabelSet{}, v})
}

// counts returns the family with one series for each key of the map, sorted.
func counts[N uint64 | int | float64](f *Families, d *definition, byKey map[string]N) Family {
	family := d.family()
	family.Series = f.buffer(d.Name)
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		family.Series = append(family.Series, Series{f.singleLabel(Label{d.Labels[0], key}), Number(float64(byKey[key]))})
	}
	return family
}

// singleLabel returns the label set of one label, made by the first call for it.
func (f *Families) singleLabel(l Label) *LabelSet {
	set, ok := f.single[l]
	if !ok {
		set = NewLabelSet(l)
		f.single[l] = set
	}
	return set
}
