/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Entity groups and field groups, with DCGM's limits. DCGM's own groups count towards the limits. */
#include "engine/groups.h"

#include "engine/entities.h"
#include "engine/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t all_gpus(const struct engine *e)
{
    return e->groups[0].id;
}

struct group *group_find_locked(struct engine *e, uintptr_t id)
{
    if (id == DCGM_GROUP_ALL_GPUS)
        id = all_gpus(e);
    else if (id == DCGM_GROUP_ALL_NVSWITCHES)
        id = e->groups[1].id;
    for (int i = 0; i < DCGM_MAX_NUM_GROUPS; i++)
        if (e->groups[i].used && e->groups[i].id == id)
            return &e->groups[i];
    return NULL;
}

struct field_group *field_group_find_locked(struct engine *e, uintptr_t id)
{
    for (int i = 0; i < DCGM_MAX_NUM_FIELD_GROUPS; i++)
        if (e->field_groups[i].used && e->field_groups[i].id == id)
            return &e->field_groups[i];
    return NULL;
}

static dcgmReturn_t add_entity(struct group *g, int group, uint32_t entity)
{
    for (uint32_t i = 0; i < g->count; i++)
        if ((int)g->entities[i].entityGroupId == group && g->entities[i].entityId == entity)
            return DCGM_ST_BADPARAM;
    if (g->count >= DCGM_GROUP_MAX_ENTITIES_V2)
        return DCGM_ST_MAX_LIMIT;
    dcgmGroupEntityPair_t *more = realloc(g->entities, (g->count + 1) * sizeof *more);
    if (!more)
        return DCGM_ST_MEMORY;
    g->entities = more;
    g->entities[g->count++] = (dcgmGroupEntityPair_t){(dcgm_field_entity_group_t)group, entity};
    return DCGM_ST_OK;
}

static void add_all(struct engine *e, struct group *g, int group)
{
    for (uint32_t i = 0; group == DCGM_FE_SWITCH && i < e->snapshot.switch_count; i++)
        add_entity(g, DCGM_FE_SWITCH, e->snapshot.nvswitch[i].id);
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        const struct node_gpu *gpu = &e->snapshot.gpu[i];
        if (gpu->lost || gpu->detached)
            continue;
        if (group == DCGM_FE_GPU)
            add_entity(g, group, gpu->dcgm_id);
        for (int k = 0; group == DCGM_FE_GPU_I && k < NODE_MAX_GIS; k++)
            if (gpu->gi[k].present)
                add_entity(g, group, gpu->gi[k].entity_id);
        for (int k = 0; group == DCGM_FE_GPU_CI && k < NODE_MAX_CIS; k++)
            if (gpu->ci[k].present)
                add_entity(g, group, gpu->ci[k].entity_id);
    }
}

static dcgmReturn_t create_locked(struct engine *e, uint32_t owner, int type, const char *name, uintptr_t *id)
{
    struct group *g = NULL;
    for (int i = 0; i < DCGM_MAX_NUM_GROUPS && !g; i++)
        if (!e->groups[i].used)
            g = &e->groups[i];
    if (!g)
        return DCGM_ST_MAX_LIMIT;
    memset(g, 0, sizeof *g);
    g->used = true;
    g->owner = owner;
    g->id = e->next_group++;
    snprintf(g->name, sizeof g->name, "%s", name);
    switch (type) {
    case DCGM_GROUP_DEFAULT:
        add_all(e, g, DCGM_FE_GPU);
        break;
    case DCGM_GROUP_DEFAULT_INSTANCES:
        add_all(e, g, DCGM_FE_GPU_I);
        break;
    case DCGM_GROUP_DEFAULT_COMPUTE_INSTANCES:
        add_all(e, g, DCGM_FE_GPU_CI);
        break;
    case DCGM_GROUP_DEFAULT_EVERYTHING:
        add_all(e, g, DCGM_FE_GPU);
        add_all(e, g, DCGM_FE_SWITCH);
        add_all(e, g, DCGM_FE_GPU_I);
        add_all(e, g, DCGM_FE_GPU_CI);
        break;
    case DCGM_GROUP_DEFAULT_NVSWITCHES:
        add_all(e, g, DCGM_FE_SWITCH);
        break;
    default: /* an empty group */
        break;
    }
    *id = g->id;
    return DCGM_ST_OK;
}

void groups_init(struct engine *e)
{
    static const char *const names[] = {"DCGM_INTERNAL_1SEC", "DCGM_INTERNAL_30SEC", "DCGM_INTERNAL_HOURLY", "DCGM_INTERNAL_JOB"};
    static const unsigned short field[] = {DCGM_FI_DEV_GPU_NAME};
    uintptr_t id;
    create_locked(e, OWNER_EMBEDDED, DCGM_GROUP_DEFAULT, "DCGM_ALL_SUPPORTED_GPUS", &id);
    create_locked(e, OWNER_EMBEDDED, DCGM_GROUP_DEFAULT_NVSWITCHES, "DCGM_ALL_SUPPORTED_NVSWITCHES", &id);
    e->next_field_group = 1;
    for (int i = 0; i < 4; i++) {
        if (field_group_create(e, OWNER_EMBEDDED, 1, field, names[i], &id) == DCGM_ST_OK)
            field_group_find_locked(e, id)->internal = true;
    }
}

