/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Readings of the simulated hardware.
 *
 * All values derive from one curve, the utilisation u(t) of a GPU, whose
 * integral has a closed form. Power, PCIe rates and NVLink rates are linear in
 * u, so energy and byte totals are exact integrals at any sampling rate. The
 * means that DCGM and the driver publish are computed from the same integrals.
 */
#include "node/load.h"

#include "node/linktraffic.h"

#include <math.h>
#include <string.h>

/* u(t) = base + two sines + a train of trapezoids, with 0 <= u <= 1. */
struct curve {
    double base;
    double amp[2], omega[2], phase[2];
    double pulse, period, width, ramp, offset; /* pulse may be negative: a dip */
    uint64_t scatter; /* 0, or the seed of the random position of each pulse in its period; such pulses have no ramps */
};

static double unit(uint64_t seed, uint64_t what)
{
    return (double)(node_hash(seed, what) >> 11) * 0x1p-53;
}

static struct curve load_curve(const struct node_gpu *g)
{
    struct curve c;
    memset(&c, 0, sizeof c);
    c.period = 60;
    c.width = 1;
    c.ramp = 0.5;
    if (g->load.kind == NODE_LOAD_FIXED) {
        c.base = g->load.fixed_util;
        return c;
    }
    if (g->load.kind == NODE_LOAD_IDLE)
        return c;
    uint64_t s = g->seed;
    c.omega[0] = 2 * M_PI / (23 + 14 * unit(s, 1));
    c.omega[1] = 2 * M_PI / (7 + 4 * unit(s, 2));
    c.phase[0] = 2 * M_PI * unit(s, 3);
    c.phase[1] = 2 * M_PI * unit(s, 4);
    c.offset = 200 * unit(s, 5);
    c.ramp = 2;
    switch (g->load.kind) {
    case NODE_LOAD_STEADY:
        c.base = 0.45 + 0.3 * unit(s, 6);
        c.amp[0] = 0.06;
        c.amp[1] = 0.03;
        break;
    case NODE_LOAD_BURSTS: /* short pulses at random times */
        c.base = 0.02;
        c.pulse = 0.9;
        c.period = 1.1; /* not whole seconds, so that sampling once a second sees every part of the period */
        c.width = 0.3;
        c.offset = 0;
        c.scatter = s;
        break;
    case NODE_LOAD_TRAINING: /* near full utilisation, with pauses for checkpoints */
        c.base = 0.90 + 0.03 * unit(s, 6);
        c.amp[0] = 0.02;
        c.amp[1] = 0.02;
        c.pulse = -0.75;
        c.period = 110 + 50 * unit(s, 7);
        c.width = 8 + 4 * unit(s, 8);
        break;
    default: /* bursty: inference */
        c.base = 0.14 + 0.08 * unit(s, 6);
        c.amp[0] = 0.06;
        c.amp[1] = 0.05;
        c.pulse = 0.45 + 0.15 * unit(s, 9);
        c.period = 30 + 30 * unit(s, 7);
        c.width = c.period * (0.3 + 0.3 * unit(s, 8));
        break;
    }
    return c;
}

/* A trapezoid of height 1: up during ramp, flat until width, down during ramp. */
static double trapezoid(double x, double width, double ramp)
{
    if (x < ramp)
        return x / ramp;
    if (x < width)
        return 1;
    if (x < width + ramp)
        return 1 - (x - width) / ramp;
    return 0;
}

static double trapezoid_area(double x, double width, double ramp)
{
    if (x < ramp)
        return x * x / (2 * ramp);
    if (x < width)
        return ramp / 2 + (x - ramp);
    if (x < width + ramp) {
        double y = x - width;
        return ramp / 2 + (width - ramp) + y - y * y / (2 * ramp);
    }
    return width;
}

/* The offset of the pulse in period `number`. */
static double pulse_offset(const struct curve *c, double number)
{
    return (c->period - c->width) * unit(c->scatter, 1000 + (uint64_t)number);
}

static double curve_at(const struct curve *c, double t)
{
    double u = c->base + c->amp[0] * sin(c->omega[0] * t + c->phase[0]) + c->amp[1] * sin(c->omega[1] * t + c->phase[1]);
    if (c->scatter != 0) {
        double n = floor(t / c->period), x = t - n * c->period - pulse_offset(c, n);
        u += x >= 0 && x < c->width ? c->pulse : 0;
    } else if (c->pulse != 0)
        u += c->pulse * trapezoid(fmod(t + c->offset, c->period), c->width, c->ramp);
    return u;
}

