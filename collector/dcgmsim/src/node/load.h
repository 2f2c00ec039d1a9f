/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Readings of GPUs, instances and CPU cores, and the load that they derive from. */
#ifndef DCGMSIM_NODE_LOAD_H
#define DCGMSIM_NODE_LOAD_H

#include "node/node.h"
#include "node/reading.h"

void node_read_gpu(const struct node_gpu *gpu, int64_t boot_us, int64_t at_us, struct node_reading *out);
/* Reads a GPU instance, or one of its compute instances if ci_slot >= 0. */
void node_read_instance(const struct node_gpu *gpu, int gi_slot, int ci_slot, int64_t boot_us, int64_t at_us,
                        struct node_reading *out);
/* Reads one core; gpu_util is the mean utilisation of the socket's GPUs, 0 to 1. */
void node_read_core(uint64_t seed, uint32_t core, double gpu_util, int64_t at_us, struct node_cpu_reading *out);

/* Mean utilisation between two moments, under the load of the second. */
double node_mean_util(const struct node_gpu *gpu, int64_t boot_us, int64_t from_us, int64_t to_us);
/* Replaces the ratios and rates of a reading with those of a mean utilisation of the GPU. */
void node_set_mean(const struct node_gpu *gpu, int gi_slot, int ci_slot, double util, struct node_reading *reading);

/* Sets the load from now on and keeps the totals so far. The caller holds the lock. */
void node_set_load(struct node_gpu *gpu, int64_t boot_us, int64_t now_us, uint32_t kind, double util, double mem,
                   double scale);

/* Advances the throttle times of a GPU to a moment. The caller holds the lock. */
void node_advance_throttle(struct node_gpu *gpu, int64_t boot_us, int64_t at_us);

#endif
