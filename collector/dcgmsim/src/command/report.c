/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands that report the state of the node. */
#include "command/handlers.h"
#include "node/linktraffic.h"
#include "node/links.h"
#include "node/load.h"

#include <stdio.h>
#include <string.h>

enum command_result handle_truth_link(struct request *r)
{
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 2, TARGET_GPU | TARGET_SWITCH, &target))
        return COMMAND_FAILED;
    bool of_switch = target.kind == NODE_ENTITY_SWITCH;
    long port, last = of_switch ? NODE_MAX_PORTS - 1 : (long)n->gpu[target.position].model.nvlinks - 1;
    if (!parse_number(option(r, 2, "port"), 0, last, &port))
        return COMMAND_USAGE;
    struct node_link_reading x = {0};
    struct node_reading reading;
    uint64_t error[NODE_LINK_ERRORS];
    node_lock(n);
    int64_t now = node_now_us();
    struct node_port *end = of_switch ? &n->nvswitch[target.position].port[port] : NULL;
    const struct node_gpu *g = &n->gpu[end ? end->gpu : target.position];
    node_read_gpu(g, n->boot_us, now, &reading);
    if (end)
        node_read_port(end, g, &reading, &x);
    else
        node_read_link(g, (uint32_t)port, &reading, &x);
    memcpy(error, (end ? node_port_link(n, end) : &g->link[port])->error, sizeof error);
    node_unlock(n);
    return answer_ok(r, "at_us=%lld up=%d tx_bytes=%.0f rx_bytes=%.0f replay=%llu recovery=%llu flit=%llu crc=%llu ecc=%llu",
                     (long long)now, x.up, x.tx_bytes, x.rx_bytes, (unsigned long long)error[NODE_LINK_REPLAY],
                     (unsigned long long)error[NODE_LINK_RECOVERY], (unsigned long long)error[NODE_LINK_FLIT],
                     (unsigned long long)error[NODE_LINK_CRC], (unsigned long long)error[NODE_LINK_ECC]);
}

enum command_result handle_truth(struct request *r)
{
    /* by bit of enum node_reason */
    static const char *const reasons[NODE_REASONS] = {"idle",       "clocks_setting", "power_cap",      "hw_slowdown", "sync_boost",
                                                      "sw_thermal", "hw_thermal",     "hw_power_brake", "display"};
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    struct node_gpu g;
    struct node_reading x;
    node_lock(n);
    int64_t now = node_now_us();
    node_advance_throttle(&n->gpu[gpu], n->boot_us, now);
    g = n->gpu[gpu];
    node_unlock(n);
    node_read_gpu(&g, n->boot_us, now, &x);
    char held[500] = "";
    size_t used = 0;
    for (int i = 0; i < NODE_REASONS && used < sizeof held; i++)
        used += (size_t)snprintf(held + used, sizeof held - used, " %s_ns=%lld", reasons[i], (long long)g.throttle.reason_ns[i]);
    return answer_ok(r,
                     "at_us=%lld boot_us=%lld util=%.6f busy_s=%.6f power_w=%.6f energy_mj=%.3f fb_used_mib=%.0f temp_c=%.3f "
                     "pcie_tx_bytes=%.0f pcie_rx_bytes=%.0f nvlink_tx_bytes=%.0f nvlink_rx_bytes=%.0f reasons=%#llx%s "
                     "held_ns=%lld uuid=%s",
                     (long long)now, (long long)n->boot_us, x.util, x.busy_s, x.power_w, x.energy_mj, x.fb_used_mib, x.temp_c,
                     x.pcie_tx_bytes, x.pcie_rx_bytes, x.nvlink_tx_bytes, x.nvlink_rx_bytes,
                     (unsigned long long)x.clocks_event_reasons, held, (long long)g.throttle.held_ns, g.uuid);
}

enum command_result handle_state(struct request *r)
{
    struct node_state *n = r->node;
    char text[1800] = "";
    size_t used = 0;
    node_lock(n);
    for (uint32_t i = 0; i < n->gpu_count && used < sizeof text; i++) {
        const struct node_gpu *g = &n->gpu[i];
        int gis = 0, cis = 0;
        for (int k = 0; k < NODE_MAX_GIS; k++) {
            gis += g->gi[k].present;
            cis += g->ci[k].present;
        }
        used += (size_t)snprintf(text + used, sizeof text - used, " gpu%u=%s%s", g->dcgm_id,
                                 g->lost ? "lost" : g->mute ? "mute" : g->detached ? "detached" : "ok", g->mig_enabled ? ",mig" : "");
        if (g->mig_enabled && used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, ":%d/%d", gis, cis);
    }
    for (uint32_t i = 0; i < n->switch_count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " switch%u=%s", n->nvswitch[i].id,
                                 n->nvswitch[i].lost ? "lost" : "ok");
    if (n->cpu_count && used < sizeof text)
        used += (size_t)snprintf(text + used, sizeof text - used, " cpus=%u", n->cpu_count);
    node_unlock(n);
    return answer_ok(r, "scenario=%s gpus=%u xids=%llu faults=%u engine=%s%s", n->scenario, n->gpu_count,
                     (unsigned long long)atomic_load(&n->xid_seq), atomic_load(&n->fault_count),
                     atomic_load(&n->engine_lost) ? "lost" : "ok", n->gpu_count ? text : "");
}
