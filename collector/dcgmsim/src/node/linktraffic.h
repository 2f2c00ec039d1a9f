/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The traffic of one NVLink. Every function is pure. */
#ifndef DCGMSIM_NODE_LINKTRAFFIC_H
#define DCGMSIM_NODE_LINKTRAFFIC_H

#include "node/node.h"
#include "node/reading.h"

/* `r` is the reading of `gpu` at the same moment. */
void node_read_link(const struct node_gpu *gpu, uint32_t index, const struct node_reading *r,
                    struct node_link_reading *out);
/* `gpu` is the GPU of the port; `r` is its reading at the same moment. */
void node_read_port(const struct node_port *port, const struct node_gpu *gpu, const struct node_reading *r,
                    struct node_link_reading *out);

#endif
