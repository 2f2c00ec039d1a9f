/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands on devices: XIDs and SXids, presence of GPUs, MIG layouts, links and switches. */
#define _GNU_SOURCE
#include "command/handlers.h"
#include "node/links.h"
#include "node/mig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * Appends one record in the form of /dev/kmsg, "priority,sequence,microseconds,
 * flags;text", with the driver's message for an XID. instance names the GPU
 * instance and the compute instance as krcReportXid of the driver does. One write
 * per record keeps the records of several processes apart.
 */
static bool log_xid(struct node_state *n, const struct node_gpu *g, uint32_t position, const char *instance, uint32_t xid)
{
    char line[256], process[96] = "pid='<unknown>', name=<unknown>";
    struct timespec up;
    const char *path = getenv("DCGMSIM_KMSG");
    int fd = open(path && *path ? path : n->kernel_log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return false;
    for (int i = 0; i < NODE_MAX_PROCESSES; i++) {
        if (n->process[i].present && n->process[i].gpu == position) {
            snprintf(process, sizeof process, "pid=%u, name=%.60s", n->process[i].pid, n->process[i].name);
            break;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &up);
    int len = snprintf(line, sizeof line, "3,%llu,%lld,-;NVRM: Xid (PCI:%04x:%02x:%02x%s): %u, %s, simulated\n",
                       (unsigned long long)++n->kernel_log_seq, (long long)up.tv_sec * 1000000 + up.tv_nsec / 1000,
                       g->pci_domain, g->pci_bus, g->pci_device, instance, xid, process);
    ssize_t written = write(fd, line, (size_t)len);
    close(fd);
    return written == len;
}

enum command_result handle_xid_pace(struct request *r)
{
    long ms;
    if (r->count != 3 || !parse_number(r->word[2], 0, 600000, &ms))
        return COMMAND_USAGE;
    node_lock(r->node);
    r->node->xid_pace_us = ms * 1000;
    node_unlock(r->node);
    return answer_done(r);
}

/*
 * kmsg only: the kernel log has the XID, and DCGM misses it. kmsg twice: DCGM
 * reports it twice, from the driver's event and from its own reading of the
 * kernel log.
 */
enum command_result handle_xid(struct request *r)
{
    enum { KMSG_NONE, KMSG_ONLY, KMSG_BOTH, KMSG_TWICE };
    static const char *const kmsg_names[] = {"no", "only", "both", "twice", NULL};
    static const int journal_entries[] = {1, 0, 1, 2}; /* by kmsg */
    struct node_state *n = r->node;
    long xid, slot = 0, count = 1;
    if (r->count < 4 || !parse_number(r->word[1], 1, 100000, &xid))
        return COMMAND_USAGE;
    struct request_target target;
    if (!parse_target(r, 2, TARGET_GPU, &target))
        return COMMAND_FAILED;
    const struct node_gpu *g = &n->gpu[target.position];
    const char *gi = option(r, 2, "gi"), *ci = option(r, 2, "ci"), *times = option(r, 2, "count"), *kmsg = option(r, 2, "kmsg");
    int log = kmsg ? choice(kmsg, kmsg_names) : KMSG_NONE;
    uint32_t where = ci ? NODE_XID_CI : gi ? NODE_XID_GI : NODE_XID_GPU;
    if ((gi || ci) && !parse_number(ci ? ci : gi, 0, 6, &slot))
        return answer_error(r, "instance numbers are 0 to 6, in order of creation");
    if (log < 0 || (times && !parse_number(times, 1, NODE_MAX_JOURNAL / 2, &count)))
        return COMMAND_USAGE;
    if (ci ? !g->ci[slot].present : gi ? !g->gi[slot].present : false)
        return answer_error(r, "GPU %u has no such instance", g->dcgm_id);
    char instance[48] = "";
    if (ci)
        snprintf(instance, sizeof instance, " GPU-I:%02u GPU-CI:%02u", g->gi[g->ci[slot].gi].nvml_id, g->ci[slot].nvml_id);
    else if (gi)
        snprintf(instance, sizeof instance, " GPU-I:%02u", g->gi[slot].nvml_id);
    bool logged = true;
    node_lock(n);
    uint64_t seq = atomic_load(&n->xid_seq);
    int64_t now = node_now_us(); /* one time for all: XIDs that are taken at once can have equal times */
    for (long i = 0; i < count; i++) {
        if (log != KMSG_NONE)
            logged = log_xid(n, g, (uint32_t)target.position, instance, (uint32_t)xid) && logged;
        for (int k = 0; k < journal_entries[log]; k++) {
            struct node_xid *x = &n->xid[++seq % NODE_MAX_JOURNAL];
            *x = (struct node_xid){.seq = seq,
                                   .at_us = now,
                                   .gpu = (uint32_t)target.position,
                                   .where = where,
                                   .slot = (uint32_t)slot,
                                   .xid = (uint32_t)xid};
        }
    }
    atomic_store(&n->xid_seq, seq);
    node_unlock(n);
    if (!logged)
        return answer_error(r, "the kernel log cannot be written: set DCGMSIM_KMSG");
    return answer_ok(r, "seq=%llu", (unsigned long long)seq);
}

enum command_result handle_sxid(struct request *r)
{
    static const char *const kinds[] = {"fatal", "nonfatal", NULL};
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 1, TARGET_SWITCH, &target))
        return COMMAND_FAILED;
    long sxid, port = 0;
    const char *p = option(r, 1, "port");
    int kind = choice(r->word[r->count - 1], kinds);
    if (!parse_number(r->word[1], 1, 1000000, &sxid) || kind < 0 || (p && !parse_number(p, 0, NODE_MAX_PORTS - 1, &port)))
        return COMMAND_USAGE;
    node_lock(n);
    struct node_switch *sw = &n->nvswitch[target.position];
    *(kind == 0 ? &sw->fatal : &sw->non_fatal) =
        (struct node_sxid){.sxid = (uint32_t)sxid, .port = (uint32_t)port, .at_us = node_now_us()};
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

/* lose, mute, return, detach, attach */
enum command_result handle_presence(struct request *r)
{
    struct node_state *n = r->node;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    node_lock(n);
    const char *verb = r->word[0];
    bool lost = n->gpu[gpu].lost, detached = n->gpu[gpu].detached;
    if (strcmp(verb, "lose") == 0)
        lost = true;
    else if (strcmp(verb, "mute") == 0)
        n->gpu[gpu].mute = true;
    else if (strcmp(verb, "return") == 0)
        lost = n->gpu[gpu].mute = false;
    else
        detached = strcmp(verb, "detach") == 0;
    node_set_presence(n, (uint32_t)gpu, lost, detached);
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_mig(struct request *r)
{
    char err[200];
    if (r->count != 4)
        return COMMAND_USAGE;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    node_lock(r->node);
    int rc = node_set_mig(r->node, (uint32_t)gpu, r->word[3], err, sizeof err);
    node_unlock(r->node);
    return rc == 0 ? answer_done(r) : answer_error(r, "%s", err);
}

enum command_result handle_link(struct request *r)
{
    static const char *const errors[] = {"replay", "recovery", "flit", "crc", "ecc", NULL}; /* enum node_link_error */
    static const char *const states[] = {"up", "down", NULL};
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_SWITCH, &target))
        return COMMAND_FAILED;
    const char *port_word = option(r, 1, "port"), *error = option(r, 1, "error"), *last = r->word[r->count - 1];
    int kind = choice(error, errors), state = choice(last, states);
    long port, more = 0;
    if (!parse_number(port_word, 0, NODE_MAX_PORTS - 1, &port) || (error ? kind < 0 : state < 0) ||
        (error && !parse_number(last, 1, 1000000000, &more)))
        return COMMAND_USAGE;
    bool of_switch = target.kind == NODE_ENTITY_SWITCH;
    struct node_port *end = of_switch ? &n->nvswitch[target.position].port[port] : NULL;
    if (end ? end->kind == NODE_PORT_UNUSED : port >= (long)n->gpu[target.position].model.nvlinks)
        return answer_error(r, "%s %s has no link at port %s", of_switch ? "switch" : "GPU",
                            option(r, 1, of_switch ? "switch" : "gpu"), port_word);
    node_lock(n);
    struct node_link *link = end ? node_port_link(n, end) : &n->gpu[target.position].link[port];
    if (error)
        link->error[kind] += (uint64_t)more;
    else
        node_set_link(link, &n->gpu[end ? end->gpu : target.position], n->boot_us, node_now_us(), NODE_LINK_DOWN_BY_COMMAND,
                      state == 1);
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_switch(struct request *r)
{
    static const char *const states[] = {"back", "lost", NULL};
    struct request_target target;
    if (!parse_target(r, 0, TARGET_SWITCH, &target))
        return COMMAND_FAILED;
    int state = r->count == 3 ? choice(r->word[2], states) : -1;
    if (state < 0)
        return COMMAND_USAGE;
    node_lock(r->node);
    node_set_switch(r->node, (uint32_t)target.position, state == 1);
    node_unlock(r->node);
    return answer_done(r);
}
