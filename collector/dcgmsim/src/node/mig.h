/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* MIG layouts. */
#ifndef DCGMSIM_NODE_MIG_H
#define DCGMSIM_NODE_MIG_H

#include "node/node.h"

/*
 * Partitions a GPU. Layouts: "1g.10gb*7", "3g.40gb+2g.20gb*2",
 * "3g.40gb/1c,2c" (compute instances of 1 and 2 slices), "none" (MIG on, no
 * instances), "off". The caller holds the lock. On failure returns -1, writes
 * the reason to err and changes nothing.
 */
int node_set_mig(struct node_state *n, uint32_t position, const char *layout, char *err, size_t err_len);

#endif
