/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libdcgm: introspection, profiling, driver attachment, and calls that this engine does not serve. */
#include "dcgm/transact.h"

dcgmReturn_t dcgmIntrospectGetHostengineMemoryUsage(dcgmHandle_t handle, dcgmIntrospectMemory_t *out, int wait)
{
    (void)wait;
    CHECK(out, dcgmIntrospectMemory_version1);
    return transact(handle, CALL_dcgmIntrospectGetHostengineMemoryUsage, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmIntrospectGetHostengineCpuUtilization(dcgmHandle_t handle, dcgmIntrospectCpuUtil_t *out, int wait)
{
    (void)wait;
    CHECK(out, dcgmIntrospectCpuUtil_version1);
    return transact(handle, CALL_dcgmIntrospectGetHostengineCpuUtilization, ARGS(0), out, sizeof out->version, out, sizeof *out,
                    NULL);
}

dcgmReturn_t dcgmProfGetSupportedMetricGroups(dcgmHandle_t handle, dcgmProfGetMetricGroups_t *out)
{
    CHECK(out, dcgmProfGetMetricGroups_version3);
    return transact(handle, CALL_dcgmProfGetSupportedMetricGroups, ARGS(0), out,
                    offsetof(dcgmProfGetMetricGroups_t, numMetricGroups), out, sizeof *out, NULL);
}

dcgmReturn_t dcgmProfPause(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmProfPause, ARGS(0));
}

dcgmReturn_t dcgmProfResume(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmProfResume, ARGS(0));
}

dcgmReturn_t dcgmAttachDriver(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmAttachDriver, ARGS(0));
}

dcgmReturn_t dcgmDetachDriver(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmDetachDriver, ARGS(0));
}

dcgmReturn_t dcgmCreateFakeEntities(dcgmHandle_t handle, dcgmCreateFakeEntities_t *entities)
{
    CHECK(entities, dcgmCreateFakeEntities_version);
    return simple(handle, CALL_dcgmCreateFakeEntities, ARGS(0));
}

dcgmReturn_t dcgmRunDiagnostic(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmDiagnosticLevel_t level, dcgmDiagResponse_v12 *out)
{
    CHECK(out, dcgmDiagResponse_version12);
    return simple(handle, CALL_dcgmRunDiagnostic, ARGS(group, (uint64_t)level));
}

dcgmReturn_t dcgmActionValidate(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicyValidation_t level, dcgmDiagResponse_v12 *out)
{
    CHECK(out, dcgmDiagResponse_version12);
    return simple(handle, CALL_dcgmActionValidate, ARGS(group, (uint64_t)level));
}

dcgmReturn_t dcgmStopDiagnostic(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmStopDiagnostic, ARGS(0));
}

dcgmReturn_t dcgmModuleGetStatuses(dcgmHandle_t handle, dcgmModuleGetStatuses_t *out)
{
    if (!out)
        return DCGM_ST_BADPARAM;
    return simple(handle, CALL_dcgmModuleGetStatuses, ARGS(0));
}
