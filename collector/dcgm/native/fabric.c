/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

#define _GNU_SOURCE
#include "fabric.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINK 6
#define CPU 7
#define CORE 8
#define CHECK_MS 900   /* between two lists; below 1 s so that a 1 s timer never skips one */
#define SLOW_CHECKS 60 /* CPUs and ConnectX devices only change with a reboot: every 60th list */

struct fabric {
    struct native *n;
    uint32_t kinds;
    int (*link_status)(uintptr_t, void *);
    int (*cpu_hierarchy)(uintptr_t, struct abi_cpu_hierarchy *);
    int has_switches;    /* the newest list, confirmed or not */
    int switches_listed; /* at least once */
    int old_links; /* the library only knows dcgmNvLinkStatus_v4 */
    int64_t checked_ms;
    uint32_t checks;
    struct fabric_topology current, next, again;
    union {
        struct abi_link_status v5;
        struct abi_link_status_v4 v4;
    } status;
    struct abi_cpu_hierarchy hierarchy;
};

struct fabric *fabric_open(struct native *n, uint32_t kinds)
{
    struct fabric *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->n = n;
    f->kinds = kinds;
    native_find(n, "dcgmGetNvLinkLinkStatus", &f->link_status);
    native_find(n, "dcgmGetCpuHierarchy", &f->cpu_hierarchy);
    return f;
}

static int wants(const struct fabric *f, uint32_t kind)
{
    return (f->kinds >> kind) & 1;
}

const struct fabric_topology *fabric_current(const struct fabric *f)
{
    return &f->current;
}

int fabric_switches_listed(const struct fabric *f)
{
    return f && f->switches_listed;
}

/* On failure *ids keeps the last list. */
static int list_ids(struct fabric *f, uint32_t kind, struct fabric_ids *ids)
{
    struct fabric_ids now = { 0 };
    int count;
    if (!wants(f, kind))
        return ABI_OK;
    int rc = native_list(f->n, kind, 0, now.ids, FABRIC_MAX_IDS, &count);
    if (native_lost(rc))
        return rc;
    if (rc == ABI_OK) {
        now.count = (uint32_t)count;
        *ids = now;
        f->has_switches = f->has_switches || kind == ABI_KIND_SWITCH;
    }
    return ABI_OK;
}

static void add_links(struct fabric_topology *t, uint32_t kind, uint32_t id, const int32_t *states, uint32_t count)
{
    for (uint32_t port = 0; port < count; port++) {
        /* The state of a missing port is "not supported" on a GPU, and also "disabled" on a switch. */
        if (states[port] == ABI_LINK_NOT_SUPPORTED || (kind == ABI_KIND_SWITCH && states[port] == ABI_LINK_DISABLED))
            continue;
        if (t->link_count == FABRIC_MAX_LINKS)
            return;
        t->links[t->link_count++] = (struct fabric_link) { kind, id, port, states[port] };
    }
}

static int read_links(struct fabric *f)
{
    if (!f->old_links) {
        memset(&f->status, 0, sizeof(f->status));
        f->status.v5.version = ABI_LINK_STATUS_VERSION;
        int rc = f->link_status(f->n->handle, &f->status.v5);
        if (rc != ABI_VERSION_MISMATCH)
            return rc;
    }
    memset(&f->status, 0, sizeof(f->status));
    f->status.v4.version = ABI_LINK_STATUS_VERSION_V4;
    int rc = f->link_status(f->n->handle, &f->status.v4);
    f->old_links = rc == ABI_OK;
    return rc;
}

static int list_links(struct fabric *f, struct fabric_topology *t)
{
    if (!wants(f, LINK))
        return ABI_OK;
    if (!f->link_status)
        return ABI_GENERIC_ERROR;
    int rc = read_links(f);
    if (rc != ABI_OK)
        return rc;
    t->link_count = 0;
    const struct abi_switch_links *switches = f->old_links ? f->status.v4.switches : f->status.v5.switches;
    uint32_t gpus = f->status.v5.gpu_count; /* same offset in both versions */
    uint32_t switch_count = f->old_links ? f->status.v4.switch_count : f->status.v5.switch_count;
    for (uint32_t i = 0; i < gpus && i < ABI_MAX_GPUS; i++)
        if (f->old_links)
            add_links(t, ABI_KIND_GPU, f->status.v4.gpus[i].id, f->status.v4.gpus[i].state, ABI_GPU_LINKS_V4);
        else
            add_links(t, ABI_KIND_GPU, f->status.v5.gpus[i].id, f->status.v5.gpus[i].state, ABI_GPU_LINKS);
    for (uint32_t i = 0; i < switch_count && i < ABI_MAX_SWITCHES; i++)
        add_links(t, ABI_KIND_SWITCH, switches[i].id, switches[i].state, ABI_SWITCH_LINKS);
    return ABI_OK;
}

