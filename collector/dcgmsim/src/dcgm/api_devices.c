/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libdcgm: devices, entities, hierarchies, topology and links. */
#include "dcgm/transact.h"

#include <stdlib.h>
#include <string.h>

static dcgmReturn_t devices(dcgmHandle_t handle, enum call call, unsigned *ids, int *count)
{
    size_t used = 0;
    if (!ids || !count)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = transact(handle, call, ARGS(0), NULL, 0, ids, DCGM_MAX_NUM_DEVICES * sizeof *ids, &used);
    if (rc == DCGM_ST_OK) {
        *count = (int)(used / sizeof *ids);
        garble_answer(handle, call, count, sizeof *count);
    }
    return rc;
}

dcgmReturn_t dcgmGetAllDevices(dcgmHandle_t handle, unsigned int ids[DCGM_MAX_NUM_DEVICES], int *count)
{
    return devices(handle, CALL_dcgmGetAllDevices, ids, count);
}

dcgmReturn_t dcgmGetAllSupportedDevices(dcgmHandle_t handle, unsigned int ids[DCGM_MAX_NUM_DEVICES], int *count)
{
    return devices(handle, CALL_dcgmGetAllSupportedDevices, ids, count);
}

dcgmReturn_t dcgmGetEntityGroupEntities(dcgmHandle_t handle, dcgm_field_entity_group_t group, dcgm_field_eid_t *entities,
                                        int *count, unsigned int flags)
{
    size_t used = 0;
    if (!entities || !count || *count < 1)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = transact(handle, CALL_dcgmGetEntityGroupEntities, ARGS(group, flags), NULL, 0, entities,
                               (size_t)*count * sizeof *entities, &used);
    if (rc != DCGM_ST_OK)
        return rc;
    int room = *count;
    *count = (int)(used / sizeof *entities);
    if (garble_answer(handle, CALL_dcgmGetEntityGroupEntities, count, sizeof *count))
        return DCGM_ST_OK;
    return *count > room ? DCGM_ST_INSUFFICIENT_SIZE : DCGM_ST_OK;
}

dcgmReturn_t dcgmGetDeviceAttributes(dcgmHandle_t handle, unsigned int gpu, dcgmDeviceAttributes_t *out)
{
    CHECK(out, dcgmDeviceAttributes_version);
    return transact(handle, CALL_dcgmGetDeviceAttributes, ARGS(gpu), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetGpuStatus(dcgmHandle_t handle, unsigned int gpu, DcgmEntityStatus_t *status)
{
    if (!status)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGetGpuStatus, ARGS(gpu), NULL, 0, status, sizeof *status, NULL);
}

dcgmReturn_t dcgmGetGpuChipArchitecture(dcgmHandle_t handle, unsigned int gpu, dcgmChipArchitecture_t *chip)
{
    if (!chip)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGetGpuChipArchitecture, ARGS(gpu), NULL, 0, chip, sizeof *chip, NULL);
}

dcgmReturn_t dcgmGetGpuInstanceHierarchy(dcgmHandle_t handle, dcgmMigHierarchy_v2 *out)
{
    CHECK(out, dcgmMigHierarchy_version2);
    return transact(handle, CALL_dcgmGetGpuInstanceHierarchy, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

/* Version 4 has 18 links per GPU. Such a caller passes a pointer to the older struct. */
static void link_status_v4(const dcgmNvLinkStatus_v5 *from, dcgmNvLinkStatus_v4 *to)
{
    to->numGpus = from->numGpus;
    for (unsigned i = 0; i < from->numGpus; i++) {
        to->gpus[i].entityId = from->gpus[i].entityId;
        memcpy(to->gpus[i].linkState, from->gpus[i].linkState, sizeof to->gpus[i].linkState);
    }
    to->numNvSwitches = from->numNvSwitches;
    memcpy(to->nvSwitches, from->nvSwitches, sizeof to->nvSwitches);
}

dcgmReturn_t dcgmGetNvLinkLinkStatus(dcgmHandle_t handle, dcgmNvLinkStatus_v5 *out)
{
    if (!out)
        return DCGM_ST_BADPARAM;
    if (out->version != dcgmNvLinkStatus_version4) {
        CHECK(out, dcgmNvLinkStatus_version5);
        return transact(handle, CALL_dcgmGetNvLinkLinkStatus, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
    }
    dcgmNvLinkStatus_v5 *now = calloc(1, sizeof *now);
    if (!now)
        return DCGM_ST_MEMORY;
    dcgmReturn_t rc = transact(handle, CALL_dcgmGetNvLinkLinkStatus, ARGS(0), NULL, 0, now, sizeof *now, NULL);
    if (rc == DCGM_ST_OK)
        link_status_v4(now, (dcgmNvLinkStatus_v4 *)(void *)out);
    free(now);
    return rc;
}

dcgmReturn_t dcgmGetNvLinkP2PStatus(dcgmHandle_t handle, dcgmNvLinkP2PStatus_v1 *out)
{
    CHECK(out, dcgmNvLinkP2PStatus_version1);
    return transact(handle, CALL_dcgmGetNvLinkP2PStatus, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetCpuHierarchy(dcgmHandle_t handle, dcgmCpuHierarchy_v1 *out)
{
    dcgmCpuHierarchy_v2 now;
    CHECK(out, dcgmCpuHierarchy_version1);
    dcgmReturn_t rc = transact(handle, CALL_dcgmGetCpuHierarchy, ARGS(0), NULL, 0, &now, sizeof now, NULL);
    if (rc != DCGM_ST_OK)
        return rc;
    out->numCpus = now.numCpus;
    for (unsigned i = 0; i < now.numCpus && i < DCGM_MAX_NUM_CPUS; i++) {
        out->cpus[i].cpuId = now.cpus[i].cpuId;
        out->cpus[i].ownedCores = now.cpus[i].ownedCores;
    }
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmGetCpuHierarchy_v2(dcgmHandle_t handle, dcgmCpuHierarchy_v2 *out)
{
    CHECK(out, dcgmCpuHierarchy_version2);
    return transact(handle, CALL_dcgmGetCpuHierarchy_v2, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetDeviceTopology(dcgmHandle_t handle, unsigned int gpu, dcgmDeviceTopology_v2 *out)
{
    CHECK(out, dcgmDeviceTopology_version2);
    return transact(handle, CALL_dcgmGetDeviceTopology, ARGS(gpu), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetGroupTopology(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmGroupTopology_v2 *out)
{
    CHECK(out, dcgmGroupTopology_version2);
    return transact(handle, CALL_dcgmGetGroupTopology, ARGS(group), out, sizeof out->version, out, sizeof *out, NULL);
}
