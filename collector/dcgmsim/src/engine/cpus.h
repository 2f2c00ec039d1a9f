/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Grace CPUs and their cores. */
#ifndef DCGMSIM_ENGINE_CPUS_H
#define DCGMSIM_ENGINE_CPUS_H

#include "engine/sample.h"

enum read_result cpu_read(struct engine *e, const struct field_info *f, int group, uint32_t id, struct watch *w,
                          struct sample *out);
/* Reports whether a CPU or core entity exists. */
bool cpu_entity_exists(const struct snapshot *s, int group, uint32_t id);

#endif
