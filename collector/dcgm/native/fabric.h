/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Lists NVSwitches, NVLinks, Grace CPUs and ConnectX devices.
 */
#ifndef GPU_EXPORTER_DCGM_FABRIC_H
#define GPU_EXPORTER_DCGM_FABRIC_H

#include "library.h"

#define FABRIC_MAX_IDS 64
#define FABRIC_NOT_LISTED 1 /* not a dcgmReturn_t: those are 0 or negative */
#define FABRIC_MAX_LINKS (ABI_MAX_GPUS * ABI_GPU_LINKS + ABI_MAX_SWITCHES * ABI_SWITCH_LINKS)

/* An existing link of a GPU or switch. */
struct fabric_link {
    uint32_t parent_kind, parent;
    uint32_t port;
    int32_t state; /* dcgmNvLinkLinkState_t */
};

struct fabric_cpu {
    uint64_t id;                    /* 64 bits leave no padding: memcmp compares it */
    uint64_t cores[ABI_CORE_WORDS]; /* bit mask of Linux CPU numbers */
};

struct fabric_ids {
    uint32_t count;
    uint32_t ids[FABRIC_MAX_IDS];
};

struct fabric_topology {
    struct fabric_ids switches, connectx;
    uint32_t link_count, cpu_count;
    struct fabric_link links[FABRIC_MAX_LINKS];
    struct fabric_cpu cpus[ABI_MAX_CPUS];
};

struct fabric;

/* kinds is a bit mask of the DCGM_FE_* kinds to list. NULL, which fabric_check accepts, means out of memory. */
struct fabric *fabric_open(struct native *n, uint32_t kinds);

/*
 * Lists the entities, at most once a second because the state of each link is a
 * driver call. A list that fails stays as it was, and so does one that a second list does
 * not confirm. Fails only if the engine is gone. *links is the result of listing the links,
 * or FABRIC_NOT_LISTED if the last list is younger than a second or was not confirmed.
 */
int fabric_check(struct fabric *f, int *changed, int *links);
/* Whether the switches were listed at least once. */
int fabric_switches_listed(const struct fabric *f);
const struct fabric_topology *fabric_current(const struct fabric *f);

#endif
