/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libdcgm: process statistics, health checks and policies. */
#include "dcgm/transact.h"

#include "dcgm/client.h"

#include <stdatomic.h>
#include <stdlib.h>

dcgmReturn_t dcgmWatchPidFields(dcgmHandle_t handle, dcgmGpuGrp_t group, long long interval, double age, int samples)
{
    (void)age;
    (void)samples;
    return interval > 0 ? simple(handle, CALL_dcgmWatchPidFields, ARGS(group)) : DCGM_ST_BADPARAM;
}

dcgmReturn_t dcgmGetPidInfo(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPidInfo_t *info)
{
    CHECK(info, dcgmPidInfo_version2);
    if (info->pid == 0)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGetPidInfo, ARGS(group), info, offsetof(dcgmPidInfo_t, unused), info, sizeof *info, NULL);
}

dcgmReturn_t dcgmHealthSet(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmHealthSystems_t systems)
{
    return simple(handle, CALL_dcgmHealthSet, ARGS(group, (uint32_t)systems));
}

dcgmReturn_t dcgmHealthSet_v2(dcgmHandle_t handle, dcgmHealthSetParams_v2 *params)
{
    CHECK(params, dcgmHealthSetParams_version2);
    return simple(handle, CALL_dcgmHealthSet_v2, ARGS(params->groupId, (uint32_t)params->systems));
}

dcgmReturn_t dcgmHealthGet(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmHealthSystems_t *systems)
{
    if (!systems)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmHealthGet, ARGS(group), NULL, 0, systems, sizeof *systems, NULL);
}

dcgmReturn_t dcgmHealthCheck(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmHealthResponse_t *out)
{
    CHECK(out, dcgmHealthResponse_version5);
    return transact(handle, CALL_dcgmHealthCheck, ARGS(group), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmPolicySet(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicy_t *policy, dcgmStatus_t status)
{
    (void)status;
    CHECK(policy, dcgmPolicy_version);
    return transact(handle, CALL_dcgmPolicySet, ARGS(group), policy, sizeof *policy, NULL, 0, NULL);
}

dcgmReturn_t dcgmPolicyGet(dcgmHandle_t handle, dcgmGpuGrp_t group, int count, dcgmPolicy_t *policy, dcgmStatus_t status)
{
    (void)status;
    if (count < 1 || count > DCGM_MAX_NUM_DEVICES)
        return DCGM_ST_BADPARAM;
    CHECK(policy, dcgmPolicy_version);
    return transact(handle, CALL_dcgmPolicyGet, ARGS(group, (uint64_t)count), NULL, 0, policy, (size_t)count * sizeof *policy,
                    NULL);
}

dcgmReturn_t dcgmPolicyRegister_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicyCondition_t condition,
                                   fpRecvUpdates callback, uint64_t user_data)
{
    if (!callback)
        return DCGM_ST_BADPARAM;
    if (handle != DCGM_EMBEDDED_HANDLE) {
        static atomic_ulong next_id = 1;
        uint64_t id = atomic_fetch_add(&next_id, 1);
        client_set_callback(handle, id, callback, user_data);
        return simple(handle, CALL_dcgmPolicyRegister_v2, ARGS(group, (uint32_t)condition, id));
    }
    void *c = embedded_callback_add(callback, user_data);
    if (!c)
        return DCGM_ST_MEMORY;
    return simple(handle, CALL_dcgmPolicyRegister_v2, ARGS(group, (uint32_t)condition, 0, (int64_t)(intptr_t)c));
}

dcgmReturn_t dcgmPolicyUnregister(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicyCondition_t condition)
{
    return simple(handle, CALL_dcgmPolicyUnregister, ARGS(group, (uint32_t)condition));
}

dcgmReturn_t dcgmPolicyTrigger(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmPolicyTrigger, ARGS(0));
}
