/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libnvidia-ml: MIG mode, GPU instances and MIG devices. */
#include "nvml/handles.h"

#include <string.h>

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    struct target t;
    BEGIN(device, &t);
    if (!current || !pending)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (t.instance || !t.gpu.model.mig_capable)
        return NVML_ERROR_NOT_SUPPORTED;
    *current = *pending = t.gpu.mig_enabled ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
    return ANSWER(current);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    struct target t;
    BEGIN(device, &t);
    if (!count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = !t.instance && t.gpu.mig_enabled ? NODE_MAX_CIS : 0;
    return ANSWER(count);
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
    mig->handle = &nvml_handles[t.position][1 + index];
    return ANSWER(mig);
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
    struct target t;
    BEGIN(mig, &t);
    if (!device || !t.instance)
        return NVML_ERROR_INVALID_ARGUMENT;
    device->handle = &nvml_handles[t.position][0];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
    nvmlReturn_t rc = enter(__func__);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!is_mig || !is_handle(device)) /* process_runs_on the handle only, not the device */
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
    return ANSWER(id);
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
    return ANSWER(id);
}

/* The real call needs privileges. Use `fail nvmlDeviceGetGpuInstanceById 4` to simulate that. */
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
            instance->handle = &nvml_gi_handles[t.position][i];
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
    uintptr_t p = (uintptr_t)instance.handle, base = (uintptr_t)nvml_gi_handles;
    if (!info || p < base || p >= base + sizeof nvml_gi_handles || (p - base) % sizeof nvml_gi_handles[0][0] != 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct node_gpu gpu;
    node_copy_gpu(nvml_node, instance.handle->gpu, &gpu);
    const struct node_gi *gi = &gpu.gi[instance.handle->gi];
    if (!gi->present)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(info, 0, sizeof *info);
    info->device.handle = &nvml_handles[instance.handle->gpu][0];
    info->id = gi->nvml_id;
    info->placement.start = gi->placement_start;
    info->placement.size = gi->placement_size;
    return ANSWER(info);
}

static nvmlReturn_t instance_attributes(const char *call, nvmlDevice_t device, nvmlDeviceAttributes_t *a)
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
    return instance_attributes(__func__, device, attributes);
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    return instance_attributes(__func__, device, attributes);
}
