/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Health checks: incidents from counters, links, injected results and the XIDs since the engine's first check. */
#include "engine/health.h"

#include "engine/cpus.h"
#include "engine/groups.h"
#include "engine/linkstate.h"
#include "engine/snapshot.h"
#include "engine/values.h"
#include "engine/watch.h"

#include "dcgm_errors.h"

#include <stdio.h>
#include <string.h>

struct finding {
    unsigned system, code;
    dcgmHealthWatchResults_t health;
};

/* The incident that DCGM 4.6 reports for each XID (BuildXidMappings in DcgmHealthWatch.cpp). */
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
    {56, {DCGM_HEALTH_WATCH_POWER, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {57, {DCGM_HEALTH_WATCH_POWER, DCGM_FR_CLOCKS_EVENT_POWER, DCGM_HEALTH_RESULT_WARN}},
    {58, {DCGM_HEALTH_WATCH_POWER, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {60, {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_CLOCKS_EVENT_THERMAL, DCGM_HEALTH_RESULT_WARN}},
    {61, {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {62, {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {63, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_PENDING_PAGE_RETIREMENTS, DCGM_HEALTH_RESULT_WARN}},
    {64, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_ROW_REMAP_FAILURE, DCGM_HEALTH_RESULT_FAIL}},
    {67, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {73, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {74, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {78, {DCGM_HEALTH_WATCH_POWER, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {79, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_FALLEN_OFF_BUS, DCGM_HEALTH_RESULT_FAIL}},
    {94, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_CONTAINED_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {95, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_UNCONTAINED_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {119, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {120, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
    {121, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {137, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_WARN}},
    {140, {DCGM_HEALTH_WATCH_ALL, DCGM_FR_XID_ERROR, DCGM_HEALTH_RESULT_FAIL}},
};

#define XID_RULES (sizeof xid_rules / sizeof xid_rules[0])
_Static_assert(XID_RULES <= 32, "engine.health_xids has a bit for each rule");

/* Counters whose value above the bound is an incident. */
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
    {DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL, 511, {DCGM_HEALTH_WATCH_MEM, DCGM_FR_UNCORRECTABLE_ROW_REMAP_LIMIT, DCGM_HEALTH_RESULT_WARN}, "uncorrectable row remappings"},
    {DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_THRESHOLD, DCGM_HEALTH_RESULT_WARN}, "NVLink flit CRC errors"},
    {DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_THRESHOLD, DCGM_HEALTH_RESULT_WARN}, "NVLink data CRC errors"},
    {DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_CRITICAL, DCGM_HEALTH_RESULT_FAIL}, "NVLink replay errors"},
    {DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL, 0, {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_ERROR_CRITICAL, DCGM_HEALTH_RESULT_FAIL}, "NVLink recovery errors"},
};

/* Sets the base of the violation counters; earlier violations are not incidents. */
static void reset_violations(struct engine *e, struct group *g)
{
    g->health_since_us = node_now_us();
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        g->health_power_ns[i] = (int64_t)value_counter(e, (int)i, DCGM_FI_DEV_POWER_VIOLATION);
        g->health_thermal_ns[i] = (int64_t)value_counter(e, (int)i, DCGM_FI_DEV_THERMAL_VIOLATION);
    }
}

void health_take_xids_locked(struct engine *e)
{
    struct node_state *n = e->node;
    uint32_t systems = 0;
    for (int i = 0; i < DCGM_MAX_NUM_GROUPS; i++)
        systems |= e->groups[i].used ? e->groups[i].health_systems : 0;
    if (e->xid_seen - e->health_xid_seen > NODE_MAX_JOURNAL)
        e->health_xid_seen = e->xid_seen - NODE_MAX_JOURNAL;
    while (e->health_xid_seen < e->xid_seen) {
        node_lock(n);
        struct node_xid x = n->xid[++e->health_xid_seen % NODE_MAX_JOURNAL];
        uint32_t gpu = n->gpu[x.gpu].dcgm_id;
        node_unlock(n);
        if (x.where != NODE_XID_GPU || !(e->health_gpus >> gpu & 1))
            continue;
        for (size_t k = 0; k < XID_RULES; k++) {
            unsigned system = xid_rules[k].finding.system;
            if (xid_rules[k].xid == x.xid && (system == DCGM_HEALTH_WATCH_ALL || (system & systems)))
                e->health_xids[gpu] |= 1u << k;
        }
    }
}

dcgmReturn_t health_set(struct engine *e, uintptr_t group, uint32_t systems)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    watch_take_xids_locked(e);
    health_take_xids_locked(e);
    struct group *g = group_find_locked(e, group);
    if (g) {
        g->health_systems = systems;
        reset_violations(e, g);
        /* Only the checks of these systems watch XIDs, and they never stop. */
        for (uint32_t i = 0; (systems & (DCGM_HEALTH_WATCH_MEM | DCGM_HEALTH_WATCH_INFOROM)) && i < g->count; i++)
            if (g->entities[i].entityGroupId == DCGM_FE_GPU)
                e->health_gpus |= 1u << g->entities[i].entityId;
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

static void check_violations(struct engine *e, const struct group *g, int gpu, dcgmHealthResponse_t *out)
{
    const struct {
        unsigned field;
        int64_t before;
        struct finding finding;
        const char *what;
    } rules[] = {
        {DCGM_FI_DEV_THERMAL_VIOLATION, g->health_thermal_ns[gpu], {DCGM_HEALTH_WATCH_THERMAL, DCGM_FR_CLOCKS_EVENT_THERMAL, DCGM_HEALTH_RESULT_WARN}, "thermal"},
        {DCGM_FI_DEV_POWER_VIOLATION, g->health_power_ns[gpu], {DCGM_HEALTH_WATCH_POWER, DCGM_FR_CLOCKS_EVENT_POWER, DCGM_HEALTH_RESULT_WARN}, "power"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        char text[96];
        double ns = value_counter(e, gpu, rules[i].field) - (double)rules[i].before;
        if (!(g->health_systems & rules[i].finding.system) || ns <= 0)
            continue;
        snprintf(text, sizeof text, "GPU %u: %.0f ns of %s violation", e->snapshot.gpu[gpu].dcgm_id, ns, rules[i].what);
        report(out, &rules[i].finding, DCGM_FE_GPU, e->snapshot.gpu[gpu].dcgm_id, text);
    }
}

static void check_gpu(struct engine *e, const struct group *g, int gpu, dcgmHealthResponse_t *out)
{
    static const struct finding down = {DCGM_HEALTH_WATCH_NVLINK, DCGM_FR_NVLINK_DOWN, DCGM_HEALTH_RESULT_FAIL};
    static const struct finding recovery[] = {
        {0},
        {DCGM_HEALTH_WATCH_DRIVER, DCGM_FR_GPU_RECOVERY_RESET, DCGM_HEALTH_RESULT_FAIL},
        {DCGM_HEALTH_WATCH_DRIVER, DCGM_FR_GPU_RECOVERY_REBOOT, DCGM_HEALTH_RESULT_FAIL},
        {DCGM_HEALTH_WATCH_DRIVER, DCGM_FR_GPU_RECOVERY_DRAIN_P2P, DCGM_HEALTH_RESULT_WARN},
        {DCGM_HEALTH_WATCH_DRIVER, DCGM_FR_GPU_RECOVERY_DRAIN_RESET, DCGM_HEALTH_RESULT_FAIL},
    };
    char text[96];
    const struct node_gpu *x = &e->snapshot.gpu[gpu];
    for (uint32_t i = 0; (g->health_systems & DCGM_HEALTH_WATCH_NVLINK) && i < x->model.nvlinks; i++) {
        if (x->link[i].down == 0 || x->mig_enabled)
            continue;
        snprintf(text, sizeof text, "GPU %u: NVLink %u is down", x->dcgm_id, i);
        report(out, &down, DCGM_FE_GPU, x->dcgm_id, text);
    }
    if ((g->health_systems & DCGM_HEALTH_WATCH_DRIVER) && x->recovery_action > 0 && x->recovery_action < 5) {
        snprintf(text, sizeof text, "GPU %u: recovery action %u", x->dcgm_id, x->recovery_action);
        report(out, &recovery[x->recovery_action], DCGM_FE_GPU, x->dcgm_id, text);
    }
}

static void check_switch(struct engine *e, const struct group *g, uint32_t id, dcgmHealthResponse_t *out)
{
    static const struct finding fatal = {DCGM_HEALTH_WATCH_NVSWITCH_FATAL, DCGM_FR_NVSWITCH_FATAL_ERROR, DCGM_HEALTH_RESULT_FAIL},
                                non_fatal = {DCGM_HEALTH_WATCH_NVSWITCH_NONFATAL, DCGM_FR_NVSWITCH_NON_FATAL_ERROR,
                                             DCGM_HEALTH_RESULT_WARN},
                                down = {DCGM_HEALTH_WATCH_NVSWITCH_FATAL, DCGM_FR_NVLINK_DOWN, DCGM_HEALTH_RESULT_FAIL};
    char text[96];
    int64_t recent = e->snapshot.time_us - 60000000; /* DCGM considers the last minute */
    for (uint32_t i = 0; i < e->snapshot.switch_count; i++) {
        const struct node_switch *sw = &e->snapshot.nvswitch[i];
        if (sw->id != id)
            continue;
        if ((g->health_systems & fatal.system) && sw->fatal.at_us > recent) {
            snprintf(text, sizeof text, "NvSwitch %u: fatal SXid %u on link %u", id, sw->fatal.sxid, sw->fatal.port);
            report(out, &fatal, DCGM_FE_SWITCH, id, text);
        }
        if ((g->health_systems & non_fatal.system) && sw->non_fatal.at_us > recent) {
            snprintf(text, sizeof text, "NvSwitch %u: nonfatal SXid %u on link %u", id, sw->non_fatal.sxid, sw->non_fatal.port);
            report(out, &non_fatal, DCGM_FE_SWITCH, id, text);
        }
        for (uint32_t p = 0; (g->health_systems & down.system) && p < NODE_MAX_PORTS; p++) {
            if (!link_port_visible(&e->snapshot, &sw->port[p]) || link_port_up(&e->snapshot, &sw->port[p]))
                continue;
            snprintf(text, sizeof text, "NvSwitch %u: link %u is down", id, p);
            report(out, &down, DCGM_FE_SWITCH, id, text);
        }
    }
}

/* A CPU whose temperature or power reaches a threshold. */
static void check_cpu(struct engine *e, const struct group *g, uint32_t id, dcgmHealthResponse_t *out)
{
    static const struct {
        unsigned field, bound, system;
        dcgmHealthWatchResults_t health;
    } rules[] = {
        {DCGM_FI_DEV_CPU_TEMP_CELSIUS, DCGM_FI_DEV_CPU_TEMP_WARNING_CELSIUS, DCGM_HEALTH_WATCH_THERMAL, DCGM_HEALTH_RESULT_WARN},
        {DCGM_FI_DEV_CPU_TEMP_CELSIUS, DCGM_FI_DEV_CPU_TEMP_CRITICAL_CELSIUS, DCGM_HEALTH_WATCH_THERMAL, DCGM_HEALTH_RESULT_FAIL},
        {DCGM_FI_DEV_CPU_POWER_WATTS, DCGM_FI_DEV_CPU_POWER_LIMIT_WATTS, DCGM_HEALTH_WATCH_POWER, DCGM_HEALTH_RESULT_WARN},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct sample value, bound;
        char text[96];
        if (!(g->health_systems & rules[i].system) ||
            cpu_read(e, field_info(rules[i].field), DCGM_FE_CPU, id, NULL, &value) != READ_OK ||
            cpu_read(e, field_info(rules[i].bound), DCGM_FE_CPU, id, NULL, &bound) != READ_OK || value.v.dbl < bound.v.dbl)
            continue;
        snprintf(text, sizeof text, "CPU %u: %.1f exceeds the threshold %.1f", id, value.v.dbl, bound.v.dbl);
        report(out, &(struct finding){rules[i].system, DCGM_FR_FIELD_THRESHOLD_DBL, rules[i].health}, DCGM_FE_CPU, id, text);
    }
}

/* Results injected by the command health. */
static void check_injected(struct engine *e, const struct group *g, int group, uint32_t entity, dcgmHealthResponse_t *out)
{
    for (int i = 0; i < NODE_MAX_INCIDENTS; i++) {
        struct node_incident a;
        node_lock(e->node);
        a = e->node->incident[i];
        node_unlock(e->node);
        if (!a.present || !(g->health_systems & a.system))
            continue;
        int of = a.of == NODE_ENTITY_SWITCH ? DCGM_FE_SWITCH : a.of == NODE_ENTITY_CPU ? DCGM_FE_CPU : DCGM_FE_GPU;
        uint32_t id = a.of == NODE_ENTITY_SWITCH ? e->snapshot.nvswitch[a.position].id
                      : a.of == NODE_ENTITY_CPU  ? e->snapshot.cpu[a.position].id
                                             : e->snapshot.gpu[a.position].dcgm_id;
        if (of == group && id == entity)
            report(out, &(struct finding){a.system, a.code, (dcgmHealthWatchResults_t)a.result}, group, id, "injected by command");
    }
}

static void check_counters(struct engine *e, const struct group *g, int gpu, dcgmHealthResponse_t *out)
{
    char text[160];
    uint32_t id = e->snapshot.gpu[gpu].dcgm_id;
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
        snprintf(text, sizeof text, "GPU %u: the InfoROM is corrupt", id);
        report(out, &inforom, DCGM_FE_GPU, id, text);
    }
}

/*
 * The XIDs since the engine's first check: neither time, nor a new check, nor a reset of the GPU
 * removes them. DCGM finds those of all systems by the number of the entity alone, so that the
 * XIDs of GPU 3 are incidents of NVSwitch 3 and CPU 3 too.
 */
static void check_xids(struct engine *e, const struct group *g, int kind, uint32_t id, dcgmHealthResponse_t *out)
{
    for (size_t k = 0; id < NODE_MAX_GPUS && k < XID_RULES; k++) {
        const struct finding *f = &xid_rules[k].finding;
        if (!(e->health_xids[id] >> k & 1) || !(g->health_systems & f->system) ||
            (f->system != DCGM_HEALTH_WATCH_ALL && kind != DCGM_FE_GPU))
            continue;
        char text[96];
        snprintf(text, sizeof text, "GPU %u: XID %u", id, xid_rules[k].xid);
        report(out, f, kind, id, text);
    }
}

dcgmReturn_t health_check(struct engine *e, uintptr_t group, dcgmHealthResponse_t *out)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    watch_take_xids_locked(e);
    health_take_xids_locked(e);
    struct group *g = group_find_locked(e, group);
    out->overallHealth = DCGM_HEALTH_RESULT_PASS;
    out->incidentCount = 0;
    for (uint32_t i = 0; g && i < g->count; i++) {
        struct location at;
        int kind = (int)g->entities[i].entityGroupId;
        uint32_t id = g->entities[i].entityId;
        if (kind == DCGM_FE_GPU && snapshot_locate(&e->snapshot, DCGM_FE_GPU, id, &at)) {
            if (e->snapshot.gpu[at.gpu].lost || e->snapshot.gpu[at.gpu].detached)
                continue; /* DCGM checks the active entities of the group */
            check_counters(e, g, at.gpu, out);
            check_violations(e, g, at.gpu, out);
            check_gpu(e, g, at.gpu, out);
        }
        if (kind == DCGM_FE_SWITCH)
            check_switch(e, g, id, out);
        if (kind == DCGM_FE_CPU)
            check_cpu(e, g, id, out);
        check_injected(e, g, kind, id, out);
        check_xids(e, g, kind, id, out);
    }
    if (g && e->snapshot.time_us - g->health_since_us > 60000000) /* DCGM compares with the values of a minute ago */
        reset_violations(e, g);
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}
