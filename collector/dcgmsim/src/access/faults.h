/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Faults injected by the commands hang, slow, fail, crash and garbage. */
#ifndef DCGMSIM_ACCESS_FAULTS_H
#define DCGMSIM_ACCESS_FAULTS_H

#include "node/node.h"

/*
 * Every exported function calls this first, with its own name. It runs due
 * timed commands and applies the faults on the call: it may sleep, block or
 * crash the process. Returns 0, or the status that the call must return.
 */
int node_enter_call(struct node_state *n, const char *call);

/*
 * Overwrites the answer of a successful call if the command garbage applies to
 * it: with a byte, or with noise in one byte of 16. Returns whether it did.
 */
bool node_garble(struct node_state *n, const char *call, void *answer, size_t size);

/* The number of entries for which a call demands room: NODE_GARBAGE_ENTRIES if the command garbage CALL size applies. */
unsigned node_garble_size(struct node_state *n, const char *call, unsigned size);

#endif
