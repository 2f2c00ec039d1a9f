// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package definition

import "gpu_exporter/collector/field"

// Family is the definition of a metric family that the exporter defines itself, as
// opposed to a family that a counters file names. Definitions must not change.
type Family struct {
	Name string
	Type field.MetricType
	Help string
	// Labels are in addition to the identity labels of a gpu_* family.
	Labels []string
	// Per is what the family has at most Max series for. A Max of 0 is one series for
	// each value of the labels that occurs.
	Per Subject
	Max int
}

// String returns the name, for expressions and messages.
func (f *Family) String() string { return f.Name }

// Subject is what a family has a series for.
type Subject string

// The subjects of families.
const (
	PerNode     Subject = "node"
	PerGPU      Subject = "GPU"
	PerDevice   Subject = "GPU or MIG instance"
	PerOwner    Subject = "owner of a device"
	PerChecked  Subject = "GPU, NVSwitch or CPU"
	PerNVSwitch Subject = "NVSwitch"
	PerNVLink   Subject = "NVLink"
	PerPair     Subject = "pair of GPUs"
	PerSource   Subject = "source of owners"
	PerGroup    Subject = "selected group"
)

const (
	gauge   = field.MetricGauge
	counter = field.MetricCounter
)

// Devices.
var (
	GPUUp                 = Family{"gpu_up", gauge, "Whether the GPU answers: 1 if DCGM works and the newest sample is fresh and has a value of the GPU, else 0.", nil, PerGPU, 1}
	GPUInfo               = Family{"gpu_info", gauge, "Identity of the GPU or GPU instance, always 1.", []string{"brand", "driver_version", "mig_uuid", "minor", "nvml_index", "serial", "vbios_version"}, PerDevice, 1}
	GPURecoveryAction     = Family{"gpu_recovery_action", gauge, "Action that the driver requests to recover the GPU: 0 none, otherwise its number in gpu_recovery_action_info (field 1523).", nil, PerGPU, 1}
	GPURecoveryActionInfo = Family{"gpu_recovery_action_info", gauge, "Name of the requested recovery action, always 1; absent if none is requested.", []string{"action"}, PerGPU, 0}
)

// XID errors.
var (
	GPUXIDErrors            = Family{"gpu_xid_errors_total", counter, "Number of XID errors since the exporter started, by severity.", []string{"severity"}, PerDevice, 3}
	GPUXIDCodeErrors        = Family{"gpu_xid_code_errors_total", counter, "Number of XID errors since the exporter started, by code; part of gpu_xid_errors_total.", []string{"xid", "name", "severity", "action"}, PerDevice, 0}
	GPUXIDCodeLastTimestamp = Family{"gpu_xid_code_last_timestamp_seconds", gauge, "Unix time of the last XID error with the code, in seconds.", []string{"xid", "name", "severity", "action"}, PerDevice, 0}
)

// Owners of devices, and what they use.
var (
	GPUOwners                = Family{"gpu_owners", gauge, "Number of containers and jobs that hold the device.", nil, PerDevice, 1}
	GPUPodInfo               = Family{"gpu_pod_info", gauge, "Container that holds the device or a share of it, always 1.", []string{"container", "namespace", "pod", "replica"}, PerOwner, 1}
	GPUPodLabels             = Family{"gpu_pod_labels", gauge, "Labels and annotations of a pod that holds a device, prefixed with label_ and annotation_, always 1.", []string{"namespace", "pod"}, PerOwner, 1}
	GPUJobInfo               = Family{"gpu_job_info", gauge, "Batch job that holds the device, always 1.", []string{"account", "job_id", "job_name", "partition", "source", "user"}, PerOwner, 1}
	GPUContainerInfo         = Family{"gpu_container_info", gauge, "Container of an engine without Kubernetes that holds the device, always 1.", []string{"compose_project", "compose_service", "container_id", "container_name", "image"}, PerOwner, 1}
	GPUPodProcesses          = Family{"gpu_pod_processes", gauge, "Number of processes of the container on the device.", []string{"container", "namespace", "pod"}, PerOwner, 1}
	GPUPodMemoryUsed         = Family{"gpu_pod_memory_used_bytes", gauge, "Device memory that the container's processes use, in bytes.", []string{"container", "namespace", "pod"}, PerOwner, 1}
	GPUPodSMUtilization      = Family{"gpu_pod_sm_utilization_ratio", gauge, "Ratio of the time since the last sample in which kernels of the container ran on the device, 0 to 1.", []string{"container", "namespace", "pod"}, PerOwner, 1}
	GPUPodProcessMemoryUsed  = Family{"gpu_pod_process_memory_used_bytes", gauge, "Device memory that the container's processes of one type use, in bytes.", []string{"container", "namespace", "pod", "type"}, PerOwner, 3}
	GPUPodEncoderUtilization = Family{"gpu_pod_encoder_utilization_ratio", gauge, "Ratio of the time since the last sample in which the container used the device's encoders, 0 to 1.", []string{"container", "namespace", "pod"}, PerOwner, 1}
	GPUPodDecoderUtilization = Family{"gpu_pod_decoder_utilization_ratio", gauge, "Ratio of the time since the last sample in which the container used the device's decoders, 0 to 1.", []string{"container", "namespace", "pod"}, PerOwner, 1}
)

