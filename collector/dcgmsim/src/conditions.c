/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands that set what is wrong with the hardware: links, switches, clocks, memory, fabric, health, profiling. */
#define _GNU_SOURCE
#include "command.h"

#include <string.h>

/* Statuses and sentinels of DCGM, which this half of the stand-in does not include. */
#define PROFILING_LIBRARY_ERROR (-37)
#define FABRIC_SUCCESS 3

static void changed(struct node_state *n)
{
    atomic_fetch_add(&n->generation, 1);
}

#define LINK_USAGE "link gpu I|switch S port P down|up, or link gpu I|switch S port P error replay|recovery|flit|crc|ecc N"

int command_link(struct request *r)
{
    static const char *const errors[] = {"replay", "recovery", "flit", "crc", "ecc", NULL};
    static const char *const states[] = {"up", "down", NULL};
    struct node_state *n = r->node;
    bool of_switch = option(r, 1, "switch") != NULL;
    int at = of_switch ? switch_of(r, 1) : gpu_of(r, 1, false);
    if (at < 0)
        return -1;
    const char *p = option(r, 1, "port"), *error = option(r, 1, "error");
    int kind = error ? choice(error, errors) : -1, state = choice(r->word[r->count - 1], states);
    long port, more = 0;
    if (!p || number(p, 0, NODE_MAX_PORTS - 1, &port) != 0 || (error ? kind < 0 : state < 0) ||
        (error && number(r->word[r->count - 1], 1, 1000000000, &more) != 0))
        return bad(r, LINK_USAGE);
    if (of_switch ? n->nvswitch[at].port[port].kind == NODE_PORT_UNUSED : port >= (long)n->gpu[at].model.nvlinks)
        return bad(r, "%s %s has no link at port %s", of_switch ? "switch" : "GPU", option(r, 1, of_switch ? "switch" : "gpu"), p);
    node_lock(n);
    struct node_port *end = of_switch ? &n->nvswitch[at].port[port] : NULL;
    struct node_link *link = end ? node_port_link(n, end) : &n->gpu[at].link[port];
    if (error)
        link->error[kind] += (uint64_t)more;
    else
        node_set_link(link, &n->gpu[end ? end->gpu : at], n->boot_us, node_now_us(), NODE_LINK_BY_COMMAND, state == 1);
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* switch S lost|back */
int command_switch_state(struct request *r)
{
    static const char *const states[] = {"back", "lost", NULL};
    int at = switch_of(r, 0), state = r->count == 3 ? choice(r->word[2], states) : -1;
    if (at < 0)
        return -1;
    if (state < 0)
        return bad(r, "switch S lost|back");
    node_lock(r->node);
    node_set_switch(r->node, (uint32_t)at, state == 1);
    node_unlock(r->node);
    return ok(r, "%s", "");
}

/* sxid N switch S [port P] fatal|nonfatal */
int command_sxid(struct request *r)
{
    static const char *const kinds[] = {"fatal", "nonfatal", NULL};
    struct node_state *n = r->node;
    int at = switch_of(r, 1);
    if (at < 0)
        return -1;
    long sxid, port = 0;
    const char *p = option(r, 1, "port");
    int kind = choice(r->word[r->count - 1], kinds);
    if (number(r->word[1], 1, 1000000, &sxid) != 0 || kind < 0 || (p && number(p, 0, NODE_MAX_PORTS - 1, &port) != 0))
        return bad(r, "sxid N switch S [port P] fatal|nonfatal");
    node_lock(n);
    struct node_switch *sw = &n->nvswitch[at];
    if (kind == 0) {
        sw->fatal.sxid = (uint32_t)sxid;
        sw->fatal.port = (uint32_t)port;
        sw->fatal.at_us = node_now_us();
    } else {
        sw->non_fatal.sxid = (uint32_t)sxid;
        sw->non_fatal.port = (uint32_t)port;
        sw->non_fatal.at_us = node_now_us();
    }
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* reason gpu I NAME on|off|auto */
int command_reason(struct request *r)
{
    static const char *const names[] = {"gpu_idle",   "clocks_setting", "power_cap",      "hw_slowdown",    "sync_boost",
                                        "sw_thermal", "hw_thermal",     "hw_power_brake", "display_clocks", NULL};
    static const char *const states[] = {"on", "off", "auto", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    int name = r->count == 5 ? choice(r->word[3], names) : -1, state = r->count == 5 ? choice(r->word[4], states) : -1;
    if (name < 0 || state < 0)
        return bad(r, "reason gpu I gpu_idle|clocks_setting|power_cap|hw_slowdown|sync_boost|sw_thermal|hw_thermal|"
                      "hw_power_brake|display_clocks on|off|auto");
    node_lock(n);
    struct node_gpu *g = &n->gpu[gpu];
    uint64_t bit = UINT64_C(1) << name;
    node_advance_throttle(g, n->boot_us, node_now_us());
    g->reasons_on = state == 0 ? g->reasons_on | bit : g->reasons_on & ~bit;
    g->reasons_off = state == 1 ? g->reasons_off | bit : g->reasons_off & ~bit;
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* heat gpu I|switch S|cpu C DEGREES */
int command_heat(struct request *r)
{
    struct node_state *n = r->node;
    bool of_switch = option(r, 1, "switch") != NULL, of_cpu = option(r, 1, "cpu") != NULL;
    int at = of_switch ? switch_of(r, 1) : of_cpu ? cpu_of(r, 1) : gpu_of(r, 1, false);
    long degrees;
    if (at < 0)
        return -1;
    if (r->count != 4 || number(r->word[3], -100, 200, &degrees) != 0)
        return bad(r, "heat gpu I|switch S|cpu C DEGREES");
    node_lock(n);
    if (of_switch) {
        n->nvswitch[at].heat_c = (double)degrees;
    } else if (of_cpu) {
        n->cpu[at].heat_c = (double)degrees;
    } else {
        node_advance_throttle(&n->gpu[at], n->boot_us, node_now_us());
        n->gpu[at].heat_c = (double)degrees;
    }
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* ecc gpu I sbe|dbe N [LOCATION] */
int command_ecc(struct request *r)
{
    static const char *const kinds[] = {"sbe", "dbe", NULL};
    static const char *const locations[] = {"device", "sram", "l1", "l2", "register", "texture", "shared", "cbu", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    long more;
    int kind = r->count >= 5 ? choice(r->word[3], kinds) : -1, where = r->count == 6 ? choice(r->word[5], locations) : 0;
    if (kind < 0 || where < 0 || r->count > 6 || number(r->word[4], 1, 1000000000, &more) != 0)
        return bad(r, "ecc gpu I sbe|dbe N [device|sram|l1|l2|register|texture|shared|cbu]");
    if (!n->gpu[gpu].model.has_ecc)
        return bad(r, "%s has no ECC", n->gpu[gpu].model.name);
    node_lock(n);
    struct node_gpu *g = &n->gpu[gpu];
    g->ecc_volatile[kind][where] += (uint64_t)more;
    g->ecc_aggregate[kind][where] += (uint64_t)more;
    if (where > NODE_ECC_SRAM) { /* those memories are SRAM */
        g->ecc_volatile[kind][NODE_ECC_SRAM] += (uint64_t)more;
        g->ecc_aggregate[kind][NODE_ECC_SRAM] += (uint64_t)more;
    }
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* remap gpu I correctable|uncorrectable|pending|failure N, for models that remap rows */
int command_remap(struct request *r)
{
    static const char *const kinds[] = {"correctable", "uncorrectable", "pending", "failure", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    long v;
    int kind = r->count == 5 ? choice(r->word[3], kinds) : -1;
    if (kind < 0 || number(r->word[4], 0, kind < 2 ? 1000000 : 1, &v) != 0)
        return bad(r, "remap gpu I correctable|uncorrectable N, or remap gpu I pending|failure 0|1");
    struct node_gpu *g = &n->gpu[gpu];
    if (!g->model.has_remap)
        return bad(r, "%s remaps no rows", g->model.name);
    node_lock(n);
    if (kind == 0)
        g->remap_correctable += (uint64_t)v;
    else if (kind == 1)
        g->remap_uncorrectable += (uint64_t)v;
    else if (kind == 2)
        g->remap_pending = v == 1;
    else
        g->remap_failed = v == 1;
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* retire gpu I sbe|dbe N, or pending 0|1, for models that retire pages */
int command_retire(struct request *r)
{
    static const char *const kinds[] = {"sbe", "dbe", "pending", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    long v;
    int kind = r->count == 5 ? choice(r->word[3], kinds) : -1;
    if (kind < 0 || number(r->word[4], 0, kind < 2 ? 1000000 : 1, &v) != 0)
        return bad(r, "retire gpu I sbe|dbe N, or retire gpu I pending 0|1");
    struct node_gpu *g = &n->gpu[gpu];
    if (!g->model.has_ecc || g->model.has_remap)
        return bad(r, "%s retires no pages", g->model.name);
    node_lock(n);
    if (kind == 0)
        g->retired_sbe += (uint64_t)v;
    else if (kind == 1)
        g->retired_dbe += (uint64_t)v;
    else
        g->retired_pending = v == 1;
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* recovery gpu I none|reset|reboot|drain-p2p|drain-and-reset */
int command_recovery(struct request *r)
{
    static const char *const actions[] = {"none", "reset", "reboot", "drain-p2p", "drain-and-reset", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    int action = r->count == 4 ? choice(r->word[3], actions) : -1;
    if (action < 0)
        return bad(r, "recovery gpu I none|reset|reboot|drain-p2p|drain-and-reset");
    node_lock(n);
    n->gpu[gpu].recovery_action = (uint32_t)action;
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* fabric gpu I unsupported|not-started|in-progress|success|failure [CODE] */
int command_fabric(struct request *r)
{
    static const char *const states[] = {"unsupported", "not-started", "in-progress", "success", "failure", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    int state = r->count == 4 || r->count == 5 ? choice(r->word[3], states) : -1;
    long code = -3; /* DCGM_ST_GENERIC_ERROR */
    if (state < 0 || (r->count == 5 && (state != 4 || number(r->word[4], -100, 100, &code) != 0)))
        return bad(r, "fabric gpu I unsupported|not-started|in-progress|success, or fabric gpu I failure [CODE]");
    node_lock(n);
    n->gpu[gpu].fabric_status = (uint32_t)state;
    n->gpu[gpu].fabric_error = state == 4 ? (int32_t)code : 0;
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
}

/* health gpu I|switch S|cpu C SYSTEM pass|warn|fail [CODE] */
int command_health(struct request *r)
{
    static const char *const systems[] = {"pcie",    "nvlink",  "pmu",    "mcu",    "memory",
                                          "sm",      "inforom", "thermal", "power", "driver",
                                          "nvswitch-nonfatal", "nvswitch-fatal", "connectx", "imex", NULL};
    /* what DCGM itself reports of such a system, DCGM_FR_* */
    static const uint32_t codes[] = {3, 13, 1, 1, 4, 1, 9, 10, 12, 125, 16, 15, 1, 1};
    static const char *const results[] = {"pass", "warn", "fail", NULL};
    struct node_state *n = r->node;
    bool of_switch = option(r, 1, "switch") != NULL, of_cpu = option(r, 1, "cpu") != NULL;
    int at = of_switch ? switch_of(r, 1) : of_cpu ? cpu_of(r, 1) : gpu_of(r, 1, false);
    if (at < 0)
        return -1;
    bool sized = r->count == 5 || r->count == 6;
    int system = sized ? choice(r->word[3], systems) : -1, result = sized ? choice(r->word[4], results) : -1;
    if (sized && strcmp(r->word[3], "mem") == 0)
        system = 4;
    long code = system >= 0 ? (long)codes[system] : 0;
    if (system < 0 || result < 0 || (r->count == 6 && number(r->word[5], 0, 1000, &code) != 0))
        return bad(r, "health gpu I|switch S|cpu C SYSTEM pass|warn|fail [CODE], SYSTEM being pcie, nvlink, pmu, mcu, "
                      "memory, sm, inforom, thermal, power, driver, nvswitch-nonfatal, nvswitch-fatal, connectx or imex");
    uint8_t of = of_switch ? NODE_OF_SWITCH : of_cpu ? NODE_OF_CPU : NODE_OF_GPU;
    node_lock(n);
    struct node_ailment *a = NULL;
    for (int i = 0; i < NODE_MAX_AILMENTS && !a; i++)
        if (n->ailment[i].present && n->ailment[i].of == of && n->ailment[i].position == (uint32_t)at &&
            n->ailment[i].system == UINT32_C(1) << system)
            a = &n->ailment[i];
    for (int i = 0; i < NODE_MAX_AILMENTS && !a && result > 0; i++)
        if (!n->ailment[i].present)
            a = &n->ailment[i];
    if (a)
        *a = (struct node_ailment){.present = result > 0, .of = of, .position = (uint32_t)at, .system = UINT32_C(1) << system,
                                   .result = (uint32_t)result * 10, .code = (uint32_t)code};
    changed(n);
    node_unlock(n);
    return a || result == 0 ? ok(r, "%s", "") : bad(r, "more than %d of them", NODE_MAX_AILMENTS);
}

/* profiling gpu I frozen|zero|stalled [for-good], or locked [CODE], or ok */
int command_profiling(struct request *r)
{
    static const char *const modes[] = {"ok", "frozen", "zero", "stalled", "locked", NULL};
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, true);
    if (gpu < -1)
        return -1;
    int mode = r->count == 4 || r->count == 5 ? choice(r->word[3], modes) : -1;
    bool for_good = r->count == 5 && strcmp(r->word[4], "for-good") == 0;
    long code = PROFILING_LIBRARY_ERROR;
    bool good = mode >= 0 && (r->count == 4 || (for_good && mode >= NODE_PROFILING_FROZEN && mode <= NODE_PROFILING_STALLED) ||
                              (mode == NODE_PROFILING_LOCKED && number(r->word[4], -100, -1, &code) == 0));
    if (!good)
        return bad(r, "profiling gpu I|all frozen|zero|stalled [for-good], or profiling gpu I|all locked [CODE]|ok");
    node_lock(n);
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        struct node_gpu *g = &n->gpu[i];
        if (gpu >= 0 && (uint32_t)gpu != i)
            continue;
        g->profiling_mode = (uint32_t)mode;
        g->profiling_for_good = for_good;
        g->profiling_code = (int32_t)code;
        g->profiling_since_us = node_now_us();
        g->profiling_load = g->load;
        g->profiling_seq++;
    }
    changed(n);
    node_unlock(n);
    return ok(r, "%s", "");
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
                node_set_link(&sw->port[p].link, &n->gpu[sw->port[p].gpu], n->boot_us, now, NODE_LINK_BY_COMMAND, false);
    }
    for (uint32_t i = 0; i < n->cpu_count; i++)
        n->cpu[i].heat_c = 0;
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        struct node_gpu *g = &n->gpu[i];
        node_advance_throttle(g, n->boot_us, now);
        for (int k = 0; k < NODE_MAX_LINKS; k++)
            node_set_link(&g->link[k], g, n->boot_us, now, NODE_LINK_BY_COMMAND, false);
        g->reasons_on = g->reasons_off = 0;
        g->heat_c = 0;
        g->remap_pending = g->remap_failed = g->retired_pending = false;
        g->recovery_action = 0;
        g->fabric_status = FABRIC_SUCCESS;
        g->fabric_error = 0;
        g->profiling_mode = NODE_PROFILING_OK;
        g->profiling_seq++;
    }
    memset(n->ailment, 0, sizeof n->ailment);
    changed(n);
}
