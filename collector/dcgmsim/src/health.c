/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Health checks: what the counters and the XIDs since the watch was set amount to. */
#include "engine.h"

#include <stdio.h>
#include <string.h>

struct finding {
    unsigned system, code;
    dcgmHealthWatchResults_t health;
};

/* XIDs that DCGM's health checks know, and what they make of them. */
static const struct xid_rule {
    uint32_t xid;
    struct finding finding;
} xid_rules[] = {
    {31, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {32, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {38, {DCGM_HEALTH_WATCH_PCIE, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {39, {DCGM_HEALTH_WATCH_PCIE, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {42, {DCGM_HEALTH_WATCH_PCIE, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {43, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {48, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {54, {DCGM_HEALTH_WATCH_POWER, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {60, {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_CLOCKS_EVENT_THERMAL, DCGM_HEALTH_RESULT_WARN}},
    {62, {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {63, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_PENDING_PAGE_RETIREMENTS, DCGM_HEALTH_RESULT_WARN}},
    {64, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_ROW_REMAP_FAILURE, DCGM_HEALTH_RESULT_FAIL}},
    {67, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {73, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {74, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {79, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_FALLEN_OFF_BUS, DCGM_HEALTH_RESULT_FAIL}},
    {94, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_CONTAINED_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {95, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_UNCONTAINED_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {119, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {120, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {140, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
};

/* Counters: a value above the bound is an incident. */
static const struct counter_rule {
    unsigned field;
    double bound;
    struct finding finding;
    const char *what;
} counter_rules[] = {
    {DCGM_FI_DEV_PCIE_REPLAY_TOTAL, 8, {DCGM_HEALTH_WATCH_PCIE, DCGM_FR_PCI_REPLAY_RATE, DCGM_HEALTH_RESULT_WARN}, "PCIe replays"},
    {DCGM_FI_DEV_ECC_DBE_VOL_TOTAL, 0, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_VOLATILE_DBE_DETECTED, DCGM_HEALTH_RESULT_FAIL}, "volatile double-bit ECC errors"},
    {DCGM_FI_DEV_PAGE_RETIRED_PENDING, 0, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_PENDING_PAGE_RETIREMENTS, DCGM_HEALTH_RESULT_WARN}, "pending page retirements"},
    {DCGM_FI_DEV_ROW_REMAP_FAILED, 0, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_ROW_REMAP_FAILURE, DCGM_HEALTH_RESULT_FAIL}, "failed row remappings"},
    {DCGM_FI_DEV_THERMAL_VIOLATION, 0, {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_CLOCKS_EVENT_THERMAL, DCGM_HEALTH_RESULT_WARN}, "ns of thermal violation"},
    {DCGM_FI_DEV_POWER_VIOLATION, 0, {DCGM_HEALTH_WATCH_POWER, DCGM_FR_CLOCKS_EVENT_POWER, DCGM_HEALTH_RESULT_WARN}, "ns of power violation"},
    {DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_THRESHOLD, DCGM_HEALTH_RESULT_WARN}, "NVLink flit CRC errors"},
    {DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_THRESHOLD, DCGM_HEALTH_RESULT_WARN}, "NVLink data CRC errors"},
    {DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_CRITICAL, DCGM_HEALTH_RESULT_FAIL}, "NVLink replay errors"},
    {DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_CRITICAL, DCGM_HEALTH_RESULT_FAIL}, "NVLink recovery errors"},
};

dcgmReturn_t health_set(struct engine *e, uintptr_t group, uint32_t systems)
{
    pthread_mutex_lock(&e->lock);
    watch_take_xids_locked(e);
    struct group *g = group_find_locked(e, group);
    if (g) {
        g->health_systems = systems;
        g->health_since_us = node_now_us();
        g->health_xid_seq = e->xid_seen;
    }
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}

dcgmReturn_t health_get(struct engine *e, uintptr_t group, uint32_t *systems)
{
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, group);
    if (g)
        *systems = g->health_systems;
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}

static void report(dcgmHealthResponse_t *out, const struct finding *f, int group, uint32_t entity, const char *text)
{
    if (out->incidentCount == DCGM_HEALTH_WATCH_MAX_INCIDENTS_V2)
        return;
    dcgmIncidentInfo_t *i = &out->incidents[out->incidentCount++];
    memset(i, 0, sizeof *i);
    i->system = (dcgmHealthSystems_t)f->system;
    i->health = f->health;
    i->error.code = f->code;
    snprintf(i->error.msg, sizeof i->error.msg, "%s", text);
    i->entityInfo = (dcgmGroupEntityPair_t){(dcgm_field_entity_group_t)group, entity};
    if (f->health > out->overallHealth)
        out->overallHealth = f->health;
}

static void check_counters(struct engine *e, const struct group *g, int gpu, dcgmHealthResponse_t *out)
{
    char text[160];
    uint32_t id = e->now.gpu[gpu].dcgm_id;
    for (size_t i = 0; i < sizeof counter_rules / sizeof counter_rules[0]; i++) {
        const struct counter_rule *r = &counter_rules[i];
        if (!(g->health_systems & r->finding.system))
            continue;
        double v = value_counter(e, gpu, r->field);
        if (v <= r->bound)
            continue;
        snprintf(text, sizeof text, "GPU %u: %.0f %s", id, v, r->what);
        report(out, &r->finding, DCGM_FE_GPU, id, text);
    }
    static const struct finding inforom = {DCGM_HEALTH_WATCH_INFOROM, DCGM_FR_CORRUPT_INFOROM, DCGM_HEALTH_RESULT_WARN};
    struct value v;
    watch_latest_locked(e, DCGM_FE_GPU, id, DCGM_FI_DEV_INFOROM_VALID, true, &v);
    if ((g->health_systems & inforom.system) && v.status == DCGM_ST_OK && v.v.i64 == 0) {
        snprintf(text, sizeof text, "GPU %u: the inforom is corrupt", id);
        report(out, &inforom, DCGM_FE_GPU, id, text);
    }
}

static void check_xids(struct engine *e, const struct group *g, dcgmHealthResponse_t *out)
{
    struct node_state *n = e->node;
    uint64_t newest = atomic_load(&n->xid_seq), seq = g->health_xid_seq + 1;
    if (newest - g->health_xid_seq > NODE_MAX_JOURNAL)
        seq = newest - NODE_MAX_JOURNAL + 1;
    for (; seq <= newest; seq++) {
        struct node_xid x;
        node_lock(n);
        x = n->xid[seq % NODE_MAX_JOURNAL];
        uint32_t gpu = n->gpu[x.gpu].dcgm_id;
        node_unlock(n);
        int group = x.where == NODE_XID_CI ? DCGM_FE_GPU_CI : x.where == NODE_XID_GI ? DCGM_FE_GPU_I : DCGM_FE_GPU;
        uint32_t id = group == DCGM_FE_GPU ? gpu : gpu * 7 + x.slot;
        for (uint32_t i = 0; i < g->count; i++) {
            if ((int)g->entities[i].entityGroupId != group || g->entities[i].entityId != id)
                continue;
            for (size_t k = 0; k < sizeof xid_rules / sizeof xid_rules[0]; k++) {
                if (xid_rules[k].xid != x.xid || !(g->health_systems & xid_rules[k].finding.system))
                    continue;
                char text[96];
                snprintf(text, sizeof text, "GPU %u: XID %u", gpu, x.xid);
                report(out, &xid_rules[k].finding, group, id, text);
            }
        }
    }
}

dcgmReturn_t health_check(struct engine *e, uintptr_t group, dcgmHealthResponse_t *out)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    struct group *g = group_find_locked(e, group);
    out->overallHealth = DCGM_HEALTH_RESULT_PASS;
    out->incidentCount = 0;
    for (uint32_t i = 0; g && i < g->count; i++) {
        struct place at;
        if (g->entities[i].entityGroupId == DCGM_FE_GPU && engine_locate(&e->now, DCGM_FE_GPU, g->entities[i].entityId, &at))
            check_counters(e, g, at.gpu, out);
    }
    if (g)
        check_xids(e, g, out);
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}
