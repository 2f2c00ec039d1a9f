/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands on the condition of the hardware: clocks, heat, memory errors, fabric, health, profiling. */
#include "command/handlers.h"
#include "node/links.h"
#include "node/load.h"

#include <string.h>

/* DCGM's numbers, because this layer does not include its headers. */
#define PROFILING_LIBRARY_ERROR (-37) /* DCGM_ST_PROFILING_LIBRARY_ERROR */
#define GENERIC_ERROR (-3)            /* DCGM_ST_GENERIC_ERROR */

enum command_result handle_reason(struct request *r)
{
    /* by bit of enum node_reason */
    static const char *const names[] = {"gpu_idle",   "clocks_setting", "power_cap",      "hw_slowdown",    "sync_boost",
                                        "sw_thermal", "hw_thermal",     "hw_power_brake", "display_clocks", NULL};
    static const char *const states[] = {"on", "off", "auto", NULL};
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    int state = r->count == 5 ? choice(r->word[4], states) : -1, name = choice(word_at(r, 3), names);
    if (state < 0)
        return COMMAND_USAGE;
    if (name < 0)
        return answer_error(r, "unknown reason %s: use gpu_idle, clocks_setting, power_cap, hw_slowdown, sync_boost, sw_thermal, "
                               "hw_thermal, hw_power_brake or display_clocks", r->word[3]);
    node_lock(n);
    struct node_gpu *g = &n->gpu[gpu];
    uint64_t bit = UINT64_C(1) << name;
    node_advance_throttle(g, n->boot_us, node_now_us());
    g->reasons_on = state == 0 ? g->reasons_on | bit : g->reasons_on & ~bit;
    g->reasons_off = state == 1 ? g->reasons_off | bit : g->reasons_off & ~bit;
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_heat(struct request *r)
{
    struct node_state *n = r->node;
    struct request_target target;
    long degrees;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_SWITCH | TARGET_CPU, &target))
        return COMMAND_FAILED;
    if (r->count != 4 || !parse_number(r->word[3], -100, 200, &degrees))
        return COMMAND_USAGE;
    node_lock(n);
    if (target.kind == NODE_ENTITY_SWITCH) {
        n->nvswitch[target.position].heat_c = (double)degrees;
    } else if (target.kind == NODE_ENTITY_CPU) {
        n->cpu[target.position].heat_c = (double)degrees;
    } else {
        node_advance_throttle(&n->gpu[target.position], n->boot_us, node_now_us());
        n->gpu[target.position].heat_c = (double)degrees;
    }
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_ecc(struct request *r)
{
    static const char *const kinds[] = {"sbe", "dbe", NULL};
    static const char *const locations[] = {"device", "sram", "l1", "l2", "register", "texture", "shared", "cbu", NULL};
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    long more;
    int kind = choice(word_at(r, 3), kinds), where = r->count == 6 ? choice(r->word[5], locations) : NODE_ECC_DEVICE;
    if (kind < 0 || where < 0 || r->count > 6 || !parse_number(word_at(r, 4), 1, 1000000000, &more))
        return COMMAND_USAGE;
    struct node_gpu *g = &n->gpu[gpu];
    if (!g->model.has_ecc)
        return answer_error(r, "%s has no ECC", g->model.name);
    node_lock(n);
    g->ecc_volatile[kind][where] += (uint64_t)more;
    g->ecc_aggregate[kind][where] += (uint64_t)more;
    if (where > NODE_ECC_SRAM) { /* these memories are SRAM */
        g->ecc_volatile[kind][NODE_ECC_SRAM] += (uint64_t)more;
        g->ecc_aggregate[kind][NODE_ECC_SRAM] += (uint64_t)more;
    }
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

/* remap and retire: counters of repaired memory, and flags */
enum command_result handle_repair(struct request *r)
{
    static const struct {
        const char *name, *what;
        size_t counter, flag; /* member of struct node_gpu; 0 if it is the other kind */
    } repairs[] = {
        {"remap", "correctable", offsetof(struct node_gpu, remap_correctable), 0},
        {"remap", "uncorrectable", offsetof(struct node_gpu, remap_uncorrectable), 0},
        {"remap", "pending", 0, offsetof(struct node_gpu, remap_pending)},
        {"remap", "failure", 0, offsetof(struct node_gpu, remap_failed)},
        {"retire", "sbe", offsetof(struct node_gpu, retired_sbe), 0},
        {"retire", "dbe", offsetof(struct node_gpu, retired_dbe), 0},
        {"retire", "pending", 0, offsetof(struct node_gpu, retired_pending)},
    };
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    struct node_gpu *g = &n->gpu[gpu];
    bool remap = strcmp(r->word[0], "remap") == 0;
    for (size_t i = 0; r->count == 5 && i < sizeof repairs / sizeof repairs[0]; i++) {
        long v;
        if (strcmp(repairs[i].name, r->word[0]) != 0 || strcmp(repairs[i].what, r->word[3]) != 0)
            continue;
        if (!parse_number(r->word[4], 0, repairs[i].counter ? 1000000 : 1, &v))
            break;
        if (remap && !g->model.has_remap)
            return answer_error(r, "%s does not remap rows", g->model.name);
        if (!remap && (!g->model.has_ecc || g->model.has_remap))
            return answer_error(r, "%s does not retire pages", g->model.name);
        node_lock(n);
        if (repairs[i].counter)
            *(uint64_t *)(void *)((char *)g + repairs[i].counter) += (uint64_t)v;
        else
            *(bool *)(void *)((char *)g + repairs[i].flag) = v == 1;
        mark_changed(n);
        node_unlock(n);
        return answer_done(r);
    }
    return COMMAND_USAGE;
}

enum command_result handle_recovery(struct request *r)
{
    /* NVML_GPU_RECOVERY_ACTION_* */
    static const char *const actions[] = {"none", "reset", "reboot", "drain-p2p", "drain-and-reset", NULL};
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    int action = r->count == 4 ? choice(r->word[3], actions) : -1;
    if (action < 0)
        return COMMAND_USAGE;
    node_lock(n);
    n->gpu[gpu].recovery_action = (uint32_t)action;
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_fabric(struct request *r)
{
    /* enum node_fabric_status */
    static const char *const states[] = {"unsupported", "not-started", "in-progress", "success", "failure", NULL};
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    int state = r->count == 4 || r->count == 5 ? choice(r->word[3], states) : -1;
    long code = GENERIC_ERROR;
    if (state < 0 || (r->count == 5 && (state != NODE_FABRIC_FAILURE || !parse_number(r->word[4], -100, 100, &code))))
        return COMMAND_USAGE;
    node_lock(n);
    n->gpu[gpu].fabric_status = (uint32_t)state;
    n->gpu[gpu].fabric_error = state == NODE_FABRIC_FAILURE ? (int32_t)code : 0;
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

/* The incident slot of a system of an entity; a free slot if there is none; NULL if all are in use. */
static struct node_incident *find_incident(struct node_state *n, const struct request_target *target, uint32_t system)
{
    struct node_incident *empty = NULL;
    for (int i = 0; i < NODE_MAX_INCIDENTS; i++) {
        struct node_incident *a = &n->incident[i];
        if (a->present && a->of == target->kind && a->position == (uint32_t)target->position && a->system == system)
            return a;
        if (!a->present && !empty)
            empty = a;
    }
    return empty;
}

enum command_result handle_health(struct request *r)
{
    /* bit of DCGM_HEALTH_WATCH_*, and the code (DCGM_FR_*) that DCGM reports for the system */
    static const struct {
        const char *name;
        uint32_t bit, code;
    } systems[] = {
        {"pcie", 0, 3},      {"nvlink", 1, 13},    {"pmu", 2, 1},
        {"mcu", 3, 1},       {"memory", 4, 4},     {"mem", 4, 4},
        {"sm", 5, 1},        {"inforom", 6, 9},    {"thermal", 7, 10},
        {"power", 8, 12},    {"driver", 9, 125},   {"nvswitch-nonfatal", 10, 16},
        {"connectx", 12, 1}, {"imex", 13, 1},      {"nvswitch-fatal", 11, 15},
    };
    static const char *const results[] = {"pass", "warn", "fail", NULL};
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_SWITCH | TARGET_CPU, &target))
        return COMMAND_FAILED;
    int result = r->count == 5 || r->count == 6 ? choice(r->word[4], results) : -1;
    if (result < 0)
        return COMMAND_USAGE;
    size_t s = 0;
    while (s < sizeof systems / sizeof systems[0] && strcmp(systems[s].name, r->word[3]) != 0)
        s++;
    if (s == sizeof systems / sizeof systems[0])
        return answer_error(r, "unknown system %s: use pcie, nvlink, pmu, mcu, memory, sm, inforom, thermal, power, driver, "
                               "nvswitch-nonfatal, nvswitch-fatal, connectx or imex", r->word[3]);
    long code = systems[s].code;
    if (r->count == 6 && !parse_number(r->word[5], 0, 1000, &code))
        return COMMAND_USAGE;
    uint32_t system = UINT32_C(1) << systems[s].bit;
    node_lock(n);
    struct node_incident *a = find_incident(n, &target, system);
    if (a)
        *a = (struct node_incident){.present = result > 0,
                                   .of = (uint8_t)target.kind,
                                   .position = (uint32_t)target.position,
                                   .system = system,
                                   .result = (uint32_t)result * 10, /* DCGM_HEALTH_RESULT_* */
                                   .code = (uint32_t)code};
    mark_changed(n);
    node_unlock(n);
    return a || result == 0 ? answer_done(r) : answer_error(r, "more than %d health results", NODE_MAX_INCIDENTS);
}

enum command_result handle_profiling(struct request *r)
{
    static const char *const modes[] = {"ok", "frozen", "zero", "stalled", "locked", NULL}; /* enum node_profiling */
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_ALL, &target))
        return COMMAND_FAILED;
    int mode = r->count == 4 || r->count == 5 ? choice(r->word[3], modes) : -1;
    bool permanent = r->count == 5 && strcmp(r->word[4], "for-good") == 0;
    long code = PROFILING_LIBRARY_ERROR;
    bool valid = mode >= 0 && (r->count == 4 || (permanent && mode >= NODE_PROFILING_FROZEN && mode <= NODE_PROFILING_STALLED) ||
                               (mode == NODE_PROFILING_LOCKED && parse_number(r->word[4], -100, -1, &code)));
    if (!valid)
        return COMMAND_USAGE;
    node_lock(n);
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        struct node_gpu *g = &n->gpu[i];
        if (target.position >= 0 && (uint32_t)target.position != i)
            continue;
        g->profiling_mode = (uint32_t)mode;
        g->profiling_permanent = permanent;
        g->profiling_code = (int32_t)code;
        g->profiling_since_us = node_now_us();
        g->profiling_load = g->load;
        g->profiling_seq++;
    }
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

