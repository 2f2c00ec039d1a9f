/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Entity groups and field groups. The caller of a *_locked function holds engine.lock. */
#ifndef DCGMSIM_ENGINE_GROUPS_H
#define DCGMSIM_ENGINE_GROUPS_H

#include "engine/state.h"

void groups_init(struct engine *e);
dcgmReturn_t group_create(struct engine *e, uint32_t owner, int type, const char *name, uintptr_t *id);
dcgmReturn_t group_destroy(struct engine *e, uintptr_t id);
dcgmReturn_t group_add(struct engine *e, uintptr_t id, int group, uint32_t entity);
dcgmReturn_t group_remove(struct engine *e, uintptr_t id, int group, uint32_t entity);
dcgmReturn_t group_info(struct engine *e, uintptr_t id, dcgmGroupInfo_t *out);
dcgmReturn_t group_all_ids(struct engine *e, uintptr_t *ids, unsigned *count);
struct group *group_find_locked(struct engine *e, uintptr_t id);
dcgmReturn_t field_group_create(struct engine *e, uint32_t owner, int count, const unsigned short *fields,
                                const char *name, uintptr_t *id);
dcgmReturn_t field_group_destroy(struct engine *e, uintptr_t id);
dcgmReturn_t field_group_info(struct engine *e, dcgmFieldGroupInfo_t *info);
struct field_group *field_group_find_locked(struct engine *e, uintptr_t id);

#endif
