// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// definition describes a family that is ours, as opposed to one that a counters
// file names.
type definition struct {
	Name   string
	Type   MetricType
	Help   string
	Labels []string // beside the identity labels, which the gpu_* families have
}

// The families that are ours. gpu_* are about devices and have their identity
// labels; gpu_exporter_* are about the exporter.
var (
	gpuInfo = definition{"gpu_info", MetricGauge, "What is known of a GPU or GPU instance; always 1.",
		[]string{"brand", "driver_version", "minor", "nvml_index", "serial", "vbios_version"}}
	gpuUp      = definition{"gpu_up", MetricGauge, "Whether the GPU answers: 1 if the newest sample is fresh and has values of it; 0 if it is lost, detached or silent, or if there is no fresh sample.", nil}
	gpuPodInfo = definition{"gpu_pod_info", MetricGauge, "Which container holds the device or, with a replica, a share of it; always 1.",
		[]string{"container", "namespace", "pod", "replica"}}
	gpuPodLabels = definition{"gpu_pod_labels", MetricGauge, "Labels, with label_ in front, and annotations, with annotation_ in front, of a pod that holds a device, or of one that shares a device where labels are on the devices' series; always 1.",
		[]string{"namespace", "pod"}}
	gpuPodProcesses = definition{"gpu_pod_processes", MetricGauge, "Processes of the container on the device.", []string{"container", "namespace", "pod"}}
	gpuPodMemory    = definition{"gpu_pod_memory_used_bytes", MetricGauge, "Device memory that the container's processes use.", []string{"container", "namespace", "pod"}}
	gpuPodKinds     = definition{"gpu_pod_process_memory_used_bytes", MetricGauge, "Device memory that the container's processes of one type use; the types add up to gpu_pod_memory_used_bytes.",
		[]string{"container", "namespace", "pod", "type"}}
	gpuPodSM      = definition{"gpu_pod_sm_utilization_ratio", MetricGauge, "Part of the time since the last sample in which kernels of the container ran on the device.", []string{"container", "namespace", "pod"}}
	gpuPodEncoder = definition{"gpu_pod_encoder_utilization_ratio", MetricGauge, "Part of the time since the last sample in which the container used the device's encoders.", []string{"container", "namespace", "pod"}}
	gpuPodDecoder = definition{"gpu_pod_decoder_utilization_ratio", MetricGauge, "Part of the time since the last sample in which the container used the device's decoders.", []string{"container", "namespace", "pod"}}
	gpuJobInfo    = definition{"gpu_job_info", MetricGauge, "Which batch job holds the device; always 1. What is not known of the job is empty.",
		[]string{"account", "job_id", "job_name", "partition", "source", "user"}}
	gpuContainerInfo = definition{"gpu_container_info", MetricGauge, "Which container, of an engine without Kubernetes, holds the device; always 1.",
		[]string{"compose_project", "compose_service", "container_id", "container_name", "image"}}
	gpuOwners = definition{"gpu_owners", MetricGauge, "How many containers and jobs are known to hold the device. 0 is a free one: it is absent where nobody is asked for owners, and while one who is asked has not answered or can tell only in part.", nil}

	samplerUp         = definition{"gpu_exporter_sampler_up", MetricGauge, "Whether the running sampler process delivers samples and the newest is fresh.", nil}
	samplerRestarts   = definition{"gpu_exporter_sampler_restarts_total", MetricCounter, "Times that the sampler process had to be replaced, by what ended it.", []string{"reason"}}
	samplerUnreapable = definition{"gpu_exporter_sampler_unreapable", MetricGauge, "Whether a killed sampler is stuck in the kernel, so that no new one can start.", nil}
	framesRejected    = definition{"gpu_exporter_frames_rejected_total", MetricCounter, "Frames of the sampler that were not used, by reason.", []string{"reason"}}
	lastSample        = definition{"gpu_exporter_last_sample_timestamp_seconds", MetricGauge, "When the newest sample was read.", nil}
	sampleDuration    = definition{"gpu_exporter_sample_duration_seconds", MetricGauge, "How long reading the newest sample took.", nil}
	fieldsUnsupported = definition{"gpu_exporter_fields_unsupported", MetricGauge, "Pairs of entity and field that the newest sample has no value for, by reason.", []string{"reason"}}

	migUp = definition{"gpu_exporter_mig_read_up", MetricGauge, "Whether it is known which instances the GPUs in MIG mode have. While it is 0, nothing of instances is shown, nor of these GPUs what instances would have in their place.", nil}

	mappingUp        = definition{"gpu_exporter_pod_mapping_up", MetricGauge, "Whether the last refresh of the device owners succeeded.", nil}
	mappingAge       = definition{"gpu_exporter_pod_mapping_age_seconds", MetricGauge, "Time since the device owners were last read.", nil}
	mappingDuration  = definition{"gpu_exporter_pod_mapping_refresh_duration_seconds", MetricGauge, "How long the last refresh of the device owners took.", nil}
	mappingFailures  = definition{"gpu_exporter_pod_mapping_failures_total", MetricCounter, "Refreshes of the device owners that failed, by reason.", []string{"reason"}}
	mappingUnmatched = definition{"gpu_exporter_pod_mapping_unmatched_devices", MetricGauge, "Allocated device IDs that are no known GPU; gpu_exporter doctor explains them.", nil}

	sourceUp       = definition{"gpu_exporter_owner_source_up", MetricGauge, "Whether the last refresh from this source of what is known of owners succeeded.", []string{"source"}}
	sourceAge      = definition{"gpu_exporter_owner_source_age_seconds", MetricGauge, "Time since the source was last read.", []string{"source"}}
	sourceStrays   = definition{"gpu_exporter_owner_source_unmatched_devices", MetricGauge, "Devices that somebody holds according to the source and that are none of this node; gpu_exporter doctor names them.", []string{"source"}}
	sourceFailures = definition{"gpu_exporter_owner_source_failures_total", MetricCounter, "Refreshes from the source that failed, by reason.", []string{"source", "reason"}}

	processesRead         = definition{"gpu_exporter_processes_last_read_timestamp_seconds", MetricGauge, "When the processes on the devices were last read.", nil}
	processesUnattributed = definition{"gpu_exporter_processes_unattributed", MetricGauge, "Processes on devices that are no owner's use, by reason.", []string{"reason"}}
	processesUnread       = definition{"gpu_exporter_processes_unread_devices", MetricGauge, "Devices whose processes, or their utilization, cannot be read, by what and reason.", []string{"what", "reason"}}
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
	family.Series = f.room(d.Name)
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		family.Series = append(family.Series, Series{f.word(Label{d.Labels[0], key}), Number(float64(byKey[key]))})
	}
	return family
}

