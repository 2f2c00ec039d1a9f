// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import "gpu_exporter/collector/field"

// Definition describes a metric family that the exporter defines itself, as
// opposed to a family that a counters file names. Definitions must not change.
type Definition struct {
	Name string
	Type field.MetricType
	Help string
	// Labels are in addition to the identity labels of a gpu_* family.
	Labels []string
}

const (
	gauge   = field.MetricGauge
	counter = field.MetricCounter
)

// Devices.
var (
	gpuUp   = Definition{"gpu_up", gauge, "Whether the GPU answers: 1 if the newest sample is fresh and has a value of it, else 0.", nil}
	gpuInfo = Definition{"gpu_info", gauge, "Identity of the GPU or GPU instance, always 1.", []string{"brand", "driver_version", "minor", "nvml_index", "serial", "vbios_version"}}
)

// Owners of devices.
var (
	gpuOwners        = Definition{"gpu_owners", gauge, "Number of containers and jobs that hold the device.", nil}
	gpuPodInfo       = Definition{"gpu_pod_info", gauge, "Container that holds the device or a share of it, always 1.", []string{"container", "namespace", "pod", "replica"}}
	gpuPodLabels     = Definition{"gpu_pod_labels", gauge, "Labels and annotations of a pod that holds a device, prefixed with label_ and annotation_, always 1.", []string{"namespace", "pod"}}
	gpuPodProcesses  = Definition{"gpu_pod_processes", gauge, "Number of processes of the container on the device.", []string{"container", "namespace", "pod"}}
	gpuPodMemory     = Definition{"gpu_pod_memory_used_bytes", gauge, "Device memory that the container's processes use, in bytes.", []string{"container", "namespace", "pod"}}
	gpuPodKinds      = Definition{"gpu_pod_process_memory_used_bytes", gauge, "Device memory that the container's processes of one type use, in bytes.", []string{"container", "namespace", "pod", "type"}}
	gpuPodSM         = Definition{"gpu_pod_sm_utilization_ratio", gauge, "Ratio of the time since the last sample in which kernels of the container ran on the device, 0 to 1.", []string{"container", "namespace", "pod"}}
	gpuPodEncoder    = Definition{"gpu_pod_encoder_utilization_ratio", gauge, "Ratio of the time since the last sample in which the container used the device's encoders, 0 to 1.", []string{"container", "namespace", "pod"}}
	gpuPodDecoder    = Definition{"gpu_pod_decoder_utilization_ratio", gauge, "Ratio of the time since the last sample in which the container used the device's decoders, 0 to 1.", []string{"container", "namespace", "pod"}}
	gpuJobInfo       = Definition{"gpu_job_info", gauge, "Batch job that holds the device, always 1.", []string{"account", "job_id", "job_name", "partition", "source", "user"}}
	gpuContainerInfo = Definition{"gpu_container_info", gauge, "Container of an engine without Kubernetes that holds the device, always 1.", []string{"compose_project", "compose_service", "container_id", "container_name", "image"}}
)

