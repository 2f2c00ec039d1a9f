/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a field of an entity shows right now. Which entity has which field, and
 * which "no value" stands in its place, is as observed on DCGM 4.6.
 */
#include "engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool engine_locate(const struct snapshot *s, int group, uint32_t id, struct place *out)
{
    *out = (struct place){-1, -1, -1};
    if (group != DCGM_FE_GPU && group != DCGM_FE_GPU_I && group != DCGM_FE_GPU_CI)
        return false;
    uint32_t gpu_id = group == DCGM_FE_GPU ? id : id / 7;
    for (uint32_t i = 0; i < s->gpu_count; i++)
        if (s->gpu[i].dcgm_id == gpu_id)
            out->gpu = (int)i;
    if (out->gpu < 0 || group == DCGM_FE_GPU)
        return out->gpu >= 0;
    const struct node_gpu *g = &s->gpu[out->gpu];
    int slot = (int)(id % 7);
    if (group == DCGM_FE_GPU_I) {
        out->gi = slot;
        return g->gi[slot].present;
    }
    out->ci = slot;
    out->gi = g->ci[slot].gi;
    return g->ci[slot].present;
}

struct node_reading *value_gpu_reading(struct engine *e, int gpu)
{
    struct snapshot *s = &e->now;
    if (!s->have_gpu[gpu]) {
        node_read_gpu(&s->gpu[gpu], e->node->boot_us, s->now_us, &s->gpu_reading[gpu]);
        s->have_gpu[gpu] = true;
    }
    return &s->gpu_reading[gpu];
}

static struct node_reading *reading_at(struct engine *e, const struct place *at)
{
    struct snapshot *s = &e->now;
    if (at->gi < 0)
        return value_gpu_reading(e, at->gpu);
    bool *have = at->ci >= 0 ? &s->have_ci[at->gpu][at->ci] : &s->have_gi[at->gpu][at->gi];
    struct node_reading *r = at->ci >= 0 ? &s->ci_reading[at->gpu][at->ci] : &s->gi_reading[at->gpu][at->gi];
    if (!*have) {
        node_read_instance(&s->gpu[at->gpu], at->gi, at->ci, e->node->boot_us, s->now_us, r);
        *have = true;
    }
    return r;
}

bool value_is_profiling(unsigned field)
{
    return field >= DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO && field <= DCGM_FI_PROF_FP16_CYCLES_ACTIVE_TOTAL;
}

const struct node_throttle *value_throttle(struct engine *e, int gpu)
{
    struct snapshot *s = &e->now;
    if (!s->have_throttle[gpu]) {
        struct node_gpu *g = &e->node->gpu[gpu];
        node_lock(e->node);
        node_advance_throttle(g, e->node->boot_us, s->now_us);
        s->throttle[gpu] = g->throttle;
        node_unlock(e->node);
        s->have_throttle[gpu] = true;
    }
    return &s->throttle[gpu];
}

bool value_gpm(const struct node_model *m)
{
    return strcmp(m->architecture, "hopper") == 0 || strcmp(m->architecture, "blackwell") == 0;
}

static uint32_t profiling_fault(const struct engine *e, int gpu)
{
    const struct node_gpu *g = &e->now.gpu[gpu];
    return e->profiling_mended[gpu] == g->profiling_seq ? NODE_PROFILING_OK : g->profiling_mode;
}

dcgmReturn_t value_profiling_lock(struct engine *e, int gpu)
{
    return profiling_fault(e, gpu) == NODE_PROFILING_LOCKED ? (dcgmReturn_t)e->now.gpu[gpu].profiling_code : DCGM_ST_OK;
}

void value_profiling_mend(struct engine *e, int gpu)
{
    const struct node_gpu *g = &e->now.gpu[gpu];
    if (!g->profiling_for_good && g->profiling_mode != NODE_PROFILING_LOCKED)
        e->profiling_mended[gpu] = g->profiling_seq;
}

enum read_result value_profiling_reading(struct engine *e, int gpu, const struct place *at, struct watch *w,
                                         struct node_reading *scratch, const struct node_reading **out, int64_t *at_us)
{
    const struct node_gpu *g = &e->now.gpu[gpu];
    bool instance = at && at->gi >= 0;
    if (!g->model.profiling)
        return READ_NO_DATA;
    double busy_s = w ? value_gpu_reading(e, gpu)->busy_s : 0, since_s = 0, before_s = 0;
    if (w) { /* a mean needs two looks: the first sample has none */
        bool primed = w->profiling_primed;
        since_s = (double)(e->now.now_us - w->last_total_us) / 1e6;
        before_s = w->last_total;
        w->last_total = busy_s;
        w->last_total_us = e->now.now_us;
        w->profiling_primed = true;
        if (!primed)
            return READ_BLANK;
    }
    if (e->profiling_paused && !value_gpm(&g->model))
        return READ_BLANK;
    int64_t when = e->now.now_us;
    *out = scratch;
    switch (profiling_fault(e, gpu)) {
    case NODE_PROFILING_LOCKED:
        return READ_BLANK;
    case NODE_PROFILING_STALLED:
        return READ_NO_DATA; /* the last sample stays the newest */
    case NODE_PROFILING_ZERO:
        memset(scratch, 0, sizeof *scratch);
        break;
    case NODE_PROFILING_FROZEN: {
        struct node_gpu then = *g;
        then.load = g->profiling_load;
        when = g->profiling_since_us;
        if (instance)
            node_read_instance(&then, at->gi, at->ci, e->node->boot_us, when, scratch);
        else
            node_read_gpu(&then, e->node->boot_us, when, scratch);
        break;
    }
    default:
        *scratch = instance ? *reading_at(e, at) : *value_gpu_reading(e, gpu);
        /* the mean since the sample before, as the hardware counts cycles and bytes */
        if (since_s > 0)
            node_set_mean(g, instance ? at->gi : -1, instance ? at->ci : -1, (busy_s - before_s) / since_s, scratch);
    }
    if (at_us)
        *at_us = when;
    return READ_OK;
}

