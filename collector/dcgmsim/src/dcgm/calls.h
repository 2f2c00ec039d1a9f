/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The API calls that an engine serves. */
#ifndef DCGMSIM_DCGM_CALLS_H
#define DCGMSIM_DCGM_CALLS_H

#include "dcgm/wire.h"
#include "engine/state.h"

#define WIRE_CALLS(X)                                                                                                  \
    X(dcgmHostengineVersionInfo)                                                                                       \
    X(dcgmHostengineIsHealthy)                                                                                         \
    X(dcgmGetAllDevices)                                                                                               \
    X(dcgmGetAllSupportedDevices)                                                                                      \
    X(dcgmGetDeviceAttributes)                                                                                         \
    X(dcgmGetGpuStatus)                                                                                                \
    X(dcgmGetEntityGroupEntities)                                                                                      \
    X(dcgmGetGpuChipArchitecture)                                                                                      \
    X(dcgmGetGpuInstanceHierarchy)                                                                                     \
    X(dcgmGetNvLinkLinkStatus)                                                                                         \
    X(dcgmGetNvLinkP2PStatus)                                                                                          \
    X(dcgmGetCpuHierarchy)                                                                                             \
    X(dcgmGetCpuHierarchy_v2)                                                                                          \
    X(dcgmGroupCreate)                                                                                                 \
    X(dcgmGroupDestroy)                                                                                                \
    X(dcgmGroupAddDevice)                                                                                              \
    X(dcgmGroupAddEntity)                                                                                              \
    X(dcgmGroupRemoveDevice)                                                                                           \
    X(dcgmGroupRemoveEntity)                                                                                           \
    X(dcgmGroupGetInfo)                                                                                                \
    X(dcgmGroupGetAllIds)                                                                                              \
    X(dcgmFieldGroupCreate)                                                                                            \
    X(dcgmFieldGroupDestroy)                                                                                           \
    X(dcgmFieldGroupGetInfo)                                                                                           \
    X(dcgmWatchFields)                                                                                                 \
    X(dcgmUnwatchFields)                                                                                               \
    X(dcgmUpdateAllFields)                                                                                             \
    X(dcgmGetValuesSince)                                                                                              \
    X(dcgmGetValuesSince_v2)                                                                                           \
    X(dcgmGetLatestValues)                                                                                             \
    X(dcgmGetLatestValues_v2)                                                                                          \
    X(dcgmGetLatestValuesForFields)                                                                                    \
    X(dcgmEntityGetLatestValues)                                                                                       \
    X(dcgmEntitiesGetLatestValues)                                                                                     \
    X(dcgmWatchPidFields)                                                                                              \
    X(dcgmGetPidInfo)                                                                                                  \
    X(dcgmHealthSet)                                                                                                   \
    X(dcgmHealthSet_v2)                                                                                                \
    X(dcgmHealthGet)                                                                                                   \
    X(dcgmHealthCheck)                                                                                                 \
    X(dcgmPolicySet)                                                                                                   \
    X(dcgmPolicyGet)                                                                                                   \
    X(dcgmPolicyRegister_v2)                                                                                           \
    X(dcgmPolicyUnregister)                                                                                            \
    X(dcgmPolicyTrigger)                                                                                               \
    X(dcgmGetDeviceTopology)                                                                                           \
    X(dcgmGetGroupTopology)                                                                                            \
    X(dcgmIntrospectGetHostengineMemoryUsage)                                                                          \
    X(dcgmIntrospectGetHostengineCpuUtilization)                                                                       \
    X(dcgmProfGetSupportedMetricGroups)                                                                                \
    X(dcgmProfPause)                                                                                                   \
    X(dcgmProfResume)                                                                                                  \
    X(dcgmInjectFieldValue)                                                                                            \
    X(dcgmAttachDriver)                                                                                                \
    X(dcgmDetachDriver)                                                                                                \
    X(dcgmCreateFakeEntities)                                                                                          \
    X(dcgmRunDiagnostic)                                                                                               \
    X(dcgmActionValidate)                                                                                              \
    X(dcgmStopDiagnostic)                                                                                              \
    X(dcgmModuleGetStatuses)

enum call {
#define X(name) CALL_##name,
    WIRE_CALLS(X)
#undef X
        CALL_COUNT,
    CALL_hello = 1000, /* first frame of a connection */
};

extern const char *const call_names[];

/*
 * Executes a call on an engine: first the injected faults, then the call.
 * Policy violations are delivered to deliver(to, …).
 */
dcgmReturn_t call_perform(struct engine *e, uint32_t owner, enum call call, const struct call_args *args,
                          const void *payload, size_t len, struct buffer *out, policy_deliver deliver, void *to);
/* Applies the faults on a call, and fails if the engine is lost. */
dcgmReturn_t call_enter(struct node_state *n, const char *name);

#endif
