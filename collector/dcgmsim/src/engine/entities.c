/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Lists of entities and their status. */
#include "engine/entities.h"

#include "access/faults.h"
#include "engine/cpus.h"
#include "engine/linkstate.h"
#include "engine/snapshot.h"

#include <string.h>

DcgmEntityStatus_t entity_status(const struct snapshot *s, int group, uint32_t id)
{
    struct location at;
    if (group == DCGM_FE_SWITCH || group == DCGM_FE_LINK)
        return link_entity_exists(s, group, id) ? DcgmEntityStatusOk : DcgmEntityStatusUnknown;
    if (group == DCGM_FE_CPU || group == DCGM_FE_CPU_CORE)
        return cpu_entity_exists(s, group, id) ? DcgmEntityStatusOk : DcgmEntityStatusUnknown;
    if (!snapshot_locate(s, group, id, &at))
        return DcgmEntityStatusUnknown;
    const struct node_gpu *g = &s->gpu[at.gpu];
    return g->detached ? DcgmEntityStatusDetached : g->lost ? DcgmEntityStatusLost : DcgmEntityStatusOk;
}

dcgmReturn_t list_gpus(struct engine *e, bool only_supported, unsigned *ids, int *count)
{
    int n = 0;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
        if (!only_supported || (!e->snapshot.gpu[i].lost && !e->snapshot.gpu[i].detached))
            ids[n++] = e->snapshot.gpu[i].dcgm_id;
    pthread_mutex_unlock(&e->lock);
    *count = n;
    return DCGM_ST_OK;
}

dcgmReturn_t list_entities(struct engine *e, int group, unsigned flags, unsigned *ids, int *count)
{
    if ((group == DCGM_FE_CPU || group == DCGM_FE_CPU_CORE) &&
        e->node->cpu_count == 0) /* the module that serves them needs Grace */
        return DCGM_ST_MODULE_NOT_LOADED;
    if (group == DCGM_FE_CONNECTX) {
        *count = 0;
        return DCGM_ST_OK;
    }
    if (group == DCGM_FE_SWITCH) {
        int rc = node_enter_call(e->node, "list-switches");
        if (rc != 0)
            return (dcgmReturn_t)rc;
    }
    /* With NSCQ, DCGM does not list links (see dcgmGetNvLinkLinkStatus). It never lists vGPUs. */
    if (group != DCGM_FE_GPU && group != DCGM_FE_GPU_I && group != DCGM_FE_GPU_CI && group != DCGM_FE_SWITCH &&
        group != DCGM_FE_CPU && group != DCGM_FE_CPU_CORE)
        return DCGM_ST_NOT_SUPPORTED;
    unsigned all[NODE_MAX_CORES];
    int n = 0;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    for (uint32_t i = 0; group == DCGM_FE_SWITCH && i < e->snapshot.switch_count; i++)
        all[n++] = e->snapshot.nvswitch[i].id;
    for (uint32_t i = 0; group == DCGM_FE_CPU && i < e->snapshot.cpu_count; i++)
        all[n++] = e->snapshot.cpu[i].id;
    for (uint32_t i = 0; group == DCGM_FE_CPU_CORE && i < e->snapshot.cpu_count; i++)
        for (uint32_t c = 0; c < e->snapshot.cpu[i].core_count; c++)
            all[n++] = e->snapshot.cpu[i].first_core + c;
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        const struct node_gpu *g = &e->snapshot.gpu[i];
        if ((flags & DCGM_GEGE_FLAG_ONLY_SUPPORTED) && (g->lost || g->detached))
            continue;
        if (group == DCGM_FE_GPU)
            all[n++] = g->dcgm_id;
        for (int k = 0; group == DCGM_FE_GPU_I && !g->detached && k < NODE_MAX_GIS; k++)
            if (g->gi[k].present)
                all[n++] = g->gi[k].entity_id;
        for (int k = 0; group == DCGM_FE_GPU_CI && !g->detached && k < NODE_MAX_CIS; k++)
            if (g->ci[k].present)
                all[n++] = g->ci[k].entity_id;
    }
    pthread_mutex_unlock(&e->lock);
    int room = *count;
    *count = n;
    if (n > room)
        return DCGM_ST_INSUFFICIENT_SIZE;
    memcpy(ids, all, (size_t)n * sizeof all[0]);
    return DCGM_ST_OK;
}

dcgmReturn_t gpu_status(struct engine *e, unsigned gpu, DcgmEntityStatus_t *status)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    *status = entity_status(&e->snapshot, DCGM_FE_GPU, gpu);
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}