const struct node_override *value_override(const struct snapshot *s, enum node_of of, int position, unsigned field)
{
    const struct node_override *found = NULL;
    for (uint32_t i = 0; i < s->override_count; i++) {
        const struct node_override *o = &s->override[i];
        if (o->field == field && ((o->gpu == position && o->group == of) || (o->gpu == -1 && !found)))
            found = o;
    }
    return found;
}

/* Fields that never had data on an H100 without switches, Grace CPU, vGPU or ConnectX. */
static bool never_has_data(const struct field_fact *f)
{
    unsigned id = f->id;
    if (id == DCGM_FI_DEV_VGPU_LICENSE_STATUS) /* of the GPU itself: 0 where no vGPU is licensed */
        return false;
    if (id == DCGM_FI_DEV_PROCESS_ACCOUNTING_STATS || (id >= 350 && id <= 363) || (id >= 520 && id <= 534) ||
        (id >= 580 && id <= 592) || (id >= 701 && id <= 878) || (id >= 1100 && id < 1200) || (id >= 1300 && id < 1400) ||
        id == DCGM_FI_DEV_NVLINK_LINK_STATUS || id == DCGM_FI_DEV_NVLINK_PPCNT_IBPC_TX_WAIT_TOTAL || (id >= 1524 && id <= 1533))
        return true;
    return f->type == DCGM_FT_BINARY ||
           (f->level != DCGM_FE_NONE && f->level != DCGM_FE_GPU && f->level != DCGM_FE_GPU_I && f->level != DCGM_FE_GPU_CI);
}

enum read_result value_integer(struct sample *out, double v)
{
    out->v.i64 = (int64_t)v;
    return READ_OK;
}

enum read_result value_real(struct sample *out, double v)
{
    out->v.dbl = v;
    return READ_OK;
}

enum read_result value_text(struct engine *e, struct sample *out, const char *v)
{
    out->v.str = engine_intern(e, v);
    return READ_OK;
}

enum read_result value_rate(struct engine *e, struct watch *w, struct sample *out, double total_bytes)
{
    double thousands = 0, kib = total_bytes / 1024;
    if (w && w->last_total_us > 0 && e->now.now_us > w->last_total_us)
        thousands = (kib - w->last_total) / ((double)(e->now.now_us - w->last_total_us) / 1e6) / 1e3;
    if (w) {
        w->last_total = kib;
        w->last_total_us = e->now.now_us;
    }
    return value_integer(out, thousands < 0 ? 0 : thousands);
}

static enum read_result read_global(struct engine *e, unsigned field, struct sample *out)
{
    switch (field) {
    case DCGM_FI_SYSTEM_DRIVER_VERSION:
        return value_text(e, out, e->node->driver_version);
    case DCGM_FI_SYSTEM_NVML_VERSION:
        return value_text(e, out, e->node->nvml_version);
    case DCGM_FI_SYSTEM_PROCESS_NAME:
        return value_text(e, out, "nv-hostengine");
    case DCGM_FI_SYSTEM_GPU_QUANTITY:
        return value_integer(out, e->now.gpu_count);
    case DCGM_FI_CUDA_DRIVER_VERSION:
        return value_integer(out, e->node->cuda_version);
    case DCGM_FI_IMEX_DOMAIN_STATUS: /* the daemon that joins the trays of a rack */
        return e->now.cpu_count ? value_text(e, out, "UP") : READ_NO_DATA;
    case DCGM_FI_IMEX_DAEMON_STATUS:
        return e->now.cpu_count ? value_integer(out, 5) : READ_NO_DATA;
    default:
        return READ_NO_DATA;
    }
}

/* The fabric that the GPU's links are part of: the node itself, or with Grace a rack. */
static enum read_result read_fabric(struct engine *e, unsigned field, int gpu, struct sample *out)
{
    const struct node_gpu *g = &e->now.gpu[gpu];
    bool rack = e->now.cpu_count > 0, done = g->fabric_status == DcgmFMStatusSuccess, failed = g->fabric_status == DcgmFMStatusFailure;
    char uuid[40] = "00000000-0000-0000-0000-000000000000";
    uint64_t a = node_hash(e->node->seed, 7001), b = node_hash(e->node->seed, 7002);
    uint32_t down = 0;
    for (uint32_t i = 0; i < g->model.nvlinks; i++)
        down += g->link[i].down != 0;
    switch (field) {
    case DCGM_FI_DEV_FABRIC_MANAGER_STATUS:
        return value_integer(out, g->fabric_status);
    case DCGM_FI_DEV_FABRIC_MANAGER_ERROR: /* known once training has ended */
        return done || failed ? value_integer(out, failed ? g->fabric_error : 0) : READ_BLANK;
    case DCGM_FI_DEV_FABRIC_CLUSTER_UUID:
        if (rack)
            snprintf(uuid, sizeof uuid, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)(a >> 32), (unsigned)(a >> 16 & 0xffff),
                     (unsigned)(a & 0xfff), (unsigned)(b >> 48 & 0xfff), (unsigned long long)(b & 0xffffffffffff));
        return value_text(e, out, uuid);
    case DCGM_FI_DEV_FABRIC_CLIQUE_ID:
        return value_integer(out, rack ? 32766 : 0);
    case DCGM_FI_DEV_FABRIC_HEALTH_MASK: /* bandwidth degraded: 1 yes, 2 no */
        return value_integer(out, down ? 1 : 2);
    default: /* healthy, unhealthy, limited capacity */
        return value_integer(out, failed ? 2 : down ? 3 : 1);
    }
}