static int list_cpus(struct fabric *f, struct fabric_topology *t)
{
    if ((!wants(f, CPU) && !wants(f, CORE)) || !f->cpu_hierarchy)
        return ABI_OK;
    struct abi_cpu_hierarchy *h = &f->hierarchy;
    memset(h, 0, sizeof(*h));
    h->version = ABI_CPU_HIERARCHY_VERSION;
    int rc = f->cpu_hierarchy(f->n->handle, h);
    if (native_lost(rc))
        return rc;
    if (rc != ABI_OK || h->count > ABI_MAX_CPUS) /* no such CPUs, or a temporary error */
        return ABI_OK;
    t->cpu_count = h->count;
    for (uint32_t i = 0; i < h->count; i++) {
        t->cpus[i].id = h->cpus[i].id;
        memcpy(t->cpus[i].cores, h->cpus[i].cores.bits, sizeof(t->cpus[i].cores));
    }
    return ABI_OK;
}

/* Copies only the used part: the array of links is large. */
static void copy(struct fabric_topology *to, const struct fabric_topology *from)
{
    to->switches = from->switches;
    to->connectx = from->connectx;
    to->link_count = from->link_count;
    to->cpu_count = from->cpu_count;
    memcpy(to->links, from->links, from->link_count * sizeof(from->links[0]));
    memcpy(to->cpus, from->cpus, from->cpu_count * sizeof(from->cpus[0]));
}

static int equal(const struct fabric_topology *a, const struct fabric_topology *b)
{
    return !memcmp(&a->switches, &b->switches, sizeof(a->switches)) &&
           !memcmp(&a->connectx, &b->connectx, sizeof(a->connectx)) &&
           a->link_count == b->link_count &&
           a->cpu_count == b->cpu_count && !memcmp(a->links, b->links, a->link_count * sizeof(a->links[0])) &&
           !memcmp(a->cpus, b->cpus, a->cpu_count * sizeof(a->cpus[0]));
}

/* Lists everything into t, which starts as the current topology. */
static int list_all(struct fabric *f, struct fabric_topology *t, int *links)
{
    copy(t, &f->current);
    f->has_switches = 0;
    int rc = list_ids(f, ABI_KIND_SWITCH, &t->switches);
    if (rc != ABI_OK)
        return rc;
    *links = list_links(f, t);
    if (native_lost(*links))
        return *links;
    if (f->checks % SLOW_CHECKS == 0 && (rc = list_ids(f, ABI_KIND_CONNECTX, &t->connectx)) == ABI_OK)
        rc = list_cpus(f, t);
    return rc;
}

int fabric_check(struct fabric *f, int *changed, int *links)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    *changed = 0;
    *links = FABRIC_NOT_LISTED;
    if (!f)
        return ABI_GENERIC_ERROR;
    if (!f->kinds || (f->checks && ms - f->checked_ms < CHECK_MS))
        return ABI_OK;
    f->checked_ms = ms;
    int first, second;
    int rc = list_all(f, &f->next, &first);
    if (rc != ABI_OK)
        return rc;
    if (!equal(&f->next, &f->current)) {
        /* A damaged answer differs from the next one. Its switches and links would be missed for ever. */
        if ((rc = list_all(f, &f->again, &second)) != ABI_OK)
            return rc;
        if (first != second || !equal(&f->next, &f->again))
            return ABI_OK;
        copy(&f->current, &f->next);
        *changed = 1;
    }
    f->switches_listed = f->switches_listed || f->has_switches;
    f->checks++;
    *links = first;
    return ABI_OK;
}
