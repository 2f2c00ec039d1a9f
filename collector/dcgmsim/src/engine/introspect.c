/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The engine's own version, memory and CPU time, and the statistics of processes on GPUs. */
#include "engine/introspect.h"

#include "engine/groups.h"
#include "engine/snapshot.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *build_info(void)
{
    return "version:4.6.0;arch:x86_64;buildid:0;commit:dcgmsim;branch:dcgmsim;buildtype:Release;builddate:1970-01-01;"
           "buildplatform:simulated";
}

dcgmReturn_t memory_usage(struct engine *e, dcgmIntrospectMemory_t *out)
{
    (void)e;
    long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%ld %ld", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    out->bytesUsed = (long long)resident * sysconf(_SC_PAGESIZE);
    return DCGM_ST_OK;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

dcgmReturn_t cpu_usage(struct engine *e, dcgmIntrospectCpuUtil_t *out)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double wall = (double)(node_now_us() - e->started_us) / 1e6;
    if (wall < 1)
        wall = 1;
    double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);
    out->kernel = seconds(use.ru_stime) / wall / cpus;
    out->user = seconds(use.ru_utime) / wall / cpus;
    out->total = out->kernel + out->user;
    return DCGM_ST_OK;
}

static void fill_pid(struct engine *e, const struct node_process *p, int gpu, dcgmPidSingleInfo_t *out)
{
    const struct node_reading *r = snapshot_gpu_reading(e, gpu);
    double lived = (double)(e->snapshot.time_us - p->start_us) / 1e6;
    memset(out, 0, sizeof *out);
    out->gpuId = e->snapshot.gpu[gpu].dcgm_id;
    out->energyConsumed = (long long)(r->power_w * p->share * lived * 1e3);
    out->pcieRxBandwidth = (dcgmStatSummaryInt64_t){(long long)r->pcie_rx_bps, (long long)r->pcie_rx_bps,
                                                    (long long)r->pcie_rx_bps};
    out->pcieTxBandwidth = (dcgmStatSummaryInt64_t){(long long)r->pcie_tx_bps, (long long)r->pcie_tx_bps,
                                                    (long long)r->pcie_tx_bps};
    out->startTime = p->start_us;
    out->processUtilization = (dcgmProcessUtilInfo_t){p->pid, r->util * p->share * 100, r->mem_util * p->share * 100};
    int sm = (int)(r->util * 100), mem = (int)(r->mem_util * 100);
    out->smUtilization = (dcgmStatSummaryInt32_t){sm, sm, sm};
    out->memoryUtilization = (dcgmStatSummaryInt32_t){mem, mem, mem};
    out->memoryClock = (dcgmStatSummaryInt32_t){(int)r->mem_mhz, (int)r->mem_mhz, (int)r->mem_mhz};
    out->smClock = (dcgmStatSummaryInt32_t){(int)r->sm_mhz, (int)r->sm_mhz, (int)r->sm_mhz};
    out->eccSingleBit = DCGM_INT32_NOT_SUPPORTED;
    out->maxGpuMemoryUsed = p->memory_bytes == NODE_MEMORY_UNKNOWN ? DCGM_INT64_BLANK : (long long)p->memory_bytes;
    out->powerViolationTime = snapshot_throttle(e, gpu)->reason_ns[2] / 1000; /* power cap; µs */
}

dcgmReturn_t pid_info(struct engine *e, uintptr_t group, dcgmPidInfo_t *out)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    unsigned pid = out->pid;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    struct group *g = group_find_locked(e, group);
    if (!g)
        rc = DCGM_ST_NOT_CONFIGURED;
    else if (!g->pids_watched)
        rc = DCGM_ST_NOT_WATCHED;
    RESET_VERSIONED(out);
    out->pid = pid;
    for (int i = 0; rc == DCGM_ST_OK && i < NODE_MAX_PROCESSES && out->numGpus < DCGM_MAX_NUM_DEVICES; i++) {
        struct node_process p;
        node_lock(e->node);
        p = e->node->process[i];
        node_unlock(e->node);
        if (!p.present || p.pid != pid)
            continue;
        for (uint32_t k = 0; k < g->count; k++)
            if (g->entities[k].entityGroupId == DCGM_FE_GPU &&
                g->entities[k].entityId == e->snapshot.gpu[p.gpu].dcgm_id)
                fill_pid(e, &p, (int)p.gpu, &out->gpus[out->numGpus++]);
    }
    pthread_mutex_unlock(&e->lock);
    if (rc == DCGM_ST_OK && out->numGpus == 0)
        rc = DCGM_ST_NO_DATA;
    if (rc == DCGM_ST_OK) {
        out->summary = out->gpus[0];
        out->summary.gpuId = DCGM_INT32_BLANK;
    }
    return rc;
}

dcgmReturn_t watch_pids(struct engine *e, uintptr_t group)
{
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, group);
    if (g)
        g->pids_watched = true;
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}
