/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Compiles only if abi.h and abi_health.h agree with the headers that go-dcgm ships. */
#include <stdbool.h>

#include "dcgm_agent.h"
#include "dcgm_fields.h"
#include "dcgm_structs.h"
#include "dcgm_test_apis.h"

#include "abi.h"
#include "abi_health.h"

#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(ours) == sizeof(theirs), #ours " and " #theirs " differ in size")
#define SAME_PLACE(ours, a, theirs, b)                                                                             \
    _Static_assert(offsetof(ours, a) == offsetof(theirs, b), #ours "." #a " and " #theirs "." #b " differ in place"); \
    _Static_assert(sizeof(((ours *)0)->a) == sizeof(((theirs *)0)->b), #ours "." #a " and " #theirs "." #b " differ in size")
#define SAME(ours, theirs) _Static_assert((long long)(ours) == (long long)(theirs), #ours " and " #theirs " differ")

SAME_SIZE(uintptr_t, dcgmHandle_t);
SAME_SIZE(uintptr_t, dcgmGpuGrp_t);
SAME_SIZE(uintptr_t, dcgmFieldGrp_t);
SAME_SIZE(uint32_t, dcgm_field_entity_group_t);
SAME_SIZE(uint32_t, dcgm_field_eid_t);
SAME_SIZE(uint32_t, dcgmGroupType_t);
SAME_SIZE(int32_t, DcgmEntityStatus_t);
SAME_SIZE(int32_t, dcgmReturn_t);

SAME_SIZE(struct abi_connect_v2, dcgmConnectV2Params_v2);
SAME_PLACE(struct abi_connect_v2, persist, dcgmConnectV2Params_v2, persistAfterDisconnect);
SAME_PLACE(struct abi_connect_v2, timeout_ms, dcgmConnectV2Params_v2, timeoutMs);
SAME_PLACE(struct abi_connect_v2, unix_socket, dcgmConnectV2Params_v2, addressIsUnixSocket);
SAME(ABI_CONNECT_V2_VERSION, dcgmConnectV2Params_version2);
SAME_SIZE(struct abi_connect_v3, dcgmConnectV3Params_v1);
SAME_PLACE(struct abi_connect_v3, persist, dcgmConnectV3Params_v1, persistAfterDisconnect);
SAME_PLACE(struct abi_connect_v3, timeout_ms, dcgmConnectV3Params_v1, timeoutMs);
SAME(ABI_CONNECT_V3_VERSION, dcgmConnectV3Params_version1);

SAME_SIZE(struct abi_pair, dcgmGroupEntityPair_t);
SAME_PLACE(struct abi_pair, kind, dcgmGroupEntityPair_t, entityGroupId);
SAME_PLACE(struct abi_pair, id, dcgmGroupEntityPair_t, entityId);

SAME_SIZE(struct abi_value1, dcgmFieldValue_v1);
SAME_PLACE(struct abi_value1, field, dcgmFieldValue_v1, fieldId);
SAME_PLACE(struct abi_value1, type, dcgmFieldValue_v1, fieldType);
SAME_PLACE(struct abi_value1, status, dcgmFieldValue_v1, status);
SAME_PLACE(struct abi_value1, ts, dcgmFieldValue_v1, ts);
SAME_PLACE(struct abi_value1, value, dcgmFieldValue_v1, value);

SAME_SIZE(struct abi_value2, dcgmFieldValue_v2);
SAME_PLACE(struct abi_value2, kind, dcgmFieldValue_v2, entityGroupId);
SAME_PLACE(struct abi_value2, id, dcgmFieldValue_v2, entityId);
SAME_PLACE(struct abi_value2, field, dcgmFieldValue_v2, fieldId);
SAME_PLACE(struct abi_value2, type, dcgmFieldValue_v2, fieldType);
SAME_PLACE(struct abi_value2, status, dcgmFieldValue_v2, status);
SAME_PLACE(struct abi_value2, ts, dcgmFieldValue_v2, ts);
SAME_PLACE(struct abi_value2, value, dcgmFieldValue_v2, value);
SAME_PLACE(struct abi_value2, value.str, dcgmFieldValue_v2, value.str);

SAME_SIZE(struct abi_mig_entry, dcgmMigHierarchyInfo_v2);
SAME_PLACE(struct abi_mig_entry, entity, dcgmMigHierarchyInfo_v2, entity);
SAME_PLACE(struct abi_mig_entry, parent, dcgmMigHierarchyInfo_v2, parent);
SAME_PLACE(struct abi_mig_entry, gpu_uuid, dcgmMigHierarchyInfo_v2, info.gpuUuid);
SAME_PLACE(struct abi_mig_entry, nvml_index, dcgmMigHierarchyInfo_v2, info.nvmlGpuIndex);
SAME_PLACE(struct abi_mig_entry, nvml_gpu_instance, dcgmMigHierarchyInfo_v2, info.nvmlInstanceId);
SAME_PLACE(struct abi_mig_entry, nvml_compute_instance, dcgmMigHierarchyInfo_v2, info.nvmlComputeInstanceId);
SAME_PLACE(struct abi_mig_entry, nvml_profile, dcgmMigHierarchyInfo_v2, info.nvmlMigProfileId);
SAME_PLACE(struct abi_mig_entry, slices, dcgmMigHierarchyInfo_v2, info.nvmlProfileSlices);

SAME_SIZE(struct abi_mig_hierarchy, dcgmMigHierarchy_v2);
SAME_PLACE(struct abi_mig_hierarchy, count, dcgmMigHierarchy_v2, count);
SAME_PLACE(struct abi_mig_hierarchy, entries, dcgmMigHierarchy_v2, entityList);
SAME(ABI_MIG_HIERARCHY_VERSION, dcgmMigHierarchy_version2);

SAME_SIZE(struct abi_metric_groups, dcgmProfGetMetricGroups_v3);
SAME_PLACE(struct abi_metric_groups, gpu, dcgmProfGetMetricGroups_v3, gpuId);
SAME_PLACE(struct abi_metric_groups, count, dcgmProfGetMetricGroups_v3, numMetricGroups);
SAME_PLACE(struct abi_metric_groups, groups[1].field_count, dcgmProfGetMetricGroups_v3, metricGroups[1].numFieldIds);
SAME_PLACE(struct abi_metric_groups, groups[1].fields, dcgmProfGetMetricGroups_v3, metricGroups[1].fieldIds);
SAME(ABI_METRIC_GROUPS_VERSION, dcgmProfGetMetricGroups_version3);
SAME(ABI_MAX_METRIC_GROUPS, DCGM_PROF_MAX_NUM_GROUPS_V2);
SAME(ABI_METRIC_GROUP_FIELDS, DCGM_PROF_MAX_FIELD_IDS_PER_GROUP_V2);

SAME_SIZE(struct abi_incident, dcgmIncidentInfo_t);
SAME_PLACE(struct abi_incident, system, dcgmIncidentInfo_t, system);
SAME_PLACE(struct abi_incident, result, dcgmIncidentInfo_t, health);
SAME_PLACE(struct abi_incident, message, dcgmIncidentInfo_t, error.msg);
SAME_PLACE(struct abi_incident, code, dcgmIncidentInfo_t, error.code);
SAME_PLACE(struct abi_incident, entity, dcgmIncidentInfo_t, entityInfo);
SAME_SIZE(struct abi_health, dcgmHealthResponse_v5);
SAME_PLACE(struct abi_health, overall, dcgmHealthResponse_v5, overallHealth);
SAME_PLACE(struct abi_health, count, dcgmHealthResponse_v5, incidentCount);
SAME_PLACE(struct abi_health, incidents, dcgmHealthResponse_v5, incidents);
SAME(ABI_HEALTH_VERSION, dcgmHealthResponse_version5);
SAME(ABI_MAX_INCIDENTS, DCGM_HEALTH_WATCH_MAX_INCIDENTS_V2);
SAME(ABI_HEALTH_ALL, (uint32_t)DCGM_HEALTH_WATCH_ALL);

SAME_SIZE(struct abi_p2p, dcgmNvLinkP2PStatus_v1);
SAME_PLACE(struct abi_p2p, count, dcgmNvLinkP2PStatus_v1, numGpus);
SAME_PLACE(struct abi_p2p, gpus, dcgmNvLinkP2PStatus_v1, gpus);
SAME_PLACE(struct abi_p2p_gpu, gpu, dcgmNvLinkGpuLinkP2PStatus_v1, entityId);
SAME_PLACE(struct abi_p2p_gpu, status, dcgmNvLinkGpuLinkP2PStatus_v1, linkStatus);
SAME(ABI_P2P_VERSION, dcgmNvLinkP2PStatus_version1);

SAME_SIZE(struct abi_device_topology, dcgmDeviceTopology_v2);
SAME_PLACE(struct abi_device_topology, affinity, dcgmDeviceTopology_v2, cpuAffinityMask);
SAME_PLACE(struct abi_device_topology, count, dcgmDeviceTopology_v2, numGpus);
SAME_PLACE(struct abi_device_topology, paths, dcgmDeviceTopology_v2, gpuPaths);
SAME_PLACE(struct abi_device_topology, paths[1].gpu, dcgmDeviceTopology_v2, gpuPaths[1].gpuId);
SAME_PLACE(struct abi_device_topology, paths[1].path, dcgmDeviceTopology_v2, gpuPaths[1].path);
SAME_PLACE(struct abi_device_topology, paths[1].links, dcgmDeviceTopology_v2, gpuPaths[1].localNvLinkIds);
SAME(ABI_DEVICE_TOPOLOGY_VERSION, dcgmDeviceTopology_version2);

SAME(ABI_EMBEDDED_HANDLE, DCGM_EMBEDDED_HANDLE);
SAME(ABI_STRING_LENGTH, DCGM_MAX_STR_LENGTH);
SAME(ABI_BLOB_LENGTH, DCGM_MAX_BLOB_LENGTH);
SAME(ABI_MAX_GPUS, DCGM_MAX_NUM_DEVICES);
SAME(ABI_MAX_HIERARCHY, DCGM_MAX_HIERARCHY_INFO);
SAME(ABI_MAX_FIELDS, DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP);
SAME(ABI_MAX_ENTITIES, DCGM_GROUP_MAX_ENTITIES_V2);
SAME(ABI_GROUP_EMPTY, DCGM_GROUP_EMPTY);
SAME(ABI_FLAG_LIVE, DCGM_FV_FLAG_LIVE_DATA);
SAME(ABI_FLAG_SUPPORTED, DCGM_GEGE_FLAG_ONLY_SUPPORTED);
SAME(ABI_KIND_GPU, DCGM_FE_GPU);
SAME(ABI_KIND_GPU_INSTANCE, DCGM_FE_GPU_I);
SAME(ABI_KIND_COMPUTE_INSTANCE, DCGM_FE_GPU_CI);
SAME(ABI_OK, DCGM_ST_OK);
SAME(ABI_GENERIC_ERROR, DCGM_ST_GENERIC_ERROR);
SAME(ABI_UNINITIALIZED, DCGM_ST_UNINITIALIZED);
SAME(ABI_TIMEOUT, DCGM_ST_TIMEOUT);
SAME(ABI_CONNECTION_NOT_VALID, DCGM_ST_CONNECTION_NOT_VALID);

/* The numbers of code.go. */
SAME(-1, DCGM_ST_BADPARAM);
SAME(ABI_NOT_SUPPORTED, DCGM_ST_NOT_SUPPORTED);
SAME(-13, DCGM_ST_UNKNOWN_FIELD);
SAME(-14, DCGM_ST_NO_DATA);
SAME(-15, DCGM_ST_STALE_DATA);
SAME(-16, DCGM_ST_NOT_WATCHED);
SAME(-17, DCGM_ST_NO_PERMISSION);
SAME(-18, DCGM_ST_GPU_IS_LOST);
SAME(-22, DCGM_ST_GPU_NOT_SUPPORTED);
SAME(-29, DCGM_ST_REQUIRES_ROOT);
SAME(-32, DCGM_ST_FIELD_UNSUPPORTED_BY_API);
SAME(-33, DCGM_ST_MODULE_NOT_LOADED);
SAME(-36, DCGM_ST_PROFILING_NOT_SUPPORTED);
SAME(-45, DCGM_ST_INSTANCE_NOT_FOUND);
SAME(-46, DCGM_ST_COMPUTE_INSTANCE_NOT_FOUND);
SAME(-56, DCGM_ST_NVML_NOT_LOADED);
SAME(-67, DCGM_ST_GPUS_DETACHED);
SAME(1, DcgmEntityStatusOk);
SAME(4, DcgmEntityStatusLost);
SAME(5, DcgmEntityStatusFake);
SAME(7, DcgmEntityStatusDetached);
SAME('i', DCGM_FT_INT64);
SAME('d', DCGM_FT_DOUBLE);
SAME('s', DCGM_FT_STRING);
SAME(ABI_KIND_SWITCH, DCGM_FE_SWITCH);
SAME(6, DCGM_FE_LINK);
SAME(7, DCGM_FE_CPU);
SAME(8, DCGM_FE_CPU_CORE);
SAME(ABI_KIND_CONNECTX, DCGM_FE_CONNECTX);
SAME(ABI_VERSION_MISMATCH, DCGM_ST_VER_MISMATCH);
SAME(ABI_LINK_NOT_SUPPORTED, DcgmNvLinkLinkStateNotSupported);
SAME(ABI_LINK_DISABLED, DcgmNvLinkLinkStateDisabled);
SAME(ABI_LINK_DOWN, DcgmNvLinkLinkStateDown);
SAME(ABI_LINK_UP, DcgmNvLinkLinkStateUp);
SAME(ABI_LINK_STATUS_VERSION, dcgmNvLinkStatus_version5);
SAME(ABI_LINK_STATUS_VERSION_V4, dcgmNvLinkStatus_version4);
SAME(offsetof(struct abi_link_status, gpu_count), offsetof(dcgmNvLinkStatus_v5, numGpus));
SAME(offsetof(struct abi_link_status_v4, gpu_count), offsetof(dcgmNvLinkStatus_v4, numGpus));
SAME(offsetof(struct abi_link_status, gpus), offsetof(dcgmNvLinkStatus_v5, gpus));
SAME(offsetof(struct abi_link_status, gpus[1].state), offsetof(dcgmNvLinkStatus_v5, gpus[1].linkState));
SAME(offsetof(struct abi_link_status, switch_count), offsetof(dcgmNvLinkStatus_v5, numNvSwitches));
SAME(offsetof(struct abi_link_status, switches[1].state), offsetof(dcgmNvLinkStatus_v5, nvSwitches[1].linkState));
SAME(offsetof(struct abi_link_status_v4, gpus[1].state), offsetof(dcgmNvLinkStatus_v4, gpus[1].linkState));
SAME(offsetof(struct abi_link_status_v4, switch_count), offsetof(dcgmNvLinkStatus_v4, numNvSwitches));
SAME(offsetof(struct abi_link_status_v4, switches[1].state), offsetof(dcgmNvLinkStatus_v4, nvSwitches[1].linkState));
SAME(ABI_CPU_HIERARCHY_VERSION, dcgmCpuHierarchy_version1);
SAME(offsetof(struct abi_cpu_hierarchy, count), offsetof(dcgmCpuHierarchy_v1, numCpus));
SAME(offsetof(struct abi_cpu_hierarchy, cpus[1].id), offsetof(dcgmCpuHierarchy_v1, cpus[1].cpuId));
SAME(offsetof(struct abi_cpu_hierarchy, cpus[1].cores.bits), offsetof(dcgmCpuHierarchy_v1, cpus[1].ownedCores.bitmask));
SAME('t', DCGM_FT_TIMESTAMP);
SAME('b', DCGM_FT_BINARY);
SAME(1, DCGM_FI_SYSTEM_DRIVER_VERSION);
SAME(50, DCGM_FI_DEV_GPU_NAME);
SAME(51, DCGM_FI_DEV_GPU_BRAND);
SAME(52, DCGM_FI_DEV_NVML_INDEX);
SAME(53, DCGM_FI_DEV_BOARD_SERIAL);
SAME(54, DCGM_FI_DEV_GPU_UUID);
SAME(55, DCGM_FI_DEV_GPU_MINOR_NUMBER);
SAME(57, DCGM_FI_DEV_PCI_BUS_ID);
SAME(67, DCGM_FI_DEV_MIG_MODE);
SAME(85, DCGM_FI_DEV_VBIOS_VERSION);
SAME(230, DCGM_FI_DEV_XID_ERROR);
SAME(DCGM_INT32_BLANK, 0x7ffffff0);
SAME(DCGM_INT64_BLANK, 0x7ffffffffffffff0);
SAME(DCGM_FP64_BLANK, 140737488355328.0);
SAME(DCGM_INT64_NOT_PERMISSIONED, DCGM_INT64_BLANK + 3);
SAME(5555, DCGM_HE_PORT_NUMBER);

/* The numbers of package health. */
SAME(0, DCGM_HEALTH_RESULT_PASS);
SAME(10, DCGM_HEALTH_RESULT_WARN);
SAME(20, DCGM_HEALTH_RESULT_FAIL);
SAME(1 << 0, DCGM_HEALTH_WATCH_PCIE);
SAME(1 << 4, DCGM_HEALTH_WATCH_MEM);
SAME(1 << 9, DCGM_HEALTH_WATCH_DRIVER);
SAME(1 << 11, DCGM_HEALTH_WATCH_NVSWITCH_FATAL);
SAME(1 << 13, DCGM_HEALTH_WATCH_IMEX);
SAME(14, DCGM_HEALTH_WATCH_COUNT_V4);
SAME(0, DcgmNvLinkP2pStatusOK);
SAME(6, DcgmNvLinkP2pStatusUnknown);
SAME(0x1, DCGM_TOPOLOGY_BOARD);
SAME(0x20, DCGM_TOPOLOGY_SYSTEM);
SAME(0x100, DCGM_TOPOLOGY_NVLINK1);

/* The signatures of library.c, fabric.c and health.c: a wrong assignment is a warning, and -Werror makes it an error. */
dcgmReturn_t (*connect_v2)(const char *, dcgmConnectV2Params_t *, uintptr_t *) = dcgmConnect_v2;
dcgmReturn_t (*connect_v3)(const char *, dcgmConnectV3Params_t *, uintptr_t *) = dcgmConnect_v3;
dcgmReturn_t (*disconnect)(uintptr_t) = dcgmDisconnect;
int (*get_gpu_status)(dcgmHandle_t, unsigned int, DcgmEntityStatus_t *) = dcgmGetGpuStatus;
dcgmReturn_t (*get_entities)(uintptr_t, dcgm_field_entity_group_t, uint32_t *, int *, uint32_t)
    = dcgmGetEntityGroupEntities;
dcgmReturn_t (*get_hierarchy)(uintptr_t, dcgmMigHierarchy_v2 *) = dcgmGetGpuInstanceHierarchy;
dcgmReturn_t (*get_metric_groups)(uintptr_t, dcgmProfGetMetricGroups_v3 *) = dcgmProfGetSupportedMetricGroups;
dcgmReturn_t (*get_latest)(uintptr_t, dcgmGroupEntityPair_t *, uint32_t, uint16_t *, uint32_t, uint32_t,
                           dcgmFieldValue_v2 *)
    = dcgmEntitiesGetLatestValues;
dcgmReturn_t (*get_since)(uintptr_t, uintptr_t, uintptr_t, long long, long long *, dcgmFieldValueEntityEnumeration_f,
                          void *)
    = dcgmGetValuesSince_v2;
int (*callback)(dcgm_field_entity_group_t, dcgm_field_eid_t, dcgmFieldValue_v1 *, int, void *)
    = (dcgmFieldValueEntityEnumeration_f)0;
dcgmReturn_t (*group_create)(uintptr_t, dcgmGroupType_t, const char *, uintptr_t *) = dcgmGroupCreate;
dcgmReturn_t (*group_add)(uintptr_t, uintptr_t, dcgm_field_entity_group_t, uint32_t) = dcgmGroupAddEntity;
dcgmReturn_t (*group_destroy)(uintptr_t, uintptr_t) = dcgmGroupDestroy;
dcgmReturn_t (*field_group_create)(uintptr_t, int, const uint16_t *, const char *, uintptr_t *) = dcgmFieldGroupCreate;
dcgmReturn_t (*field_group_destroy)(uintptr_t, uintptr_t) = dcgmFieldGroupDestroy;
dcgmReturn_t (*watch)(uintptr_t, uintptr_t, uintptr_t, long long, double, int) = dcgmWatchFields;
dcgmReturn_t (*unwatch)(uintptr_t, uintptr_t, uintptr_t) = dcgmUnwatchFields;
dcgmReturn_t (*update)(uintptr_t, int) = dcgmUpdateAllFields;
dcgmReturn_t (*link_status)(uintptr_t, dcgmNvLinkStatus_v5 *) = dcgmGetNvLinkLinkStatus;
dcgmReturn_t (*cpu_hierarchy)(uintptr_t, dcgmCpuHierarchy_v1 *) = dcgmGetCpuHierarchy;
dcgmReturn_t (*health_set)(uintptr_t, uintptr_t, dcgmHealthSystems_t) = dcgmHealthSet;
dcgmReturn_t (*health_check)(uintptr_t, uintptr_t, dcgmHealthResponse_v5 *) = dcgmHealthCheck;
dcgmReturn_t (*get_p2p)(uintptr_t, dcgmNvLinkP2PStatus_v1 *) = dcgmGetNvLinkP2PStatus;
dcgmReturn_t (*get_topology)(uintptr_t, unsigned int, dcgmDeviceTopology_v2 *) = dcgmGetDeviceTopology;
