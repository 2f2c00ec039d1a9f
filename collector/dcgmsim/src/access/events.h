/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Timed commands of a scenario. */
#ifndef DCGMSIM_ACCESS_EVENTS_H
#define DCGMSIM_ACCESS_EVENTS_H

#include "node/node.h"

/* Runs the timed commands that are due. Cheap if none is due. */
void node_run_events(struct node_state *n);

#endif
