/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Profiling fields: injected faults, readings, pauses and metric groups. */
#include "engine/profiling.h"

#include "engine/snapshot.h"
#include "node/load.h"

#include <string.h>

bool profiling_is_field(unsigned field)
{
    return field >= DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO && field <= DCGM_FI_PROF_FP16_CYCLES_ACTIVE_TOTAL;
}

bool profiling_by_driver(const struct node_model *m)
{
    return strcmp(m->architecture, "hopper") == 0 || strcmp(m->architecture, "blackwell") == 0;
}

static uint32_t profiling_fault(const struct engine *e, int gpu)
{
    const struct node_gpu *g = &e->snapshot.gpu[gpu];
    return e->profiling_repaired[gpu] == g->profiling_seq ? NODE_PROFILING_OK : g->profiling_mode;
}

dcgmReturn_t profiling_lock_status(struct engine *e, int gpu)
{
    return profiling_fault(e, gpu) == NODE_PROFILING_LOCKED ? (dcgmReturn_t)e->snapshot.gpu[gpu].profiling_code
        : DCGM_ST_OK;
}

void profiling_repair(struct engine *e, int gpu)
{
    const struct node_gpu *g = &e->snapshot.gpu[gpu];
    if (!g->profiling_permanent && g->profiling_mode != NODE_PROFILING_LOCKED)
        e->profiling_repaired[gpu] = g->profiling_seq;
}

enum read_result profiling_reading(struct engine *e, int gpu, const struct location *at, struct watch *w,
                                         struct node_reading *out, int64_t *at_us)
{
    const struct node_gpu *g = &e->snapshot.gpu[gpu];
    bool instance = at && at->gi >= 0;
    if (!g->model.profiling)
        return READ_NO_DATA;
    double busy_s = w ? snapshot_gpu_reading(e, gpu)->busy_s : 0, since_s = 0, before_s = 0;
    if (w) { /* a mean needs two samples */
        bool primed = w->profiling_primed;
        since_s = (double)(e->snapshot.time_us - w->last_total_us) / 1e6;
        before_s = w->last_total;
        w->last_total = busy_s;
        w->last_total_us = e->snapshot.time_us;
        w->profiling_primed = true;
        if (!primed)
            return READ_BLANK;
    }
    if (e->profiling_paused && !profiling_by_driver(&g->model))
        return READ_BLANK;
    int64_t when = e->snapshot.time_us;
    switch (profiling_fault(e, gpu)) {
    case NODE_PROFILING_LOCKED:
        return READ_BLANK;
    case NODE_PROFILING_STALLED:
        return READ_NO_DATA; /* the last sample stays the newest */
    case NODE_PROFILING_ZERO:
        memset(out, 0, sizeof *out);
        break;
    case NODE_PROFILING_FROZEN: {
        struct node_gpu then = *g;
        then.load = g->profiling_load;
        when = g->profiling_since_us;
        if (instance)
            node_read_instance(&then, at->gi, at->ci, e->node->boot_us, when, out);
        else
            node_read_gpu(&then, e->node->boot_us, when, out);
        break;
    }
    default:
        *out = instance ? *snapshot_reading(e, at) : *snapshot_gpu_reading(e, gpu);
        /* The mean since the previous sample, because the hardware counts cycles and bytes. */
        if (since_s > 0)
            node_set_mean(g, instance ? at->gi : -1, instance ? at->ci : -1, (busy_s - before_s) / since_s, out);
    }
    if (at_us)
        *at_us = when;
    return READ_OK;
}

dcgmReturn_t profiling_pause(struct engine *e, bool pause)
{
    bool module = false;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
        module = module || (e->snapshot.gpu[i].model.profiling && !profiling_by_driver(&e->snapshot.gpu[i].model));
    if (module)
        e->profiling_paused = pause;
    pthread_mutex_unlock(&e->lock);
    return module ? DCGM_ST_OK : DCGM_ST_NOT_SUPPORTED;
}

