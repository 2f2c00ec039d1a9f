/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Values of GPU fields that follow the load: clocks, power, temperature, utilisation, memory, throttling. */
#include "engine/gpufields.h"

#include "engine/sample.h"
#include "node/load.h"

#include <math.h>
#include <stddef.h>

bool is_memory(unsigned id)
{
    return id == DCGM_FI_DEV_BAR1_TOTAL || id == DCGM_FI_DEV_BAR1_USED || id == DCGM_FI_DEV_BAR1_FREE ||
           (id >= DCGM_FI_DEV_BAR1_CAPACITY_BYTES && id <= DCGM_FI_DEV_BAR1_FREE_BYTES) ||
           (id >= DCGM_FI_DEV_FB_TOTAL && id <= DCGM_FI_DEV_FB_USED_RATIO);
}

static double mib(double v)
{
    return v * 1048576;
}

enum read_result read_memory(unsigned field, const struct node_gpu *g, const struct location *at,
                                    const struct node_reading *r, struct sample *out)
{
    double bar1 = (double)g->model.bar1_total_mib;
    if (at->gi >= 0)
        bar1 = bar1 * g->gi[at->gi].memory_slices / 8;
    switch (field) {
    case DCGM_FI_DEV_BAR1_TOTAL:
        return sample_integer(out, bar1);
    case DCGM_FI_DEV_BAR1_USED:
        return sample_integer(out, r->bar1_used_mib);
    case DCGM_FI_DEV_BAR1_FREE:
        return sample_integer(out, bar1 - r->bar1_used_mib);
    case DCGM_FI_DEV_BAR1_CAPACITY_BYTES:
        return sample_integer(out, mib(bar1));
    case DCGM_FI_DEV_BAR1_USED_BYTES:
        return sample_integer(out, mib(r->bar1_used_mib));
    case DCGM_FI_DEV_BAR1_FREE_BYTES:
        return sample_integer(out, mib(bar1 - r->bar1_used_mib));
    case DCGM_FI_DEV_FB_TOTAL:
        return sample_integer(out, r->fb_total_mib);
    case DCGM_FI_DEV_FB_FREE:
        return sample_integer(out, r->fb_free_mib);
    case DCGM_FI_DEV_FB_USED:
        return sample_integer(out, r->fb_used_mib);
    case DCGM_FI_DEV_FB_RESERVED:
        return sample_integer(out, r->fb_reserved_mib);
    default: /* DCGM_FI_DEV_FB_USED_RATIO */
        return sample_double(out, r->fb_used_mib / (r->fb_total_mib - r->fb_reserved_mib));
    }
}

/*
 * A utilisation percentage of NVML: the mean over the driver's last sample
 * period, which is 1/6 s to 1 s depending on the product (nvmlUtilization_t);
 * here 1/6 s. `full` is the percentage at full utilisation.
 */
static enum read_result driver_percent(const struct engine *e, const struct node_gpu *g, double full,
                                       struct sample *out)
{
    const int64_t period_us = 1000000 / 6;
    int64_t end = e->snapshot.time_us - e->snapshot.time_us % period_us;
    return sample_integer(out, round(full * node_mean_util(g, e->node->boot_us, end - period_us, end)));
}

#define READING(member) SOURCE_READING, offsetof(struct node_reading, member)
#define MODEL(member) SOURCE_MODEL, offsetof(struct node_model, member)
#define MODEL32(member) SOURCE_MODEL_UINT32, offsetof(struct node_model, member)
#define IF(member) offsetof(struct node_model, member)

