/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A libdcgm.so.4 that behaves as DCGM's documentation allows and the stand-in does
 * not: it returns values in a different order than the request, fails every request
 * with one of three GPUs, and refuses one field. The value of a field is
 * 1000 * GPU + field.
 */
#include <stdio.h>
#include <string.h>

#include "abi.h"

#define BAD_GPU 2
#define BAD_FIELD 155

static uint16_t fields_of[64][ABI_MAX_FIELDS];
static int count_of[64], next_fields = 1, next_group = 1;

int dcgmInit(void) { return 0; }
int dcgmShutdown(void) { return 0; }
int dcgmStartEmbedded(int mode, uintptr_t *handle)
{
    (void)mode;
    *handle = ABI_EMBEDDED_HANDLE;
    return 0;
}
int dcgmStopEmbedded(uintptr_t h) { return (void)h, 0; }
int dcgmConnect_v2(void) { return ABI_CONNECTION_NOT_VALID; }
int dcgmDisconnect(void) { return 0; }
int dcgmVersionInfo(void) { return -6; }
int dcgmHostengineVersionInfo(void) { return -6; }
int dcgmProfGetSupportedMetricGroups(void) { return -33; }
const char *errorString(int code) { return code == -3 ? "generic error" : "error"; }

int dcgmGetEntityGroupEntities(uintptr_t h, uint32_t kind, uint32_t *ids, int *count, uint32_t flags)
{
    (void)h, (void)flags;
    *count = kind == ABI_KIND_GPU ? 3 : 0;
    for (int i = 0; i < *count; i++)
        ids[i] = (uint32_t)i;
    return 0;
}
int dcgmGetGpuStatus(void) { return -6; }
int dcgmGetGpuInstanceHierarchy(void) { return -6; }
int dcgmGetValuesSince_v2(void) { return -6; }
int dcgmUpdateAllFields(void) { return 0; }

int dcgmGroupCreate(uintptr_t h, uint32_t type, const char *name, uintptr_t *group)
{
    (void)h, (void)type, (void)name;
    *group = (uintptr_t)next_group++;
    return 0;
}
int dcgmGroupAddEntity(void) { return 0; }
int dcgmGroupRemoveEntity(void) { return 0; }
int dcgmGroupDestroy(void) { return 0; }
int dcgmFieldGroupCreate(uintptr_t h, int count, const uint16_t *fields, const char *name, uintptr_t *group)
{
    (void)h, (void)name;
    if (next_fields == 64)
        return -24;
    memcpy(fields_of[next_fields], fields, (size_t)count * sizeof *fields);
    count_of[next_fields] = count;
    *group = (uintptr_t)next_fields++;
    return 0;
}
int dcgmFieldGroupDestroy(void) { return 0; }
int dcgmWatchFields(uintptr_t h, uintptr_t group, uintptr_t fields)
{
    (void)h, (void)group;
    for (int i = 0; i < count_of[fields]; i++)
        if (fields_of[fields][i] == BAD_FIELD)
            return -17; /* DCGM_ST_NO_PERMISSION */
    return 0;
}
int dcgmUnwatchFields(void) { return 0; }

int dcgmEntitiesGetLatestValues(uintptr_t h, struct abi_pair *entities, uint32_t entity_count, uint16_t *fields,
                                uint32_t field_count, uint32_t flags, struct abi_value2 *values)
{
    (void)h;
    for (uint32_t e = 0; e < entity_count; e++)
        if (entities[e].id == BAD_GPU && !(flags & ABI_FLAG_LIVE))
            return -3;
    for (uint32_t e = 0; e < entity_count; e++) {
        for (uint32_t f = 0; f < field_count; f++) {
            struct abi_value2 *v = &values[entity_count * field_count - 1 - (e * field_count + f)];
            memset(v, 0, sizeof *v);
            v->kind = entities[e].kind;
            v->id = entities[e].id;
            v->field = fields[f];
            v->type = 'i';
            v->ts = 1;
            v->value.i64 = 1000 * (int64_t)v->id + v->field;
            if (flags & ABI_FLAG_LIVE) {
                v->type = 's';
                snprintf(v->value.str, sizeof v->value.str, "%u of %u", v->field, v->id);
            }
            if (v->field == 230)
                v->status = -14;
        }
    }
    return 0;
}