static dcgmProfMetricGroupInfo_v2 *metric_group(dcgmProfGetMetricGroups_t *out, unsigned short major, unsigned first,
                                                unsigned last)
{
    dcgmProfMetricGroupInfo_v2 *g = &out->metricGroups[out->numMetricGroups++];
    g->majorId = major;
    g->minorId = 0;
    g->numFieldIds = 0;
    for (unsigned f = first; f <= last; f++)
        g->fieldIds[g->numFieldIds++] = (unsigned short)f;
    return g;
}

/*
 * Before Hopper, SM metrics share counters, so DCGM multiplexes groups of them.
 * An A10 lists 1002 to 1004 and 1007 as A.1, and 1008 as A.3 (NVIDIA/DCGM issue
 * 144). 1006 as A.2 is an assumption.
 */
static void multiplexed_metric_groups(dcgmProfGetMetricGroups_t *out)
{
    dcgmProfMetricGroupInfo_v2 *g =
        metric_group(out, 1, DCGM_FI_PROF_SM_UTIL_RATIO, DCGM_FI_PROF_TENSOR_UTIL_RATIO);
    g->minorId = 1;
    g->fieldIds[g->numFieldIds++] = DCGM_FI_PROF_FP32_UTIL_RATIO;
    metric_group(out, 1, DCGM_FI_PROF_FP64_UTIL_RATIO, DCGM_FI_PROF_FP64_UTIL_RATIO)->minorId = 2;
    metric_group(out, 1, DCGM_FI_PROF_FP16_UTIL_RATIO, DCGM_FI_PROF_FP16_UTIL_RATIO)->minorId = 3;
    metric_group(out, 7, DCGM_FI_PROF_DRAM_UTIL_RATIO, DCGM_FI_PROF_DRAM_UTIL_RATIO);
    metric_group(out, 8, DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO, DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO);
}

dcgmReturn_t profiling_metric_groups(struct engine *e, dcgmProfGetMetricGroups_t *out)
{
    struct location at;
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    out->numMetricGroups = 0;
    if (!snapshot_locate(&e->snapshot, DCGM_FE_GPU, out->gpuId, &at)) {
        rc = DCGM_ST_BADPARAM;
    } else if (!e->snapshot.gpu[at.gpu].model.profiling) {
        rc = DCGM_ST_MODULE_NOT_LOADED;
    } else {
        const struct node_model *m = &e->snapshot.gpu[at.gpu].model;
        if (strcmp(m->architecture, "hopper") && strcmp(m->architecture, "blackwell"))
            multiplexed_metric_groups(out);
        else
            metric_group(out, 1, DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO, DCGM_FI_PROF_FP16_UTIL_RATIO);
        metric_group(out, 2, DCGM_FI_PROF_PCIE_TX_BYTES, DCGM_FI_PROF_PCIE_RX_BYTES);
        if (m->nvlinks > 0)
            metric_group(out, 3, DCGM_FI_PROF_NVLINK_TX_BYTES, DCGM_FI_PROF_NVLINK_RX_BYTES);
        metric_group(out, 4, DCGM_FI_PROF_IMMA_UTIL_RATIO, DCGM_FI_PROF_INT_UTIL_RATIO);
        if (m->decoders > 0)
            metric_group(out, 5, DCGM_FI_PROF_NVDEC_UTIL_0_RATIO,
                         DCGM_FI_PROF_NVDEC_UTIL_0_RATIO + (m->decoders > 8 ? 8 : m->decoders) - 1);
        if (m->nvlinks > 0)
            metric_group(out, 6, DCGM_FI_PROF_NVLINK_L0_TX_BYTES,
                         DCGM_FI_PROF_NVLINK_L0_TX_BYTES + 2 * (m->nvlinks > 18 ? 18 : m->nvlinks) - 1);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}
