/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The control socket of an engine. */
#ifndef DCGMSIM_ENGINE_CONTROL_H
#define DCGMSIM_ENGINE_CONTROL_H

#include "node/node.h"

struct control;

/* Serves DCGMSIM_CONTROL in a thread; NULL if the variable is not set or the socket cannot be made. */
struct control *control_start(struct node_state *n);
void control_stop(struct control *c);

#endif
