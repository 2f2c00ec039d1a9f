/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The traffic of one NVLink, derived from the busy time of its GPU. */
#include "node/linktraffic.h"

#include <string.h>

/* The traffic of a trunk out of the node, as a fraction of the traffic of a GPU's link. */
#define TRUNK_SHARE 0.3

double node_link_rate(const struct node_model *m)
{
    return 0.55 * m->nvlink_link_bps;
}

/* Each link of a GPU has a different weight; the mean is 1. */
static double weight(uint32_t index, uint32_t links)
{
    return 1 + 0.1 * ((index + 0.5) / links - 0.5);
}

double node_link_busy(const struct node_link *l, double busy_s)
{
    double missed = l->missed_busy_s + (l->down ? busy_s - l->down_busy_s : 0);
    return missed < busy_s ? busy_s - missed : 0;
}

void node_read_link(const struct node_gpu *g, uint32_t index, const struct node_reading *r,
                    struct node_link_reading *out)
{
    const struct node_link *l = &g->link[index];
    double rate = node_link_rate(&g->model) * weight(index, g->model.nvlinks), busy = node_link_busy(l, r->busy_s);
    out->up = l->down == 0;
    out->tx_bps = out->up ? rate * r->util : 0;
    out->rx_bps = 0.98 * out->tx_bps;
    out->tx_bytes = rate * busy;
    out->rx_bytes = 0.98 * out->tx_bytes;
}

void node_read_port(const struct node_port *p, const struct node_gpu *g, const struct node_reading *r,
                    struct node_link_reading *out)
{
    memset(out, 0, sizeof *out);
    if (p->kind == NODE_PORT_GPU) { /* the other end of the GPU's link: sent and received are exchanged */
        struct node_link_reading gpu;
        node_read_link(g, p->gpu_link, r, &gpu);
        *out = (struct node_link_reading){gpu.up, gpu.rx_bps, gpu.tx_bps, gpu.rx_bytes, gpu.tx_bytes};
    } else if (p->kind == NODE_PORT_TRUNK) {
        double rate = TRUNK_SHARE * node_link_rate(&g->model);
        out->up = p->link.down == 0;
        out->tx_bps = out->up ? rate * r->util : 0;
        out->rx_bps = 0.98 * out->tx_bps;
        out->tx_bytes = rate * node_link_busy(&p->link, r->busy_s);
        out->rx_bytes = 0.98 * out->tx_bytes;
    }
}
