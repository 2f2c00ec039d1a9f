/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libnvidia-ml: memory, utilisation, and the processes on a GPU or MIG device. */
#include "nvml/handles.h"

#include "access/faults.h"
#include "node/load.h"

#include <string.h>

#define NO_INSTANCE 0xFFFFFFFFu
#define MIB 1048576ULL

/* The driver keeps this many utilisation samples, at this interval. */
#define UTILIZATION_SAMPLES 72
#define UTILIZATION_PERIOD_US 166667

static void read_target(const struct target *t, int64_t at_us, struct node_reading *r)
{
    if (t->instance)
        node_read_instance(&t->gpu, t->instance->gi, t->ci, nvml_node->boot_us, at_us, r);
    else
        node_read_gpu(&t->gpu, nvml_node->boot_us, at_us, r);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct target t;
    struct node_reading r;
    BEGIN(device, &t);
    if (!memory)
        return NVML_ERROR_INVALID_ARGUMENT;
    read_target(&t, node_now_us(), &r);
    memory->total = (unsigned long long)r.fb_total_mib * MIB;
    memory->free = (unsigned long long)r.fb_free_mib * MIB;
    memory->used = memory->total - memory->free; /* includes reserved memory */
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct target t;
    struct node_reading r;
    BEGIN(device, &t);
    if (!memory)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    read_target(&t, node_now_us(), &r);
    memory->total = (unsigned long long)r.fb_total_mib * MIB;
    memory->free = (unsigned long long)r.fb_free_mib * MIB;
    memory->reserved = (unsigned long long)r.fb_reserved_mib * MIB;
    memory->used = memory->total - memory->free - memory->reserved;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    struct target t;
    struct node_reading r;
    BEGIN(device, &t);
    if (!utilization)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (t.gpu.mig_enabled)
        return NVML_ERROR_NOT_SUPPORTED;
    read_target(&t, node_now_us(), &r);
    utilization->gpu = (unsigned)(r.util * 100 + 0.5);
    utilization->memory = (unsigned)(r.mem_util * 100 + 0.5);
    return NVML_SUCCESS;
}

static bool process_runs_on(const struct node_process *p, const struct target *t)
{
    return p->present && p->gpu == t->position && (t->ci < 0 || p->ci == t->ci);
}

/*
 * Lists the processes on a GPU or MIG device. *count is the caller's capacity,
 * and becomes the number of processes.
 */
static nvmlReturn_t find_processes(const char *call, nvmlDevice_t device, uint32_t list, unsigned int *count,
                                 struct node_process *found)
{
    struct target t;
    nvmlReturn_t rc = begin(call, device, &t);
    if (rc == NVML_SUCCESS && t.gpu.mig_enabled && !t.instance)
        rc = (nvmlReturn_t)node_enter_call(nvml_node,
                                           "mig-monitor"); /* nvml.h: "only if the caller has appropriate privileges" */
    if (rc != NVML_SUCCESS)
        return rc;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned have = 0, room = *count;
    node_lock(nvml_node);
    for (int i = 0; i < NODE_MAX_PROCESSES; i++)
        if (process_runs_on(&nvml_node->process[i], &t) && (nvml_node->process[i].lists & list))
            found[have++] = nvml_node->process[i];
    node_unlock(nvml_node);
    unsigned needed = node_garble_size(nvml_node, call, have);
    *count = needed > room ? needed : have;
    return needed > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* The instance ids of the MIG device that a process runs on. */
static void instance_ids(const struct node_process *p, unsigned int *gi, unsigned int *ci)
{
    struct node_gpu g;
    *gi = *ci = NO_INSTANCE;
    if (p->ci < 0)
        return;
    node_copy_gpu(nvml_node, p->gpu, &g);
    if (!g.ci[p->ci].present)
        return;
    *gi = g.gi[g.ci[p->ci].gi].nvml_id;
    *ci = g.ci[p->ci].nvml_id;
}

static nvmlReturn_t list_processes(const char *call, nvmlDevice_t device, uint32_t list, unsigned int *count,
                                   nvmlProcessInfo_t *infos)
{
    struct node_process found[NODE_MAX_PROCESSES];
    nvmlReturn_t rc = find_processes(call, device, list, count, found);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!infos && *count > 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < *count; i++) {
        infos[i].pid = found[i].pid;
        infos[i].usedGpuMemory = found[i].memory_bytes;
        instance_ids(&found[i], &infos[i].gpuInstanceId, &infos[i].computeInstanceId);
        garbled(call, &infos[i], sizeof infos[i]);
    }
    return garbled(call, count, sizeof *count);
}

