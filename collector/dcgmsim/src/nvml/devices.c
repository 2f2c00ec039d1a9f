/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libnvidia-ml: enumeration and identity of GPUs. */
#include "nvml/handles.h"

#include <stdio.h>
#include <string.h>

/*
 * The NVML index of a GPU. A lost GPU keeps its index. A detached GPU has none,
 * and the indices after it decrease.
 */
static uint32_t nvml_index_of(uint32_t position)
{
    uint32_t rank = 0;
    for (uint32_t i = 0; i < nvml_node->gpu_count; i++)
        if (!nvml_node->gpu[i].detached && nvml_node->gpu[i].nvml_index < nvml_node->gpu[position].nvml_index)
            rank++;
    return rank;
}

static uint32_t count_attached(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < nvml_node->gpu_count; i++)
        count += !nvml_node->gpu[i].detached;
    return count;
}

static nvmlReturn_t handle_of(uint32_t position, nvmlDevice_t *device)
{
    node_lock(nvml_node);
    bool lost = nvml_node->gpu[position].lost;
    node_unlock(nvml_node);
    if (lost)
        return NVML_ERROR_GPU_IS_LOST;
    device->handle = &nvml_handles[position][0];
    return NVML_SUCCESS;
}

static nvmlReturn_t count_gpus(const char *call, unsigned int *count)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    node_lock(nvml_node);
    *count = count_attached();
    node_unlock(nvml_node);
    return garbled(call, count, sizeof *count);
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
    node_lock(nvml_node);
    for (uint32_t i = 0; i < nvml_node->gpu_count; i++)
        if (!nvml_node->gpu[i].detached && nvml_index_of(i) == index)
            position = (int)i;
    node_unlock(nvml_node);
    if (position < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    rc = handle_of((uint32_t)position, device);
    return rc == NVML_SUCCESS ? garbled(call, device, sizeof *device) : rc;
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
    for (uint32_t i = 0; i < nvml_node->gpu_count; i++) {
        struct node_gpu gpu;
        node_copy_gpu(nvml_node, i, &gpu);
        if (gpu.detached)
            continue;
        if (strcmp(gpu.uuid, uuid) == 0)
            return handle_of(i, device);
        for (int c = 0; c < NODE_MAX_CIS; c++) {
            if (gpu.ci[c].present && strcmp(gpu.ci[c].uuid, uuid) == 0) {
                if (gpu.lost)
                    return NVML_ERROR_GPU_IS_LOST;
                device->handle = &nvml_handles[i][1 + c];
                return NVML_SUCCESS;
            }
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

/* The domain of a bus id has 4 or 8 digits: 0000:18:00.0, 00000000:18:00.0. */
static nvmlReturn_t by_pci_bus_id(const char *call, const char *text, nvmlDevice_t *device)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    unsigned domain, bus, slot, function;
    char rest;
    if (!text || !device || sscanf(text, "%x:%x:%x.%x%c", &domain, &bus, &slot, &function, &rest) != 4)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (uint32_t i = 0; i < nvml_node->gpu_count; i++) {
        const struct node_gpu *g = &nvml_node->gpu[i]; /* no lock: the bus address never changes */
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
    node_lock(nvml_node);
    *index = t.ci >= 0 ? (unsigned)t.ci : nvml_index_of(t.position);
    node_unlock(nvml_node);
    return ANSWER(index);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    struct target t;
    BEGIN(device, &t);
    return copy_text(__func__, t.instance ? t.instance->name : t.gpu.model.name, name, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    struct target t;
    BEGIN(device, &t);
    return copy_text(__func__, t.instance ? t.instance->uuid : t.gpu.uuid, uuid, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    struct target t;
    BEGIN(device, &t);
    if (t.instance || !t.gpu.serial[0])
        return NVML_ERROR_NOT_SUPPORTED;
    return copy_text(__func__, t.gpu.serial, serial, length);
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
    return ANSWER(minor);
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

/* A MIG device has the bus address of its GPU. */
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    struct target t;
    BEGIN(device, &t);
    if (!pci)
        return NVML_ERROR_INVALID_ARGUMENT;
    fill_pci(&t.gpu, pci);
    return ANSWER(pci);
}
