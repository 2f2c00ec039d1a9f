/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The commands that steer the node, whoever reads them: socket, scenario or dcgmsimd --command. */
#define _GNU_SOURCE
#include "command.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int ok(struct request *r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int used = snprintf(r->answer, r->answer_len, "ok");
    if (*format && (size_t)used + 1 < r->answer_len) {
        r->answer[used++] = ' ';
        vsnprintf(r->answer + used, r->answer_len - (size_t)used, format, ap);
    }
    va_end(ap);
    return 0;
}

int bad(struct request *r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int used = snprintf(r->answer, r->answer_len, "error: ");
    if ((size_t)used < r->answer_len)
        vsnprintf(r->answer + used, r->answer_len - (size_t)used, format, ap);
    va_end(ap);
    return -1;
}

int number(const char *word, long low, long high, long *out)
{
    char *end;
    errno = 0;
    long v = strtol(word, &end, 10);
    if (errno || end == word || *end || v < low || v > high)
        return -1;
    *out = v;
    return 0;
}

const char *option(const struct request *r, int from, const char *key)
{
    for (int i = from; i + 1 < r->count; i++)
        if (strcmp(r->word[i], key) == 0)
            return r->word[i + 1];
    return NULL;
}

int choice(const char *word, const char *const list[])
{
    for (int i = 0; word && list[i]; i++)
        if (strcmp(list[i], word) == 0)
            return i;
    return -1;
}

int gpu_of(struct request *r, int from, bool all_allowed)
{
    const char *v = option(r, from, "gpu");
    long id;
    if (!v) {
        if (all_allowed)
            return -1;
        bad(r, "%s: gpu I is missing", r->word[0]);
        return -2;
    }
    if (all_allowed && strcmp(v, "all") == 0)
        return -1;
    int position = number(v, 0, NODE_MAX_GPUS - 1, &id) == 0 ? node_gpu_by_dcgm_id(r->node, (uint32_t)id) : -1;
    if (position < 0) {
        bad(r, "no GPU with DCGM id %s", v);
        return -2;
    }
    return position;
}

int switch_of(struct request *r, int from)
{
    const char *v = option(r, from, "switch");
    long id;
    int position = v && number(v, 0, 255, &id) == 0 ? node_switch_by_id(r->node, (uint32_t)id) : -1;
    if (position >= 0)
        return position;
    bad(r, "no NVSwitch %s", v ? v : "named: switch S");
    return -2;
}

int cpu_of(struct request *r, int from)
{
    const char *v = option(r, from, "cpu");
    long id;
    if (v && number(v, 0, (long)r->node->cpu_count - 1, &id) == 0)
        return (int)id;
    bad(r, "no CPU %s", v ? v : "named: cpu C");
    return -2;
}

/*
 * One record as /dev/kmsg gives it ("priority,sequence,microseconds,flags;text"),
 * with the driver's line for an XID. A line at a time, whoever writes.
 */
