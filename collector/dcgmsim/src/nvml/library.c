/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* libnvidia-ml: initialisation, error texts, versions, process names. */
#define _GNU_SOURCE
#include "nvml/handles.h"

#include <stdio.h>
#include <string.h>

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
    return shut_down(__func__);
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
    return rc == NVML_SUCCESS ? copy_text(nvml_node->driver_version, version, length) : rc;
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    nvmlReturn_t rc = enter(__func__);
    return rc == NVML_SUCCESS ? copy_text(nvml_node->nvml_version, version, length) : rc;
}

static nvmlReturn_t cuda_version(const char *call, int *version)
{
    nvmlReturn_t rc = enter(call);
    if (rc != NVML_SUCCESS)
        return rc;
    if (!version)
        return NVML_ERROR_INVALID_ARGUMENT;
    *version = nvml_node->cuda_version;
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
    node_lock(nvml_node);
    for (int i = 0; i < NODE_MAX_PROCESSES && rc != NVML_SUCCESS; i++) {
        if (nvml_node->process[i].present && nvml_node->process[i].pid == pid) {
            snprintf(name, length, "%s", nvml_node->process[i].name); /* truncated, as nvml.h documents */
            rc = NVML_SUCCESS;
        }
    }
    node_unlock(nvml_node);
    return rc;
}