void conditions_clear(struct node_state *n)
{
    int64_t now = node_now_us();
    for (uint32_t i = 0; i < n->switch_count; i++) {
        struct node_switch *sw = &n->nvswitch[i];
        node_set_switch(n, i, false);
        sw->heat_c = 0;
        memset(&sw->fatal, 0, sizeof sw->fatal);
        memset(&sw->non_fatal, 0, sizeof sw->non_fatal);
        for (int p = 0; p < NODE_MAX_PORTS; p++)
            if (sw->port[p].kind == NODE_PORT_TRUNK)
                node_set_link(&sw->port[p].link, &n->gpu[sw->port[p].gpu], n->boot_us, now, NODE_LINK_DOWN_BY_COMMAND, false);
    }
    for (uint32_t i = 0; i < n->cpu_count; i++)
        n->cpu[i].heat_c = 0;
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        struct node_gpu *g = &n->gpu[i];
        node_advance_throttle(g, n->boot_us, now);
        for (int k = 0; k < NODE_MAX_LINKS; k++)
            node_set_link(&g->link[k], g, n->boot_us, now, NODE_LINK_DOWN_BY_COMMAND, false);
        g->reasons_on = g->reasons_off = 0;
        g->heat_c = 0;
        g->remap_pending = g->remap_failed = g->retired_pending = false;
        g->recovery_action = 0;
        g->fabric_status = NODE_FABRIC_SUCCESS;
        g->fabric_error = 0;
        g->profiling_mode = NODE_PROFILING_OK;
        g->profiling_seq++;
    }
    memset(n->incident, 0, sizeof n->incident);
    mark_changed(n);
}
