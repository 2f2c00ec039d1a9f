/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Values of the fields of Grace CPUs and their cores, as DCGM's sysmon module reads them from the kernel. */
#include "engine/cpus.h"

#include "engine/sample.h"
#include "engine/snapshot.h"
#include "node/load.h"

#include <string.h>

static int socket_of(const struct snapshot *s, int group, uint32_t id)
{
    for (uint32_t i = 0; i < s->cpu_count; i++) {
        const struct node_cpu *c = &s->cpu[i];
        if (group == DCGM_FE_CPU ? c->id == id : id >= c->first_core && id < c->first_core + c->core_count)
            return (int)i;
    }
    return -1;
}

bool cpu_entity_exists(const struct snapshot *s, int group, uint32_t id)
{
    return socket_of(s, group, id) >= 0;
}

/* The mean utilisation of the GPUs at a socket, which its cores follow. */
static double gpu_load(struct engine *e, int cpu)
{
    double sum = 0;
    int count = 0;
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        const struct node_gpu *g = &e->snapshot.gpu[i];
        if ((int)g->numa_node != cpu || g->lost || g->detached)
            continue;
        sum += snapshot_gpu_reading(e, (int)i)->util;
        count++;
    }
    return count ? sum / count : 0;
}

static const struct node_cpu_reading *socket_reading(struct engine *e, int cpu)
{
    struct snapshot *s = &e->snapshot;
    struct node_cpu_reading *r = &s->cpu_reading[cpu];
    if (s->have_cpu[cpu])
        return r;
    const struct node_cpu *c = &s->cpu[cpu];
    double load = gpu_load(e, cpu);
    memset(r, 0, sizeof *r);
    for (uint32_t k = 0; k < c->core_count; k++) {
        struct node_cpu_reading core;
        node_read_core(e->node->seed, c->first_core + k, load, s->time_us, &core);
        r->user += core.user / c->core_count;
        r->nice += core.nice / c->core_count;
        r->sys += core.sys / c->core_count;
        r->irq += core.irq / c->core_count;
    }
    s->have_cpu[cpu] = true;
    return r;
}

enum read_result cpu_read(struct engine *e, const struct field_info *f, int group, uint32_t id, struct watch *w,
                          struct sample *out)
{
    int cpu = socket_of(&e->snapshot, group, id);
    if (cpu < 0)
        return READ_NO_DATA;
    const struct node_override *o = e->snapshot.override_count ? snapshot_override(&e->snapshot, NODE_ENTITY_CPU, cpu, f->id)
        : NULL;
    if (o && o->blank)
        return READ_BLANK;
    if (o && f->type != DCGM_FT_STRING)
        return f->type == DCGM_FT_DOUBLE ? sample_double(out, o->value) : sample_integer(out, o->value);
    struct node_cpu_reading core = *socket_reading(e, cpu);
    double busy = core.user + core.nice + core.sys + core.irq;
    switch (f->id) {
    case DCGM_FI_DEV_CPU_UTIL_TOTAL:
    case DCGM_FI_DEV_CPU_UTIL_USER:
    case DCGM_FI_DEV_CPU_UTIL_NICE:
    case DCGM_FI_DEV_CPU_UTIL_SYS:
    case DCGM_FI_DEV_CPU_UTIL_IRQ:
        if (w && !w->cpu_primed) { /* a utilisation needs two samples */
            w->cpu_primed = true;
            return READ_NO_DATA;
        }
        if (group == DCGM_FE_CPU_CORE) {
            node_read_core(e->node->seed, id, gpu_load(e, cpu), e->snapshot.time_us, &core);
            busy = core.user + core.nice + core.sys + core.irq;
        }
        return sample_double(out, f->id == DCGM_FI_DEV_CPU_UTIL_TOTAL  ? busy
                               : f->id == DCGM_FI_DEV_CPU_UTIL_USER ? core.user
                               : f->id == DCGM_FI_DEV_CPU_UTIL_NICE ? core.nice
                               : f->id == DCGM_FI_DEV_CPU_UTIL_SYS  ? core.sys
                                                                    : core.irq);
    case DCGM_FI_DEV_CPU_TEMP_CELSIUS:
        return sample_double(out, 38 + 30 * busy + e->snapshot.cpu[cpu].heat_c);
    case DCGM_FI_DEV_CPU_TEMP_WARNING_CELSIUS:
        return sample_double(out, 99.5);
    case DCGM_FI_DEV_CPU_TEMP_CRITICAL_CELSIUS:
        return sample_double(out, 104.5);
    case DCGM_FI_DEV_CPU_CLOCK_CURRENT: /* kHz; cores only */
        if (group == DCGM_FE_CPU)
            return READ_BLANK;
        node_read_core(e->node->seed, id, gpu_load(e, cpu), e->snapshot.time_us, &core);
        return sample_integer(out, 3411000 - 1000 * (double)(int)(400 * (core.user + core.sys)));
    case DCGM_FI_DEV_CPU_POWER_WATTS:
        return sample_double(out, 55 + 190 * busy);
    case DCGM_FI_DEV_CPU_POWER_LIMIT_WATTS:
        return sample_double(out, 500);
    case DCGM_FI_DEV_SYSIO_POWER_UTIL_CURRENT:
        return sample_double(out, 22 + 8 * busy);
    case DCGM_FI_DEV_MODULE_POWER_UTIL_CURRENT: {
        double gpus = 0;
        for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
            if ((int)e->snapshot.gpu[i].numa_node == cpu)
                gpus += snapshot_gpu_reading(e, (int)i)->power_w;
        return sample_double(out, 55 + 190 * busy + 22 + 8 * busy + gpus);
    }
    case DCGM_FI_DEV_CPU_VENDOR:
        return sample_string(e, out, "Nvidia");
    case DCGM_FI_DEV_CPU_MODEL:
        return sample_string(e, out, "Grace");
    default:
        return READ_NO_DATA;
    }
}