/* The integral from 0 to t, plus a constant. */
static double curve_area(const struct curve *c, double t)
{
    double a = c->base * t;
    for (int i = 0; i < 2; i++)
        if (c->amp[i] != 0)
            a -= c->amp[i] / c->omega[i] * cos(c->omega[i] * t + c->phase[i]);
    if (c->scatter != 0) {
        double n = floor(t / c->period), x = t - n * c->period - pulse_offset(c, n);
        a += c->pulse * (n * c->width + (x < 0 ? 0 : x < c->width ? x : c->width));
    } else if (c->pulse != 0) {
        double x = t + c->offset, n = floor(x / c->period);
        a += c->pulse * (n * c->width + trapezoid_area(x - n * c->period, c->width, c->ramp));
    }
    return a;
}

static double power_slope(const struct node_model *m)
{
    return 0.97 * m->power_limit_w - m->power_idle_w;
}

static void totals(const struct node_gpu *g, int64_t boot_us, int64_t at_us, double *busy_s, double *energy_j)
{
    struct curve c = load_curve(g);
    double from = (double)(g->load.since_us - boot_us) / 1e6, to = (double)(at_us - boot_us) / 1e6;
    double busy = g->load.scale * (curve_area(&c, to) - curve_area(&c, from));
    *busy_s = g->load.base_busy_s + busy;
    *energy_j = g->load.base_energy_j + g->model.power_idle_w * (to - from) + power_slope(&g->model) * busy;
}

void node_set_load(struct node_gpu *g, int64_t boot_us, int64_t now_us, uint32_t kind, double util, double mem,
                   double scale)
{
    double busy, energy;
    node_advance_throttle(g, boot_us, now_us); /* under the old load */
    totals(g, boot_us, now_us, &busy, &energy);
    g->load.base_busy_s = busy;
    g->load.base_energy_j = energy;
    g->load.since_us = now_us;
    g->load.kind = kind;
    g->load.fixed_util = util;
    g->load.fixed_mem = mem;
    g->load.scale = scale;
}

