/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The value of any field of any entity. */
#ifndef DCGMSIM_ENGINE_VALUES_H
#define DCGMSIM_ENGINE_VALUES_H

#include "engine/sample.h"

enum read_result value_read(struct engine *e, const struct field_info *fact, int group, uint32_t id, struct watch *w,
                            struct sample *out);
/* Reads a field, with the sentinel of its type for a missing value; false for READ_NO_DATA. */
bool value_sample(struct engine *e, const struct field_info *fact, int group, uint32_t id, struct watch *w,
                  struct sample *out);
/* The value of a numeric field of a GPU, 0 if missing. */
double value_counter(struct engine *e, int gpu, unsigned field);

#endif