// Hardware of whole GPUs.
var (
	gpuClockEventActive = Definition{"gpu_clock_event_active", gauge, "Whether the reason limits the clocks now: 1 yes, 0 no (field 112).", []string{"reason"}}
	gpuViolation        = Definition{"gpu_violation_seconds_total", counter, "Time that the policy limited the clocks since the driver was loaded, in seconds (fields 240 to 245).", []string{"policy"}}
	gpuBelowClocks      = Definition{"gpu_clocks_below_seconds_total", counter, "Time with clocks below the application or base clocks since the driver was loaded, in seconds (fields 246 and 247).", []string{"clocks"}}
	gpuFabricState      = Definition{"gpu_fabric_state", gauge, "State of the GPU's registration with the NVLink fabric: 1 for the current state, else 0 (field 170).", []string{"state"}}
	gpuFabricError      = Definition{"gpu_fabric_error_code", gauge, "Error code of the GPU's registration with the NVLink fabric, 0 for success (field 171).", nil}
	gpuFabricHealth     = Definition{"gpu_fabric_health", gauge, "Health of the NVLink fabric: 1 for the current state, else 0 (field 175).", []string{"state"}}
	gpuFabricFault      = Definition{"gpu_fabric_fault", gauge, "Whether the NVLink fabric has the fault: 1 yes, 0 no (field 174).", []string{"fault"}}
	gpuFabricInfo       = Definition{"gpu_fabric_info", gauge, "Multi-node NVLink cluster and clique of the GPU, always 1 (fields 172 and 173).", []string{"clique", "cluster_uuid"}}
	gpuRecoveryAction   = Definition{"gpu_recovery_action", gauge, "Action that the driver requests to recover the GPU: 1 for the requested action, else 0 (field 1523).", []string{"action"}}
	gpuRemappedRows     = Definition{"gpu_remapped_rows", gauge, "Number of memory rows remapped over the life of the GPU, by type of error (fields 393 and 394).", []string{"type"}}
	gpuRemapPending     = Definition{"gpu_row_remap_pending", gauge, "Whether a row remapping waits for a reset of the GPU: 1 yes, 0 no (field 396).", nil}
	gpuRemapFailed      = Definition{"gpu_row_remap_failed", gauge, "Whether a row remapping failed: 1 yes, 0 no (field 395).", nil}
	gpuRemapBanks       = Definition{"gpu_row_remap_banks", gauge, "Number of memory banks by their remaining spare rows (fields 385 to 389).", []string{"availability"}}
	gpuRetiredPages     = Definition{"gpu_retired_pages", gauge, "Number of memory pages retired over the life of the GPU, by cause (fields 390 and 391).", []string{"cause"}}
	gpuRetiredPending   = Definition{"gpu_retired_pages_pending", gauge, "Whether a page retirement waits for a reset of the GPU: 1 yes, 0 no (field 392).", nil}
	gpuUnrepairable     = Definition{"gpu_memory_unrepairable", gauge, "Whether the memory has an error that cannot be repaired: 1 yes, 0 no (field 1507).", nil}
	gpuSRAMExceeded     = Definition{"gpu_sram_threshold_exceeded", gauge, "Whether uncorrectable SRAM errors exceed the replacement threshold: 1 yes, 0 no (field 346).", nil}
	gpuECC              = Definition{"gpu_ecc_errors_total", counter, "Number of ECC errors in all memories since the driver was loaded (fields 310 and 311).", []string{"type"}}
	gpuECCLocation      = Definition{"gpu_ecc_location_errors_total", counter, "Number of ECC errors since the driver was loaded, by memory, as part of gpu_ecc_errors_total.", []string{"location", "type"}}
	gpuECCLife          = Definition{"gpu_ecc_lifetime_errors_total", counter, "Number of ECC errors in all memories over the life of the GPU (fields 312 and 313).", []string{"type"}}
	gpuECCLifeLocation  = Definition{"gpu_ecc_lifetime_location_errors_total", counter, "Number of ECC errors over the life of the GPU, by memory, as part of gpu_ecc_lifetime_errors_total.", []string{"location", "type"}}
)