static double clamp(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

/* The fraction of the memory in use: a constant allocation of the job, and a small variation. */
static double memory_fraction(const struct node_gpu *g, double t, double u)
{
    if (g->load.fixed_mem >= 0)
        return clamp(g->load.fixed_mem, 0, 1);
    if (g->load.kind == NODE_LOAD_IDLE)
        return 0.004;
    if (g->load.kind == NODE_LOAD_FIXED)
        return 0.05 + 0.85 * u;
    double held = 0.30 + 0.45 * unit(g->seed, 20);
    return held + 0.04 * sin(2 * M_PI * t / (180 + 120 * unit(g->seed, 21))) + 0.08 * u;
}

static double temperature(const struct node_gpu *g, double u)
{
    const struct node_model *m = &g->model;
    double heat = power_slope(m) * u / (m->power_limit_w - m->power_idle_w);
    return m->temp_idle_c + (m->temp_load_c - m->temp_idle_c) * heat + 3 * unit(g->seed, 24) + g->heat_c;
}

/* The clock event reasons: idle, power limit, heat, and forced ones. */
static uint64_t reasons_at(const struct node_gpu *g, double u, double temp_c)
{
    uint64_t why = u < 0.01 ? NODE_REASON_IDLE : u > 0.975 ? NODE_REASON_POWER_CAP : 0;
    if (temp_c >= g->model.temp_slowdown_c)
        why |= NODE_REASON_HW_THERMAL | NODE_REASON_HW_SLOWDOWN;
    else if (temp_c >= g->model.temp_slowdown_c - 2)
        why |= NODE_REASON_SW_THERMAL;
    return (why | g->reasons_on) & ~g->reasons_off;
}

static void ratios(double u, struct node_reading *r)
{
    r->util = u;
    r->sm_active = 0.92 * u;
    r->sm_occupancy = 0.48 * u;
    r->tensor_active = 0.37 * u;
    r->dram_active = 0.55 * u;
    r->mem_util = 0.55 * u;
    r->fp64_active = 0.01 * u;
    r->fp32_active = 0.16 * u;
    r->fp16_active = 0.11 * u;
}

/* Traffic of PCIe and NVLinks. It is proportional to the utilisation, and within the limits of the links. */
static void traffic(const struct node_gpu *g, double u, struct node_reading *r)
{
    const struct node_model *m = &g->model;
    double pcie = 0.985e9 * pow(2, (double)m->pcie_gen - 3) * m->pcie_width;
    double tx = (0.04 + 0.05 * unit(g->seed, 25)) * pcie, rx = (0.08 + 0.08 * unit(g->seed, 26)) * pcie;
    r->pcie_tx_bps = tx * u;
    r->pcie_rx_bps = rx * u;
    r->pcie_tx_bytes = tx * r->busy_s;
    r->pcie_rx_bytes = rx * r->busy_s;
    r->nvlink_tx_bps = r->nvlink_rx_bps = r->nvlink_tx_bytes = r->nvlink_rx_bytes = 0;
    for (uint32_t i = 0; i < m->nvlinks && i < NODE_MAX_LINKS; i++) {
        struct node_link_reading link;
        node_read_link(g, i, r, &link);
        r->nvlink_tx_bps += link.tx_bps;
        r->nvlink_rx_bps += link.rx_bps;
        r->nvlink_tx_bytes += link.tx_bytes;
        r->nvlink_rx_bytes += link.rx_bytes;
    }
}

void node_read_gpu(const struct node_gpu *g, int64_t boot_us, int64_t at_us, struct node_reading *r)
{
    const struct node_model *m = &g->model;
    memset(r, 0, sizeof *r);
    struct curve c = load_curve(g);
    double t = (double)(at_us - boot_us) / 1e6;
    double u = clamp(g->load.scale * curve_at(&c, t), 0, 1);
    double energy_j;
    totals(g, boot_us, at_us, &r->busy_s, &energy_j);
    r->energy_mj = energy_j * 1e3;
    ratios(u, r);
    r->enc_full = 0.12 * (0.4 + unit(g->seed, 22));
    r->dec_full = 0.20 * (0.4 + unit(g->seed, 23));
    r->enc_util = r->enc_full * u;
    r->dec_util = r->dec_full * u;

    r->fb_total_mib = (double)m->fb_total_mib;
    r->fb_reserved_mib = (double)m->fb_reserved_mib;
    double usable = r->fb_total_mib - r->fb_reserved_mib;
    r->fb_used_mib = floor(usable * clamp(memory_fraction(g, t, u), 0, 1));
    r->fb_free_mib = usable - r->fb_used_mib;
    r->bar1_used_mib = floor(2 + 0.002 * r->fb_used_mib);

    r->power_w = m->power_idle_w + power_slope(m) * u;
    double heat = (r->power_w - m->power_idle_w) / (m->power_limit_w - m->power_idle_w);
    r->temp_c = temperature(g, u);
    r->mem_temp_c = r->temp_c + 4 + 6 * heat;
    bool active = u >= 0.01;
    r->clocks_event_reasons = reasons_at(g, u, r->temp_c);
    double hold = r->clocks_event_reasons & (NODE_REASON_HW_SLOWDOWN | NODE_REASON_HW_THERMAL | NODE_REASON_HW_POWER_BRAKE) ? 0.5
        : 1;
    r->sm_mhz = active ? floor(m->sm_max_mhz * hold * (1 - 0.10 * u * u) / 15) * 15 : m->sm_idle_mhz;
    r->mem_mhz = active ? m->mem_max_mhz : m->mem_idle_mhz;
    r->video_mhz = active ? m->video_max_mhz : m->video_max_mhz / 2;
    r->pstate = active || m->mem_idle_mhz == m->mem_max_mhz ? 0 : 8;
    r->fan_percent = m->has_fan ? 30 + 50 * heat : 0;

    traffic(g, u, r);
}

/* Instances differ slightly in load. Their mean, weighted by slices, is the load of the GPU. */
static double instance_weight(const struct node_gpu *g, int slot)
{
    double sum = 0, slices = 0;
    for (int i = 0; i < NODE_MAX_GIS; i++) {
        if (!g->gi[i].present)
            continue;
        sum += g->gi[i].slices * (unit(g->seed, 40 + (uint64_t)i) - 0.5);
        slices += g->gi[i].slices;
    }
    double mean = slices > 0 ? sum / slices : 0;
    return 1 + 0.08 * ((unit(g->seed, 40 + (uint64_t)slot) - 0.5) - mean);
}

/* The utilisation of an instance, relative to its own size. Its compute instances have about the same. */
static double instance_util(const struct node_gpu *g, int gi_slot, int ci_slot, double u)
{
    u = clamp(u * instance_weight(g, gi_slot), 0, 1);
    return ci_slot < 0 ? u : clamp(u * (0.98 + 0.04 * unit(g->seed, 60 + (uint64_t)ci_slot)), 0, 1);
}

double node_mean_util(const struct node_gpu *g, int64_t boot_us, int64_t from_us, int64_t to_us)
{
    if (from_us < g->load.since_us)
        from_us = g->load.since_us;
    if (to_us <= from_us)
        to_us = from_us + 1;
    double from, to, energy;
    totals(g, boot_us, from_us, &from, &energy);
    totals(g, boot_us, to_us, &to, &energy);
    return clamp((to - from) / ((double)(to_us - from_us) / 1e6), 0, 1);
}

void node_set_mean(const struct node_gpu *g, int gi_slot, int ci_slot, double u, struct node_reading *r)
{
    u = clamp(round(u * 1e9) / 1e9, 0, 1); /* removes rounding errors of a constant load */
    if (gi_slot >= 0 && g->load.scale > 0)
        u = instance_util(g, gi_slot, ci_slot, u / g->load.scale);
    ratios(u, r);
    if (gi_slot < 0)
        traffic(g, u, r);
}

/*
 * The times at which a curve passes a bound have no closed form. The function
 * steps by 50 ms, or by more after a long time without a call.
 */
void node_advance_throttle(struct node_gpu *g, int64_t boot_us, int64_t at_us)
{
    struct node_throttle *t = &g->throttle;
    if (t->until_us == 0)
        t->until_us = boot_us;
    int64_t step = (at_us - t->until_us) / 1200;
    if (step < 50000)
        step = 50000;
    struct curve c = load_curve(g);
    while (t->until_us < at_us) {
        int64_t us = at_us - t->until_us < step ? at_us - t->until_us : step;
        double u = clamp(g->load.scale * curve_at(&c, ((double)(t->until_us - boot_us) + (double)us / 2) / 1e6), 0, 1);
        uint64_t active = reasons_at(g, u, temperature(g, u));
        for (int i = 0; i < NODE_REASONS; i++)
            if (active >> i & 1)
                t->reason_ns[i] += us * 1000;
        if (active & ~(uint64_t)(NODE_REASON_CLOCKS_SETTING | NODE_REASON_DISPLAY))
            t->held_ns += us * 1000;
        t->until_us += us;
    }
}

/* Each core follows the GPU load to a different degree. */
void node_read_core(uint64_t seed, uint32_t core, double gpu_util, int64_t at_us, struct node_cpu_reading *out)
{
    double t = (double)at_us / 1e6, own = unit(seed, 70000 + core);
    double busy = clamp(0.03 + 0.45 * gpu_util * own + 0.05 * sin(2 * M_PI * (t / (15 + 20 * own) + own)) + 0.05, 0, 1);
    *out = (struct node_cpu_reading){0.78 * busy, 0.02 * busy, 0.18 * busy, 0.02 * busy};
}

void node_read_instance(const struct node_gpu *g, int gi_slot, int ci_slot, int64_t boot_us, int64_t at_us,
                        struct node_reading *r)
{
    const struct node_gi *gi = &g->gi[gi_slot];
    node_read_gpu(g, boot_us, at_us, r);
    struct curve c = load_curve(g);
    double t = (double)(at_us - boot_us) / 1e6;
    double u = instance_util(g, gi_slot, ci_slot, curve_at(&c, t));
    ratios(u, r);
    r->fb_total_mib = (double)gi->fb_total_mib;
    r->fb_reserved_mib = 0;
    r->fb_used_mib = floor(r->fb_total_mib * clamp(memory_fraction(g, t, u) * instance_weight(g, gi_slot), 0, 1));
    r->fb_free_mib = r->fb_total_mib - r->fb_used_mib;
    r->bar1_used_mib = floor(1 + 0.002 * r->fb_used_mib);
    r->pcie_tx_bps = r->pcie_rx_bps = r->nvlink_tx_bps = r->nvlink_rx_bps = 0;
}
