/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The snapshot of the node that an engine works on, and the readings derived from it. */
#include "engine/snapshot.h"

#include "access/events.h"
#include "node/load.h"

#include <string.h>

#define REBINDING_US 300000

void snapshot_take(struct engine *e)
{
    struct node_state *n = e->node;
    struct snapshot *s = &e->snapshot;
    node_run_events(n);
    node_lock(n);
    s->time_us = node_now_us();
    uint32_t generation = atomic_load(&n->generation), detached = 0;
    bool rebound = e->rebinding_until_us != 0 && s->time_us >= e->rebinding_until_us;
    if (rebound)
        e->rebinding_until_us = 0;
    if (s->generation != generation || rebound) {
        s->generation = generation;
        s->gpu_count = n->gpu_count;
        memcpy(s->gpu, n->gpu, n->gpu_count * sizeof n->gpu[0]);
        for (uint32_t i = 0; i < s->gpu_count; i++)
            detached |= (uint32_t)s->gpu[i].detached << i;
        if (detached != e->detached_seen && e->started) /* DCGM detaches all GPUs, and attaches those that are bound */
            e->rebinding_until_us = s->time_us + REBINDING_US;
        e->detached_seen = detached;
        for (uint32_t i = 0; i < s->gpu_count && e->rebinding_until_us; i++)
            s->gpu[i].detached = true;
        s->switch_count = n->switch_count;
        s->gpu_ports = n->gpu_ports;
        memcpy(s->nvswitch, n->nvswitch, n->switch_count * sizeof n->nvswitch[0]);
        s->cpu_count = n->cpu_count;
        memcpy(s->cpu, n->cpu, sizeof s->cpu);
    }
    generation = atomic_load(&n->override_generation);
    if (s->override_generation != generation) {
        s->override_generation = generation;
        s->override_count = 0;
        for (int i = 0; i < NODE_MAX_OVERRIDES; i++)
            if (n->override[i].present)
                s->override[s->override_count++] = n->override[i];
    }
    node_unlock(n);
    memset(s->have_gpu, 0, sizeof s->have_gpu);
    memset(s->have_throttle, 0, sizeof s->have_throttle);
    memset(s->have_cpu, 0, sizeof s->have_cpu);
    memset(s->have_gi, 0, sizeof s->have_gi);
    memset(s->have_ci, 0, sizeof s->have_ci);
}

bool snapshot_locate(const struct snapshot *s, int group, uint32_t id, struct location *out)
{
    *out = (struct location){-1, -1, -1};
    if (group != DCGM_FE_GPU && group != DCGM_FE_GPU_I && group != DCGM_FE_GPU_CI)
        return false;
    uint32_t gpu_id = group == DCGM_FE_GPU ? id : id / 7;
    for (uint32_t i = 0; i < s->gpu_count; i++)
        if (s->gpu[i].dcgm_id == gpu_id)
            out->gpu = (int)i;
    if (out->gpu < 0 || group == DCGM_FE_GPU)
        return out->gpu >= 0;
    const struct node_gpu *g = &s->gpu[out->gpu];
    int slot = (int)(id % 7);
    if (group == DCGM_FE_GPU_I) {
        out->gi = slot;
        return g->gi[slot].present;
    }
    out->ci = slot;
    out->gi = g->ci[slot].gi;
    return g->ci[slot].present;
}

dcgmGroupEntityPair_t xid_entity(const struct node_xid *x, uint32_t gpu_id)
{
    static const dcgm_field_entity_group_t groups[] = {DCGM_FE_GPU, DCGM_FE_GPU_I,
                                                       DCGM_FE_GPU_CI}; /* by enum node_xid_where */
    return (dcgmGroupEntityPair_t){groups[x->where], x->where == NODE_XID_GPU ? gpu_id : gpu_id * 7 + x->slot};
}

struct node_reading *snapshot_gpu_reading(struct engine *e, int gpu)
{
    struct snapshot *s = &e->snapshot;
    if (!s->have_gpu[gpu]) {
        node_read_gpu(&s->gpu[gpu], e->node->boot_us, s->time_us, &s->gpu_reading[gpu]);
        s->have_gpu[gpu] = true;
    }
    return &s->gpu_reading[gpu];
}

struct node_reading *snapshot_reading(struct engine *e, const struct location *at)
{
    struct snapshot *s = &e->snapshot;
    if (at->gi < 0)
        return snapshot_gpu_reading(e, at->gpu);
    bool *have = at->ci >= 0 ? &s->have_ci[at->gpu][at->ci] : &s->have_gi[at->gpu][at->gi];
    struct node_reading *r = at->ci >= 0 ? &s->ci_reading[at->gpu][at->ci] : &s->gi_reading[at->gpu][at->gi];
    if (!*have) {
        node_read_instance(&s->gpu[at->gpu], at->gi, at->ci, e->node->boot_us, s->time_us, r);
        *have = true;
    }
    return r;
}

const struct node_throttle *snapshot_throttle(struct engine *e, int gpu)
{
    struct snapshot *s = &e->snapshot;
    if (!s->have_throttle[gpu]) {
        struct node_gpu *g = &e->node->gpu[gpu];
        node_lock(e->node);
        node_advance_throttle(g, e->node->boot_us, s->time_us);
        s->throttle[gpu] = g->throttle;
        node_unlock(e->node);
        s->have_throttle[gpu] = true;
    }
    return &s->throttle[gpu];
}

const struct node_override *snapshot_override(const struct snapshot *s, enum node_entity_kind of, int position,
                                              unsigned field)
{
    const struct node_override *found = NULL;
    for (uint32_t i = 0; i < s->override_count; i++) {
        const struct node_override *o = &s->override[i];
        if (o->field == field && ((o->gpu == position && o->group == of) || (o->gpu == -1 && !found)))
            found = o;
    }
    return found;
}
