/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* MIG: the layout of GPU and compute instances, and the processes that run on them. */
#include "node/mig.h"

#include "node/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPU_SLICES 7
#define MEMORY_SLICES 8

static uint32_t slice_gib(const struct node_model *m)
{
    /* Profiles are named after the nominal size: 80 GB for 81559 MiB. */
    return (uint32_t)((m->fb_total_mib + 4096) / 8192);
}

static void mig_uuid(char *out, const struct node_gpu *g, uint32_t gi, uint32_t ci)
{
    /* A recreated instance has the same UUID, as with the real driver. */
    node_format_uuid(out, "MIG", node_hash(g->seed, 100 + gi * 16 + ci), node_hash(g->seed, 400 + gi * 16 + ci));
}

/* The first NVML id of instances of a size. The ids of a size are consecutive. */
static uint32_t first_nvml_id(uint32_t slices)
{
    switch (slices) {
    case 7:
        return 0;
    case 4:
    case 3:
        return 1;
    case 2:
        return 3;
    default:
        return 7;
    }
}

static uint32_t free_nvml_id(const struct node_gpu *g, uint32_t slices)
{
    for (uint32_t id = first_nvml_id(slices);; id++) {
        bool taken = false;
        for (int i = 0; i < NODE_MAX_GIS; i++)
            taken = taken || (g->gi[i].present && g->gi[i].nvml_id == id);
        if (!taken)
            return id;
    }
}

struct partition {
    struct node_gpu gpu;
    uint32_t gis, cis, slices, memory;
    const char *layout;
    char *err;
    size_t err_len;
};

static int reject(struct partition *s, const char *why)
{
    snprintf(s->err, s->err_len, "MIG layout %.60s on %.60s: %s", s->layout, s->gpu.model.name, why);
    return -1;
}

static int add_ci(struct partition *s, uint32_t gi_slot, uint32_t slices, uint32_t nvml_id)
{
    if (s->cis == NODE_MAX_CIS)
        return reject(s, "more than 7 compute instances");
    struct node_gi *gi = &s->gpu.gi[gi_slot];
    struct node_ci *ci = &s->gpu.ci[s->cis];
    ci->present = true;
    ci->gi = (uint8_t)gi_slot;
    ci->entity_id = s->gpu.dcgm_id * 7 + s->cis;
    ci->nvml_id = nvml_id;
    ci->slices = slices;
    ci->sm_count = gi->sm_count * slices / gi->slices;
    mig_uuid(ci->uuid, &s->gpu, gi->nvml_id, nvml_id);
    char profile[sizeof ci->profile] = "", name[sizeof ci->name];
    if (slices != gi->slices)
        snprintf(profile, sizeof profile, "%uc.", slices);
    strncat(profile, gi->profile, sizeof profile - strlen(profile) - 1);
    snprintf(name, sizeof name, "%.60s MIG %.30s", s->gpu.model.name, profile);
    memcpy(ci->profile, profile, sizeof profile);
    memcpy(ci->name, name, sizeof name);
    s->cis++;
    return 0;
}

static int add_gi(struct partition *s, uint32_t slices, uint32_t gib, const uint32_t *parts, int part_count)
{
    uint32_t per_slice = slice_gib(&s->gpu.model);
    if (slices != 1 && slices != 2 && slices != 3 && slices != 4 && slices != 7)
        return reject(s, "an instance must have 1, 2, 3, 4 or 7 slices");
    if (per_slice == 0 || gib % per_slice != 0 || gib == 0)
        return reject(s, "the memory size is not a multiple of the model's memory slice");
    uint32_t memory = gib / per_slice;
    if (s->slices + slices > GPU_SLICES || s->memory + memory > MEMORY_SLICES)
        return reject(s, "the instances do not fit");
    if (s->gis == NODE_MAX_GIS)
        return reject(s, "more than 7 instances");
    struct node_gi *gi = &s->gpu.gi[s->gis];
    gi->nvml_id = free_nvml_id(&s->gpu, slices);
    gi->present = true;
    gi->entity_id = s->gpu.dcgm_id * 7 + s->gis;
    gi->slices = slices;
    gi->memory_slices = memory;
    gi->placement_start = s->memory;
    gi->placement_size = memory;
    gi->fb_total_mib = s->gpu.model.fb_total_mib * memory / MEMORY_SLICES / 128 * 128;
    gi->sm_count = s->gpu.model.sm_count / 8 / 2 * 2 * slices;
    if (s->gpu.model.sm_count < 120)
        gi->sm_count = 14 * slices;
    snprintf(gi->profile, sizeof gi->profile, "%ug.%ugb", slices, gib);
    s->slices += slices;
    s->memory += memory;
    uint32_t slot = s->gis++;
    if (part_count == 0)
        return add_ci(s, slot, slices, 0);
    uint32_t sum = 0;
    for (int i = 0; i < part_count; i++) {
        sum += parts[i];
        if (sum > slices)
            return reject(s, "the compute instances are larger than their GPU instance");
        if (add_ci(s, slot, parts[i], (uint32_t)i) != 0)
            return -1;
    }
    return 0;
}

