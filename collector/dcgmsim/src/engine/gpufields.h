/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Readers of GPU fields by subject. values.c selects one by the field. */
#ifndef DCGMSIM_ENGINE_GPUFIELDS_H
#define DCGMSIM_ENGINE_GPUFIELDS_H

#include "engine/sample.h"
#include "engine/snapshot.h"

bool is_identity(unsigned id);
enum read_result read_identity(struct engine *e, unsigned field, const struct location *at, struct sample *out);

bool is_memory(unsigned id);
enum read_result read_memory(unsigned field, const struct node_gpu *g, const struct location *at,
                             const struct node_reading *r, struct sample *out);

bool is_counter(unsigned id);
enum read_result read_counter(const struct field_info *f, const struct node_gpu *g, struct sample *out);

/* Throttle times in ns, by the reason that held the clocks. */
bool is_violation(unsigned id);
enum read_result read_violation(unsigned id, const struct node_throttle *t, struct sample *out);

/* Links to a Grace CPU. */
bool is_c2c(unsigned id);
enum read_result read_c2c(unsigned id, const struct node_model *m, struct sample *out);

enum read_result read_profiling(unsigned field, const struct node_gpu *g, const struct location *at,
                                const struct node_reading *r, double uptime_s, struct sample *out);

/* Every other field of a GPU. */
enum read_result read_general(const struct engine *e, unsigned field, const struct node_gpu *g,
                              const struct node_reading *r, struct sample *out);

#endif
