/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the node consists of beside GPUs and their instances: NVSwitches, NVLinks,
 * Grace CPUs, ConnectX devices and vGPUs.
 */
#ifndef GPU_EXPORTER_DCGM_FABRIC_H
#define GPU_EXPORTER_DCGM_FABRIC_H

#include "native.h"

#define FABRIC_MAX_IDS 64
#define FABRIC_NOT_ASKED 1 /* no dcgmReturn_t: those are 0 or negative */
#define FABRIC_MAX_LINKS (ABI_MAX_GPUS * ABI_GPU_LINKS + ABI_MAX_SWITCHES * ABI_SWITCH_LINKS)

/* A link of a GPU or switch, with dcgmNvLinkLinkState_t. Ports that do not exist are left out. */
struct fabric_link {
    uint32_t parent_kind, parent;
    uint32_t port;
    int32_t state;
};

struct fabric_cpu {
    uint32_t id;
    uint64_t cores[ABI_CORE_WORDS]; /* a bit for each of Linux's numbers */
};

struct fabric_ids {
    uint32_t count;
    uint32_t ids[FABRIC_MAX_IDS];
};

struct fabric_topology {
    struct fabric_ids switches, connectx, vgpus;
    uint32_t link_count, cpu_count;
    struct fabric_link links[FABRIC_MAX_LINKS];
    struct fabric_cpu cpus[ABI_MAX_CPUS];
};

struct fabric;

/* kinds has a bit for each DCGM_FE_* kind that is wanted; the others are not asked for. NULL without memory, which fabric_check takes. */
struct fabric *fabric_open(struct native *n, uint32_t kinds);

/*
 * Finds out what there is, at most once a second, as the state of each link is
 * asked of the driver. What cannot be listed for the moment stays as it was.
 * Fails only when the engine is gone. *links is the code of listing the links, or
 * FABRIC_NOT_ASKED when that second is not over.
 */
int fabric_check(struct fabric *f, int *changed, int *links);
const struct fabric_topology *fabric_current(const struct fabric *f);

#endif
