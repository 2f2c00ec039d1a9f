/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Grace CPUs and their cores, as DCGM's sysmon module reads them from the kernel. */
#include "engine.h"

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

bool cpu_has(const struct snapshot *s, int group, uint32_t id)
{
    return socket_of(s, group, id) >= 0;
}

/* Mean activity of the GPUs at a socket: what keeps its cores busy. */
static double gpu_load(struct engine *e, int cpu)
{
    double sum = 0;
    int count = 0;
    for (uint32_t i = 0; i < e->now.gpu_count; i++) {
        const struct node_gpu *g = &e->now.gpu[i];
        if ((int)g->numa_node != cpu || g->lost || g->detached)
            continue;
        sum += value_gpu_reading(e, (int)i)->util;
        count++;
    }
    return count ? sum / count : 0;
}

static const struct node_cpu_reading *socket_reading(struct engine *e, int cpu)
{
    struct snapshot *s = &e->now;
    struct node_cpu_reading *r = &s->cpu_reading[cpu];
    if (s->have_cpu[cpu])
        return r;
    const struct node_cpu *c = &s->cpu[cpu];
    double load = gpu_load(e, cpu);
    memset(r, 0, sizeof *r);
    for (uint32_t k = 0; k < c->core_count; k++) {
        struct node_cpu_reading core;
        node_read_core(e->node->seed, c->first_core + k, load, s->now_us, &core);
        r->user += core.user / c->core_count;
        r->nice += core.nice / c->core_count;
        r->sys += core.sys / c->core_count;
        r->irq += core.irq / c->core_count;
    }
    s->have_cpu[cpu] = true;
    return r;
}

enum read_result cpu_read(struct engine *e, const struct field_fact *f, int group, uint32_t id, struct watch *w,
                          struct sample *out)
{
    int cpu = socket_of(&e->now, group, id);
    if (cpu < 0)
        return READ_NO_DATA;
    const struct node_override *o = e->now.override_count ? value_override(&e->now, NODE_OF_CPU, cpu, f->id) : NULL;
    if (o && o->blank)
        return READ_BLANK;
    if (o && f->type != DCGM_FT_STRING)
        return f->type == DCGM_FT_DOUBLE ? value_real(out, o->value) : value_integer(out, o->value);
    struct node_cpu_reading core = *socket_reading(e, cpu);
    double busy = core.user + core.nice + core.sys + core.irq;
    switch (f->id) {
    case DCGM_FI_DEV_CPU_UTIL_TOTAL:
    case DCGM_FI_DEV_CPU_UTIL_USER:
    case DCGM_FI_DEV_CPU_UTIL_NICE:
    case DCGM_FI_DEV_CPU_UTIL_SYS:
    case DCGM_FI_DEV_CPU_UTIL_IRQ:
        if (w && !w->cpu_primed) { /* the first look has nothing to compare with */
            w->cpu_primed = true;
            return READ_NO_DATA;
        }
        if (group == DCGM_FE_CPU_CORE) {
            node_read_core(e->node->seed, id, gpu_load(e, cpu), e->now.now_us, &core);
            busy = core.user + core.nice + core.sys + core.irq;
        }
        return value_real(out, f->id == DCGM_FI_DEV_CPU_UTIL_TOTAL  ? busy
                               : f->id == DCGM_FI_DEV_CPU_UTIL_USER ? core.user
                               : f->id == DCGM_FI_DEV_CPU_UTIL_NICE ? core.nice
                               : f->id == DCGM_FI_DEV_CPU_UTIL_SYS  ? core.sys
                                                                    : core.irq);
    case DCGM_FI_DEV_CPU_TEMP_CELSIUS:
        return value_real(out, 38 + 30 * busy + e->now.cpu[cpu].heat_c);
    case DCGM_FI_DEV_CPU_TEMP_WARNING_CELSIUS:
        return value_real(out, 99.5);
    case DCGM_FI_DEV_CPU_TEMP_CRITICAL_CELSIUS:
        return value_real(out, 104.5);
    case DCGM_FI_DEV_CPU_CLOCK_CURRENT: /* kHz; of a core only */
        if (group == DCGM_FE_CPU)
            return READ_BLANK;
        node_read_core(e->node->seed, id, gpu_load(e, cpu), e->now.now_us, &core);
        return value_integer(out, 3411000 - 1000 * (double)(int)(400 * (core.user + core.sys)));
    case DCGM_FI_DEV_CPU_POWER_WATTS:
        return value_real(out, 55 + 190 * busy);
    case DCGM_FI_DEV_CPU_POWER_LIMIT_WATTS:
        return value_real(out, 500);
    case DCGM_FI_DEV_SYSIO_POWER_UTIL_CURRENT:
        return value_real(out, 22 + 8 * busy);
    case DCGM_FI_DEV_MODULE_POWER_UTIL_CURRENT: {
        double gpus = 0;
        for (uint32_t i = 0; i < e->now.gpu_count; i++)
            if ((int)e->now.gpu[i].numa_node == cpu)
                gpus += value_gpu_reading(e, (int)i)->power_w;
        return value_real(out, 55 + 190 * busy + 22 + 8 * busy + gpus);
    }
    case DCGM_FI_DEV_CPU_VENDOR:
        return value_text(e, out, "Nvidia");
    case DCGM_FI_DEV_CPU_MODEL:
        return value_text(e, out, "Grace");
    default:
        return READ_NO_DATA;
    }
}
