/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The life cycle of an engine. */
#ifndef DCGMSIM_ENGINE_ENGINE_H
#define DCGMSIM_ENGINE_ENGINE_H

#include "engine/state.h"

dcgmReturn_t engine_start(struct engine **out);
void engine_stop(struct engine *e);
/* Drops the watches, groups and policies of a client that disconnected. */
void engine_forget_owner(struct engine *e, uint32_t owner);

#endif
