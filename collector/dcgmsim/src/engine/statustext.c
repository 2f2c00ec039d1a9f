/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* errorString: the text of each DCGM status. */
#include "dcgm_agent.h"
#include "dcgm_structs.h"

#include <stddef.h>

static const struct {
    dcgmReturn_t status;
    const char *text;
} texts[] = {
    {DCGM_ST_OK, "Success"},
    {DCGM_ST_BADPARAM, "Bad parameter passed to function"},
    {DCGM_ST_GENERIC_ERROR, "Generic unspecified error"},
    {DCGM_ST_MEMORY, "Out of memory error"},
    {DCGM_ST_NOT_CONFIGURED, "Setting not configured"},
    {DCGM_ST_NOT_SUPPORTED, "Feature not supported"},
    {DCGM_ST_INIT_ERROR, "DCGM initialization error"},
    {DCGM_ST_NVML_ERROR, "NVML error"},
    {DCGM_ST_PENDING, "Object is in a pending state"},
    {DCGM_ST_UNINITIALIZED, "Object is in an undefined state"},
    {DCGM_ST_TIMEOUT, "Timeout"},
    {DCGM_ST_VER_MISMATCH, "API version mismatch"},
    {DCGM_ST_UNKNOWN_FIELD, "Unknown field"},
    {DCGM_ST_NO_DATA, "No data available"},
    {DCGM_ST_STALE_DATA, "Data is stale"},
    {DCGM_ST_NOT_WATCHED, "Field is not being watched"},
    {DCGM_ST_NO_PERMISSION, "No permission"},
    {DCGM_ST_GPU_IS_LOST, "GPU is lost"},
    {DCGM_ST_RESET_REQUIRED, "GPU requires a reset"},
    {DCGM_ST_CONNECTION_NOT_VALID, "The connection to the host engine is not valid any longer"},
    {DCGM_ST_GPU_NOT_SUPPORTED, "This GPU is not supported by DCGM"},
    {DCGM_ST_MAX_LIMIT, "Maximum limit reached"},
    {DCGM_ST_DUPLICATE_KEY, "Duplicate key"},
    {DCGM_ST_INSUFFICIENT_SIZE, "An input argument is not large enough"},
    {DCGM_ST_FIELD_UNSUPPORTED_BY_API, "The field is not supported by this API"},
    {DCGM_ST_MODULE_NOT_LOADED, "This request is serviced by a module of DCGM that is not currently loaded"},
    {DCGM_ST_IN_USE, "The resource is in use"},
    {DCGM_ST_GROUP_IS_EMPTY, "The group is empty"},
    {DCGM_ST_PROFILING_NOT_SUPPORTED, "Profiling is not supported for this group of GPUs"},
    {DCGM_ST_INSTANCE_NOT_FOUND, "The GPU instance does not exist"},
    {DCGM_ST_COMPUTE_INSTANCE_NOT_FOUND, "The compute instance does not exist"},
    {DCGM_ST_NVML_NOT_LOADED, "NVML is not loaded"},
    {DCGM_ST_NVML_DRIVER_TIMEOUT, "An NVML driver timeout was detected"},
    {DCGM_ST_GPUS_DETACHED, "GPUs are detached"},
};

const char *errorString(dcgmReturn_t status)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "DCGM error";
}