/* Fields that are a member of the reading or of the model times a factor. */
static const struct {
    unsigned field;
    char type; /* DCGM_FT_* */
    enum { SOURCE_READING, SOURCE_MODEL, SOURCE_MODEL_UINT32 } source;
    size_t member; /* a double of the source, or a uint32_t */
    double factor;
    size_t condition; /* a bool of struct node_model; without it the field is not supported. 0: always */
} fields[] = {
    {DCGM_FI_DEV_SM_CLOCK, DCGM_FT_INT64, READING(sm_mhz), 1, 0},
    {DCGM_FI_DEV_MEM_CLOCK, DCGM_FT_INT64, READING(mem_mhz), 1, 0},
    {DCGM_FI_DEV_VIDEO_CLOCK, DCGM_FT_INT64, READING(video_mhz), 1, 0},
    {DCGM_FI_DEV_SM_CLOCK_HERTZ, DCGM_FT_INT64, READING(sm_mhz), 1e6, 0},
    {DCGM_FI_DEV_MEMORY_CLOCK_HERTZ, DCGM_FT_INT64, READING(mem_mhz), 1e6, 0},
    {DCGM_FI_DEV_VIDEO_CLOCK_HERTZ, DCGM_FT_INT64, READING(video_mhz), 1e6, 0},
    {DCGM_FI_DEV_APP_SM_CLOCK, DCGM_FT_INT64, MODEL32(sm_max_mhz), 1, 0},
    {DCGM_FI_DEV_MAX_SM_CLOCK, DCGM_FT_INT64, MODEL32(sm_max_mhz), 1, 0},
    {DCGM_FI_DEV_APP_MEM_CLOCK, DCGM_FT_INT64, MODEL32(mem_max_mhz), 1, 0},
    {DCGM_FI_DEV_MAX_MEM_CLOCK, DCGM_FT_INT64, MODEL32(mem_max_mhz), 1, 0},
    {DCGM_FI_DEV_MAX_VIDEO_CLOCK, DCGM_FT_INT64, MODEL32(video_max_mhz), 1, 0},
    {DCGM_FI_DEV_SM_APP_CLOCK_HERTZ, DCGM_FT_INT64, MODEL32(sm_max_mhz), 1e6, 0},
    {DCGM_FI_DEV_SM_MAX_CLOCK_HERTZ, DCGM_FT_INT64, MODEL32(sm_max_mhz), 1e6, 0},
    {DCGM_FI_DEV_MEMORY_APP_CLOCK_HERTZ, DCGM_FT_INT64, MODEL32(mem_max_mhz), 1e6, 0},
    {DCGM_FI_DEV_MEMORY_MAX_CLOCK_HERTZ, DCGM_FT_INT64, MODEL32(mem_max_mhz), 1e6, 0},
    {DCGM_FI_DEV_VIDEO_MAX_CLOCK_HERTZ, DCGM_FT_INT64, MODEL32(video_max_mhz), 1e6, 0},
    {DCGM_FI_DEV_MEMORY_TEMP_CELSIUS, DCGM_FT_INT64, READING(mem_temp_c), 1, IF(has_memory_temp)},
    {DCGM_FI_DEV_GPU_TEMP_CELSIUS, DCGM_FT_INT64, READING(temp_c), 1, 0},
    {DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS, DCGM_FT_INT64, MODEL(temp_slowdown_c), 1, 0},
    {DCGM_FI_DEV_GPU_TEMP_SHUTDOWN_CELSIUS, DCGM_FT_INT64, MODEL(temp_shutdown_c), 1, 0},
    {DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, DCGM_FT_INT64, READING(energy_mj), 1, IF(has_energy)},
    {DCGM_FI_DEV_BOARD_POWER_LIMIT_MIN_WATTS, DCGM_FT_DOUBLE, MODEL(power_min_w), 1, 0},
    {DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS, DCGM_FT_DOUBLE, MODEL(power_max_w), 1, 0},
    {DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS, DCGM_FT_DOUBLE, MODEL(power_limit_w), 1, 0},
    {DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS, DCGM_FT_DOUBLE, MODEL(power_limit_w), 1, 0},
    {DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS, DCGM_FT_DOUBLE, MODEL(power_limit_w), 1, 0},
    {DCGM_FI_DEV_FAN_SPEED, DCGM_FT_INT64, READING(fan_percent), 1, IF(has_fan)},
    {DCGM_FI_DEV_PCIE_MAX_LINK_GEN, DCGM_FT_INT64, MODEL32(pcie_gen), 1, 0},
    {DCGM_FI_DEV_PCIE_LINK_GEN, DCGM_FT_INT64, MODEL32(pcie_gen), 1, 0},
    {DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH, DCGM_FT_INT64, MODEL32(pcie_width), 1, 0},
    {DCGM_FI_DEV_PCIE_LINK_WIDTH, DCGM_FT_INT64, MODEL32(pcie_width), 1, 0},
};

/* Fields that need more than a factor. */
static enum read_result read_computed(const struct engine *e, unsigned field, const struct node_gpu *g,
                                      const struct node_reading *r, struct sample *out)
{
    const struct node_model *m = &g->model;
    switch (field) {
    case DCGM_FI_DEV_CLOCKS_EVENT_REASONS:
        return sample_integer(out, (double)r->clocks_event_reasons);
    case DCGM_FI_DEV_MEMORY_MAX_OP_TEMP_CELSIUS:
        return m->has_memory_temp ? sample_integer(out, m->temp_shutdown_c + 1) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_GPU_MAX_OP_TEMP_CELSIUS:
        return sample_integer(out, m->temp_slowdown_c - 2);
    case DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS:
        return m->has_margin ? sample_integer(out, m->temp_slowdown_c - r->temp_c) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_BOARD_POWER_WATTS:
    case DCGM_FI_DEV_BOARD_POWER_RAW_WATTS:
        return sample_double(out, floor(r->power_w * 1000) / 1000);
    case DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL:
        return m->has_energy ? sample_double(out, r->energy_mj / 1e3) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_GPU_PSTATE:
        return sample_integer(out, r->pstate);
    case DCGM_FI_DEV_FAN_SPEED_RATIO:
        return m->has_fan ? sample_double(out, r->fan_percent / 100) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PCIE_TX_THROUGHPUT: /* KB/s */
        return sample_integer(out, r->pcie_tx_bps / 1e3);
    case DCGM_FI_DEV_PCIE_RX_THROUGHPUT:
        return sample_integer(out, r->pcie_rx_bps / 1e3);
    case DCGM_FI_DEV_GPU_UTIL_RATIO: /* percent, despite its name */
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 100, out);
    case DCGM_FI_DEV_MEM_COPY_UTIL:
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 55, out);
    case DCGM_FI_DEV_ENC_UTIL:
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 100 * r->enc_full, out);
    case DCGM_FI_DEV_DEC_UTIL:
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 100 * r->dec_full, out);
    default:
        return READ_NOT_SUPPORTED;
    }
}