// word returns the label set of one label, made by the first call for it.
func (f *Families) word(l Label) *LabelSet {
	set, ok := f.words[l]
	if !ok {
		set = NewLabelSet(l)
		f.words[l] = set
	}
	return set
}

// appendDerived appends the gpu_* families. They go on while samples do not
// come: who the GPUs are and what happened to them stays known.
func (f *Families) appendDerived(families []Family, v nodeView, ownership *Ownership, fresh bool) []Family {
	if v.inventory == nil {
		return families
	}
	up, info := gpuUp.family(), gpuInfo.family()
	for i := range v.inventory.Entities {
		l := &f.layout.entities[i]
		if l.own == nil {
			continue
		}
		e := &v.inventory.Entities[i]
		if e.Kind == KindGPU {
			up.Series = append(up.Series, Series{l.own, Bool(fresh && answers(v, i))})
		}
		info.Series = append(info.Series, Series{f.layout.render(renderedKey{i, gpuInfo.Name, 0, 0}, func() []Label {
			return slices.Concat(l.identity, infoLabels(v.inventory, i))
		}), Number(1)})
	}
	for i := range v.gone {
		if gone := &v.gone[i]; findGPU(v.inventory, gone.UUID) == nil {
			up.Series = append(up.Series, Series{NewLabelSet(f.cfg.goneIdentity(gone)...), Bool(false)})
		}
	}
	families = append(families, up, info)
	families = f.appendFabric(families, v, fresh)
	families = f.appendProfiling(families, v, fresh)
	families = f.appendHolders(families, v, ownership)
	families = f.appendStatistics(families, v, fresh)
	families = f.appendIntegrals(families, v)
	return f.appendXIDs(families, v)
}

// goneIdentity returns the identity labels of a GPU that the inventory lacks.
func (cfg *FamiliesConfig) goneIdentity(gpu *Entity) []Label {
	return cfg.withHostname(cfg.gpuLabels(gpu))
}

