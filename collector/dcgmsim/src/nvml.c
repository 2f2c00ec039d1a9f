/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libnvidia-ml.so.1 over the simulated node: device and MIG handles, identity,
 * memory, utilisation and processes. What NVML documents about a call (nvml.h)
 * is what the call does here, including its refusals; calls outside this file
 * are not in the library, so a user that needs them sees that at once.
 */
#define _GNU_SOURCE
#ifndef NVML_NO_UNVERSIONED_FUNC_DEFS /* the old names are functions here, too */
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#endif
#include "nvml.h"

#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EXPORT __attribute__((visibility("default")))

#define NO_INSTANCE 0xFFFFFFFFu
#define MIB 1048576ULL

/* The driver keeps the last samples of the GPU's use; these many, so far apart. */
#define UTILIZATION_SAMPLES 72
#define UTILIZATION_PERIOD_US 166667

/*
 * A handle names a place, as with the real library ("handles may be reused and
 * their properties can change"): a GPU by its position in the node, a MIG
 * device by its compute instance's slot. Whether something is there is looked
 * up at each use.
 */
struct nvmlDevice_st {
    uint32_t gpu;
    int ci; /* slot, or -1 for the GPU itself */
};

/* go-nvml's nvml.h wraps the pointer in a struct; the call's ABI is the same. */
static struct nvmlDevice_st handles[NODE_MAX_GPUS][1 + NODE_MAX_CIS];

struct nvmlGpuInstance_st { /* a place, too: slot gi of the GPU */
    uint32_t gpu;
    uint32_t gi;
};

static struct nvmlGpuInstance_st gi_handles[NODE_MAX_GPUS][NODE_MAX_GIS];

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned init_count;
static struct node_state *node;

static nvmlReturn_t initialise(const char *call)
{
    char err[256] = "";
    pthread_mutex_lock(&init_lock);
    if (!node) {
        node = node_open(err, sizeof err);
        for (uint32_t g = 0; g < NODE_MAX_GPUS; g++) {
            for (int c = 0; c <= NODE_MAX_CIS; c++)
                handles[g][c] = (struct nvmlDevice_st){.gpu = g, .ci = c - 1};
            for (uint32_t i = 0; i < NODE_MAX_GIS; i++)
                gi_handles[g][i] = (struct nvmlGpuInstance_st){.gpu = g, .gi = i};
        }
    }
    nvmlReturn_t rc = NVML_SUCCESS;
    if (!node) {
        fprintf(stderr, "libnvidia-ml stand-in: %s\n", err);
        rc = NVML_ERROR_DRIVER_NOT_LOADED;
    }
    pthread_mutex_unlock(&init_lock);
    if (rc == NVML_SUCCESS) /* not under the lock: it may hang */
        rc = (nvmlReturn_t)node_enter_call(node, call);
    if (rc == NVML_SUCCESS) {
        pthread_mutex_lock(&init_lock);
        init_count++;
        pthread_mutex_unlock(&init_lock);
    }
    return rc;
}

static nvmlReturn_t enter(const char *call)
{
    pthread_mutex_lock(&init_lock);
    bool ready = init_count > 0;
    pthread_mutex_unlock(&init_lock);
    if (!ready)
        return NVML_ERROR_UNINITIALIZED;
    return (nvmlReturn_t)node_enter_call(node, call);
}

/* What a handle stands for at one moment. */
struct target {
    struct node_gpu gpu;
    uint32_t position;
    int ci; /* slot, or -1 */
    const struct node_ci *instance;
    const struct node_gi *gi;
};

static bool is_handle(nvmlDevice_t device)
{
    uintptr_t p = (uintptr_t)device.handle, base = (uintptr_t)handles;
    return p >= base && p < base + sizeof handles && (p - base) % sizeof handles[0][0] == 0;
}

