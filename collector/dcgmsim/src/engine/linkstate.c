/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* NVLink and NVSwitch lookups in a snapshot: which entities exist, which links are up. */
#include "engine/linkstate.h"

int gpu_of(const struct snapshot *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->gpu_count; i++)
        if (s->gpu[i].dcgm_id == id)
            return (int)i;
    return -1;
}

int switch_of(const struct snapshot *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->switch_count; i++)
        if (s->nvswitch[i].id == id)
            return (int)i;
    return -1;
}

/* DCGM checks the parent only, so any port index is accepted. */
bool link_entity_exists(const struct snapshot *s, int group, uint32_t id)
{
    dcgm_link_t link = {.raw = id};
    if (group == DCGM_FE_SWITCH)
        return switch_of(s, id) >= 0;
    if (link.parsed.type == DCGM_FE_GPU)
        return gpu_of(s, link.parsed.gpuId) >= 0;
    return link.parsed.type == DCGM_FE_SWITCH && switch_of(s, link.parsed.switchId) >= 0;
}

bool link_port_visible(const struct snapshot *s, const struct node_port *p)
{
    return p->kind == NODE_PORT_TRUNK || (p->kind == NODE_PORT_GPU && s->gpu_ports);
}

bool link_port_up(const struct snapshot *s, const struct node_port *p)
{
    return (p->kind == NODE_PORT_GPU ? &s->gpu[p->gpu].link[p->gpu_link] : &p->link)->down == 0;
}

uint64_t links_up(const struct node_gpu *g, uint32_t *count)
{
    uint64_t up = 0;
    *count = 0;
    for (uint32_t i = 0; i < g->model.nvlinks; i++) {
        if (g->link[i].down)
            continue;
        up |= UINT64_C(1) << i;
        ++*count;
    }
    return up;
}

bool links_connect(const struct snapshot *s, uint32_t a, uint32_t b)
{
    const struct node_gpu *x = &s->gpu[a], *y = &s->gpu[b];
    uint32_t up_x, up_y;
    links_up(x, &up_x);
    links_up(y, &up_y);
    return a != b && x->model.nvlink_version == y->model.nvlink_version && up_x > 0 && up_y > 0 && !x->mig_enabled &&
        !y->mig_enabled;
}