// answers says whether the newest sample has a value of the GPU at position i or,
// where its instances are read in its place, of one of them.
// Values of the node as a whole and the last XID do not count: DCGM has them for
// a dead GPU too. What is read of every GPU as a whole counts: instances that were
// just made, and profiling, may have no value yet.
func answers(v nodeView, i int) bool {
	if v.inventory.Entities[i].State != EntityUp {
		return false
	}
	if i < len(v.sample.Derived) && slices.ContainsFunc(v.sample.Derived[i], func(c Cell) bool { return c.Status == StatusOK }) {
		return true
	}
	read := false
	for j := range v.inventory.Entities {
		e := &v.inventory.Entities[j]
		if row := v.sample.Rows[j]; (j == i || e.Parent == i && e.Kind == KindGPUInstance) && len(row) > 0 {
			if read = true; hasValue(v.inventory.Columns[e.Kind], row) {
				return true
			}
		}
	}
	return !read // if nothing of it is read, its state is all that is known
}

func hasValue(columns []FieldID, row []Cell) bool {
	for c, id := range columns {
		if row[c].Status != StatusOK || id == FieldXID {
			continue
		}
		if field, ok := FieldByID(id); !ok || field.Level != KindGlobal {
			return true
		}
	}
	return false
}

func infoLabels(inv *Inventory, i int) []Label {
	gpu, _ := inv.GPU(i)
	var labels []Label
	add := func(name, value string) {
		if value != "" {
			labels = append(labels, Label{name, value})
		}
	}
	add("brand", gpu.Brand)
	add("driver_version", inv.DriverVersion)
	if gpu.Minor != Unknown {
		add("minor", strconv.Itoa(gpu.Minor))
	}
	if gpu.Index != Unknown {
		add("nvml_index", strconv.Itoa(gpu.Index))
	}
	add("serial", gpu.Serial)
	add("vbios_version", gpu.VBIOS)
	return labels
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// appendState appends the gpu_exporter_* families.
func (f *Families) appendState(families []Family, v nodeView, ownership *Ownership) []Family {
	status := f.supervisor.Status()
	fresh := v.sample != nil && v.age <= f.cfg.MaxAge
	families = append(families,
		samplerUp.single(Bool(status.Sampling && fresh)),
		counts(f, &samplerRestarts, status.Restarts),
		samplerUnreapable.single(Bool(status.Unreapable)),
		counts(f, &framesRejected, status.FramesRejected))
	if v.inventory != nil {
		families = append(families, migUp.single(Bool(!v.inventory.InstancesUnknown)))
	}
	families = appendPause(families, status.ProfilingPausedUntil)
	if v.sample != nil {
		families = append(families,
			lastSample.single(Number(seconds(v.sample.Time))),
			sampleDuration.single(Number(v.sample.Duration.Seconds())),
			counts(f, &fieldsUnsupported, withoutValue(v.sample)))
		families = f.appendLinkState(families, v)
	}
	families = f.appendKernelLog(families, v)
	if f.owners == nil {
		return families
	}
	families = f.appendProcessState(families)
	families = appendSources(families, f.owners.Sources(), f.node.now())
	if ownership != nil {
		families = append(families, counts(f, &sourceStrays, ownership.Strays))
	}
	mapping, asked := f.owners.MappingStatus()
	if !asked {
		return families
	}
	families = append(families,
		mappingUp.single(Bool(mapping.Up)),
		counts(f, &mappingFailures, mapping.Failures))
	if !mapping.LastSuccess.IsZero() {
		families = append(families,
			mappingAge.single(Number(f.node.now().Sub(mapping.LastSuccess).Seconds())),
			mappingDuration.single(Number(mapping.Duration.Seconds())))
	}
	if ownership != nil && ownership.Mapped {
		families = append(families, mappingUnmatched.single(Number(float64(ownership.Unmatched))))
	}
	return families
}

// withoutValue counts the cells without a value by reason, all reasons present.
func withoutValue(s *Sample) map[string]int {
	var n [statusCount]int
	for _, row := range s.Rows {
		for _, c := range row {
			if int(c.Status) < statusCount {
				n[c.Status]++
			}
		}
	}
	byReason := make(map[string]int, statusCount-1)
	for status := StatusOK + 1; int(status) < statusCount; status++ {
		byReason[status.String()] = n[status]
	}
	return byReason
}