// Integrals over time since the exporter started.
var (
	GPUBusySeconds         = Family{"gpu_busy_seconds_total", counter, "Time in which the GPU or GPU instance was busy since the exporter started, in seconds.", nil, PerDevice, 1}
	GPUEnergyJoules        = Family{"gpu_energy_joules_total", counter, "Energy that the board used since the exporter started, in joules.", nil, PerGPU, 1}
	GPUEngineActiveSeconds = Family{"gpu_engine_active_seconds_total", counter, "Time in which the engine or pipe was active since the exporter started, weighted by activity, in seconds.", []string{"engine"}, PerDevice, 8}
	GPUNVLinkBytes         = Family{"gpu_nvlink_bytes_total", counter, "Data moved over all NVLinks of the GPU since the exporter started, headers included, in bytes.", []string{"direction"}, PerGPU, 2}
	GPUPCIeBytes           = Family{"gpu_pcie_bytes_total", counter, "Data moved over PCIe since the exporter started, headers included, in bytes.", []string{"direction"}, PerGPU, 2}
)

// Clocks.
var (
	GPUClockEventSeconds  = Family{"gpu_clock_event_seconds_total", counter, "Time that the reason reduced the clocks and cost performance, in seconds.", []string{"reason"}, PerGPU, 5}
	GPUClockPolicySeconds = Family{"gpu_clock_policy_seconds_total", counter, "Time that a setting or idleness determined the clocks, in seconds, by reason.", []string{"reason"}, PerGPU, 4}
	GPUClockEventActive   = Family{"gpu_clock_event_active", gauge, "Whether the reason limits the clocks now: 1 yes, 0 no (field 112).", []string{"reason"}, PerGPU, 9}
	GPUViolationSeconds   = Family{"gpu_violation_seconds_total", counter, "Time that the policy limited the clocks since the driver was loaded, in seconds (fields 240 to 245).", []string{"policy"}, PerGPU, 6}
	GPUClocksBelowSeconds = Family{"gpu_clocks_below_seconds_total", counter, "Time with clocks below the application or base clocks since the driver was loaded, in seconds (fields 246 and 247).", []string{"clocks"}, PerGPU, 2}
)

// Limits and settings of whole GPUs.
var (
	GPUThermalMargin       = Family{"gpu_thermal_margin_celsius", gauge, "Distance to the temperature at which the GPU slows down, in degrees Celsius (field 153).", nil, PerGPU, 1}
	GPUSlowdownTemperature = Family{"gpu_slowdown_temperature_celsius", gauge, "Temperature at which the GPU slows down, in degrees Celsius (field 158).", nil, PerGPU, 1}
	GPUTemperature         = Family{"gpu_temperature_celsius", gauge, "Temperature of a GPU without a thermal margin, in degrees Celsius (fields 150 and 140).", []string{"sensor"}, PerGPU, 2}
	GPUPowerLimit          = Family{"gpu_power_limit_watts", gauge, "Power limit in force, in watts (field 164).", nil, PerGPU, 1}
	GPUPCIeLinkWidth       = Family{"gpu_pcie_link_width", gauge, "Number of PCIe lanes in use (field 238).", nil, PerGPU, 1}
	GPUPCIeLinkWidthMax    = Family{"gpu_pcie_link_width_max", gauge, "Highest number of PCIe lanes of GPU and slot (field 236).", nil, PerGPU, 1}
	GPUPersistenceMode     = Family{"gpu_persistence_mode", gauge, "Whether persistence mode is on: 1 yes, 0 no (field 66).", nil, PerGPU, 1}
)