// Conditions: clock events, health, profiling and the topology between GPUs.
var (
	gpuClockEventSeconds  = Definition{"gpu_clock_event_seconds_total", counter, "Time that the reason limited the clocks, in seconds.", []string{"reason"}}
	gpuHealthStatus       = Definition{"gpu_health_status", gauge, "Result of DCGM's health check of a system: 0 pass, 1 warning, 2 failure.", []string{"system"}}
	gpuHealthInfo         = Definition{"gpu_health_incident_info", gauge, "Incident that DCGM's health check found, always 1.", []string{"code", "error", "severity", "system"}}
	gpuProfilingState     = Definition{"gpu_profiling_state", gauge, "State of the profiling fields (DCGM_FI_PROF_*) of the GPU: 1 for the current state, else 0.", []string{"state"}}
	gpuProfilingRewatches = Definition{"gpu_profiling_rewatches_total", counter, "Times that profiling fields of the GPU were re-watched because DCGM did not update their values.", nil}
	gpuP2PStatus          = Definition{"gpu_p2p_status", gauge, "NVLink peer-to-peer status: 0 OK, 1 chipset, 2 GPU or 3 topology not supported, 4 disabled by registry key, 5 not supported, 6 unknown.", []string{"peer_gpu", "peer_uuid"}}
	gpuPeerLinks          = Definition{"gpu_peer_nvlinks", gauge, "Number of active NVLinks between the GPU and the peer, direct or through switches.", []string{"peer_gpu", "peer_uuid"}}
	gpuTopologyInfo       = Definition{"gpu_topology_info", gauge, "Longest PCIe path between the GPU and the peer, always 1.", []string{"path", "peer_gpu", "peer_uuid"}}
)

// Integrals over time since the exporter started.
var (
	gpuBusySeconds         = Definition{"gpu_busy_seconds_total", counter, "Time in which the GPU or GPU instance was busy since the exporter started, in seconds.", nil}
	gpuBusySource          = Definition{"gpu_busy_source_info", gauge, "Measure behind gpu_busy_seconds_total, gr_engine or driver_utilization, always 1.", []string{"source"}}
	gpuEngineActiveSeconds = Definition{"gpu_engine_active_seconds_total", counter, "Time in which the engine or pipe was active since the exporter started, weighted by activity, in seconds.", []string{"engine"}}
	gpuEnergyJoules        = Definition{"gpu_energy_joules_total", counter, "Energy that the board used since the exporter started, in joules.", nil}
	gpuEnergySource        = Definition{"gpu_energy_source_info", gauge, "Measure behind gpu_energy_joules_total, counter or integrated_power, always 1.", []string{"source"}}
	gpuNVLinkBytes         = Definition{"gpu_nvlink_bytes_total", counter, "Data moved over all NVLinks of the GPU since the exporter started, headers included, in bytes.", []string{"direction"}}
	gpuPCIeBytes           = Definition{"gpu_pcie_bytes_total", counter, "Data moved over PCIe since the exporter started, headers included, in bytes.", []string{"direction"}}
)

// NVLinks and NVSwitches.
var (
	gpuNVLinkUp     = Definition{"gpu_nvlink_up", gauge, "Whether the NVLink carries data: 1 up, 0 down.", []string{"nvlink", "nvswitch"}}
	gpuNVSwitchUp   = Definition{"gpu_nvswitch_up", gauge, "Whether the NVSwitch answers: 1 yes, 0 no.", []string{"nvswitch"}}
	gpuNVSwitchInfo = Definition{"gpu_nvswitch_info", gauge, "Identity of the NVSwitch, always 1.", []string{"nvswitch", "pci_bus_id", "uuid"}}
)

// XID errors.
var (
	gpuXIDErrors        = Definition{"gpu_xid_errors_total", counter, "Number of XID errors since the exporter started, by code.", []string{"xid"}}
	gpuXIDLastTimestamp = Definition{"gpu_xid_last_timestamp_seconds", gauge, "Unix time of the last XID with the code, in seconds.", []string{"xid"}}
	gpuXIDInfo          = Definition{"gpu_xid_info", gauge, "Catalogue entry of an XID code, always 1.", []string{"action", "name", "severity", "xid"}}
)

