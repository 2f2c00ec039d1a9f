/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Opening the shared node. */
#ifndef DCGMSIM_ACCESS_STATEFILE_H
#define DCGMSIM_ACCESS_STATEFILE_H

#include "node/node.h"

/*
 * Maps the node, and creates it from the scenario if it is new. Idempotent and
 * thread-safe. Returns NULL on failure, with the reason in err. The pointer is
 * valid until the process ends.
 */
struct node_state *node_open(char *err, size_t err_len);

#endif
