/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Values of the profiling fields (1001 and up) of a GPU or an instance. */
#include "engine/gpufields.h"

#include "engine/sample.h"
#include "node/linktraffic.h"

#include <stddef.h>

/* The entities that have a value of a field. On the others it is blank. */
enum profiling_scope {
    SCOPE_GPU,        /* GPUs only */
    SCOPE_GI,         /* GPUs and GPU instances */
    SCOPE_CI          /* also compute instances */
};

#define READING(member) offsetof(struct node_reading, member)

/* Fields that are a member of the reading times a factor. */
static const struct {
    unsigned field;
    char type; /* DCGM_FT_* */
    enum profiling_scope scope;
    size_t member; /* a double of struct node_reading */
    double factor;
} fields[] = {
    {DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(util), 1},
    {DCGM_FI_PROF_SM_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(sm_active), 1},
    {DCGM_FI_PROF_SM_OCCUPANCY_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(sm_occupancy), 1},
    {DCGM_FI_PROF_TENSOR_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(tensor_active), 1},
    {DCGM_FI_PROF_HMMA_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(tensor_active), 1},
    {DCGM_FI_PROF_DRAM_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_GI, READING(dram_active), 1},
    {DCGM_FI_PROF_FP64_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(fp64_active), 1},
    {DCGM_FI_PROF_FP32_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(fp32_active), 1},
    {DCGM_FI_PROF_FP16_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(fp16_active), 1},
    {DCGM_FI_PROF_INT_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(fp32_active), 0.7},
    {DCGM_FI_PROF_IMMA_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(util), 0},
    {DCGM_FI_PROF_DFMA_UTIL_RATIO, DCGM_FT_DOUBLE, SCOPE_CI, READING(util), 0},
    {DCGM_FI_PROF_PCIE_TX_BYTES, DCGM_FT_INT64, SCOPE_GPU, READING(pcie_tx_bps), 1},
    {DCGM_FI_PROF_PCIE_RX_BYTES, DCGM_FT_INT64, SCOPE_GPU, READING(pcie_rx_bps), 1},
    {DCGM_FI_PROF_PCIE_TX_BYTES_TOTAL, DCGM_FT_INT64, SCOPE_GPU, READING(pcie_tx_bytes), 1},
    {DCGM_FI_PROF_PCIE_RX_BYTES_TOTAL, DCGM_FT_INT64, SCOPE_GPU, READING(pcie_rx_bytes), 1},
};

/* Cycle counters of a GPU: the share of its busy cycles that each counts. */
static const struct {
    unsigned field;
    double share;
} cycle_fields[] = {
    {DCGM_FI_PROF_SM_CYCLES_ACTIVE_TOTAL, 0.92},   {DCGM_FI_PROF_MMA_CYCLES_ACTIVE_TOTAL, 0.37},
    {DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL, 0.37}, {DCGM_FI_PROF_FP32_CYCLES_ACTIVE_TOTAL, 0.16},
    {DCGM_FI_PROF_FP16_CYCLES_ACTIVE_TOTAL, 0.11}, {DCGM_FI_PROF_FP64_CYCLES_ACTIVE_TOTAL, 0.01},
    {DCGM_FI_PROF_INT_CYCLES_ACTIVE_TOTAL, 0.112}, {DCGM_FI_PROF_DMMA_CYCLES_ACTIVE_TOTAL, 0},
    {DCGM_FI_PROF_IMMA_CYCLES_ACTIVE_TOTAL, 0},    {DCGM_FI_PROF_DFMA_CYCLES_ACTIVE_TOTAL, 0},
};

/* Traffic of an NVLink by its number, from L0_TX, L0_RX to L17_RX. */
static enum read_result read_link(unsigned field, const struct node_gpu *g, const struct node_reading *r, struct sample *out)
{
    unsigned link = (field - DCGM_FI_PROF_NVLINK_L0_TX_BYTES) / 2, rx = (field - DCGM_FI_PROF_NVLINK_L0_TX_BYTES) % 2;
    struct node_link_reading l;
    if (link >= g->model.nvlinks)
        return READ_NOT_SUPPORTED;
    node_read_link(g, link, r, &l);
    return sample_integer(out, rx ? l.rx_bps : l.tx_bps);
}

/* Fields that only GPUs have, and some models do not. */
static enum read_result read_gpu_only(unsigned field, const struct node_gpu *g, const struct node_reading *r, double uptime_s,
                                      struct sample *out)
{
    double cycles = g->model.sm_max_mhz * 1e6; /* per second */
    if (field >= DCGM_FI_PROF_NVLINK_L0_TX_BYTES && field <= DCGM_FI_PROF_NVLINK_L17_RX_BYTES)
        return read_link(field, g, r, out);
    if (field >= DCGM_FI_PROF_NVDEC_UTIL_0_RATIO && field <= DCGM_FI_PROF_NVDEC_UTIL_7_RATIO)
        return field - DCGM_FI_PROF_NVDEC_UTIL_0_RATIO < g->model.decoders ? sample_double(out, r->dec_util) : READ_NOT_SUPPORTED;
    if (field >= DCGM_FI_PROF_NVJPG_UTIL_0_RATIO && field <= DCGM_FI_PROF_NVOFA_UTIL_1_RATIO)
        return sample_double(out, 0);
    for (size_t i = 0; i < sizeof cycle_fields / sizeof cycle_fields[0]; i++)
        if (cycle_fields[i].field == field)
            return sample_integer(out, cycle_fields[i].share * cycles * r->busy_s);
    double c2c = 0.1 * r->util * g->model.c2c_links * g->model.c2c_link_mbps * 1e6;
    switch (field) {
    case DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL:
        return sample_integer(out, cycles * uptime_s);
    case DCGM_FI_PROF_NVLINK_TX_BYTES:
        return g->model.nvlinks > 0 ? sample_integer(out, r->nvlink_tx_bps) : READ_NOT_SUPPORTED;
    case DCGM_FI_PROF_NVLINK_RX_BYTES:
        return g->model.nvlinks > 0 ? sample_integer(out, r->nvlink_rx_bps) : READ_NOT_SUPPORTED;
    case DCGM_FI_PROF_C2C_TX_DATA_BYTES:
    case DCGM_FI_PROF_C2C_RX_DATA_BYTES:
        return g->model.c2c_links > 0 ? sample_integer(out, c2c) : READ_NOT_SUPPORTED;
    case DCGM_FI_PROF_C2C_TX_ALL_BYTES: /* with headers */
    case DCGM_FI_PROF_C2C_RX_ALL_BYTES:
        return g->model.c2c_links > 0 ? sample_integer(out, 1.06 * c2c) : READ_NOT_SUPPORTED;
    default: /* caches of Grace */
        return READ_NOT_SUPPORTED;
    }
}

enum read_result read_profiling(unsigned field, const struct node_gpu *g, const struct location *at,
                                const struct node_reading *r, double uptime_s, struct sample *out)
{
    enum profiling_scope scope = at->ci >= 0 ? SCOPE_CI : at->gi >= 0 ? SCOPE_GI : SCOPE_GPU;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].field != field)
            continue;
        if (scope > fields[i].scope)
            return READ_BLANK;
        double v = fields[i].factor * *(const double *)(const void *)((const char *)r + fields[i].member);
        return fields[i].type == DCGM_FT_DOUBLE ? sample_double(out, v) : sample_integer(out, v);
    }
    enum read_result result = read_gpu_only(field, g, r, uptime_s, out);
    return result == READ_OK && scope != SCOPE_GPU ? READ_BLANK : result;
}