// Memory and other errors of whole GPUs.
var (
	GPUECCErrors                 = Family{"gpu_ecc_errors_total", counter, "Number of ECC errors in all memories since the driver was loaded (fields 310 and 311).", []string{"type"}, PerGPU, 2}
	GPURowRemapPending           = Family{"gpu_row_remap_pending", gauge, "Whether a row remapping waits for a reset of the GPU: 1 yes, 0 no (field 396).", nil, PerGPU, 1}
	GPURowRemapFailed            = Family{"gpu_row_remap_failed", gauge, "Whether a row remapping failed: 1 yes, 0 no (field 395).", nil, PerGPU, 1}
	GPURowRemapExhaustedBanks    = Family{"gpu_row_remap_exhausted_banks", gauge, "Number of memory banks without spare rows (field 389).", nil, PerGPU, 1}
	GPURetiredPagesPending       = Family{"gpu_retired_pages_pending", gauge, "Whether a page retirement waits for a reset of the GPU: 1 yes, 0 no (field 392).", nil, PerGPU, 1}
	GPUMemoryUnrepairable        = Family{"gpu_memory_unrepairable", gauge, "Whether the memory has an error that cannot be repaired: 1 yes, 0 no (field 1507).", nil, PerGPU, 1}
	GPUSRAMThresholdExceeded     = Family{"gpu_sram_threshold_exceeded", gauge, "Whether uncorrectable SRAM errors exceed the replacement threshold: 1 yes, 0 no (field 346).", nil, PerGPU, 1}
	GPUPCIeReplays               = Family{"gpu_pcie_replays_total", counter, "Number of PCIe packets that were sent again since the driver was loaded (field 202).", nil, PerGPU, 1}
	GPUECCLocationErrors         = Family{"gpu_ecc_location_errors_total", counter, "Number of ECC errors since the driver was loaded, by memory, as part of gpu_ecc_errors_total.", []string{"location", "type"}, PerGPU, 16}
	GPUECCLifetimeErrors         = Family{"gpu_ecc_lifetime_errors_total", counter, "Number of ECC errors in all memories over the life of the GPU (fields 312 and 313).", []string{"type"}, PerGPU, 2}
	GPUECCLifetimeLocationErrors = Family{"gpu_ecc_lifetime_location_errors_total", counter, "Number of ECC errors over the life of the GPU, by memory, as part of gpu_ecc_lifetime_errors_total.", []string{"location", "type"}, PerGPU, 16}
	GPURemappedRows              = Family{"gpu_remapped_rows", gauge, "Number of memory rows remapped over the life of the GPU, by type of error (fields 393 and 394).", []string{"type"}, PerGPU, 2}
	GPURowRemapBanks             = Family{"gpu_row_remap_banks", gauge, "Number of memory banks by their remaining spare rows (fields 385 to 389).", []string{"availability"}, PerGPU, 5}
	GPURetiredPages              = Family{"gpu_retired_pages", gauge, "Number of memory pages retired over the life of the GPU, by cause (fields 390 and 391).", []string{"cause"}, PerGPU, 2}
)

// NVLinks, NVSwitches and the fabric.
var (
	GPUNVLinks          = Family{"gpu_nvlinks", gauge, "Number of NVLinks of the GPU by state: up or down.", []string{"state"}, PerGPU, 2}
	GPUNVLinkErrors     = Family{"gpu_nvlink_errors_total", counter, "Number of errors on all NVLinks of the GPU since the driver was loaded (fields 409, 419, 429 and 439; 1206, 1209 and 1212 of NVLink 5).", nil, PerGPU, 1}
	GPUNVSwitchUp       = Family{"gpu_nvswitch_up", gauge, "Whether the NVSwitch answers: 1 yes, 0 no.", []string{"nvswitch"}, PerNVSwitch, 1}
	GPUNVLinkUp         = Family{"gpu_nvlink_up", gauge, "Whether the NVLink carries data: 1 up, 0 down.", []string{"nvlink", "nvswitch"}, PerNVLink, 1}
	GPUNVSwitchInfo     = Family{"gpu_nvswitch_info", gauge, "Identity of the NVSwitch, always 1.", []string{"nvswitch", "pci_bus_id", "uuid"}, PerNVSwitch, 1}
	GPUFabricState      = Family{"gpu_fabric_state", gauge, "State of the GPU's registration with the NVLink fabric: 0 registered, otherwise DCGM's number of the state (field 170).", nil, PerGPU, 1}
	GPUFabricStateInfo  = Family{"gpu_fabric_state_info", gauge, "Name and error code of the state of the fabric registration, always 1; absent for a registered GPU.", []string{"state", "error"}, PerGPU, 0}
	GPUFabricHealth     = Family{"gpu_fabric_health", gauge, "Health of the NVLink fabric: 0 healthy, otherwise the driver's number of the state (fields 174 and 175).", nil, PerGPU, 1}
	GPUFabricHealthInfo = Family{"gpu_fabric_health_info", gauge, "State and fault of an unhealthy NVLink fabric, always 1; absent for a healthy fabric.", []string{"state", "fault"}, PerGPU, 0}
	GPUFabricInfo       = Family{"gpu_fabric_info", gauge, "Multi-node NVLink cluster and clique of the GPU, always 1 (fields 172 and 173).", []string{"clique", "cluster_uuid"}, PerGPU, 1}
	GPUP2PStatus        = Family{"gpu_p2p_status", gauge, "NVLink peer-to-peer status: 0 OK, 1 chipset, 2 GPU or 3 topology not supported, 4 disabled by registry key, 5 not supported, 6 unknown.", []string{"peer_gpu", "peer_uuid"}, PerPair, 1}
	GPUPeerNVLinks      = Family{"gpu_peer_nvlinks", gauge, "Number of active NVLinks between the GPU and the peer, direct or through switches.", []string{"peer_gpu", "peer_uuid"}, PerPair, 1}
	GPUTopologyInfo     = Family{"gpu_topology_info", gauge, "Longest PCIe path between the GPU and the peer, always 1.", []string{"path", "peer_gpu", "peer_uuid"}, PerPair, 1}
)

