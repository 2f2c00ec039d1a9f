/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* NVML handles: library initialisation, and the GPU or MIG device that a handle names. */
#define _GNU_SOURCE
#include "nvml/handles.h"

#include "access/faults.h"
#include "access/statefile.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* go-nvml's nvml.h wraps the pointer in a struct, which does not change the ABI. */
struct nvmlDevice_st nvml_handles[NODE_MAX_GPUS][1 + NODE_MAX_CIS];

struct nvmlGpuInstance_st nvml_gi_handles[NODE_MAX_GPUS][NODE_MAX_GIS];

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned init_count;
struct node_state *nvml_node;

nvmlReturn_t initialise(const char *call)
{
    char err[256] = "";
    pthread_mutex_lock(&init_lock);
    if (!nvml_node) {
        nvml_node = node_open(err, sizeof err);
        for (uint32_t g = 0; g < NODE_MAX_GPUS; g++) {
            for (int c = 0; c <= NODE_MAX_CIS; c++)
                nvml_handles[g][c] = (struct nvmlDevice_st){.gpu = g, .ci = c - 1};
            for (uint32_t i = 0; i < NODE_MAX_GIS; i++)
                nvml_gi_handles[g][i] = (struct nvmlGpuInstance_st){.gpu = g, .gi = i};
        }
    }
    nvmlReturn_t rc = NVML_SUCCESS;
    if (!nvml_node) {
        fprintf(stderr, "libnvidia-ml stand-in: %s\n", err);
        rc = NVML_ERROR_DRIVER_NOT_LOADED;
    }
    pthread_mutex_unlock(&init_lock);
    if (rc == NVML_SUCCESS) /* without the lock, because it may hang */
        rc = (nvmlReturn_t)node_enter_call(nvml_node, call);
    if (rc == NVML_SUCCESS) {
        pthread_mutex_lock(&init_lock);
        init_count++;
        pthread_mutex_unlock(&init_lock);
    }
    return rc;
}

nvmlReturn_t shut_down(const char *call)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    pthread_mutex_lock(&init_lock);
    if (init_count > 0)
        init_count--;
    pthread_mutex_unlock(&init_lock);
    return NVML_SUCCESS;
}

nvmlReturn_t enter(const char *call)
{
    pthread_mutex_lock(&init_lock);
    bool ready = init_count > 0;
    pthread_mutex_unlock(&init_lock);
    if (!ready)
        return NVML_ERROR_UNINITIALIZED;
    return (nvmlReturn_t)node_enter_call(nvml_node, call);
}

bool is_handle(nvmlDevice_t device)
{
    uintptr_t p = (uintptr_t)device.handle, base = (uintptr_t)nvml_handles;
    return p >= base && p < base + sizeof nvml_handles && (p - base) % sizeof nvml_handles[0][0] == 0;
}

static nvmlReturn_t resolve(nvmlDevice_t device, struct target *t)
{
    if (!is_handle(device) || device.handle->gpu >= nvml_node->gpu_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    t->position = device.handle->gpu;
    t->ci = device.handle->ci;
    node_copy_gpu(nvml_node, t->position, &t->gpu);
    if (t->gpu.lost || t->gpu.mute)
        return NVML_ERROR_GPU_IS_LOST;
    if (t->gpu.detached)
        return NVML_ERROR_INVALID_ARGUMENT;
    t->instance = NULL;
    t->gi = NULL;
    if (t->ci >= 0) {
        t->instance = &t->gpu.ci[t->ci];
        if (!t->instance->present)
            return NVML_ERROR_INVALID_ARGUMENT;
        t->gi = &t->gpu.gi[t->instance->gi];
    }
    return NVML_SUCCESS;
}

nvmlReturn_t begin(const char *call, nvmlDevice_t device, struct target *t)
{
    nvmlReturn_t rc = enter(call);
    return rc == NVML_SUCCESS ? resolve(device, t) : rc;
}

nvmlReturn_t garbled(const char *call, void *answer, size_t size)
{
    node_garble(nvml_node, call, answer, size);
    return NVML_SUCCESS;
}

nvmlReturn_t copy_text(const char *call, const char *from, char *to, unsigned int length)
{
    if (!to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(from) + 1 > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, from);
    return garbled(call, to, length);
}
