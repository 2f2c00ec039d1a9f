/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Scenario files and built-in scenarios. */
#ifndef DCGMSIM_SCENARIO_SCENARIO_H
#define DCGMSIM_SCENARIO_SCENARIO_H

#include "node/node.h"

#include <stdio.h>

/* Fills a zeroed node from a built-in scenario or a file. On failure returns -1, with FILE:LINE and the reason in err. */
int scenario_load(struct node_state *n, const char *name, char *err, size_t err_len);

/* Prints one line for each form of each statement. */
void scenario_print_help(FILE *to);

#endif
