/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libdcgm: watches, and the values that they sample. */
#include "dcgm/transact.h"

#include "access/faults.h"
#include "engine/watch.h"

#include <stdlib.h>
#include <string.h>

dcgmReturn_t dcgmWatchFields(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields, long long interval, double age,
                             int samples)
{
    if (samples < 0)
        return DCGM_ST_BADPARAM;
    return simple(handle, CALL_dcgmWatchFields, ARGS(group, fields, (uint64_t)samples, interval, age));
}

dcgmReturn_t dcgmUnwatchFields(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields)
{
    return simple(handle, CALL_dcgmUnwatchFields, ARGS(group, fields));
}

dcgmReturn_t dcgmUpdateAllFields(dcgmHandle_t handle, int wait)
{
    return simple(handle, CALL_dcgmUpdateAllFields, ARGS((uint64_t)wait));
}

/* The hot path: an embedded call copies from the samples into the caller's buffer. */
dcgmReturn_t dcgmEntitiesGetLatestValues(dcgmHandle_t handle, dcgmGroupEntityPair_t entities[], unsigned int entity_count,
                                         unsigned short fields[], unsigned int field_count, unsigned int flags,
                                         dcgmFieldValue_v2 values[])
{
    if (handle == DCGM_EMBEDDED_HANDLE) {
        struct engine *e = acquire();
        if (!e)
            return DCGM_ST_UNINITIALIZED;
        dcgmReturn_t rc = call_enter(e->node, __func__);
        if (rc == DCGM_ST_OK)
            rc = watch_latest(e, entities, entity_count, fields, field_count, flags, values);
        if (rc == DCGM_ST_OK)
            node_garble(e->node, __func__, values, (size_t)entity_count * field_count * sizeof *values);
        release();
        return rc;
    }
    if (!entities || !fields || !values || entity_count < 1 || field_count < 1 ||
        entity_count > DCGM_GROUP_MAX_ENTITIES_V2 || field_count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP)
        return DCGM_ST_BADPARAM;
    uint8_t payload[DCGM_GROUP_MAX_ENTITIES_V2 * sizeof entities[0] + DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP * sizeof fields[0]];
    struct call_args args = ARGS(entity_count, field_count, flags);
    uint8_t *data = NULL;
    size_t size = 0;
    memcpy(payload, entities, entity_count * sizeof entities[0]);
    memcpy(payload + entity_count * sizeof entities[0], fields, field_count * sizeof fields[0]);
    dcgmReturn_t rc = exchange(handle, CALL_dcgmEntitiesGetLatestValues, &args, payload,
                                  entity_count * sizeof entities[0] + field_count * sizeof fields[0], &data, &size);
    struct value_reader r = {.at = data, .end = data + size};
    struct value v;
    for (size_t i = 0; rc == DCGM_ST_OK && i < (size_t)entity_count * field_count; i++) {
        if (value_reader_next(&r, &v))
            value_to_v2(&v, &values[i]);
        else
            rc = DCGM_ST_GENERIC_ERROR;
    }
    free(data);
    return rc;
}

static dcgmReturn_t latest_v1(dcgmHandle_t handle, enum call call, dcgm_field_entity_group_t group, int id,
                              unsigned short fields[], unsigned count, dcgmFieldValue_v1 values[])
{
    uint8_t payload[sizeof(dcgmGroupEntityPair_t) + DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP * sizeof fields[0]], *data = NULL;
    if (!fields || !values || count < 1 || count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP)
        return DCGM_ST_BADPARAM;
    dcgmGroupEntityPair_t pair = {group, (dcgm_field_eid_t)id};
    memcpy(payload, &pair, sizeof pair);
    memcpy(payload + sizeof pair, fields, count * sizeof fields[0]);
    struct call_args args = ARGS(1, count, 0);
    size_t size = 0, len = sizeof pair + count * sizeof fields[0];
    dcgmReturn_t rc = exchange(handle, call, &args, payload, len, &data, &size);
    struct value_reader r = {.at = data, .end = data + size};
    struct value v;
    for (unsigned i = 0; rc == DCGM_ST_OK && i < count; i++) {
        if (value_reader_next(&r, &v))
            value_to_v1(&v, &values[i]);
        else
            rc = DCGM_ST_GENERIC_ERROR;
    }
    free(data);
    return rc;
}

