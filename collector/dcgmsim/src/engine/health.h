/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Health checks. */
#ifndef DCGMSIM_ENGINE_HEALTH_H
#define DCGMSIM_ENGINE_HEALTH_H

#include "engine/state.h"

dcgmReturn_t health_set(struct engine *e, uintptr_t group, uint32_t systems);
dcgmReturn_t health_get(struct engine *e, uintptr_t group, uint32_t *systems);
/* Records the XIDs that the engine has received since the last call. */
void health_take_xids_locked(struct engine *e);
dcgmReturn_t health_check(struct engine *e, uintptr_t group, dcgmHealthResponse_t *out);

#endif
