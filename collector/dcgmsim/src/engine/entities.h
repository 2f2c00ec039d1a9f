/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Lists of entities and their status. */
#ifndef DCGMSIM_ENGINE_ENTITIES_H
#define DCGMSIM_ENGINE_ENTITIES_H

#include "engine/state.h"

DcgmEntityStatus_t entity_status(const struct snapshot *s, int group, uint32_t id);
dcgmReturn_t list_gpus(struct engine *e, bool only_supported, unsigned *ids, int *count);
dcgmReturn_t list_entities(struct engine *e, int group, unsigned flags, unsigned *ids, int *count);
dcgmReturn_t gpu_status(struct engine *e, unsigned gpu, DcgmEntityStatus_t *status);

#endif