/* Identity: strings and constants of the GPU, or of the instance. */
static enum read_result read_identity(struct engine *e, unsigned field, const struct place *at, struct sample *out)
{
    const struct node_gpu *g = &e->now.gpu[at->gpu];
    const struct node_model *m = &g->model;
    const struct node_ci *ci = at->ci >= 0 ? &g->ci[at->ci] : NULL;
    for (int i = 0; !ci && at->gi >= 0 && i < NODE_MAX_CIS; i++)
        if (g->ci[i].present && g->ci[i].gi == at->gi)
            ci = &g->ci[i]; /* a GPU instance answers for its first MIG device */
    char name[NODE_NAME_LEN];
    switch (field) {
    case DCGM_FI_DEV_GPU_NAME:
        if (at->gi < 0)
            return value_text(e, out, m->name);
        snprintf(name, sizeof name, "%.60s MIG %.30s", m->name, at->ci >= 0 ? g->ci[at->ci].profile : g->gi[at->gi].profile);
        return value_text(e, out, name);
    case DCGM_FI_DEV_GPU_BRAND:
        return value_text(e, out, m->brand);
    case DCGM_FI_DEV_NVML_INDEX:
        return value_integer(out, g->nvml_index);
    case DCGM_FI_DEV_BOARD_SERIAL:
        return value_text(e, out, g->serial);
    case DCGM_FI_DEV_GPU_UUID:
    case DCGM_FI_CUDA_GPU_VISIBLE_DEVICES:
        if (at->gi >= 0)
            return ci ? value_text(e, out, ci->uuid) : READ_BLANK;
        return value_text(e, out, g->uuid);
    case DCGM_FI_DEV_GPU_MINOR_NUMBER:
        return value_integer(out, g->minor);
    case DCGM_FI_DEV_INFOROM_OEM_VERSION:
        return value_text(e, out, "2.1");
    case DCGM_FI_DEV_PCI_BUS_ID:
        return value_text(e, out, g->pci_bus_id);
    case DCGM_FI_DEV_PCI_COMBINED_ID:
        return value_integer(out, m->pci_device_id);
    case DCGM_FI_DEV_PCI_SUBSYS_ID:
        return value_integer(out, m->pci_subsystem_id);
    case DCGM_FI_CUDA_GPU_COMPUTE_CAPABILITY:
        return value_integer(out, (double)(m->cuda_major << 16 | m->cuda_minor));
    case DCGM_FI_DEV_GPU_COMPUTE_MODE:
    case DCGM_FI_DEV_CC_MODE:
    case DCGM_FI_DEV_GPU_VIRTUAL_MODE:
    case DCGM_FI_DEV_VGPU_LICENSE_STATUS:
        return value_integer(out, 0);
    case DCGM_FI_DEV_GPU_RECOVERY_ACTION:
        return value_integer(out, g->recovery_action);
    case DCGM_FI_DEV_GPU_PERSISTENCE_MODE:
    case DCGM_FI_DEV_INFOROM_VALID:
        return value_integer(out, 1);
    case DCGM_FI_DEV_NVLINK_P2P_STATUS: /* a bit for each peer */
        if (m->nvlinks == 0)
            return READ_NOT_SUPPORTED;
        out->v.i64 = 0;
        for (uint32_t i = 0; i < e->now.gpu_count; i++)
            if (engine_peers(&e->now, (uint32_t)at->gpu, i))
                out->v.i64 |= INT64_C(1) << e->now.gpu[i].dcgm_id;
        return READ_OK;
    case DCGM_FI_DEV_MIG_MODE:
        return m->mig_capable ? value_integer(out, g->mig_enabled) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_MIG_MAX_SLICES:
        return m->mig_capable ? value_integer(out, 7) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_CPU_AFFINITY_0:
    case DCGM_FI_DEV_CPU_AFFINITY_1:
    case DCGM_FI_DEV_CPU_AFFINITY_2:
    case DCGM_FI_DEV_CPU_AFFINITY_3:
        out->v.i64 = (int64_t)g->cpu_affinity[field - DCGM_FI_DEV_CPU_AFFINITY_0];
        return READ_OK;
    case DCGM_FI_DEV_MEMORY_AFFINITY_0:
        return value_integer(out, 1u << g->numa_node);
    case DCGM_FI_DEV_MEMORY_AFFINITY_1:
    case DCGM_FI_DEV_MEMORY_AFFINITY_2:
    case DCGM_FI_DEV_MEMORY_AFFINITY_3:
        return value_integer(out, 0);
    case DCGM_FI_DEV_INFOROM_ECC_VERSION:
        return m->has_ecc ? value_text(e, out, "7.16") : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_INFOROM_POWER_VERSION:
        return READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_INFOROM_IMAGE_VERSION:
        return value_text(e, out, "G520.0200.00.05");
    case DCGM_FI_DEV_INFOROM_CHECKSUM:
        return value_integer(out, (double)(g->seed & 0xffffff));
    case DCGM_FI_DEV_VBIOS_VERSION:
        return value_text(e, out, g->vbios);
    case DCGM_FI_DEV_GPM_SUPPORT:
        return value_integer(out, value_gpm(m));
    case DCGM_FI_DEV_FABRIC_MANAGER_STATUS:
    case DCGM_FI_DEV_FABRIC_MANAGER_ERROR:
    case DCGM_FI_DEV_FABRIC_CLUSTER_UUID:
    case DCGM_FI_DEV_FABRIC_CLIQUE_ID:
    case DCGM_FI_DEV_FABRIC_HEALTH_MASK:
    case DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY:
        return m->nvlink_version >= 4 ? read_fabric(e, field, at->gpu, out) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_CHASSIS_SERIAL_NUMBER: /* the place in a rack */
        return e->now.cpu_count ? value_text(e, out, "1820325000042") : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_CHASSIS_SLOT_NUMBER:
        return e->now.cpu_count ? value_integer(out, 12) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_TRAY_INDEX:
        return e->now.cpu_count ? value_integer(out, 4) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_HOST_ID:
    case DCGM_FI_DEV_PLATFORM_PEER_TYPE:
        return e->now.cpu_count ? value_integer(out, 1) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_MODULE_ID:
        return e->now.cpu_count ? value_integer(out, at->gpu + 1) : READ_NOT_SUPPORTED;
    default:
        return READ_NOT_SUPPORTED;
    }
}

