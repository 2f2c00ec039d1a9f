/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* NVLink state: wiring, and links that go down or up. The caller holds the lock in every function. */
#ifndef DCGMSIM_NODE_LINKS_H
#define DCGMSIM_NODE_LINKS_H

#include "node/node.h"

/* The link that holds the state and errors of a port. */
struct node_link *node_port_link(struct node_state *n, struct node_port *port);

/* Sets or clears one cause (enum node_link_cause) of a link being down. The link's traffic is a share of `gpu`'s. */
void node_set_link(struct node_link *link, const struct node_gpu *gpu, int64_t boot_us, int64_t now_us, uint32_t cause,
                   bool down);

/* Loses, detaches or returns a GPU or a switch, together with its links. */
void node_set_presence(struct node_state *n, uint32_t gpu_position, bool lost, bool detached);
void node_set_switch(struct node_state *n, uint32_t position, bool lost);

/*
 * Connects the GPUs to `count` switches, with trunks[i] links out of the node
 * at switch i. The 18 links of a GPU end at four switches as on a DGX H100: 5,
 * 4, 4 and 5. Returns -1 if a switch has too few ports.
 */
int node_connect_switches(struct node_state *n, uint32_t count, const uint32_t *trunks);

#endif
