/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The value of any field of any entity, read from the current snapshot. Which
 * entity has a field, and which blank or status replaces a missing value, is as
 * observed on DCGM 4.6.
 */
#include "engine/values.h"

#include "engine/cpus.h"
#include "engine/fabric.h"
#include "engine/gpufields.h"
#include "engine/profiling.h"
#include "engine/sample.h"
#include "engine/snapshot.h"

/* Fields that never had data on an H100 without switches, Grace CPU, vGPU or ConnectX. */
static bool never_has_data(const struct field_info *f)
{
    unsigned id = f->id;
    if (id == DCGM_FI_DEV_VGPU_LICENSE_STATUS) /* 0 without a vGPU licence */
        return false;
    if (id == DCGM_FI_DEV_PROCESS_ACCOUNTING_STATS || (id >= 350 && id <= 363) || (id >= 520 && id <= 534) ||
        (id >= 580 && id <= 592) || (id >= 701 && id <= 878) || (id >= 1100 && id < 1200) ||
            (id >= 1300 && id < 1400) ||
        id == DCGM_FI_DEV_NVLINK_LINK_STATUS || id == DCGM_FI_DEV_NVLINK_PPCNT_IBPC_TX_WAIT_TOTAL ||
            (id >= 1524 && id <= 1533))
        return true;
    return f->type == DCGM_FT_BINARY ||
           (f->level != DCGM_FE_NONE && f->level != DCGM_FE_GPU && f->level != DCGM_FE_GPU_I &&
            f->level != DCGM_FE_GPU_CI);
}

static enum read_result read_global(struct engine *e, unsigned field, struct sample *out)
{
    switch (field) {
    case DCGM_FI_SYSTEM_DRIVER_VERSION:
        return sample_string(e, out, e->node->driver_version);
    case DCGM_FI_SYSTEM_NVML_VERSION:
        return sample_string(e, out, e->node->nvml_version);
    case DCGM_FI_SYSTEM_PROCESS_NAME:
        return sample_string(e, out, "nv-hostengine");
    case DCGM_FI_SYSTEM_GPU_QUANTITY:
        return sample_integer(out, e->snapshot.gpu_count);
    case DCGM_FI_CUDA_DRIVER_VERSION:
        return sample_integer(out, e->node->cuda_version);
    case DCGM_FI_IMEX_DOMAIN_STATUS: /* the daemon that connects the trays of a rack */
        return e->snapshot.cpu_count ? sample_string(e, out, "UP") : READ_NO_DATA;
    case DCGM_FI_IMEX_DAEMON_STATUS:
        return e->snapshot.cpu_count ? sample_integer(out, 5) : READ_NO_DATA;
    default:
        return READ_NO_DATA;
    }
}

enum read_result value_read(struct engine *e, const struct field_info *f, int group, uint32_t id, struct watch *w,
                            struct sample *out)
{
    struct location at;
    if (f->scope == DCGM_FS_GLOBAL)
        return f->type == DCGM_FT_BINARY ? READ_NO_DATA : read_global(e, f->id, out);
    if (f->id == DCGM_FI_DEV_XID_ERROR)
        return READ_NO_DATA; /* comes from the journal of XIDs */
    if (group == DCGM_FE_SWITCH || group == DCGM_FE_LINK)
        return fabric_read(e, f, group, id, w, out);
    if (group == DCGM_FE_CPU || group == DCGM_FE_CPU_CORE)
        return cpu_read(e, f, group, id, w, out);
    bool here = snapshot_locate(&e->snapshot, group, id, &at);
    if (at.gpu < 0 && never_has_data(f))
        return READ_NO_DATA;
    if (!here || e->driver_dead || e->snapshot.gpu[at.gpu].lost || e->snapshot.gpu[at.gpu].detached)
        return READ_BLANK;
    const struct node_gpu *g = &e->snapshot.gpu[at.gpu];
    if (g->mute) /* DCGM keeps the last value of a field that it reads with nvmlDeviceGetFieldValues */
        return f->nvml_id ? READ_NO_DATA : READ_BLANK;
    const struct node_override *o = e->snapshot.override_count
        ? snapshot_override(&e->snapshot, NODE_ENTITY_GPU, at.gpu, f->id) : NULL;
    if (o && o->blank)
        return READ_BLANK;
    if (o && f->type == DCGM_FT_DOUBLE)
        return sample_double(out, o->value);
    if (o && f->type == DCGM_FT_INT64)
        return sample_integer(out, o->value);
    if (never_has_data(f))
        return READ_NO_DATA;
    if (profiling_is_field(f->id)) {
        struct node_reading r;
        int64_t when;
        enum read_result rc = profiling_reading(e, at.gpu, &at, w, &r, &when);
        return rc == READ_OK ? read_profiling(f->id, g, &at, &r, (double)(when - e->node->boot_us) / 1e6, out) : rc;
    }
    if (is_memory(f->id))
        return read_memory(f->id, g, &at, snapshot_reading(e, &at), out);
    if (is_identity(f->id))
        return read_identity(e, f->id, &at, out);
    if (is_counter(f->id))
        return read_counter(f, g, out);
    if (fabric_is_gpu_field(f->id))
        return fabric_read_gpu(e, f, at.gpu, w, out);
    if (is_violation(f->id))
        return read_violation(f->id, snapshot_throttle(e, at.gpu), out);
    if (is_c2c(f->id))
        return read_c2c(f->id, &g->model, out);
    return read_general(e, f->id, g, snapshot_gpu_reading(e, at.gpu), out);
}

bool value_sample(struct engine *e, const struct field_info *f, int group, uint32_t id, struct watch *w,
                  struct sample *out)
{
    out->ts = e->snapshot.time_us + atomic_load(&e->node->engine_clock_us);
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
    const struct field_info *f = field_info(field);
    if (!f || value_read(e, f, DCGM_FE_GPU, e->snapshot.gpu[gpu].dcgm_id, NULL, &s) != READ_OK)
        return 0;
    return f->type == DCGM_FT_DOUBLE ? s.v.dbl : (double)s.v.i64;
}