static double mib(double v)
{
    return v * 1048576;
}

/* Memory: the instance's own figures where there is one. */
static enum read_result read_memory(unsigned field, const struct node_gpu *g, const struct place *at,
                                    const struct node_reading *r, struct sample *out)
{
    double bar1 = (double)g->model.bar1_total_mib;
    if (at->gi >= 0)
        bar1 = bar1 * g->gi[at->gi].memory_slices / 8;
    switch (field) {
    case DCGM_FI_DEV_BAR1_TOTAL:
        return value_integer(out, bar1);
    case DCGM_FI_DEV_BAR1_USED:
        return value_integer(out, r->bar1_used_mib);
    case DCGM_FI_DEV_BAR1_FREE:
        return value_integer(out, bar1 - r->bar1_used_mib);
    case DCGM_FI_DEV_BAR1_CAPACITY_BYTES:
        return value_integer(out, mib(bar1));
    case DCGM_FI_DEV_BAR1_USED_BYTES:
        return value_integer(out, mib(r->bar1_used_mib));
    case DCGM_FI_DEV_BAR1_FREE_BYTES:
        return value_integer(out, mib(bar1 - r->bar1_used_mib));
    case DCGM_FI_DEV_FB_TOTAL:
        return value_integer(out, r->fb_total_mib);
    case DCGM_FI_DEV_FB_FREE:
        return value_integer(out, r->fb_free_mib);
    case DCGM_FI_DEV_FB_USED:
        return value_integer(out, r->fb_used_mib);
    case DCGM_FI_DEV_FB_RESERVED:
        return value_integer(out, r->fb_reserved_mib);
    default: /* DCGM_FI_DEV_FB_USED_RATIO */
        return value_real(out, r->fb_used_mib / (r->fb_total_mib - r->fb_reserved_mib));
    }
}

static enum read_result read_profiling(unsigned field, const struct node_gpu *g, const struct place *at,
                                       const struct node_reading *r, double uptime_s, struct sample *out)
{
    double cycles = g->model.sm_max_mhz * 1e6;
    bool instance = at->gi >= 0;
    if (field >= DCGM_FI_PROF_NVLINK_L0_TX_BYTES && field <= DCGM_FI_PROF_NVLINK_L17_RX_BYTES) {
        unsigned link = (field - DCGM_FI_PROF_NVLINK_L0_TX_BYTES) / 2, rx = (field - DCGM_FI_PROF_NVLINK_L0_TX_BYTES) % 2;
        if (link >= g->model.nvlinks)
            return READ_NOT_SUPPORTED;
        struct node_link_reading l;
        node_read_link(g, link, r, &l);
        return instance ? READ_BLANK : value_integer(out, rx ? l.rx_bps : l.tx_bps);
    }
    if (field >= DCGM_FI_PROF_NVDEC_UTIL_0_RATIO && field <= DCGM_FI_PROF_NVDEC_UTIL_7_RATIO) {
        if (field - DCGM_FI_PROF_NVDEC_UTIL_0_RATIO >= g->model.decoders)
            return READ_NOT_SUPPORTED;
        return instance ? READ_BLANK : value_real(out, r->dec_util);
    }
    if (field >= DCGM_FI_PROF_NVJPG_UTIL_0_RATIO && field <= DCGM_FI_PROF_NVOFA_UTIL_1_RATIO)
        return instance ? READ_BLANK : value_real(out, 0);
    switch (field) {
    case DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO:
        return value_real(out, r->util);
    case DCGM_FI_PROF_SM_UTIL_RATIO:
        return value_real(out, r->sm_active);
    case DCGM_FI_PROF_SM_OCCUPANCY_RATIO:
        return value_real(out, r->sm_occupancy);
    case DCGM_FI_PROF_TENSOR_UTIL_RATIO:
    case DCGM_FI_PROF_HMMA_UTIL_RATIO:
        return value_real(out, r->tensor_active);
    case DCGM_FI_PROF_DRAM_UTIL_RATIO:
        return at->ci >= 0 ? READ_BLANK : value_real(out, r->dram_active);
    case DCGM_FI_PROF_FP64_UTIL_RATIO:
        return value_real(out, r->fp64_active);
    case DCGM_FI_PROF_FP32_UTIL_RATIO:
        return value_real(out, r->fp32_active);
    case DCGM_FI_PROF_FP16_UTIL_RATIO:
        return value_real(out, r->fp16_active);
    case DCGM_FI_PROF_IMMA_UTIL_RATIO:
    case DCGM_FI_PROF_DFMA_UTIL_RATIO:
        return value_real(out, 0);
    case DCGM_FI_PROF_INT_UTIL_RATIO:
        return value_real(out, 0.7 * r->fp32_active);
    case DCGM_FI_PROF_PCIE_TX_BYTES:
        return instance ? READ_BLANK : value_integer(out, r->pcie_tx_bps);
    case DCGM_FI_PROF_PCIE_RX_BYTES:
        return instance ? READ_BLANK : value_integer(out, r->pcie_rx_bps);
    case DCGM_FI_PROF_NVLINK_TX_BYTES:
    case DCGM_FI_PROF_NVLINK_RX_BYTES:
        if (g->model.nvlinks == 0)
            return READ_NOT_SUPPORTED;
        return instance ? READ_BLANK
                        : value_integer(out, field == DCGM_FI_PROF_NVLINK_TX_BYTES ? r->nvlink_tx_bps : r->nvlink_rx_bps);
    case DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL:
        return instance ? READ_BLANK : value_integer(out, cycles * uptime_s);
    case DCGM_FI_PROF_SM_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0.92 * cycles * r->busy_s);
    case DCGM_FI_PROF_MMA_CYCLES_ACTIVE_TOTAL:
    case DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0.37 * cycles * r->busy_s);
    case DCGM_FI_PROF_FP32_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0.16 * cycles * r->busy_s);
    case DCGM_FI_PROF_FP16_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0.11 * cycles * r->busy_s);
    case DCGM_FI_PROF_FP64_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0.01 * cycles * r->busy_s);
    case DCGM_FI_PROF_INT_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0.112 * cycles * r->busy_s);
    case DCGM_FI_PROF_DMMA_CYCLES_ACTIVE_TOTAL:
    case DCGM_FI_PROF_IMMA_CYCLES_ACTIVE_TOTAL:
    case DCGM_FI_PROF_DFMA_CYCLES_ACTIVE_TOTAL:
        return instance ? READ_BLANK : value_integer(out, 0);
    case DCGM_FI_PROF_PCIE_TX_BYTES_TOTAL:
        return instance ? READ_BLANK : value_integer(out, r->pcie_tx_bytes);
    case DCGM_FI_PROF_PCIE_RX_BYTES_TOTAL:
        return instance ? READ_BLANK : value_integer(out, r->pcie_rx_bytes);
    case DCGM_FI_PROF_C2C_TX_ALL_BYTES:
    case DCGM_FI_PROF_C2C_TX_DATA_BYTES:
    case DCGM_FI_PROF_C2C_RX_ALL_BYTES:
    case DCGM_FI_PROF_C2C_RX_DATA_BYTES: {
        double data = 0.1 * r->util * g->model.c2c_links * g->model.c2c_link_mbps * 1e6;
        bool headers = field == DCGM_FI_PROF_C2C_TX_ALL_BYTES || field == DCGM_FI_PROF_C2C_RX_ALL_BYTES;
        if (g->model.c2c_links == 0)
            return READ_NOT_SUPPORTED;
        return instance ? READ_BLANK : value_integer(out, headers ? 1.06 * data : data);
    }
    default: /* Grace's caches */
        return READ_NOT_SUPPORTED;
    }
}

