/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* errorString: the text of each DCGM status. */
#include "dcgm_agent.h"
#include "dcgm_structs.h"

const char *errorString(dcgmReturn_t status)
{
    switch (status) {
    case DCGM_ST_OK:
        return "Success";
    case DCGM_ST_BADPARAM:
        return "Bad parameter passed to function";
    case DCGM_ST_GENERIC_ERROR:
        return "Generic unspecified error";
    case DCGM_ST_MEMORY:
        return "Out of memory error";
    case DCGM_ST_NOT_CONFIGURED:
        return "Setting not configured";
    case DCGM_ST_NOT_SUPPORTED:
        return "Feature not supported";
    case DCGM_ST_INIT_ERROR:
        return "DCGM initialization error";
    case DCGM_ST_NVML_ERROR:
        return "NVML error";
    case DCGM_ST_PENDING:
        return "Object is in a pending state";
    case DCGM_ST_UNINITIALIZED:
        return "Object is in an undefined state";
    case DCGM_ST_TIMEOUT:
        return "Timeout";
    case DCGM_ST_VER_MISMATCH:
        return "API version mismatch";
    case DCGM_ST_UNKNOWN_FIELD:
        return "Unknown field";
    case DCGM_ST_NO_DATA:
        return "No data available";
    case DCGM_ST_STALE_DATA:
        return "Data is stale";
    case DCGM_ST_NOT_WATCHED:
        return "Field is not being watched";
    case DCGM_ST_NO_PERMISSION:
        return "No permission";
    case DCGM_ST_GPU_IS_LOST:
        return "GPU is lost";
    case DCGM_ST_RESET_REQUIRED:
        return "GPU requires a reset";
    case DCGM_ST_CONNECTION_NOT_VALID:
        return "The connection to the host engine is not valid any longer";
    case DCGM_ST_GPU_NOT_SUPPORTED:
        return "This GPU is not supported by DCGM";
    case DCGM_ST_MAX_LIMIT:
        return "Maximum limit reached";
    case DCGM_ST_DUPLICATE_KEY:
        return "Duplicate key";
    case DCGM_ST_INSUFFICIENT_SIZE:
        return "An input argument is not large enough";
    case DCGM_ST_FIELD_UNSUPPORTED_BY_API:
        return "The field is not supported by this API";
    case DCGM_ST_MODULE_NOT_LOADED:
        return "This request is serviced by a module of DCGM that is not currently loaded";
    case DCGM_ST_IN_USE:
        return "The resource is in use";
    case DCGM_ST_GROUP_IS_EMPTY:
        return "The group is empty";
    case DCGM_ST_PROFILING_NOT_SUPPORTED:
        return "Profiling is not supported for this group of GPUs";
    case DCGM_ST_INSTANCE_NOT_FOUND:
        return "The GPU instance does not exist";
    case DCGM_ST_COMPUTE_INSTANCE_NOT_FOUND:
        return "The compute instance does not exist";
    case DCGM_ST_NVML_NOT_LOADED:
        return "NVML is not loaded";
    case DCGM_ST_NVML_DRIVER_TIMEOUT:
        return "An NVML driver timeout was detected";
    case DCGM_ST_GPUS_DETACHED:
        return "GPUs are detached";
    default:
        return "DCGM error";
    }
}