// The exporter: sampling.
var (
	samplerUp         = Definition{"gpu_exporter_sampler_up", gauge, "Whether the sampler process delivers samples and the newest is fresh: 1 yes, 0 no.", nil}
	samplerRestarts   = Definition{"gpu_exporter_sampler_restarts_total", counter, "Number of restarts of the sampler process, by reason.", []string{"reason"}}
	samplerUnreapable = Definition{"gpu_exporter_sampler_unreapable", gauge, "Whether a killed sampler is stuck in the kernel and blocks a restart: 1 yes, 0 no.", nil}
	framesRejected    = Definition{"gpu_exporter_frames_rejected_total", counter, "Number of frames of the sampler that were rejected, by reason.", []string{"reason"}}
	lastSample        = Definition{"gpu_exporter_last_sample_timestamp_seconds", gauge, "Unix time of the newest sample, in seconds.", nil}
	sampleDuration    = Definition{"gpu_exporter_sample_duration_seconds", gauge, "Time that reading the newest sample took, in seconds.", nil}
	fieldsUnsupported = Definition{"gpu_exporter_fields_unsupported", gauge, "Number of pairs of entity and field without a value in the newest sample, by reason.", []string{"reason"}}
	migUp             = Definition{"gpu_exporter_mig_read_up", gauge, "Whether the GPU instances of the GPUs in MIG mode are known: 1 yes, 0 no.", nil}
	integratedGap     = Definition{"gpu_exporter_integrated_gap_seconds_total", counter, "Time without values that an integral bridged, summed over devices and series, by family, in seconds.", []string{"family"}}
	linksUp           = Definition{"gpu_exporter_nvlink_read_up", gauge, "Whether the link states are known and fresh: 1 yes, 0 no.", nil}
	linksLast         = Definition{"gpu_exporter_nvlink_last_read_timestamp_seconds", gauge, "Unix time of the last read of the link states, in seconds.", nil}

	profilingPausedUntil = Definition{"gpu_exporter_profiling_paused_until_timestamp_seconds", gauge, "Unix time at which the requested pause of profiling ends, in seconds.", nil}
)

// The exporter: health checks and the source of XIDs.
var (
	healthUp       = Definition{"gpu_exporter_health_check_up", gauge, "Whether the last health check succeeded and is fresh: 1 yes, 0 no.", nil}
	healthLast     = Definition{"gpu_exporter_health_check_last_success_timestamp_seconds", gauge, "Unix time of the last successful health check, in seconds.", nil}
	healthDuration = Definition{"gpu_exporter_health_check_duration_seconds", gauge, "Time that the last successful health check took, in seconds.", nil}
	healthFailures = Definition{"gpu_exporter_health_check_failures_total", counter, "Number of health checks that failed to run.", nil}

	xidSource          = Definition{"gpu_exporter_xid_source_info", gauge, "Source of the XIDs that are counted, kernel_log or dcgm, always 1.", []string{"source"}}
	kernelLogUp        = Definition{"gpu_exporter_kernel_log_up", gauge, "Whether the kernel log is readable and XIDs are counted from it; 0 means that DCGM is the source.", nil}
	kernelLogLost      = Definition{"gpu_exporter_kernel_log_lost_records_total", counter, "Number of kernel log records that were overwritten before they were read.", nil}
	kernelLogUnmatched = Definition{"gpu_exporter_kernel_log_unmatched_xids_total", counter, "Number of XIDs in the kernel log at a PCI address without a known GPU.", nil}
)

