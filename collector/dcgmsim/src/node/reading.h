/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Readings of the simulated hardware at one moment. */
#ifndef DCGMSIM_NODE_READING_H
#define DCGMSIM_NODE_READING_H

#include <stdbool.h>
#include <stdint.h>

/* A reading of a GPU or a GPU instance: a pure function of seed, load and time. */
struct node_reading {
    double util;          /* engine activity, 0 to 1 */
    double mem_util;      /* memory bandwidth activity, 0 to 1 */
    double enc_util, dec_util;
    double enc_full, dec_full; /* at full utilisation */
    double fb_used_mib, fb_free_mib, fb_reserved_mib, fb_total_mib;
    double bar1_used_mib;
    double power_w, temp_c, mem_temp_c;
    double sm_mhz, mem_mhz, video_mhz;
    double energy_mj;     /* millijoules since boot: the integral of power_w */
    double busy_s;        /* seconds since boot: the integral of util */
    double pcie_tx_bps, pcie_rx_bps, pcie_tx_bytes, pcie_rx_bytes; /* bytes per second, and bytes since boot */
    double nvlink_tx_bps, nvlink_rx_bps, nvlink_tx_bytes, nvlink_rx_bytes; /* sum of all links */
    double sm_active, sm_occupancy, tensor_active, dram_active, fp64_active, fp32_active, fp16_active;
    uint32_t pstate;
    double fan_percent;
    uint64_t clocks_event_reasons; /* enum node_reason */
};

/* A reading of one NVLink at one of its ends. */
struct node_link_reading {
    bool up;
    double tx_bps, rx_bps, tx_bytes, rx_bytes; /* bytes per second, and bytes since boot */
};

struct node_cpu_reading { /* fractions of the time, 0 to 1 */
    double user, nice, sys, irq;
};

#endif