static nvmlReturn_t resolve(nvmlDevice_t device, struct target *t)
{
    if (!is_handle(device) || device.handle->gpu >= node->gpu_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    t->position = device.handle->gpu;
    t->ci = device.handle->ci;
    node_copy_gpu(node, t->position, &t->gpu);
    if (t->gpu.lost)
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

/* Begins a call on a device: the node's faults first, then what the handle is. */
static nvmlReturn_t begin(const char *call, nvmlDevice_t device, struct target *t)
{
    nvmlReturn_t rc = enter(call);
    return rc == NVML_SUCCESS ? resolve(device, t) : rc;
}

#define BEGIN(device, t)                                  \
    do {                                                  \
        nvmlReturn_t begin_rc = begin(__func__, device, t); \
        if (begin_rc != NVML_SUCCESS)                     \
            return begin_rc;                              \
    } while (0)

static nvmlReturn_t copy_text(const char *from, char *to, unsigned int length)
{
    if (!to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(from) + 1 > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, from);
    return NVML_SUCCESS;
}

/*
 * NVML's index counts the GPUs that the driver has: a lost one is still there,
 * a detached one is not and the later ones move up.
 */
static uint32_t rank_of(uint32_t position)
{
    uint32_t rank = 0;
    for (uint32_t i = 0; i < node->gpu_count; i++)
        if (!node->gpu[i].detached && node->gpu[i].nvml_index < node->gpu[position].nvml_index)
            rank++;
    return rank;
}

static uint32_t present_gpus(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->gpu_count; i++)
        count += !node->gpu[i].detached;
    return count;
}

static nvmlReturn_t handle_of(uint32_t position, nvmlDevice_t *device)
{
    node_lock(node);
    bool lost = node->gpu[position].lost;
    node_unlock(node);
    if (lost)
        return NVML_ERROR_GPU_IS_LOST;
    device->handle = &handles[position][0];
    return NVML_SUCCESS;
}

/* ---- library ---- */

EXPORT nvmlReturn_t nvmlInit(void)
{
    return initialise(__func__);
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(__func__);
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return initialise(__func__);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t rc = enter(__func__);
    if (rc != NVML_SUCCESS)
        return rc;
    pthread_mutex_lock(&init_lock);
    if (init_count > 0)
        init_count--;
    pthread_mutex_unlock(&init_lock);
    return NVML_SUCCESS;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS: return "Success";
    case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
    case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND: return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT: return "Timeout";
    case NVML_ERROR_LIBRARY_NOT_FOUND: return "NVML Shared Library Not Found";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_RESET_REQUIRED: return "GPU requires reset";
    case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case NVML_ERROR_IN_USE: return "In use by another client";
    case NVML_ERROR_MEMORY: return "Insufficient Memory";
    case NVML_ERROR_NO_DATA: return "No data";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    nvmlReturn_t rc = enter(__func__);
    return rc == NVML_SUCCESS ? copy_text(node->driver_version, version, length) : rc;
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    nvmlReturn_t rc = enter(__func__);
    return rc == NVML_SUCCESS ? copy_text(node->nvml_version, version, length) : rc;
}

static nvmlReturn_t cuda_version(const char *call, int *version)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!version)
        return NVML_ERROR_INVALID_ARGUMENT;
    *version = node->cuda_version;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return cuda_version(__func__, version);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return cuda_version(__func__, version);
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    nvmlReturn_t rc = enter(__func__);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!name || length == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    rc = NVML_ERROR_NOT_FOUND;
    node_lock(node);
    for (int i = 0; i < NODE_MAX_PROCESSES && rc != NVML_SUCCESS; i++) {
        if (node->process[i].present && node->process[i].pid == pid) {
            snprintf(name, length, "%s", node->process[i].name); /* cut short, as nvml.h says */
            rc = NVML_SUCCESS;
        }
    }
    node_unlock(node);
    return rc;
}

/* ---- GPUs ---- */

static nvmlReturn_t count_gpus(const char *call, unsigned int *count)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    node_lock(node);
    *count = present_gpus();
    node_unlock(node);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return count_gpus(__func__, count);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    return count_gpus(__func__, count);
}