static int log_xid(struct node_state *n, const struct node_gpu *g, uint32_t position, uint32_t xid)
{
    char line[256], who[96] = "pid='<unknown>', name=<unknown>";
    struct timespec up;
    const char *path = getenv("DCGMSIM_KMSG");
    int fd = open(path && *path ? path : n->kernel_log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return -1;
    for (int i = 0; i < NODE_MAX_PROCESSES; i++) {
        if (n->process[i].present && n->process[i].gpu == position) {
            snprintf(who, sizeof who, "pid=%u, name=%.60s", n->process[i].pid, n->process[i].name);
            break;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &up);
    int len = snprintf(line, sizeof line, "3,%llu,%lld,-;NVRM: Xid (PCI:%04x:%02x:%02x): %u, %s, simulated\n",
                       (unsigned long long)++n->kernel_log_seq, (long long)up.tv_sec * 1000000 + up.tv_nsec / 1000,
                       g->pci_domain, g->pci_bus, g->pci_device, xid, who);
    ssize_t written = write(fd, line, (size_t)len);
    close(fd);
    return written == len ? 0 : -1;
}

#define XID_USAGE "xid N gpu I [gi G | ci C] [count TIMES] [kmsg only|both|twice], or xid pace MS"

/*
 * `kmsg only`: the kernel log has it and DCGM misses it. `twice`: DCGM has it
 * from the driver's event and, once more, from its own reading of the kernel log.
 */
static int command_xid(struct request *r)
{
    static const char *const logs[] = {"no", "only", "both", "twice", NULL};
    struct node_state *n = r->node;
    long xid, slot = 0, count = 1, ms;
    if (r->count == 3 && strcmp(r->word[1], "pace") == 0) {
        if (number(r->word[2], 0, 600000, &ms) != 0)
            return bad(r, XID_USAGE);
        node_lock(n);
        n->xid_pace_us = ms * 1000;
        node_unlock(n);
        return ok(r, "%s", "");
    }
    if (r->count < 4 || number(r->word[1], 1, 100000, &xid) != 0)
        return bad(r, XID_USAGE);
    int gpu = gpu_of(r, 2, false);
    if (gpu < 0)
        return -1;
    const char *gi = option(r, 2, "gi"), *ci = option(r, 2, "ci"), *times = option(r, 2, "count"), *kmsg = option(r, 2, "kmsg");
    int log = kmsg ? choice(kmsg, logs) : 0;
    uint32_t where = ci ? NODE_XID_CI : gi ? NODE_XID_GI : NODE_XID_GPU;
    if ((gi || ci) && number(ci ? ci : gi, 0, 6, &slot) != 0)
        return bad(r, "instances are numbered 0 to 6, in order of creation");
    if (log < 0 || (times && number(times, 1, NODE_MAX_JOURNAL / 2, &count) != 0))
        return bad(r, XID_USAGE);
    if (ci ? !n->gpu[gpu].ci[slot].present : gi ? !n->gpu[gpu].gi[slot].present : false)
        return bad(r, "GPU %u has no such instance", n->gpu[gpu].dcgm_id);
    bool logged = true;
    node_lock(n);
    uint64_t seq = atomic_load(&n->xid_seq);
    for (long i = 0; i < count; i++) {
        if (log > 0)
            logged = log_xid(n, &n->gpu[gpu], (uint32_t)gpu, (uint32_t)xid) == 0 && logged;
        for (int k = log == 1 ? 1 : 0; k < (log == 3 ? 2 : 1); k++) {
            struct node_xid *x = &n->xid[++seq % NODE_MAX_JOURNAL];
            *x = (struct node_xid){.seq = seq, .at_us = node_now_us(), .gpu = (uint32_t)gpu, .where = where, .slot = (uint32_t)slot, .xid = (uint32_t)xid};
        }
    }
    atomic_store(&n->xid_seq, seq);
    node_unlock(n);
    if (!logged)
        return bad(r, "no kernel log to write to: DCGMSIM_KMSG");
    return ok(r, "seq=%llu", (unsigned long long)seq);
}

static int command_presence(struct request *r)
{
    struct node_state *n = r->node;
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    node_lock(n);
    const struct node_gpu *g = &n->gpu[gpu];
    const char *verb = r->word[0];
    bool lost = g->lost, detached = g->detached;
    if (strcmp(verb, "lose") == 0)
        lost = true;
    else if (strcmp(verb, "return") == 0)
        lost = false;
    else
        detached = strcmp(verb, "detach") == 0;
    node_set_presence(n, (uint32_t)gpu, lost, detached);
    node_unlock(n);
    return ok(r, "%s", "");
}

static int command_mig(struct request *r)
{
    char err[200];
    if (r->count != 4)
        return bad(r, "mig gpu I LAYOUT");
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    node_lock(r->node);
    int rc = node_set_mig(r->node, (uint32_t)gpu, r->word[3], err, sizeof err);
    node_unlock(r->node);
    return rc == 0 ? ok(r, "%s", "") : bad(r, "%s", err);
}

/* blank, unblank, set, unset: `VERB field F [value V] [gpu I | switch S | cpu C]` */
static int command_override(struct request *r)
{
    struct node_state *n = r->node;
    const char *verb = r->word[0], *id = option(r, 1, "field"), *text = option(r, 1, "value");
    long field;
    bool set = strcmp(verb, "set") == 0, blank = strcmp(verb, "blank") == 0;
    if (!id || number(id, 1, 2000, &field) != 0 || (set && !text))
        return bad(r, "%s field ID%s [gpu I | switch S | cpu C]", verb, set ? " value V" : "");
    double value = 0;
    if (set) {
        char *end;
        value = strtod(text, &end);
        if (end == text || *end)
            return bad(r, "%s is not a number", text);
    }
    bool of_switch = option(r, 1, "switch") != NULL, of_cpu = option(r, 1, "cpu") != NULL;
    uint8_t group = of_switch ? NODE_OF_SWITCH : of_cpu ? NODE_OF_CPU : NODE_OF_GPU;
    int gpu = of_switch ? switch_of(r, 1) : of_cpu ? cpu_of(r, 1) : gpu_of(r, 1, true);
    if (gpu < -1)
        return -1;
    node_lock(n);
    struct node_override *free_slot = NULL, *same = NULL;
    for (int i = 0; i < NODE_MAX_OVERRIDES; i++) {
        struct node_override *o = &n->override[i];
        if (!o->present && !free_slot)
            free_slot = o;
        if (o->present && o->field == field && o->gpu == gpu && o->group == group)
            same = o;
    }
    struct node_override *o = same ? same : free_slot;
    if (set || blank) {
        if (o)
            *o = (struct node_override){.present = true, .blank = blank, .group = group, .gpu = gpu, .field = (uint16_t)field, .value = value};
    } else if (same) {
        same->present = false;
    }
    atomic_fetch_add(&n->override_generation, 1);
    node_unlock(n);
    if ((set || blank) && !o)
        return bad(r, "more than %d overrides", NODE_MAX_OVERRIDES);
    return ok(r, "%s", "");
}

static int command_fault(struct request *r)
{
    struct node_state *n = r->node;
    static const struct {
        const char *verb;
        uint32_t kind;
        bool arg;
    } kinds[] = {
        {"hang", NODE_FAULT_HANG, false},
        {"slow", NODE_FAULT_SLOW, true},
        {"fail", NODE_FAULT_FAIL, true},
        {"crash", NODE_FAULT_CRASH, false},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        if (strcmp(r->word[0], kinds[k].verb) != 0)
            continue;
        long arg = 0;
        if (r->count != (kinds[k].arg ? 3 : 2) || strlen(r->word[1]) >= sizeof n->fault[0].call)
            return bad(r, "%s CALL%s", r->word[0], kinds[k].arg ? (kinds[k].kind == NODE_FAULT_SLOW ? " MS" : " CODE") : "");
        if (kinds[k].arg && number(r->word[2], kinds[k].kind == NODE_FAULT_SLOW ? 0 : -1000, 600000, &arg) != 0)
            return bad(r, "%s is out of range", r->word[2]);
        node_lock(n);
        struct node_fault *f = NULL;
        for (int i = 0; i < NODE_MAX_FAULTS && !f; i++)
            if (n->fault[i].kind == kinds[k].kind && strcmp(n->fault[i].call, r->word[1]) == 0)
                f = &n->fault[i];
        for (int i = 0; i < NODE_MAX_FAULTS && !f; i++) {
            if (n->fault[i].kind == NODE_FAULT_NONE) {
                f = &n->fault[i];
                atomic_fetch_add(&n->fault_count, 1);
            }
        }
        if (f) {
            snprintf(f->call, sizeof f->call, "%s", r->word[1]);
            f->arg = (int32_t)arg;
            f->kind = kinds[k].kind;
        }
        node_unlock(n);
        return f ? ok(r, "%s", "") : bad(r, "more than %d faults", NODE_MAX_FAULTS);
    }
    return bad(r, "unknown command %s", r->word[0]);
}

/* clear [CALL]: removes the faults on a call, or everything that was set on command. */
static int command_clear(struct request *r)
{
    struct node_state *n = r->node;
    node_lock(n);
    for (int i = 0; i < NODE_MAX_FAULTS; i++) {
        struct node_fault *f = &n->fault[i];
        if (f->kind != NODE_FAULT_NONE && (r->count == 1 || strcmp(f->call, r->word[1]) == 0)) {
            f->kind = NODE_FAULT_NONE;
            atomic_fetch_sub(&n->fault_count, 1);
        }
    }
    if (r->count == 1) {
        memset(n->override, 0, sizeof n->override);
        atomic_fetch_add(&n->override_generation, 1);
        for (uint32_t i = 0; i < n->gpu_count; i++)
            node_set_presence(n, i, false, false);
        conditions_clear(n);
        n->xid_pace_us = 0;
        atomic_store(&n->engine_lost, 0);
    }
    node_unlock(n);
    return ok(r, "%s", "");
}

static int command_load(struct request *r)
{
    struct node_state *n = r->node;
    static const char *const kinds[] = {"idle", "steady", "bursty", "training", "bursts"};
    int gpu = gpu_of(r, 1, true);
    if (gpu < -1)
        return -1;
    const char *util = option(r, 1, "util"), *mem = option(r, 1, "mem");
    long u = 0, m = -1;
    int kind = util ? NODE_LOAD_FIXED : -1;
    if (util && number(util, 0, 100, &u) != 0)
        return bad(r, "util is a percentage");
    if (mem && number(mem, 0, 100, &m) != 0)
        return bad(r, "mem is a percentage");
    for (int k = 0; k < 5 && kind < 0; k++)
        if (r->count > 1 && strcmp(r->word[r->count - 1], kinds[k]) == 0)
            kind = NODE_LOAD_IDLE + k;
    if (kind < 0)
        return bad(r, "load gpu I|all util PERCENT [mem PERCENT], or idle|steady|bursty|training|bursts");
    node_lock(n);
    int64_t now = node_now_us();
    for (int i = 0; i < (int)n->gpu_count; i++)
        if (gpu == -1 || gpu == i)
            node_set_load(&n->gpu[i], n->boot_us, now, (uint32_t)kind, (double)u / 100, m < 0 ? -1 : (double)m / 100,
                          n->gpu[i].load.scale);
    atomic_fetch_add(&n->generation, 1);
    node_unlock(n);
    return ok(r, "%s", "");
}

#define PROCESS_USAGE \
    "process gpu I pid P [ci C] [name NAME] [memory MIB|unknown] [share PERCENT] [graphics yes|also] [mps yes]"

/* PROCESS_USAGE; process gone pid P; process none gpu I */
static int command_process(struct request *r)
{
    struct node_state *n = r->node;
    const char *pid = option(r, 1, "pid"), *name = option(r, 1, "name"), *memory = option(r, 1, "memory");
    const char *share = option(r, 1, "share"), *ci = option(r, 1, "ci"), *graphics = option(r, 1, "graphics");
    const char *mps = option(r, 1, "mps");
    bool unknown = memory && strcmp(memory, "unknown") == 0;
    long p = 0, mib = 1024, percent = 100, slot = -1;
    if ((pid && number(pid, 1, 4194304, &p) != 0) || (memory && !unknown && number(memory, 0, 10000000, &mib) != 0) ||
        (share && number(share, 0, 100, &percent) != 0) || (ci && number(ci, 0, NODE_MAX_CIS - 1, &slot) != 0))
        return bad(r, "process: a number is out of range");
    bool gone = r->count > 1 && strcmp(r->word[1], "gone") == 0, none = r->count > 1 && strcmp(r->word[1], "none") == 0;
    if (none || gone) {
        int gpu = none ? gpu_of(r, 1, true) : -1;
        if (gpu < -1 || (gone && !pid))
            return gone ? bad(r, "process gone pid P") : -1;
        node_lock(n);
        for (int i = 0; i < NODE_MAX_PROCESSES; i++)
            if (gone ? n->process[i].pid == (uint32_t)p : gpu == -1 || n->process[i].gpu == (uint32_t)gpu)
                n->process[i].present = false;
        node_unlock(n);
        return ok(r, "%s", "");
    }
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    if (!pid)
        return bad(r, PROCESS_USAGE);
    uint32_t lists = NODE_LIST_COMPUTE;
    if (graphics && strcmp(graphics, "yes") == 0)
        lists = NODE_LIST_GRAPHICS;
    else if (graphics && strcmp(graphics, "also") == 0)
        lists |= NODE_LIST_GRAPHICS;
    else if (graphics)
        return bad(r, PROCESS_USAGE);
    if (mps && strcmp(mps, "yes") != 0)
        return bad(r, PROCESS_USAGE);
    if (mps) /* a client of MPS has a context of its own as well */
        lists |= NODE_LIST_MPS;
    if (slot >= 0 && !n->gpu[gpu].ci[slot].present)
        return bad(r, "GPU %u has no compute instance %ld", n->gpu[gpu].dcgm_id, slot);
    node_lock(n);
    struct node_process *to = NULL;
    for (int i = 0; i < NODE_MAX_PROCESSES && !to; i++)
        if (!n->process[i].present)
            to = &n->process[i];
    if (to) {
        memset(to, 0, sizeof *to);
        to->present = true;
        to->pid = (uint32_t)p;
        to->gpu = (uint32_t)gpu;
        to->ci = (int32_t)slot;
        to->lists = lists;
        to->memory_bytes = unknown ? NODE_MEMORY_UNKNOWN : (uint64_t)mib * 1048576;
        to->share = (double)percent / 100;
        to->start_us = node_now_us();
        snprintf(to->name, sizeof to->name, "%s", name ? name : "python3");
    }
    node_unlock(n);
    return to ? ok(r, "%s", "") : bad(r, "more than %d processes", NODE_MAX_PROCESSES);
}

static int truth_of_link(struct request *r)
{
    struct node_state *n = r->node;
    struct node_link_reading x = {0};
    struct node_reading reading;
    uint64_t error[NODE_LINK_ERRORS];
    long port;
    bool of_switch = option(r, 2, "switch") != NULL;
    const char *p = option(r, 2, "port");
    int at = of_switch ? switch_of(r, 2) : gpu_of(r, 2, false);
    if (at < 0)
        return -1;
    if (!p || number(p, 0, of_switch ? NODE_MAX_PORTS - 1 : (long)n->gpu[at].model.nvlinks - 1, &port) != 0)
        return bad(r, "truth link gpu I|switch S port P");
    node_lock(n);
    int64_t now = node_now_us();
    struct node_port *end = of_switch ? &n->nvswitch[at].port[port] : NULL;
    const struct node_gpu *g = &n->gpu[end ? end->gpu : at];
    node_read_gpu(g, n->boot_us, now, &reading);
    if (end)
        node_read_port(end, g, &reading, &x);
    else
        node_read_link(g, (uint32_t)port, &reading, &x);
    memcpy(error, (end ? node_port_link(n, end) : &g->link[port])->error, sizeof error);
    node_unlock(n);
    return ok(r, "at_us=%lld up=%d tx_bytes=%.0f rx_bytes=%.0f replay=%llu recovery=%llu flit=%llu crc=%llu ecc=%llu",
              (long long)now, x.up, x.tx_bytes, x.rx_bytes, (unsigned long long)error[NODE_LINK_REPLAY],
              (unsigned long long)error[NODE_LINK_RECOVERY], (unsigned long long)error[NODE_LINK_FLIT],
              (unsigned long long)error[NODE_LINK_CRC], (unsigned long long)error[NODE_LINK_ECC]);
}

/* truth gpu I; truth link gpu I|switch S port P */
static int command_truth(struct request *r)
{
    struct node_state *n = r->node;
    if (r->count > 1 && strcmp(r->word[1], "link") == 0)
        return truth_of_link(r);
    int gpu = gpu_of(r, 1, false);
    if (gpu < 0)
        return -1;
    struct node_gpu g;
    struct node_reading x;
    node_lock(n);
    int64_t now = node_now_us();
    node_advance_throttle(&n->gpu[gpu], n->boot_us, now);
    g = n->gpu[gpu];
    node_unlock(n);
    node_read_gpu(&g, n->boot_us, now, &x);
    const int64_t *ns = g.throttle.reason_ns;
    return ok(r,
              "at_us=%lld boot_us=%lld util=%.6f busy_s=%.6f power_w=%.6f energy_mj=%.3f fb_used_mib=%.0f temp_c=%.3f "
              "pcie_tx_bytes=%.0f pcie_rx_bytes=%.0f nvlink_tx_bytes=%.0f nvlink_rx_bytes=%.0f reasons=%#llx "
              "idle_ns=%lld clocks_setting_ns=%lld power_cap_ns=%lld hw_slowdown_ns=%lld sync_boost_ns=%lld sw_thermal_ns=%lld "
              "hw_thermal_ns=%lld hw_power_brake_ns=%lld display_ns=%lld held_ns=%lld uuid=%s",
              (long long)now, (long long)n->boot_us, x.util, x.busy_s, x.power_w, x.energy_mj, x.fb_used_mib, x.temp_c,
              x.pcie_tx_bytes, x.pcie_rx_bytes, x.nvlink_tx_bytes, x.nvlink_rx_bytes, (unsigned long long)x.clocks_event_reasons,
              (long long)ns[0], (long long)ns[1], (long long)ns[2], (long long)ns[3], (long long)ns[4], (long long)ns[5],
              (long long)ns[6], (long long)ns[7], (long long)ns[8], (long long)g.throttle.held_ns, g.uuid);
}

static int command_state(struct request *r)
{
    struct node_state *n = r->node;
    char text[1800];
    size_t used = 0;
    node_lock(n);
    for (uint32_t i = 0; i < n->gpu_count && used < sizeof text; i++) {
        const struct node_gpu *g = &n->gpu[i];
        int gis = 0, cis = 0;
        for (int k = 0; k < NODE_MAX_GIS; k++) {
            gis += g->gi[k].present;
            cis += g->ci[k].present;
        }
        used += (size_t)snprintf(text + used, sizeof text - used, " gpu%u=%s%s%s", g->dcgm_id,
                                 g->lost ? "lost" : g->detached ? "detached" : "ok", g->mig_enabled ? ",mig" : "", "");
        if (g->mig_enabled && used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, ":%d/%d", gis, cis);
    }
    for (uint32_t i = 0; i < n->switch_count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " switch%u=%s", n->nvswitch[i].id,
                                 n->nvswitch[i].lost ? "lost" : "ok");
    if (n->cpu_count && used < sizeof text)
        used += (size_t)snprintf(text + used, sizeof text - used, " cpus=%u", n->cpu_count);
    node_unlock(n);
    return ok(r, "scenario=%s gpus=%u xids=%llu faults=%u engine=%s%s", n->scenario, n->gpu_count,
              (unsigned long long)atomic_load(&n->xid_seq), atomic_load(&n->fault_count),
              atomic_load(&n->engine_lost) ? "lost" : "ok", n->gpu_count ? text : "");
}

static int command_engine(struct request *r)
{
    if (r->count != 2 || (strcmp(r->word[1], "lost") != 0 && strcmp(r->word[1], "back") != 0))
        return bad(r, "engine lost|back");
    atomic_store(&r->node->engine_lost, strcmp(r->word[1], "lost") == 0);
    return ok(r, "%s", "");
}

static int command_print(struct request *r)
{
    struct node_state *n = r->node;
    if (r->count < 3 || (strcmp(r->word[1], "stdout") != 0 && strcmp(r->word[1], "stderr") != 0))
        return bad(r, "print stdout|stderr TEXT");
    const char *text = strstr(r->text, r->word[1]) + 6;
    text += strspn(text, " \t");
    node_lock(n);
    n->print_stderr = strcmp(r->word[1], "stderr") == 0;
    snprintf(n->print_text, sizeof n->print_text, "%s", text);
    atomic_fetch_add(&n->print_seq, 1);
    node_unlock(n);
    return ok(r, "%s", "");
}

int node_command(struct node_state *n, const char *line, char *answer, size_t answer_len)
{
    static const struct {
        const char *verb;
        int (*run)(struct request *);
    } commands[] = {
        {"xid", command_xid},         {"lose", command_presence},   {"return", command_presence},
        {"detach", command_presence}, {"attach", command_presence}, {"mig", command_mig},
        {"blank", command_override},  {"unblank", command_override}, {"set", command_override},
        {"unset", command_override},  {"hang", command_fault},      {"slow", command_fault},
        {"fail", command_fault},      {"crash", command_fault},     {"clear", command_clear},
        {"load", command_load},       {"process", command_process}, {"truth", command_truth},
        {"state", command_state},     {"engine", command_engine},   {"print", command_print},
        {"link", command_link},       {"switch", command_switch_state}, {"sxid", command_sxid},
        {"reason", command_reason},   {"heat", command_heat},       {"ecc", command_ecc},
        {"remap", command_remap},     {"retire", command_retire},   {"recovery", command_recovery},
        {"fabric", command_fabric},   {"health", command_health},   {"profiling", command_profiling},
    };
    char copy[512], *save = NULL;
    struct request r = {.node = n, .text = line, .answer = answer, .answer_len = answer_len};
    if (strlen(line) >= sizeof copy)
        return bad(&r, "line too long");
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
        if (r.count == MAX_WORDS)
            return bad(&r, "too many words");
        r.word[r.count++] = w;
    }
    if (r.count == 0)
        return bad(&r, "empty command");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].verb, r.word[0]) == 0)
            return commands[i].run(&r);
    return bad(&r, "unknown command %s", r.word[0]);
}