// DCGM's health checks and profiling.
var (
	GPUHealthStatus       = Family{"gpu_health_status", gauge, "Worst result of DCGM's health checks: 0 pass, 1 warning, 2 failure.", nil, PerChecked, 1}
	GPUHealthIncidentInfo = Family{"gpu_health_incident_info", gauge, "Incident that DCGM's health check found, always 1.", []string{"code", "error", "severity", "system"}, PerChecked, 0}
	GPUHealthSystemStatus = Family{"gpu_health_system_status", gauge, "Result of DCGM's health check of a system: 0 pass, 1 warning, 2 failure.", []string{"system"}, PerChecked, 13}
	GPUProfilingState     = Family{"gpu_profiling_state", gauge, "State of the profiling fields (DCGM_FI_PROF_*): 0 working, otherwise the number of the state in gpu_profiling_state_info.", nil, PerGPU, 1}
	GPUProfilingStateInfo = Family{"gpu_profiling_state_info", gauge, "Name of the state of the profiling fields, always 1; absent if they work.", []string{"state"}, PerGPU, 0}
	GPUProfilingRewatches = Family{"gpu_profiling_rewatches_total", counter, "Times that profiling fields of the GPU were re-watched because DCGM did not update their values.", nil, PerGPU, 1}
)

// The exporter: sampling.
var (
	SelectedGroup           = Family{"gpu_exporter_family_group_info", gauge, "Selected group of families, always 1.", []string{"group"}, PerGroup, 1}
	ExporterGPUs            = Family{"gpu_exporter_gpus", gauge, "Number of selected GPUs that DCGM lists, whether or not they answer.", nil, PerNode, 1}
	SamplerUp               = Family{"gpu_exporter_sampler_up", gauge, "Whether the sampler process delivers samples and the newest is fresh: 1 yes, 0 no.", nil, PerNode, 1}
	SamplerRestarts         = Family{"gpu_exporter_sampler_restarts_total", counter, "Number of restarts of the sampler process.", nil, PerNode, 1}
	SamplerRestartsByReason = Family{"gpu_exporter_sampler_restarts_by_reason_total", counter, "Number of restarts of the sampler process, by reason.", []string{"reason"}, PerNode, 0}
	SamplerUnreapable       = Family{"gpu_exporter_sampler_unreapable", gauge, "Whether a killed sampler is stuck in the kernel and blocks a restart: 1 yes, 0 no.", nil, PerNode, 1}
	FramesRejected          = Family{"gpu_exporter_frames_rejected_total", counter, "Number of frames of the sampler that were rejected.", nil, PerNode, 1}
	FramesRejectedByReason  = Family{"gpu_exporter_frames_rejected_by_reason_total", counter, "Number of frames of the sampler that were rejected, by reason.", []string{"reason"}, PerNode, 0}
	LastSample              = Family{"gpu_exporter_last_sample_timestamp_seconds", gauge, "Unix time of the newest sample, in seconds.", nil, PerNode, 1}
	SampleDuration          = Family{"gpu_exporter_sample_duration_seconds", gauge, "Time that reading the newest sample took, in seconds.", nil, PerNode, 1}
	FieldsMissing           = Family{"gpu_exporter_fields_missing", gauge, "Number of pairs of entity and field without a value in the newest sample.", nil, PerNode, 1}
	FieldsMissingByReason   = Family{"gpu_exporter_fields_missing_by_reason", gauge, "Number of pairs of entity and field without a value in the newest sample, by reason.", []string{"reason"}, PerNode, 0}
	MIGReadUp               = Family{"gpu_exporter_mig_read_up", gauge, "Whether the GPU instances of the GPUs in MIG mode are known: 1 yes, 0 no.", nil, PerNode, 1}
	NVLinkReadUp            = Family{"gpu_exporter_nvlink_read_up", gauge, "Whether the link states are known and fresh: 1 yes, 0 no.", nil, PerNode, 1}
	SourceInfo              = Family{"gpu_exporter_source_info", gauge, "Source of a kind of data, always 1: xid, busy or energy.", []string{"data", "source"}, PerNode, 0}
	HealthCheckUp           = Family{"gpu_exporter_health_check_up", gauge, "Whether the last health check succeeded and is fresh: 1 yes, 0 no.", nil, PerNode, 1}
	HealthCheckFailures     = Family{"gpu_exporter_health_check_failures_total", counter, "Number of health checks that failed to run.", nil, PerNode, 1}
	KernelLogUp             = Family{"gpu_exporter_kernel_log_up", gauge, "Whether the kernel log is readable and XIDs are counted from it; 0 means that DCGM is the source.", nil, PerNode, 1}
	KernelLogLost           = Family{"gpu_exporter_kernel_log_lost_records_total", counter, "Number of kernel log records that were overwritten before they were read.", nil, PerNode, 1}
	KernelLogUnmatched      = Family{"gpu_exporter_kernel_log_unmatched_xids_total", counter, "Number of XIDs in the kernel log at a PCI address without a known GPU.", nil, PerNode, 1}
	ProfilingPausedUntil    = Family{"gpu_exporter_profiling_paused_until_timestamp_seconds", gauge, "Unix time at which the requested pause of profiling ends, in seconds.", nil, PerNode, 1}
)