/* ECC errors by location: volatile or aggregate, single- or double-bit; false when the field is none of them. */
static bool ecc_of(unsigned id, int *location, bool *aggregate, bool *dbe)
{
    static const struct {
        unsigned first; /* single-bit; double-bit is the next id */
        int location;
        bool aggregate;
    } fields[] = {
        {DCGM_FI_DEV_ECC_SBE_VOL_L1, NODE_ECC_L1, false},       {DCGM_FI_DEV_ECC_SBE_VOL_L2, NODE_ECC_L2, false},
        {DCGM_FI_DEV_ECC_SBE_VOL_DEV, NODE_ECC_DEVICE, false},  {DCGM_FI_DEV_ECC_SBE_VOL_REG, NODE_ECC_REGISTER, false},
        {DCGM_FI_DEV_ECC_SBE_VOL_TEX, NODE_ECC_TEXTURE, false}, {DCGM_FI_DEV_ECC_SBE_VOL_SHM, NODE_ECC_SHARED, false},
        {DCGM_FI_DEV_ECC_SBE_VOL_CBU, NODE_ECC_CBU, false},     {DCGM_FI_DEV_ECC_SBE_VOL_SRM, NODE_ECC_SRAM, false},
        {DCGM_FI_DEV_ECC_SBE_AGG_L1, NODE_ECC_L1, true},        {DCGM_FI_DEV_ECC_SBE_AGG_L2, NODE_ECC_L2, true},
        {DCGM_FI_DEV_ECC_SBE_AGG_DEV, NODE_ECC_DEVICE, true},   {DCGM_FI_DEV_ECC_SBE_AGG_REG, NODE_ECC_REGISTER, true},
        {DCGM_FI_DEV_ECC_SBE_AGG_TEX, NODE_ECC_TEXTURE, true},  {DCGM_FI_DEV_ECC_SBE_AGG_SHM, NODE_ECC_SHARED, true},
        {DCGM_FI_DEV_ECC_SBE_AGG_CBU, NODE_ECC_CBU, true},      {DCGM_FI_DEV_ECC_SBE_AGG_SRM, NODE_ECC_SRAM, true},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (id != fields[i].first && id != fields[i].first + 1)
            continue;
        *location = fields[i].location;
        *aggregate = fields[i].aggregate;
        *dbe = id != fields[i].first;
        return true;
    }
    return false;
}

