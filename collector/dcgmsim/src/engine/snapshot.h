/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The snapshot of the node, and readings computed from it on demand. The caller holds engine.lock. */
#ifndef DCGMSIM_ENGINE_SNAPSHOT_H
#define DCGMSIM_ENGINE_SNAPSHOT_H

#include "engine/state.h"

/* Takes a new snapshot. */
void snapshot_take(struct engine *e);

/* The positions of an entity on the node; -1 where a level does not apply. */
struct location {
    int gpu, gi, ci;
};
/* Locates a GPU, GPU instance or compute instance; false if it does not exist. */
bool snapshot_locate(const struct snapshot *s, int group, uint32_t id, struct location *out);
/* The entity that an XID is recorded on. */
dcgmGroupEntityPair_t xid_entity(const struct node_xid *x, uint32_t gpu_id);

struct node_reading *snapshot_gpu_reading(struct engine *e, int gpu);
struct node_reading *snapshot_reading(struct engine *e, const struct location *at);
/* How long each clock event reason of the GPU was active until the snapshot. */
const struct node_throttle *snapshot_throttle(struct engine *e, int gpu);
/* The override of a field of an entity; NULL if there is none. */
const struct node_override *snapshot_override(const struct snapshot *s, enum node_entity_kind of, int position,
                                              unsigned field);

#endif