dcgmReturn_t dcgmEntityGetLatestValues(dcgmHandle_t handle, dcgm_field_entity_group_t group, int id, unsigned short fields[],
                                       unsigned int count, dcgmFieldValue_v1 values[])
{
    return latest_v1(handle, CALL_dcgmEntityGetLatestValues, group, id, fields, count, values);
}

dcgmReturn_t dcgmGetLatestValuesForFields(dcgmHandle_t handle, int gpu, unsigned short fields[], unsigned int count,
                                          dcgmFieldValue_v1 values[])
{
    return latest_v1(handle, CALL_dcgmGetLatestValuesForFields, DCGM_FE_GPU, gpu, fields, count, values);
}

/* Passes the values of a group to a callback, one at a time. One of the two callbacks is NULL. */
static dcgmReturn_t enumerate(dcgmHandle_t handle, enum call call, struct call_args args, long long *next,
                              dcgmFieldValueEnumeration_f by_gpu, dcgmFieldValueEntityEnumeration_f by_entity, void *user)
{
    uint8_t *data = NULL;
    size_t size = 0;
    if (!by_gpu && !by_entity)
        return DCGM_ST_BADPARAM;
    if (next)
        *next = args.d;
    dcgmReturn_t rc = exchange(handle, call, &args, NULL, 0, &data, &size);
    int64_t until = args.d;
    if (rc == DCGM_ST_OK && size < sizeof until)
        rc = DCGM_ST_GENERIC_ERROR;
    dcgmFieldValue_v1 *one = rc == DCGM_ST_OK ? calloc(1, sizeof *one) : NULL;
    if (rc == DCGM_ST_OK && !one)
        rc = DCGM_ST_MEMORY;
    if (rc == DCGM_ST_OK) {
        memcpy(&until, data, sizeof until);
        struct value_reader r = {.at = data + sizeof until, .end = data + size};
        struct value v;
        int stop = 0;
        while (!stop && value_reader_next(&r, &v)) {
            value_to_v1(&v, one);
            garble_answer(handle, call, one, sizeof *one);
            if (by_entity)
                stop = by_entity((dcgm_field_entity_group_t)v.group, v.entity_id, one, 1, user);
            else if (v.group == DCGM_FE_GPU || v.group == DCGM_FE_NONE)
                stop = by_gpu(v.entity_id, one, 1, user);
        }
        if (garble_answer(handle, call, one, sizeof *one) && by_entity) /* a value that does not exist */
            stop = by_entity(DCGM_FE_GPU, 0, one, 1, user);
        garble_answer(handle, call, &until, sizeof until);
        if (!stop && next)
            *next = until;
    }
    free(one);
    free(data);
    return rc;
}

dcgmReturn_t dcgmGetValuesSince(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields, long long since, long long *next,
                                dcgmFieldValueEnumeration_f callback, void *user)
{
    if (!next)
        return DCGM_ST_BADPARAM;
    return enumerate(handle, CALL_dcgmGetValuesSince, ARGS(group, fields, 0, since), next, callback, NULL, user);
}

dcgmReturn_t dcgmGetValuesSince_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields, long long since,
                                   long long *next, dcgmFieldValueEntityEnumeration_f callback, void *user)
{
    if (!next)
        return DCGM_ST_BADPARAM;
    return enumerate(handle, CALL_dcgmGetValuesSince_v2, ARGS(group, fields, 0, since), next, NULL, callback, user);
}

dcgmReturn_t dcgmGetLatestValues(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields,
                                 dcgmFieldValueEnumeration_f callback, void *user)
{
    return enumerate(handle, CALL_dcgmGetLatestValues, ARGS(group, fields), NULL, callback, NULL, user);
}

dcgmReturn_t dcgmGetLatestValues_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields,
                                    dcgmFieldValueEntityEnumeration_f callback, void *user)
{
    return enumerate(handle, CALL_dcgmGetLatestValues_v2, ARGS(group, fields), NULL, NULL, callback, user);
}

dcgmReturn_t dcgmInjectFieldValue(dcgmHandle_t handle, unsigned int gpu, dcgmInjectFieldValue_t *value)
{
    CHECK(value, dcgmInjectFieldValue_version1);
    return transact(handle, CALL_dcgmInjectFieldValue, ARGS(gpu), value, sizeof *value, NULL, 0, NULL);
}
