/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* NVLink and NVSwitch lookups in a snapshot. */
#ifndef DCGMSIM_ENGINE_LINKSTATE_H
#define DCGMSIM_ENGINE_LINKSTATE_H

#include "engine/state.h"

/* Positions by DCGM id; -1 if there is none. */
int gpu_of(const struct snapshot *s, uint32_t id);
int switch_of(const struct snapshot *s, uint32_t id);

/* Reports whether a link or switch entity may join a group. */
bool link_entity_exists(const struct snapshot *s, int group, uint32_t id);

/* A port is visible if it leads out of the node, or if the scenario shows the ports that face GPUs. */
bool link_port_visible(const struct snapshot *s, const struct node_port *p);
bool link_port_up(const struct snapshot *s, const struct node_port *p);

/* A bit for each link that is up, and how many there are. */
uint64_t links_up(const struct node_gpu *g, uint32_t *count);
/* Reports whether NVLink connects two GPUs. */
bool links_connect(const struct snapshot *s, uint32_t a, uint32_t b);

#endif