/* One part of a layout: SLICESg.MEMORYgb[/Nc[,Nc…]][*TIMES] */
static int add_part(struct partition *s, char *part)
{
    uint32_t parts[NODE_MAX_CIS];
    int part_count = 0;
    unsigned slices, gib, times = 1;
    char rest;
    char *star = strchr(part, '*');
    if (star) {
        *star = 0;
        if (sscanf(star + 1, "%u%c", &times, &rest) != 1 || times == 0 || times > GPU_SLICES)
            return reject(s, "the number after * must be 1 to 7");
    }
    char *slash = strchr(part, '/');
    if (slash) {
        *slash = 0;
        char *save = NULL;
        for (char *c = strtok_r(slash + 1, ",", &save); c; c = strtok_r(NULL, ",", &save)) {
            unsigned n;
            char unit;
            if (part_count == NODE_MAX_CIS || sscanf(c, "%u%c%c", &n, &unit, &rest) != 2 || unit != 'c' || n == 0 ||
                n > 7)
                return reject(s, "compute instances must have the form 1c,2c");
            parts[part_count++] = n;
        }
    }
    int used = 0;
    if (sscanf(part, "%ug.%ugb%n", &slices, &gib, &used) != 2 || used == 0 || part[used] != 0)
        return reject(s, "instances must have the form 1g.10gb");
    for (unsigned i = 0; i < times; i++)
        if (add_gi(s, slices, gib, parts, part_count) != 0)
            return -1;
    return 0;
}

/* Above the kernel's PID_MAX_LIMIT, so that no process of the machine has one of these ids. */
#define AUTOMATIC_PIDS 4200000

/* Recreates the default processes: one per GPU, or one per compute instance. */
static void recreate_processes(struct node_state *n, uint32_t position)
{
    const struct node_gpu *g = &n->gpu[position];
    for (int i = 0; i < NODE_MAX_PROCESSES; i++) {
        struct node_process *p = &n->process[i];
        if (p->present && p->gpu == position && (p->automatic || p->ci >= 0))
            p->present = false;
    }
    int first = g->mig_enabled ? 0 : -1, last = g->mig_enabled ? NODE_MAX_CIS : 0;
    for (int ci = first; ci < last; ci++) {
        if (ci >= 0 && !g->ci[ci].present)
            continue;
        struct node_process *p = NULL;
        for (int i = 0; i < NODE_MAX_PROCESSES && !p; i++)
            if (!n->process[i].present)
                p = &n->process[i];
        if (!p)
            return;
        uint64_t room = ci < 0 ? g->model.fb_total_mib : g->gi[g->ci[ci].gi].fb_total_mib;
        memset(p, 0, sizeof *p);
        p->present = p->automatic = true;
        p->pid = AUTOMATIC_PIDS + g->dcgm_id * 100 + (uint32_t)(ci + 1);
        p->gpu = position;
        p->ci = ci;
        p->share = 1;
        p->lists = NODE_LIST_COMPUTE;
        p->memory_bytes = room * 3 / 10 * 1048576;
        p->start_us = node_now_us();
        snprintf(p->name, sizeof p->name, "%s", "/usr/bin/python3");
    }
}

int node_set_mig(struct node_state *n, uint32_t position, const char *layout, char *err, size_t err_len)
{
    char copy[160];
    struct node_gpu *g = &n->gpu[position];
    struct partition s = {.gpu = *g, .layout = layout, .err = err, .err_len = err_len};
    memset(s.gpu.gi, 0, sizeof s.gpu.gi);
    memset(s.gpu.ci, 0, sizeof s.gpu.ci);
    double scale = 1;
    if (strcmp(layout, "off") == 0) {
        s.gpu.mig_enabled = false;
    } else {
        if (!g->model.mig_capable)
            return reject(&s, "the model does not support MIG");
        if (strlen(layout) >= sizeof copy)
            return reject(&s, "the layout is too long");
        s.gpu.mig_enabled = true;
        scale = 0;
        if (strcmp(layout, "none") != 0) {
            snprintf(copy, sizeof copy, "%s", layout);
            char *save = NULL;
            for (char *part = strtok_r(copy, "+", &save); part; part = strtok_r(NULL, "+", &save))
                if (add_part(&s, part) != 0)
                    return -1;
            scale = (double)s.slices / GPU_SLICES;
        }
    }
    s.gpu.mig_generation++;
    node_set_load(&s.gpu, n->boot_us, node_now_us(), g->load.kind, g->load.fixed_util, g->load.fixed_mem, scale);
    *g = s.gpu;
    recreate_processes(n, position);
    atomic_fetch_add(&n->generation, 1);
    return 0;
}