enum read_result read_general(const struct engine *e, unsigned field, const struct node_gpu *g,
                              const struct node_reading *r, struct sample *out)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].field != field)
            continue;
        if (fields[i].condition && !*(const bool *)(const void *)((const char *)&g->model + fields[i].condition))
            return READ_NOT_SUPPORTED;
        const char *source = fields[i].source == SOURCE_READING ? (const char *)r : (const char *)&g->model;
        const void *member = source + fields[i].member;
        double v = fields[i].source == SOURCE_MODEL_UINT32 ? *(const uint32_t *)member : *(const double *)member;
        v *= fields[i].factor;
        return fields[i].type == DCGM_FT_DOUBLE ? sample_double(out, v) : sample_integer(out, v);
    }
    return read_computed(e, field, g, r, out);
}

bool is_violation(unsigned id)
{
    return (id >= DCGM_FI_DEV_POWER_VIOLATION && id <= DCGM_FI_DEV_TOTAL_BASE_CLOCKS_VIOLATION) ||
           (id >= DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS &&
            id <= DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS);
}

enum read_result read_violation(unsigned id, const struct node_throttle *t, struct sample *out)
{
    /* the reasons whose times add up; reliability has none */
    static const struct {
        unsigned field;
        uint64_t reasons; /* enum node_reason */
    } violations[] = {
        {DCGM_FI_DEV_POWER_VIOLATION, NODE_REASON_POWER_CAP},
        {DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS, NODE_REASON_POWER_CAP},
        {DCGM_FI_DEV_THERMAL_VIOLATION, NODE_REASON_SW_THERMAL | NODE_REASON_HW_THERMAL},
        {DCGM_FI_DEV_SYNC_BOOST_VIOLATION, NODE_REASON_SYNC_BOOST},
        {DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_NS, NODE_REASON_SYNC_BOOST},
        {DCGM_FI_DEV_BOARD_LIMIT_VIOLATION, NODE_REASON_HW_POWER_BRAKE},
        {DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS, NODE_REASON_HW_POWER_BRAKE},
        {DCGM_FI_DEV_LOW_UTIL_VIOLATION, NODE_REASON_IDLE},
        {DCGM_FI_DEV_TOTAL_BASE_CLOCKS_VIOLATION, NODE_REASON_HW_SLOWDOWN},
        {DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS, NODE_REASON_SW_THERMAL},
        {DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS, NODE_REASON_HW_THERMAL},
    };
    int64_t ns = id == DCGM_FI_DEV_TOTAL_APP_CLOCKS_VIOLATION ? t->held_ns : 0;
    for (size_t i = 0; i < sizeof violations / sizeof violations[0]; i++)
        for (int bit = 0; violations[i].field == id && bit < NODE_REASONS; bit++)
            if (violations[i].reasons >> bit & 1)
                ns += t->reason_ns[bit];
    return sample_integer(out, (double)ns);
}

bool is_c2c(unsigned id)
{
    return (id >= DCGM_FI_DEV_C2C_LINK_QUANTITY && id <= DCGM_FI_DEV_C2C_MAX_BANDWIDTH) ||
           (id >= DCGM_FI_DEV_C2C_LINK_ERROR_TOTAL && id <= DCGM_FI_DEV_C2C_LINK_POWER_STATUS);
}

enum read_result read_c2c(unsigned id, const struct node_model *m, struct sample *out)
{
    if (m->c2c_links == 0)
        return READ_NOT_SUPPORTED;
    switch (id) {
    case DCGM_FI_DEV_C2C_LINK_QUANTITY:
        return sample_integer(out, m->c2c_links);
    case DCGM_FI_DEV_C2C_LINK_STATUS:
        return sample_integer(out, 1);
    case DCGM_FI_DEV_C2C_MAX_BANDWIDTH:
        return sample_integer(out, m->c2c_link_mbps);
    default: /* errors, and the power state: full power */
        return sample_integer(out, 0);
    }
}
