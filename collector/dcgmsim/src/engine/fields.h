/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Metadata of DCGM fields. */
#ifndef DCGMSIM_ENGINE_FIELDS_H
#define DCGMSIM_ENGINE_FIELDS_H

#include <stddef.h>
#include <stdint.h>

#include "dcgm_agent.h"
#include "dcgm_fields.h"
#include "dcgm_structs.h"

struct field_info {
    uint16_t id;
    char type; /* DCGM_FT_* */
    int scope, level, nvml_id, size;
    short width; /* of the column in dcgmi dmon */
    const char *tag, *short_name, *unit;
};
extern const struct field_info field_infos[];
extern const size_t field_infos_len;
const struct field_info *field_info(unsigned id); /* NULL if unknown */

#endif
