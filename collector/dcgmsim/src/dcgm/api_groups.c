/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libdcgm: groups of entities and groups of fields. */
#include "dcgm/transact.h"

#include <string.h>

dcgmReturn_t dcgmGroupCreate(dcgmHandle_t handle, dcgmGroupType_t type, const char *name, dcgmGpuGrp_t *id)
{
    if (!name || !id || strlen(name) >= DCGM_MAX_STR_LENGTH)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGroupCreate, ARGS((uint64_t)type), name, strlen(name), id, sizeof *id, NULL);
}

dcgmReturn_t dcgmGroupDestroy(dcgmHandle_t handle, dcgmGpuGrp_t group)
{
    return simple(handle, CALL_dcgmGroupDestroy, ARGS(group));
}

dcgmReturn_t dcgmGroupAddDevice(dcgmHandle_t handle, dcgmGpuGrp_t group, unsigned int gpu)
{
    return simple(handle, CALL_dcgmGroupAddDevice, ARGS(group, DCGM_FE_GPU, gpu));
}

dcgmReturn_t dcgmGroupAddEntity(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgm_field_entity_group_t entity_group,
                                dcgm_field_eid_t id)
{
    return simple(handle, CALL_dcgmGroupAddEntity, ARGS(group, entity_group, id));
}

dcgmReturn_t dcgmGroupRemoveDevice(dcgmHandle_t handle, dcgmGpuGrp_t group, unsigned int gpu)
{
    return simple(handle, CALL_dcgmGroupRemoveDevice, ARGS(group, DCGM_FE_GPU, gpu));
}

dcgmReturn_t dcgmGroupRemoveEntity(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgm_field_entity_group_t entity_group,
                                   dcgm_field_eid_t id)
{
    return simple(handle, CALL_dcgmGroupRemoveEntity, ARGS(group, entity_group, id));
}

dcgmReturn_t dcgmGroupGetInfo(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmGroupInfo_t *out)
{
    CHECK(out, dcgmGroupInfo_version3);
    return transact(handle, CALL_dcgmGroupGetInfo, ARGS(group), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGroupGetAllIds(dcgmHandle_t handle, dcgmGpuGrp_t ids[], unsigned int *count)
{
    size_t used = 0;
    if (!ids || !count)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = transact(handle, CALL_dcgmGroupGetAllIds, ARGS(0), NULL, 0, ids, DCGM_MAX_NUM_GROUPS * sizeof *ids, &used);
    if (rc == DCGM_ST_OK)
        *count = (unsigned)(used / sizeof *ids);
    return rc;
}

dcgmReturn_t dcgmFieldGroupCreate(dcgmHandle_t handle, int count, const unsigned short *fields, const char *name,
                                  dcgmFieldGrp_t *id)
{
    uint8_t payload[DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP * sizeof *fields + DCGM_MAX_STR_LENGTH];
    if (count < 1 || count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP || !fields || !name || !*name ||
        strlen(name) >= DCGM_MAX_STR_LENGTH || !id)
        return DCGM_ST_BADPARAM;
    size_t ids = (size_t)count * sizeof *fields;
    memcpy(payload, fields, ids);
    memcpy(payload + ids, name, strlen(name));
    return transact(handle, CALL_dcgmFieldGroupCreate, ARGS((uint64_t)count), payload, ids + strlen(name), id, sizeof *id, NULL);
}

dcgmReturn_t dcgmFieldGroupDestroy(dcgmHandle_t handle, dcgmFieldGrp_t id)
{
    return simple(handle, CALL_dcgmFieldGroupDestroy, ARGS(id));
}

dcgmReturn_t dcgmFieldGroupGetInfo(dcgmHandle_t handle, dcgmFieldGroupInfo_t *info)
{
    CHECK(info, dcgmFieldGroupInfo_version);
    return transact(handle, CALL_dcgmFieldGroupGetInfo, ARGS(0), info, sizeof *info, info, sizeof *info, NULL);
}
