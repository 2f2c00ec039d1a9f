/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands that steer the node at run time. */
#ifndef DCGMSIM_COMMAND_COMMAND_H
#define DCGMSIM_COMMAND_COMMAND_H

#include "node/node.h"

#include <stdio.h>

/*
 * Runs one command line and writes one answer line, "ok…" or "error: …". Any
 * process may run commands: they work on the shared state. Returns 0 if the
 * command was carried out.
 */
int node_command(struct node_state *n, const char *line, char *answer, size_t answer_len);

/* Prints one line for each form of each command. */
void command_print_help(FILE *to);

#endif
