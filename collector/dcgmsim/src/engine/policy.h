/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Policies and their violations. */
#ifndef DCGMSIM_ENGINE_POLICY_H
#define DCGMSIM_ENGINE_POLICY_H

#include "engine/state.h"

dcgmReturn_t policy_set(struct engine *e, uintptr_t group, const dcgmPolicy_t *policy);
dcgmReturn_t policy_get(struct engine *e, uintptr_t group, int count, dcgmPolicy_t *out);
dcgmReturn_t policy_register(struct engine *e, uint32_t owner, uintptr_t group, uint32_t conditions, uint64_t id,
                             policy_deliver deliver, void *to);
dcgmReturn_t policy_unregister(struct engine *e, uint32_t owner, uintptr_t group, uint32_t conditions);
/* Finds violations and delivers them without holding engine.lock. Called about once a second. */
void policy_tick(struct engine *e);
/* The caller holds engine.lock. */
void policy_forget_owner_locked(struct engine *e, uint32_t owner);

#endif
