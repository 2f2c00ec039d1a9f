/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Watches and their samples. The caller of a *_locked function holds engine.lock. */
#ifndef DCGMSIM_ENGINE_WATCH_H
#define DCGMSIM_ENGINE_WATCH_H

#include "engine/sample.h"

dcgmReturn_t watch_fields(struct engine *e, uint32_t owner, uintptr_t group, uintptr_t fields, int64_t interval_us,
                          double max_age_s, int max_samples);
dcgmReturn_t unwatch_fields(struct engine *e, uint32_t owner, uintptr_t group, uintptr_t fields);
void watch_forget_owner_locked(struct engine *e, uint32_t owner);
/* Samples everything that is due, once. */
dcgmReturn_t watch_update_all(struct engine *e);

/* The watch of a field of an entity. If there is none, creates it or returns NULL. */
struct watch *watch_find_locked(struct engine *e, int group, uint32_t id, unsigned field, bool create);
void watch_append_locked(struct engine *e, struct watch *w, struct sample s);
/* Samples what is due. Returns the time of the next sample, INT64_MAX if nothing is watched. */
int64_t watch_sample_due_locked(struct engine *e);
/* Moves new XIDs from the node's journal to the samples of field 230. */
void watch_take_xids_locked(struct engine *e);
void watch_free_all(struct engine *e);

/* The latest sample of a field, or the status that replaces it. live: reads the hardware instead. */
void watch_latest_locked(struct engine *e, int group, uint32_t id, unsigned field, bool live, struct value *out);
dcgmReturn_t watch_latest(struct engine *e, const dcgmGroupEntityPair_t *entities, unsigned entity_count,
                          const unsigned short *fields, unsigned field_count, unsigned flags, dcgmFieldValue_v2 *out);
/* The values of all entities of a group and all fields of a field group: the latest, or those since a time. */
dcgmReturn_t watch_collect(struct engine *e, uintptr_t group, uintptr_t fields, bool latest, int64_t since_us,
                           int64_t *next_us, struct value_list *out);

void value_to_v1(const struct value *v, dcgmFieldValue_v1 *out);
void value_to_v2(const struct value *v, dcgmFieldValue_v2 *out);

#endif
