/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Values of NVLink and NVSwitch fields. */
#ifndef DCGMSIM_ENGINE_FABRIC_H
#define DCGMSIM_ENGINE_FABRIC_H

#include "engine/sample.h"

enum read_result fabric_read(struct engine *e, const struct field_info *f, int group, uint32_t id, struct watch *w,
                             struct sample *out);

/* Fields of a GPU that cover all of its links, or the link that the field names. */
bool fabric_is_gpu_field(unsigned id);
enum read_result fabric_read_gpu(struct engine *e, const struct field_info *f, int gpu, struct watch *w, struct sample *out);

#endif
