/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Profiling fields. */
#ifndef DCGMSIM_ENGINE_PROFILING_H
#define DCGMSIM_ENGINE_PROFILING_H

#include "engine/sample.h"
#include "engine/snapshot.h"

bool profiling_is_field(unsigned field);
/* Reports whether the driver itself profiles the model: such profiling needs no module, and DCGM cannot pause it. */
bool profiling_by_driver(const struct node_model *m);

/*
 * Computes the reading for the profiling fields of a GPU or an instance into
 * *out, with the injected faults applied. `at` is the instance, or NULL for the
 * GPU. *at_us is the moment that the reading describes. A result other than
 * READ_OK replaces the value.
 */
enum read_result profiling_reading(struct engine *e, int gpu, const struct location *at, struct watch *w,
                                         struct node_reading *out, int64_t *at_us);

/* The status that watching a profiling field returns: an error if a different client holds the profiling lock. */
dcgmReturn_t profiling_lock_status(struct engine *e, int gpu);
/* Ends a temporary profiling fault, as a new watch does. */
void profiling_repair(struct engine *e, int gpu);

/* Only the module for GPUs before Hopper can pause; without such a GPU the call is not supported. */
dcgmReturn_t profiling_pause(struct engine *e, bool pause);
dcgmReturn_t profiling_metric_groups(struct engine *e, dcgmProfGetMetricGroups_t *out);

#endif