static nvmlReturn_t list_processes_v1(const char *call, nvmlDevice_t device, uint32_t list, unsigned int *count,
                                      nvmlProcessInfo_v1_t *infos)
{
    struct node_process found[NODE_MAX_PROCESSES];
    nvmlReturn_t rc = find_processes(call, device, list, count, found);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!infos && *count > 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < *count; i++)
        infos[i] = (nvmlProcessInfo_v1_t){.pid = found[i].pid, .usedGpuMemory = found[i].memory_bytes};
    return NVML_SUCCESS;
}

/* Versions 2 and 3 of these calls have the same struct. */
#define PROCESS_CALLS(name, list)                                                                            \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos)         \
    {                                                                                                        \
        return list_processes_v1(__func__, device, list, count, infos);                                     \
    }                                                                                                        \
    EXPORT nvmlReturn_t name##_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos)    \
    {                                                                                                        \
        return list_processes(__func__, device, list, count, infos);                                        \
    }                                                                                                        \
    EXPORT nvmlReturn_t name##_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)       \
    {                                                                                                        \
        return list_processes(__func__, device, list, count, infos);                                        \
    }

PROCESS_CALLS(nvmlDeviceGetComputeRunningProcesses, NODE_LIST_COMPUTE)
PROCESS_CALLS(nvmlDeviceGetGraphicsRunningProcesses, NODE_LIST_GRAPHICS)
PROCESS_CALLS(nvmlDeviceGetMPSComputeRunningProcesses, NODE_LIST_MPS)

static unsigned percent(double x)
{
    return x <= 0 ? 0 : x >= 1 ? 100 : (unsigned)(x * 100 + 0.5);
}

/* The utilisation of a process in the samples since last_seen. */
struct usage {
    double sm, mem, enc, dec; /* sums over the samples */
    int64_t newest_us;        /* of the latest sample in which the process was active */
};

/*
 * Returns one entry per process that was active since last_seen: its mean over
 * all samples since then, and the time of its latest active sample. The required
 * size is a constant. Source: published answers of the real call (NVIDIA/go-nvml
 * issues 11 and 51, Syllo/nvtop issue 110).
 */
EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                    unsigned int *count, unsigned long long last_seen)
{
    struct target t;
    BEGIN(device, &t);
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (t.gpu.mig_enabled)
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned needed = node_garble_size(nvml_node, __func__, NODE_MAX_PROCESSES);
    if (!utilization || *count < needed) {
        *count = needed;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    struct node_reading readings[UTILIZATION_SAMPLES];
    int64_t times[UTILIZATION_SAMPLES];
    unsigned samples = 0, have = 0;
    int64_t newest = node_now_us() / UTILIZATION_PERIOD_US * UTILIZATION_PERIOD_US;
    for (int s = UTILIZATION_SAMPLES - 1; s >= 0; s--) {
        int64_t at = newest - (int64_t)s * UTILIZATION_PERIOD_US;
        if (at > (int64_t)last_seen) {
            times[samples] = at;
            read_target(&t, at, &readings[samples++]);
        }
    }
    struct usage used[NODE_MAX_PROCESSES];
    memset(used, 0, sizeof used);
    node_lock(nvml_node);
    for (int i = 0; i < NODE_MAX_PROCESSES; i++) {
        const struct node_process *p = &nvml_node->process[i];
        if (!process_runs_on(p, &t) || p->share <= 0)
            continue;
        for (unsigned s = 0; s < samples; s++) {
            if (p->start_us > times[s] || readings[s].util <= 0)
                continue;
            used[i].sm += p->share * readings[s].util;
            used[i].mem += p->share * readings[s].mem_util;
            used[i].enc += p->share * readings[s].enc_util;
            used[i].dec += p->share * readings[s].dec_util;
            used[i].newest_us = times[s];
        }
    }
    for (int i = 0; i < NODE_MAX_PROCESSES; i++) {
        if (used[i].newest_us == 0)
            continue;
        utilization[have++] = (nvmlProcessUtilizationSample_t){
            .pid = nvml_node->process[i].pid,
            .timeStamp = (unsigned long long)used[i].newest_us,
            .smUtil = percent(used[i].sm / samples),
            .memUtil = percent(used[i].mem / samples),
            .encUtil = percent(used[i].enc / samples),
            .decUtil = percent(used[i].dec / samples),
        };
    }
    node_unlock(nvml_node);
    *count = have;
    if (node_garble(nvml_node, __func__, utilization, have * sizeof *utilization)) {
        garbled(__func__, count, sizeof *count);
        return NVML_SUCCESS;
    }
    return have > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