// The exporter: sources of owners.
var (
	mappingUp        = Definition{"gpu_exporter_pod_mapping_up", gauge, "Whether the last refresh of the device owners succeeded: 1 yes, 0 no.", nil}
	mappingAge       = Definition{"gpu_exporter_pod_mapping_age_seconds", gauge, "Time since the last successful refresh of the device owners, in seconds.", nil}
	mappingDuration  = Definition{"gpu_exporter_pod_mapping_refresh_duration_seconds", gauge, "Time that the last refresh of the device owners took, in seconds.", nil}
	mappingFailures  = Definition{"gpu_exporter_pod_mapping_failures_total", counter, "Number of failed refreshes of the device owners, by reason.", []string{"reason"}}
	mappingUnmatched = Definition{"gpu_exporter_pod_mapping_unmatched_devices", gauge, "Number of allocated device IDs that match no known GPU.", nil}

	sourceUp        = Definition{"gpu_exporter_owner_source_up", gauge, "Whether the last refresh of the owner source succeeded: 1 yes, 0 no.", []string{"source"}}
	sourceAge       = Definition{"gpu_exporter_owner_source_age_seconds", gauge, "Time since the last successful refresh of the owner source, in seconds.", []string{"source"}}
	sourceUnmatched = Definition{"gpu_exporter_owner_source_unmatched_devices", gauge, "Number of held devices of the owner source that match no known GPU.", []string{"source"}}
	sourceFailures  = Definition{"gpu_exporter_owner_source_failures_total", counter, "Number of failed refreshes of the owner source, by reason.", []string{"source", "reason"}}

	processesRead         = Definition{"gpu_exporter_processes_last_read_timestamp_seconds", gauge, "Unix time of the last read of the processes on the devices, in seconds.", nil}
	processesUnattributed = Definition{"gpu_exporter_processes_unattributed", gauge, "Number of processes on devices that were attributed to no owner, by reason.", []string{"reason"}}
	processesUnread       = Definition{"gpu_exporter_processes_unread_devices", gauge, "Number of devices whose processes or utilization cannot be read, by reason.", []string{"what", "reason"}}
)

// Group is the families with one subject.
type Group struct {
	Title    string
	Families []*Definition
}

// Groups returns all definitions, each in one group.
func Groups() []Group {
	return []Group{
		{"Devices", []*Definition{&gpuUp, &gpuInfo}},
		{"Owners of devices", []*Definition{
			&gpuOwners, &gpuPodInfo, &gpuPodLabels, &gpuPodProcesses, &gpuPodMemory, &gpuPodKinds,
			&gpuPodSM, &gpuPodEncoder, &gpuPodDecoder, &gpuJobInfo, &gpuContainerInfo,
		}},
		{"Hardware of whole GPUs", []*Definition{
			&gpuClockEventActive, &gpuViolation, &gpuBelowClocks, &gpuFabricState, &gpuFabricError, &gpuFabricHealth,
			&gpuFabricFault, &gpuFabricInfo, &gpuRecoveryAction, &gpuRemappedRows, &gpuRemapPending, &gpuRemapFailed,
			&gpuRemapBanks, &gpuRetiredPages, &gpuRetiredPending, &gpuUnrepairable, &gpuSRAMExceeded, &gpuECC,
			&gpuECCLocation, &gpuECCLife, &gpuECCLifeLocation,
		}},
		{"Conditions", []*Definition{
			&gpuClockEventSeconds, &gpuHealthStatus, &gpuHealthInfo, &gpuProfilingState, &gpuProfilingRewatches,
			&gpuP2PStatus, &gpuPeerLinks, &gpuTopologyInfo,
		}},
		{"Integrals", []*Definition{
			&gpuBusySeconds, &gpuBusySource, &gpuEngineActiveSeconds, &gpuEnergyJoules, &gpuEnergySource,
			&gpuNVLinkBytes, &gpuPCIeBytes,
		}},
		{"NVLinks and NVSwitches", []*Definition{&gpuNVLinkUp, &gpuNVSwitchUp, &gpuNVSwitchInfo}},
		{"XID errors", []*Definition{&gpuXIDErrors, &gpuXIDLastTimestamp, &gpuXIDInfo}},
		{"The exporter", []*Definition{
			&samplerUp, &samplerRestarts, &samplerUnreapable, &framesRejected, &lastSample, &sampleDuration,
			&fieldsUnsupported, &migUp, &integratedGap, &linksUp, &linksLast, &profilingPausedUntil,
			&healthUp, &healthLast, &healthDuration, &healthFailures, &xidSource, &kernelLogUp, &kernelLogLost, &kernelLogUnmatched,
			&mappingUp, &mappingAge, &mappingDuration, &mappingFailures, &mappingUnmatched,
			&sourceUp, &sourceAge, &sourceUnmatched, &sourceFailures,
			&processesRead, &processesUnattributed, &processesUnread,
		}},
	}
}
