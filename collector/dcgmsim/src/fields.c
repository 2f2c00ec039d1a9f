/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Field metadata and status texts: the part of the API that needs no engine. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised; /* as in DCGM, nothing is known before DcgmFieldsInit */
static dcgm_field_meta_t metas[DCGM_FI_MAX_FIELDS];
static dcgm_field_output_format_t formats[DCGM_FI_MAX_FIELDS];
static uint16_t fact_at[DCGM_FI_MAX_FIELDS]; /* position in field_facts + 1 */

static void fill(void)
{
    for (size_t i = 0; i < field_facts_len; i++) {
        const struct field_fact *f = &field_facts[i];
        dcgm_field_meta_t *m = &metas[f->id];
        fact_at[f->id] = (uint16_t)(i + 1);
        m->fieldId = f->id;
        m->fieldType = f->type;
        m->size = (unsigned char)f->size;
        strncpy(m->tag, f->tag, sizeof m->tag - 1);
        m->scope = f->scope;
        m->nvmlFieldId = f->nvml_id;
        m->entityLevel = (dcgm_field_entity_group_t)f->level;
        strncpy(formats[f->id].shortName, f->short_name, sizeof formats[0].shortName - 1);
        strncpy(formats[f->id].unit, f->unit, sizeof formats[0].unit - 1);
        formats[f->id].width = f->width;
        m->valueFormat = &formats[f->id];
    }
}

int DcgmFieldsInit(void)
{
    pthread_mutex_lock(&lock);
    if (!initialised)
        fill();
    initialised = true;
    pthread_mutex_unlock(&lock);
    return 0;
}

int DcgmFieldsTerm(void)
{
    pthread_mutex_lock(&lock);
    initialised = false;
    pthread_mutex_unlock(&lock);
    return 0;
}

const struct field_fact *field_fact(unsigned id)
{
    /* the table never changes once filled; engines run only after that */
    return id < DCGM_FI_MAX_FIELDS && fact_at[id] ? &field_facts[fact_at[id] - 1] : NULL;
}

dcgm_field_meta_p DcgmFieldGetById(unsigned short id)
{
    dcgm_field_meta_p found = NULL;
    pthread_mutex_lock(&lock);
    if (initialised && field_fact(id))
        found = &metas[id];
    pthread_mutex_unlock(&lock);
    return found;
}

dcgm_field_meta_p DcgmFieldGetByTag(const char *tag)
{
    if (tag)
        for (size_t i = 0; i < field_facts_len; i++)
            if (strcmp(field_facts[i].tag, tag) == 0)
                return DcgmFieldGetById(field_facts[i].id);
    return NULL;
}

const char *DcgmFieldsGetEntityGroupString(dcgm_field_entity_group_t group)
{
    static const char *const names[DCGM_FE_COUNT] = {"None",        "GPU",    "vGPU", "NvSwitch", "GPU_I",
                                                     "GPU_CI",      "NvLink", "CPU",  "CPU Core", "ConnectX"};
    return (unsigned)group < DCGM_FE_COUNT ? names[group] : "Unknown";
}

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