/* Error counters, where the model has them at all. */
static enum read_result read_counter(const struct field_fact *f, const struct node_gpu *g, struct sample *out)
{
    const struct node_model *m = &g->model;
    unsigned id = f->id;
    int location;
    bool aggregate, dbe;
    if (id >= DCGM_FI_DEV_ECC_SBE_VOL_TOTAL && id <= DCGM_FI_DEV_ECC_DBE_AGG_TOTAL) {
        dbe = id == DCGM_FI_DEV_ECC_DBE_VOL_TOTAL || id == DCGM_FI_DEV_ECC_DBE_AGG_TOTAL;
        const uint64_t *errors = (id >= DCGM_FI_DEV_ECC_SBE_AGG_TOTAL ? g->ecc_aggregate : g->ecc_volatile)[dbe];
        return m->has_ecc ? value_integer(out, (double)(errors[NODE_ECC_DEVICE] + errors[NODE_ECC_SRAM])) : READ_NOT_SUPPORTED;
    }
    if (ecc_of(id, &location, &aggregate, &dbe)) {
        if (!m->has_ecc || (location > NODE_ECC_SRAM && !m->ecc_locations))
            return READ_NOT_SUPPORTED;
        return value_integer(out, (double)(aggregate ? g->ecc_aggregate : g->ecc_volatile)[dbe][location]);
    }
    uint64_t remapped = g->remap_correctable + g->remap_uncorrectable;
    switch (id) {
    case DCGM_FI_DEV_ECC_MODE:
    case DCGM_FI_DEV_ECC_PENDING:
        return m->has_ecc ? value_integer(out, 1) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_SRAM_EXCEEDED:
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_PARTIAL:
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_LOW:
        return m->has_remap ? value_integer(out, 0) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_HIGH: /* a bank each has used one of its spare rows */
        return m->has_remap ? value_integer(out, remapped < 640 ? (double)remapped : 640) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE:
        return m->has_remap ? value_integer(out, g->remap_failed) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX:
        return m->has_remap ? value_integer(out, remapped < 640 ? 640 - (double)remapped : 0) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL:
        return m->has_remap ? value_integer(out, (double)g->remap_uncorrectable) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL:
        return m->has_remap ? value_integer(out, (double)g->remap_correctable) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_ROW_REMAP_FAILED:
    case DCGM_FI_DEV_MEMORY_UNREPAIRABLE:
        return m->has_remap ? value_integer(out, g->remap_failed) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_ROW_REMAP_PENDING:
        return m->has_remap ? value_integer(out, g->remap_pending) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL:
        return m->has_ecc && !m->has_remap ? value_integer(out, (double)g->retired_sbe) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL:
        return m->has_ecc && !m->has_remap ? value_integer(out, (double)g->retired_dbe) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PAGE_RETIRED_PENDING:
        return m->has_ecc && !m->has_remap ? value_integer(out, g->retired_pending) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PCIE_REPLAY_TOTAL:
    case DCGM_FI_DEV_PCIE_CORRECTABLE_ERROR_TOTAL:
        return value_integer(out, 0);
    default:
        return READ_NOT_SUPPORTED;
    }
}

/*
 * A percentage of NVML's: the mean over the driver's last sample period, which is
 * between 1/6 s and 1 s depending on the product (nvmlUtilization_t). Here it is
 * the shortest, and full is what the percentage is of full utilisation.
 */
static enum read_result driver_percent(const struct engine *e, const struct node_gpu *g, double full, struct sample *out)
{
    const int64_t period_us = 1000000 / 6;
    int64_t end = e->now.now_us - e->now.now_us % period_us;
    return value_integer(out, round(full * node_mean_util(g, e->node->boot_us, end - period_us, end)));
}

/* What moves with the load, of the GPU as a whole. */
static enum read_result read_dynamic(const struct engine *e, unsigned field, const struct node_gpu *g,
                                     const struct node_reading *r, struct sample *out)
{
    const struct node_model *m = &g->model;
    switch (field) {
    case DCGM_FI_DEV_SM_CLOCK:
        return value_integer(out, r->sm_mhz);
    case DCGM_FI_DEV_MEM_CLOCK:
        return value_integer(out, r->mem_mhz);
    case DCGM_FI_DEV_VIDEO_CLOCK:
        return value_integer(out, r->video_mhz);
    case DCGM_FI_DEV_SM_CLOCK_HERTZ:
        return value_integer(out, r->sm_mhz * 1e6);
    case DCGM_FI_DEV_MEMORY_CLOCK_HERTZ:
        return value_integer(out, r->mem_mhz * 1e6);
    case DCGM_FI_DEV_VIDEO_CLOCK_HERTZ:
        return value_integer(out, r->video_mhz * 1e6);
    case DCGM_FI_DEV_APP_SM_CLOCK:
    case DCGM_FI_DEV_MAX_SM_CLOCK:
        return value_integer(out, m->sm_max_mhz);
    case DCGM_FI_DEV_APP_MEM_CLOCK:
    case DCGM_FI_DEV_MAX_MEM_CLOCK:
        return value_integer(out, m->mem_max_mhz);
    case DCGM_FI_DEV_MAX_VIDEO_CLOCK:
        return value_integer(out, m->video_max_mhz);
    case DCGM_FI_DEV_SM_APP_CLOCK_HERTZ:
    case DCGM_FI_DEV_SM_MAX_CLOCK_HERTZ:
        return value_integer(out, m->sm_max_mhz * 1e6);
    case DCGM_FI_DEV_MEMORY_APP_CLOCK_HERTZ:
    case DCGM_FI_DEV_MEMORY_MAX_CLOCK_HERTZ:
        return value_integer(out, m->mem_max_mhz * 1e6);
    case DCGM_FI_DEV_VIDEO_MAX_CLOCK_HERTZ:
        return value_integer(out, m->video_max_mhz * 1e6);
    case DCGM_FI_DEV_CLOCKS_EVENT_REASONS:
        return value_integer(out, (double)r->clocks_event_reasons);
    case DCGM_FI_DEV_MEMORY_TEMP_CELSIUS:
        return m->has_memory_temp ? value_integer(out, r->mem_temp_c) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_GPU_TEMP_CELSIUS:
        return value_integer(out, r->temp_c);
    case DCGM_FI_DEV_MEMORY_MAX_OP_TEMP_CELSIUS:
        return m->has_memory_temp ? value_integer(out, m->temp_shutdown_c + 1) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_GPU_MAX_OP_TEMP_CELSIUS:
        return value_integer(out, m->temp_slowdown_c - 2);
    case DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS:
        return value_integer(out, m->temp_slowdown_c - r->temp_c);
    case DCGM_FI_DEV_BOARD_POWER_WATTS:
    case DCGM_FI_DEV_BOARD_POWER_RAW_WATTS:
        return value_real(out, floor(r->power_w * 1000) / 1000);
    case DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
        return m->has_energy ? value_integer(out, r->energy_mj) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL:
        return m->has_energy ? value_real(out, r->energy_mj / 1e3) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS:
        return value_integer(out, m->temp_slowdown_c);
    case DCGM_FI_DEV_GPU_TEMP_SHUTDOWN_CELSIUS:
        return value_integer(out, m->temp_shutdown_c);
    case DCGM_FI_DEV_BOARD_POWER_LIMIT_MIN_WATTS:
        return value_real(out, m->power_min_w);
    case DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS:
        return value_real(out, m->power_max_w);
    case DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS:
    case DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS:
    case DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS:
        return value_real(out, m->power_limit_w);
    case DCGM_FI_DEV_GPU_PSTATE:
        return value_integer(out, r->pstate);
    case DCGM_FI_DEV_FAN_SPEED:
        return m->has_fan ? value_integer(out, r->fan_percent) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_FAN_SPEED_RATIO:
        return m->has_fan ? value_real(out, r->fan_percent / 100) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PCIE_TX_THROUGHPUT: /* KB/s */
        return value_integer(out, r->pcie_tx_bps / 1e3);
    case DCGM_FI_DEV_PCIE_RX_THROUGHPUT:
        return value_integer(out, r->pcie_rx_bps / 1e3);
    case DCGM_FI_DEV_GPU_UTIL_RATIO: /* per cent, whatever its name says */
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 100, out);
    case DCGM_FI_DEV_MEM_COPY_UTIL:
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 55, out);
    case DCGM_FI_DEV_ENC_UTIL:
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 100 * r->enc_full, out);
    case DCGM_FI_DEV_DEC_UTIL:
        return g->mig_enabled ? READ_BLANK : driver_percent(e, g, 100 * r->dec_full, out);
    case DCGM_FI_DEV_PCIE_MAX_LINK_GEN:
    case DCGM_FI_DEV_PCIE_LINK_GEN:
        return value_integer(out, m->pcie_gen);
    case DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH:
    case DCGM_FI_DEV_PCIE_LINK_WIDTH:
        return value_integer(out, m->pcie_width);
    default:
        return READ_NOT_SUPPORTED;
    }
}

