/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* DCGM's functions for field metadata. They need no engine. */
#include "engine/fields.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool initialised; /* as in DCGM, no field is known before DcgmFieldsInit */
static dcgm_field_meta_t metas[DCGM_FI_MAX_FIELDS];
static dcgm_field_output_format_t formats[DCGM_FI_MAX_FIELDS];
static uint16_t fact_at[DCGM_FI_MAX_FIELDS]; /* position in field_infos + 1 */

static void fill(void)
{
    for (size_t i = 0; i < field_infos_len; i++) {
        const struct field_info *f = &field_infos[i];
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

const struct field_info *field_info(unsigned id)
{
    /* No lock: the table does not change after it is filled, and engines start after that. */
    return id < DCGM_FI_MAX_FIELDS && fact_at[id] ? &field_infos[fact_at[id] - 1] : NULL;
}

dcgm_field_meta_p DcgmFieldGetById(unsigned short id)
{
    dcgm_field_meta_p found = NULL;
    pthread_mutex_lock(&lock);
    if (initialised && field_info(id))
        found = &metas[id];
    pthread_mutex_unlock(&lock);
    return found;
}

dcgm_field_meta_p DcgmFieldGetByTag(const char *tag)
{
    if (tag)
        for (size_t i = 0; i < field_infos_len; i++)
            if (strcmp(field_infos[i].tag, tag) == 0)
                return DcgmFieldGetById(field_infos[i].id);
    return NULL;
}

const char *DcgmFieldsGetEntityGroupString(dcgm_field_entity_group_t group)
{
    static const char *const names[DCGM_FE_COUNT] = {"None",        "GPU",    "vGPU", "NvSwitch", "GPU_I",
                                                     "GPU_CI",      "NvLink", "CPU",  "CPU Core", "ConnectX"};
    return (unsigned)group < DCGM_FE_COUNT ? names[group] : "Unknown";
}