dcgmReturn_t group_create(struct engine *e, uint32_t owner, int type, const char *name, uintptr_t *id)
{
    if (!name || !id || strlen(name) >= DCGM_MAX_STR_LENGTH || type < DCGM_GROUP_DEFAULT || type > DCGM_GROUP_DEFAULT_EVERYTHING)
        return DCGM_ST_BADPARAM;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    dcgmReturn_t rc = create_locked(e, owner, type, name, id);
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t group_destroy(struct engine *e, uintptr_t id)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, id);
    if (!g) {
        rc = DCGM_ST_NOT_CONFIGURED;
    } else if (g == &e->groups[0] || g == &e->groups[1]) {
        rc = DCGM_ST_NO_PERMISSION;
    } else {
        free(g->entities);
        memset(g, 0, sizeof *g);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t group_add(struct engine *e, uintptr_t id, int group, uint32_t entity)
{
    dcgmReturn_t rc;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    struct group *g = group_find_locked(e, id);
    if (!g) {
        rc = DCGM_ST_NOT_CONFIGURED;
    } else if (g == &e->groups[0] || g == &e->groups[1]) {
        rc = DCGM_ST_NO_PERMISSION;
    } else {
        DcgmEntityStatus_t status = entity_status(&e->snapshot, group, entity);
        rc = status == DcgmEntityStatusOk     ? add_entity(g, group, entity)
             : status == DcgmEntityStatusLost ? DCGM_ST_GPU_IS_LOST
                                              : DCGM_ST_BADPARAM;
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t group_remove(struct engine *e, uintptr_t id, int group, uint32_t entity)
{
    dcgmReturn_t rc = DCGM_ST_NOT_CONFIGURED;
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, id);
    if (g)
        rc = DCGM_ST_BADPARAM;
    for (uint32_t i = 0; g && i < g->count; i++) {
        if ((int)g->entities[i].entityGroupId == group && g->entities[i].entityId == entity) {
            memmove(&g->entities[i], &g->entities[i + 1], (g->count - i - 1) * sizeof g->entities[0]);
            g->count--;
            rc = DCGM_ST_OK;
            break;
        }
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t group_info(struct engine *e, uintptr_t id, dcgmGroupInfo_t *out)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, id);
    if (!g) {
        rc = DCGM_ST_NOT_CONFIGURED;
    } else {
        out->count = g->count;
        memcpy(out->groupName, g->name, sizeof out->groupName);
        if (g->count)
            memcpy(out->entityList, g->entities, g->count * sizeof g->entities[0]);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t group_all_ids(struct engine *e, uintptr_t *ids, unsigned *count)
{
    unsigned n = 0;
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < DCGM_MAX_NUM_GROUPS; i++)
        if (e->groups[i].used)
            ids[n++] = e->groups[i].id;
    pthread_mutex_unlock(&e->lock);
    *count = n;
    return DCGM_ST_OK;
}

dcgmReturn_t field_group_create(struct engine *e, uint32_t owner, int count, const unsigned short *fields,
                                const char *name, uintptr_t *id)
{
    if (count < 1 || count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP || !fields || !name || !*name ||
        strlen(name) >= DCGM_MAX_STR_LENGTH || !id)
        return DCGM_ST_BADPARAM;
    for (int i = 0; i < count; i++)
        if (!field_info(fields[i]))
            return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    struct field_group *g = NULL;
    for (int i = 0; i < DCGM_MAX_NUM_FIELD_GROUPS && rc == DCGM_ST_OK; i++) {
        if (!e->field_groups[i].used)
            g = g ? g : &e->field_groups[i];
        else if (strcmp(e->field_groups[i].name, name) == 0)
            rc = DCGM_ST_DUPLICATE_KEY;
    }
    if (rc == DCGM_ST_OK && !g)
        rc = DCGM_ST_MAX_LIMIT;
    if (rc == DCGM_ST_OK) {
        memset(g, 0, sizeof *g);
        g->used = true;
        g->owner = owner;
        g->id = e->next_field_group++;
        g->count = (uint32_t)count;
        memcpy(g->fields, fields, (size_t)count * sizeof fields[0]);
        snprintf(g->name, sizeof g->name, "%s", name);
        *id = g->id;
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t field_group_destroy(struct engine *e, uintptr_t id)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    struct field_group *g = field_group_find_locked(e, id);
    if (!g)
        rc = DCGM_ST_NO_DATA;
    else if (g->internal)
        rc = DCGM_ST_NO_PERMISSION;
    else
        g->used = false;
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t field_group_info(struct engine *e, dcgmFieldGroupInfo_t *info)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    struct field_group *g = field_group_find_locked(e, info->fieldGroupId);
    if (!g) {
        rc = DCGM_ST_NO_DATA;
    } else {
        info->numFieldIds = g->count;
        memcpy(info->fieldGroupName, g->name, sizeof info->fieldGroupName);
        memcpy(info->fieldIds, g->fields, sizeof info->fieldIds);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}