static bool is_violation(unsigned id)
{
    return (id >= DCGM_FI_DEV_POWER_VIOLATION && id <= DCGM_FI_DEV_TOTAL_BASE_CLOCKS_VIOLATION) ||
           (id >= DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS && id <= DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS);
}

/* For how long in ns, by the reason that the clocks were held for. */
static enum read_result read_violation(unsigned id, const struct node_throttle *t, struct sample *out)
{
    enum { IDLE, SETTING, POWER_CAP, SLOWDOWN, SYNC_BOOST, SW_THERMAL, HW_THERMAL, POWER_BRAKE }; /* by bit */
    const int64_t *ns = t->reason_ns;
    switch (id) {
    case DCGM_FI_DEV_POWER_VIOLATION:
    case DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS:
        return value_integer(out, (double)ns[POWER_CAP]);
    case DCGM_FI_DEV_THERMAL_VIOLATION:
        return value_integer(out, (double)(ns[SW_THERMAL] + ns[HW_THERMAL]));
    case DCGM_FI_DEV_SYNC_BOOST_VIOLATION:
    case DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_NS:
        return value_integer(out, (double)ns[SYNC_BOOST]);
    case DCGM_FI_DEV_BOARD_LIMIT_VIOLATION:
    case DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS:
        return value_integer(out, (double)ns[POWER_BRAKE]);
    case DCGM_FI_DEV_LOW_UTIL_VIOLATION:
        return value_integer(out, (double)ns[IDLE]);
    case DCGM_FI_DEV_TOTAL_APP_CLOCKS_VIOLATION:
        return value_integer(out, (double)t->held_ns);
    case DCGM_FI_DEV_TOTAL_BASE_CLOCKS_VIOLATION:
        return value_integer(out, (double)ns[SLOWDOWN]);
    case DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS:
        return value_integer(out, (double)ns[SW_THERMAL]);
    case DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS:
        return value_integer(out, (double)ns[HW_THERMAL]);
    default: /* reliability */
        return value_integer(out, 0);
    }
}

static bool is_c2c(unsigned id)
{
    return (id >= DCGM_FI_DEV_C2C_LINK_QUANTITY && id <= DCGM_FI_DEV_C2C_MAX_BANDWIDTH) ||
           (id >= DCGM_FI_DEV_C2C_LINK_ERROR_TOTAL && id <= DCGM_FI_DEV_C2C_LINK_POWER_STATUS);
}

/* The links to a Grace CPU. */
static enum read_result read_c2c(unsigned id, const struct node_model *m, struct sample *out)
{
    if (m->c2c_links == 0)
        return READ_NOT_SUPPORTED;
    switch (id) {
    case DCGM_FI_DEV_C2C_LINK_QUANTITY:
        return value_integer(out, m->c2c_links);
    case DCGM_FI_DEV_C2C_LINK_STATUS:
        return value_integer(out, 1);
    case DCGM_FI_DEV_C2C_MAX_BANDWIDTH:
        return value_integer(out, m->c2c_link_mbps);
    default: /* errors; power state: full power */
        return value_integer(out, 0);
    }
}

