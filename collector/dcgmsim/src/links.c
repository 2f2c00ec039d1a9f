/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* NVLinks: how they are wired, when they are up, and what they carried. */
#include "node.h"

#include <string.h>

/* Of what a GPU's link carries, a trunk out of the node carries so much. */
#define TRUNK_SHARE 0.3

double node_link_rate(const struct node_model *m)
{
    return 0.55 * m->nvlink_link_bps;
}

/* No two links of a GPU carry the same, and together they carry `links` times the mean. */
static double weight(uint32_t index, uint32_t links)
{
    return 1 + 0.1 * ((index + 0.5) / links - 0.5);
}

double node_link_busy(const struct node_link *l, double busy_s)
{
    double missed = l->missed_busy_s + (l->down ? busy_s - l->down_busy_s : 0);
    return missed < busy_s ? busy_s - missed : 0;
}

void node_read_link(const struct node_gpu *g, uint32_t index, const struct node_reading *r, struct node_link_reading *out)
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
    if (p->kind == NODE_PORT_GPU) { /* the other end of the GPU's link: what one sends the other receives */
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

struct node_link *node_port_link(struct node_state *n, struct node_port *p)
{
    return p->kind == NODE_PORT_GPU ? &n->gpu[p->gpu].link[p->gpu_link] : &p->link;
}

void node_set_link(struct node_link *l, const struct node_gpu *g, int64_t boot_us, int64_t now_us, uint32_t cause, bool down)
{
    struct node_reading r;
    uint32_t after = down ? l->down | cause : l->down & ~cause;
    if ((after != 0) != (l->down != 0)) {
        node_read_gpu(g, boot_us, now_us, &r);
        if (after) {
            l->down_busy_s = r.busy_s;
            l->downs++;
        } else {
            l->missed_busy_s += r.busy_s - l->down_busy_s;
        }
    }
    l->down = after;
}

void node_set_presence(struct node_state *n, uint32_t position, bool lost, bool detached)
{
    struct node_gpu *g = &n->gpu[position];
    int64_t now = node_now_us();
    g->lost = lost;
    g->detached = detached;
    for (uint32_t i = 0; i < g->model.nvlinks && i < NODE_MAX_LINKS; i++)
        node_set_link(&g->link[i], g, n->boot_us, now, NODE_LINK_BY_GPU, lost || detached);
    atomic_fetch_add(&n->generation, 1);
}

void node_set_switch(struct node_state *n, uint32_t position, bool lost)
{
    struct node_switch *sw = &n->nvswitch[position];
    int64_t now = node_now_us();
    sw->lost = lost;
    for (uint32_t i = 0; i < NODE_MAX_PORTS; i++)
        if (sw->port[i].kind != NODE_PORT_UNUSED)
            node_set_link(node_port_link(n, &sw->port[i]), &n->gpu[sw->port[i].gpu], n->boot_us, now, NODE_LINK_BY_SWITCH,
                          lost);
    atomic_fetch_add(&n->generation, 1);
}

int node_switch_by_id(const struct node_state *n, uint32_t id)
{
    for (uint32_t i = 0; i < n->switch_count; i++)
        if (n->nvswitch[i].id == id)
            return (int)i;
    return -1;
}

/* Links of one GPU to switch `sw`: what does not divide goes to the outer switches first. */
static uint32_t links_to(uint32_t sw, uint32_t links, uint32_t switches)
{
    uint32_t rest = links % switches, rank = 2 * sw;
    if (sw >= (switches + 1) / 2)
        rank = 2 * (switches - 1 - sw) + 1;
    return links / switches + (rank < rest);
}

int node_wire(struct node_state *n, uint32_t count, const uint32_t *trunks)
{
    uint32_t trunk = 0;
    for (uint32_t s = 0; s < count; s++) {
        struct node_switch *sw = &n->nvswitch[s];
        uint32_t port = 0;
        memset(sw->port, 0, sizeof sw->port);
        for (uint32_t g = 0; g < n->gpu_count; g++) {
            uint32_t links = n->gpu[g].model.nvlinks, first = 0;
            for (uint32_t before = 0; before < s; before++)
                first += links_to(before, links, count);
            for (uint32_t k = 0; k < links_to(s, links, count); k++) {
                if (port == NODE_MAX_PORTS)
                    return -1;
                sw->port[port++] = (struct node_port){.kind = NODE_PORT_GPU, .gpu = (uint8_t)g, .gpu_link = (uint8_t)(first + k)};
            }
        }
        for (uint32_t k = 0; k < trunks[s]; k++) {
            if (port == NODE_MAX_PORTS || n->gpu_count == 0)
                return -1;
            sw->port[port++] = (struct node_port){.kind = NODE_PORT_TRUNK, .gpu = (uint8_t)(trunk++ % n->gpu_count)};
        }
    }
    n->switch_count = count;
    return 0;
}