static nvmlReturn_t by_index(const char *call, unsigned int index, nvmlDevice_t *device)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!device)
        return NVML_ERROR_INVALID_ARGUMENT;
    int position = -1;
    node_lock(node);
    for (uint32_t i = 0; i < node->gpu_count; i++)
        if (!node->gpu[i].detached && rank_of(i) == index)
            position = (int)i;
    node_unlock(node);
    return position < 0 ? NVML_ERROR_INVALID_ARGUMENT : handle_of((uint32_t)position, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return by_index(__func__, index, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    return by_index(__func__, index, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    nvmlReturn_t rc = enter(__func__);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!uuid || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (uint32_t i = 0; i < node->gpu_count; i++) {
        struct node_gpu gpu;
        node_copy_gpu(node, i, &gpu);
        if (gpu.detached)
            continue;
        if (strcmp(gpu.uuid, uuid) == 0)
            return handle_of(i, device);
        for (int c = 0; c < NODE_MAX_CIS; c++) {
            if (gpu.ci[c].present && strcmp(gpu.ci[c].uuid, uuid) == 0) {
                if (gpu.lost)
                    return NVML_ERROR_GPU_IS_LOST;
                device->handle = &handles[i][1 + c];
                return NVML_SUCCESS;
            }
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

/* Bus ids come with a domain of 4 or 8 digits: 0000:18:00.0, 00000000:18:00.0. */
static nvmlReturn_t by_pci_bus_id(const char *call, const char *text, nvmlDevice_t *device)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    unsigned domain, bus, slot, function;
    char rest;
    if (!text || !device || sscanf(text, "%x:%x:%x.%x%c", &domain, &bus, &slot, &function, &rest) != 4)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (uint32_t i = 0; i < node->gpu_count; i++) {
        const struct node_gpu *g = &node->gpu[i]; /* its address on the bus never changes */
        if (!g->detached && g->pci_domain == domain && g->pci_bus == bus && g->pci_device == slot)
            return handle_of(i, device);
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device)
{
    return by_pci_bus_id(__func__, pciBusId, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
    return by_pci_bus_id(__func__, pciBusId, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    struct target t;
    BEGIN(device, &t);
    if (!index)
        return NVML_ERROR_INVALID_ARGUMENT;
    node_lock(node);
    *index = t.ci >= 0 ? (unsigned)t.ci : rank_of(t.position);
    node_unlock(node);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    struct target t;
    BEGIN(device, &t);
    return copy_text(t.instance ? t.instance->name : t.gpu.model.name, name, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    struct target t;
    BEGIN(device, &t);
    return copy_text(t.instance ? t.instance->uuid : t.gpu.uuid, uuid, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    struct target t;
    BEGIN(device, &t);
    if (t.instance || !t.gpu.serial[0])
        return NVML_ERROR_NOT_SUPPORTED;
    return copy_text(t.gpu.serial, serial, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    struct target t;
    BEGIN(device, &t);
    if (!minor)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (t.instance)
        return NVML_ERROR_NOT_SUPPORTED;
    *minor = t.gpu.minor;
    return NVML_SUCCESS;
}

static void fill_pci(const struct node_gpu *g, nvmlPciInfo_t *pci)
{
    memset(pci, 0, sizeof *pci);
    pci->domain = g->pci_domain;
    pci->bus = g->pci_bus;
    pci->device = g->pci_device;
    pci->pciDeviceId = g->model.pci_device_id;
    pci->pciSubSystemId = g->model.pci_subsystem_id;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", g->pci_domain & 0xffff, g->pci_bus & 0xff,
             g->pci_device & 0x1f);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", g->pci_domain, g->pci_bus & 0xff, g->pci_device & 0x1f);
}

/* A MIG device is on its GPU's place of the bus. */
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    struct target t;
    BEGIN(device, &t);
    if (!pci)
        return NVML_ERROR_INVALID_ARGUMENT;
    fill_pci(&t.gpu, pci);
    return NVML_SUCCESS;
}

/* ---- MIG ---- */

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    struct target t;
    BEGIN(device, &t);
    if (!current || !pending)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (t.instance || !t.gpu.model.mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    *current = *pending = t.gpu.mig_enabled ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    struct target t;
    BEGIN(device, &t);
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = !t.instance && t.gpu.mig_enabled ? NODE_MAX_CIS : 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig)
{
    struct target t;
    BEGIN(device, &t);
    if (!mig || t.instance || index >= NODE_MAX_CIS)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!t.gpu.model.mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    if (!t.gpu.mig_enabled || !t.gpu.ci[index].present)
        return NVML_ERROR_NOT_FOUND;
    mig->handle = &handles[t.position][1 + index];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
    struct target t;
    BEGIN(mig, &t);
    if (!device || !t.instance)
        return NVML_ERROR_INVALID_ARGUMENT;
    device->handle = &handles[t.position][0];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
    nvmlReturn_t rc = enter(__func__);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!is_mig || !is_handle(device)) /* a question about the handle alone */
        return NVML_ERROR_INVALID_ARGUMENT;
    *is_mig = device.handle->ci >= 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    struct target t;
    BEGIN(device, &t);
    if (!id)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!t.instance)
        return NVML_ERROR_NOT_SUPPORTED;
    *id = t.gi->nvml_id;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    struct target t;
    BEGIN(device, &t);
    if (!id)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!t.instance)
        return NVML_ERROR_NOT_SUPPORTED;
    *id = t.instance->nvml_id;
    return NVML_SUCCESS;
}

/* The real call is for privileged users; a scenario lets it fail with 4 for others. */
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance)
{
    struct target t;
    BEGIN(device, &t);
    if (!instance)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (t.instance || !t.gpu.mig_enabled)
        return NVML_ERROR_NOT_SUPPORTED;
    for (int i = 0; i < NODE_MAX_GIS; i++) {
        if (t.gpu.gi[i].present && t.gpu.gi[i].nvml_id == id) {
            instance->handle = &gi_handles[t.position][i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info)
{
    nvmlReturn_t rc = enter(__func__);
    if (rc != NVML_SUCCESS)
        return rc;
    uintptr_t p = (uintptr_t)instance.handle, base = (uintptr_t)gi_handles;
    if (!info || p < base || p >= base + sizeof gi_handles || (p - base) % sizeof gi_handles[0][0] != 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct node_gpu gpu;
    node_copy_gpu(node, instance.handle->gpu, &gpu);
    const struct node_gi *gi = &gpu.gi[instance.handle->gi];
    if (!gi->present)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(info, 0, sizeof *info);
    info->device.handle = &handles[instance.handle->gpu][0];
    info->id = gi->nvml_id;
    info->placement.start = gi->placement_start;
    info->placement.size = gi->placement_size;
    return NVML_SUCCESS;
}

static nvmlReturn_t attributes_of(const char *call, nvmlDevice_t device, nvmlDeviceAttributes_t *a)
{
    struct target t;
    nvmlReturn_t rc = begin(call, device, &t);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!a)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!t.instance)
        return NVML_ERROR_NOT_SUPPORTED;
    memset(a, 0, sizeof *a);
    a->multiprocessorCount = t.instance->sm_count;
    a->sharedCopyEngineCount = t.gi->slices;
    a->sharedDecoderCount = t.gpu.model.decoders * t.gi->slices / 7;
    a->sharedEncoderCount = t.gpu.model.encoders * t.gi->slices / 7;
    a->gpuInstanceSliceCount = t.gi->slices;
    a->computeInstanceSliceCount = t.instance->slices;
    a->memorySizeMB = t.gi->fb_total_mib;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    return attributes_of(__func__, device, attributes);
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    return attributes_of(__func__, device, attributes);
}

/* ---- memory and utilisation ---- */

static void read_target(const struct target *t, int64_t at_us, struct node_reading *r)
{
    if (t->instance)
        node_read_instance(&t->gpu, t->instance->gi, t->ci, node->boot_us, at_us, r);
    else
        node_read_gpu(&t->gpu, node->boot_us, at_us, r);
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
    memory->used = memory->total - memory->free; /* reserved and allocated */
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

/* ---- processes ---- */

static bool concerns(const struct node_process *p, const struct target *t)
{
    return p->present && p->gpu == t->position && (t->ci < 0 || p->ci == t->ci);
}

/*
 * The processes on a GPU or MIG device, sorted as they lie in the node. The
 * count is what the caller has room for, and becomes what there is.
 */
static nvmlReturn_t processes_of(const char *call, nvmlDevice_t device, uint32_t list, unsigned int *count,
                                 struct node_process *found)
{
    struct target t;
    nvmlReturn_t rc = begin(call, device, &t);
    if (rc == NVML_SUCCESS && t.gpu.mig_enabled && !t.instance)
        rc = (nvmlReturn_t)node_enter_call(node, "mig-monitor"); /* "only if the caller has appropriate privileges" */
    if (rc != NVML_SUCCESS)
        return rc;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned have = 0, room = *count;
    node_lock(node);
    for (int i = 0; i < NODE_MAX_PROCESSES; i++)
        if (concerns(&node->process[i], &t) && (node->process[i].lists & list))
            found[have++] = node->process[i];
    node_unlock(node);
    *count = have;
    return have > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

/* The ids of the MIG device that a process runs on. */
static void instance_ids(const struct node_process *p, unsigned int *gi, unsigned int *ci)
{
    struct node_gpu g;
    *gi = *ci = NO_INSTANCE;
    if (p->ci < 0)
        return;
    node_copy_gpu(node, p->gpu, &g);
    if (!g.ci[p->ci].present)
        return;
    *gi = g.gi[g.ci[p->ci].gi].nvml_id;
    *ci = g.ci[p->ci].nvml_id;
}

static nvmlReturn_t list_processes(const char *call, nvmlDevice_t device, uint32_t list, unsigned int *count,
                                   nvmlProcessInfo_t *infos)
{
    struct node_process found[NODE_MAX_PROCESSES];
    nvmlReturn_t rc = processes_of(call, device, list, count, found);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!infos && *count > 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < *count; i++) {
        infos[i].pid = found[i].pid;
        infos[i].usedGpuMemory = found[i].memory_bytes;
        instance_ids(&found[i], &infos[i].gpuInstanceId, &infos[i].computeInstanceId);
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t list_processes_v1(const char *call, nvmlDevice_t device, uint32_t list, unsigned int *count,
                                      nvmlProcessInfo_v1_t *infos)
{
    struct node_process found[NODE_MAX_PROCESSES];
    nvmlReturn_t rc = processes_of(call, device, list, count, found);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!infos && *count > 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < *count; i++)
        infos[i] = (nvmlProcessInfo_v1_t){.pid = found[i].pid, .usedGpuMemory = found[i].memory_bytes};
    return NVML_SUCCESS;
}

/* nvml.h has one struct for version 2 and 3 of these calls. */
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

/* What a process did in the samples that a caller has not seen. */
struct usage {
    double sm, mem, enc, dec; /* sums over the samples */
    int64_t newest_us;        /* of a sample in which it did something */
};

/*
 * One entry for each process that did something since last_seen, with its
 * average over all samples since then, and the time of the last in which it did:
 * so do the answers of the real call look that people have published
 * (NVIDIA/go-nvml issues 11 and 51, Syllo/nvtop issue 110). The size that it asks
 * for is a constant, whatever there is.
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
    if (!utilization || *count < NODE_MAX_PROCESSES) {
        *count = NODE_MAX_PROCESSES;
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
    node_lock(node);
    for (int i = 0; i < NODE_MAX_PROCESSES; i++) {
        const struct node_process *p = &node->process[i];
        if (!concerns(p, &t) || p->share <= 0)
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
            .pid = node->process[i].pid,
            .timeStamp = (unsigned long long)used[i].newest_us,
            .smUtil = percent(used[i].sm / samples),
            .memUtil = percent(used[i].mem / samples),
            .encUtil = percent(used[i].enc / samples),
            .decUtil = percent(used[i].dec / samples),
        };
    }
    node_unlock(node);
    *count = have;
    return have > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