static bool is_identity(unsigned id)
{
    return (id >= DCGM_FI_DEV_GPU_NAME && id <= DCGM_FI_DEV_MEMORY_AFFINITY_3) || id == DCGM_FI_DEV_GPM_SUPPORT ||
           (id >= DCGM_FI_DEV_FABRIC_MANAGER_STATUS && id <= DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY) ||
           (id >= DCGM_FI_DEV_PLATFORM_INFINIBAND_GUID && id <= DCGM_FI_DEV_PLATFORM_MODULE_ID) ||
           id == DCGM_FI_DEV_GPU_VIRTUAL_MODE || id == DCGM_FI_DEV_VGPU_LICENSE_STATUS || id == DCGM_FI_DEV_GPU_RECOVERY_ACTION;
}

static bool is_memory(unsigned id)
{
    return id == DCGM_FI_DEV_BAR1_TOTAL || id == DCGM_FI_DEV_BAR1_USED || id == DCGM_FI_DEV_BAR1_FREE ||
           (id >= DCGM_FI_DEV_BAR1_CAPACITY_BYTES && id <= DCGM_FI_DEV_BAR1_FREE_BYTES) ||
           (id >= DCGM_FI_DEV_FB_TOTAL && id <= DCGM_FI_DEV_FB_USED_RATIO);
}

static bool is_counter(unsigned id)
{
    return (id >= DCGM_FI_DEV_ECC_MODE && id <= DCGM_FI_DEV_SRAM_EXCEEDED) ||
           (id >= DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX && id <= DCGM_FI_DEV_ROW_REMAP_PENDING) ||
           id == DCGM_FI_DEV_PCIE_REPLAY_TOTAL || id == DCGM_FI_DEV_PCIE_CORRECTABLE_ERROR_TOTAL ||
           id == DCGM_FI_DEV_MEMORY_UNREPAIRABLE;
}

enum read_result value_read(struct engine *e, const struct field_fact *f, int group, uint32_t id, struct watch *w,
                            struct sample *out)
{
    struct place at;
    if (f->scope == DCGM_FS_GLOBAL)
        return f->type == DCGM_FT_BINARY ? READ_NO_DATA : read_global(e, f->id, out);
    if (f->id == DCGM_FI_DEV_XID_ERROR)
        return READ_NO_DATA; /* comes from the journal, not from polling */
    if (group == DCGM_FE_SWITCH || group == DCGM_FE_LINK)
        return fabric_read(e, f, group, id, w, out);
    if (group == DCGM_FE_CPU || group == DCGM_FE_CPU_CORE)
        return cpu_read(e, f, group, id, w, out);
    bool here = engine_locate(&e->now, group, id, &at);
    if (at.gpu < 0 && never_has_data(f))
        return READ_NO_DATA;
    if (!here || e->driver_dead || e->now.gpu[at.gpu].lost || e->now.gpu[at.gpu].detached)
        return READ_BLANK;
    const struct node_gpu *g = &e->now.gpu[at.gpu];
    const struct node_override *o = e->now.override_count ? value_override(&e->now, NODE_OF_GPU, at.gpu, f->id) : NULL;
    if (o && o->blank)
        return READ_BLANK;
    if (o && f->type == DCGM_FT_DOUBLE)
        return value_real(out, o->value);
    if (o && f->type == DCGM_FT_INT64)
        return value_integer(out, o->value);
    if (never_has_data(f))
        return READ_NO_DATA;
    if (value_is_profiling(f->id)) {
        const struct node_reading *r;
        struct node_reading scratch;
        int64_t when;
        enum read_result rc = value_profiling_reading(e, at.gpu, &at, w, &scratch, &r, &when);
        return rc == READ_OK ? read_profiling(f->id, g, &at, r, (double)(when - e->node->boot_us) / 1e6, out) : rc;
    }
    if (is_memory(f->id))
        return read_memory(f->id, g, &at, reading_at(e, &at), out);
    if (is_identity(f->id))
        return read_identity(e, f->id, &at, out);
    if (is_counter(f->id))
        return read_counter(f, g, out);
    if (fabric_is_gpu_field(f->id))
        return fabric_read_gpu(e, f, at.gpu, w, out);
    if (is_violation(f->id))
        return read_violation(f->id, value_throttle(e, at.gpu), out);
    if (is_c2c(f->id))
        return read_c2c(f->id, &g->model, out);
    return read_dynamic(e, f->id, g, value_gpu_reading(e, at.gpu), out);
}

bool value_sample(struct engine *e, const struct field_fact *f, int group, uint32_t id, struct watch *w, struct sample *out)
{
    out->ts = e->now.now_us;
    enum read_result r = value_read(e, f, group, id, w, out);
    if (r == READ_NO_DATA)
        return false;
    if (r == READ_OK)
        return true;
    bool unsupported = r == READ_NOT_SUPPORTED;
    switch (f->type) {
    case DCGM_FT_DOUBLE:
        out->v.dbl = unsupported ? DCGM_FP64_NOT_SUPPORTED : DCGM_FP64_BLANK;
        return true;
    case DCGM_FT_STRING:
        out->v.str = unsupported ? DCGM_STR_NOT_SUPPORTED : DCGM_STR_BLANK;
        return true;
    default:
        out->v.i64 = unsupported ? DCGM_INT64_NOT_SUPPORTED : DCGM_INT64_BLANK;
        return true;
    }
}

double value_counter(struct engine *e, int gpu, unsigned field)
{
    struct sample s;
    const struct field_fact *f = field_fact(field);
    if (!f || value_read(e, f, DCGM_FE_GPU, e->now.gpu[gpu].dcgm_id, NULL, &s) != READ_OK)
        return 0;
    return f->type == DCGM_FT_DOUBLE ? s.v.dbl : (double)s.v.i64;
}