// The exporter: sources of owners. The kubelet's pod-resources API is the source pod_resources.
var (
	OwnerSourceUp               = Family{"gpu_exporter_owner_source_up", gauge, "Whether the last refresh of the owner source succeeded: 1 yes, 0 no.", []string{"source"}, PerSource, 1}
	OwnerSourceLastSuccess      = Family{"gpu_exporter_owner_source_last_success_timestamp_seconds", gauge, "Unix time of the last successful refresh of the owner source, in seconds.", []string{"source"}, PerSource, 1}
	OwnerSourceUnmatchedDevices = Family{"gpu_exporter_owner_source_unmatched_devices", gauge, "Number of held devices of the owner source that match no known GPU.", []string{"source"}, PerSource, 1}
	OwnerSourceFailures         = Family{"gpu_exporter_owner_source_failures_total", counter, "Number of failed refreshes of the owner source.", []string{"source"}, PerSource, 1}
	OwnerSourceFailuresByReason = Family{"gpu_exporter_owner_source_failures_by_reason_total", counter, "Number of failed refreshes of the owner source, by reason.", []string{"source", "reason"}, PerSource, 0}
)

// The exporter: details.
var (
	NVLinkLastRead              = Family{"gpu_exporter_nvlink_last_read_timestamp_seconds", gauge, "Unix time of the last read of the link states, in seconds.", nil, PerNode, 1}
	IntegratedGap               = Family{"gpu_exporter_integrated_gap_seconds_total", counter, "Time without values that an integral bridged, summed over devices and series, by family, in seconds.", []string{"family"}, PerNode, 5}
	HealthCheckLastSuccess      = Family{"gpu_exporter_health_check_last_success_timestamp_seconds", gauge, "Unix time of the last successful health check, in seconds.", nil, PerNode, 1}
	HealthCheckDuration         = Family{"gpu_exporter_health_check_duration_seconds", gauge, "Time that the last successful health check took, in seconds.", nil, PerNode, 1}
	PodResourcesRefreshDuration = Family{"gpu_exporter_pod_resources_refresh_duration_seconds", gauge, "Time that the last refresh from the kubelet's pod-resources API took, in seconds.", nil, PerNode, 1}
	ProcessesLastRead           = Family{"gpu_exporter_processes_last_read_timestamp_seconds", gauge, "Unix time of the last read of the processes on the devices, in seconds.", nil, PerNode, 1}
	ProcessesUnattributed       = Family{"gpu_exporter_processes_unattributed", gauge, "Number of processes on devices that were attributed to no owner, by reason.", []string{"reason"}, PerNode, 0}
	ProcessesUnreadDevices      = Family{"gpu_exporter_processes_unread_devices", gauge, "Number of devices whose processes or utilization cannot be read, by reason.", []string{"what", "reason"}, PerNode, 0}
)
