/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* NVLink state: the wiring to switches, and the changes that take links down or up. */
#include "node/links.h"

#include "node/load.h"

#include <string.h>

struct node_link *node_port_link(struct node_state *n, struct node_port *p)
{
    return p->kind == NODE_PORT_GPU ? &n->gpu[p->gpu].link[p->gpu_link] : &p->link;
}

void node_set_link(struct node_link *l, const struct node_gpu *g, int64_t boot_us, int64_t now_us, uint32_t cause,
                   bool down)
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
        node_set_link(&g->link[i], g, n->boot_us, now, NODE_LINK_DOWN_BY_GPU, lost || detached);
    atomic_fetch_add(&n->generation, 1);
}

void node_set_switch(struct node_state *n, uint32_t position, bool lost)
{
    struct node_switch *sw = &n->nvswitch[position];
    int64_t now = node_now_us();
    sw->lost = lost;
    for (uint32_t i = 0; i < NODE_MAX_PORTS; i++)
        if (sw->port[i].kind != NODE_PORT_UNUSED)
            node_set_link(node_port_link(n, &sw->port[i]), &n->gpu[sw->port[i].gpu], n->boot_us, now,
                          NODE_LINK_DOWN_BY_SWITCH,
                          lost);
    atomic_fetch_add(&n->generation, 1);
}

/* The number of links of one GPU to switch `sw`. The outer switches get the remainder first. */
static uint32_t links_to_switch(uint32_t sw, uint32_t links, uint32_t switches)
{
    uint32_t rest = links % switches, rank = 2 * sw;
    if (sw >= (switches + 1) / 2)
        rank = 2 * (switches - 1 - sw) + 1;
    return links / switches + (rank < rest);
}

int node_connect_switches(struct node_state *n, uint32_t count, const uint32_t *trunks)
{
    uint32_t trunk = 0;
    for (uint32_t s = 0; s < count; s++) {
        struct node_switch *sw = &n->nvswitch[s];
        uint32_t port = 0;
        memset(sw->port, 0, sizeof sw->port);
        for (uint32_t g = 0; g < n->gpu_count; g++) {
            uint32_t links = n->gpu[g].model.nvlinks, first = 0;
            for (uint32_t before = 0; before < s; before++)
                first += links_to_switch(before, links, count);
            for (uint32_t k = 0; k < links_to_switch(s, links, count); k++) {
                if (port == NODE_MAX_PORTS)
                    return -1;
                sw->port[port++] = (struct node_port){.kind = NODE_PORT_GPU, .gpu = (uint8_t)g,
                                                      .gpu_link = (uint8_t)(first + k)};
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
