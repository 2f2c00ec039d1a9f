/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands on the workload: the load of GPUs, and the processes on them. */
#include "command/handlers.h"
#include "node/load.h"

#include <stdio.h>
#include <string.h>

enum command_result handle_load(struct request *r)
{
    static const char *const kinds[] = {"idle", "steady", "bursty", "training", "bursts", NULL}; /* enum node_load_kind */
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_ALL, &target))
        return COMMAND_FAILED;
    const char *util = option(r, 1, "util"), *mem = option(r, 1, "mem");
    long util_percent = 0, mem_percent = -1;
    if (util && !parse_number(util, 0, 100, &util_percent))
        return answer_error(r, "util %s is not a percentage", util);
    if (mem && !parse_number(mem, 0, 100, &mem_percent))
        return answer_error(r, "mem %s is not a percentage", mem);
    int kind = util ? NODE_LOAD_FIXED : r->count > 1 ? choice(r->word[r->count - 1], kinds) : -1;
    if (kind < 0)
        return COMMAND_USAGE;
    node_lock(n);
    int64_t now = node_now_us();
    for (int i = 0; i < (int)n->gpu_count; i++)
        if (target.position == -1 || target.position == i)
            node_set_load(&n->gpu[i], n->boot_us, now, (uint32_t)kind, (double)util_percent / 100,
                          mem_percent < 0 ? -1 : (double)mem_percent / 100, n->gpu[i].load.scale);
    mark_changed(n);
    node_unlock(n);
    return answer_done(r);
}

/* Parses the numeric options of process; false if one is out of range, with the error answered. */
static bool parse_process_numbers(struct request *r, long *pid, long *mib, long *percent, long *slot)
{
    const struct {
        const char *key;
        long low, high, *out;
    } numbers[] = {
        {"pid", 1, 4194304, pid},
        {"memory", 0, 10000000, mib},
        {"share", 0, 100, percent},
        {"ci", 0, NODE_MAX_CIS - 1, slot},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const char *word = option(r, 1, numbers[i].key);
        if (!word || (numbers[i].out == mib && strcmp(word, "unknown") == 0))
            continue;
        if (!parse_number(word, numbers[i].low, numbers[i].high, numbers[i].out)) {
            answer_error(r, "process: %s %s is not a number from %ld to %ld", numbers[i].key, word, numbers[i].low,
                         numbers[i].high);
            return false;
        }
    }
    return true;
}

/* The process lists of NVML (enum node_process_list) that options select; 0 if they are invalid. */
static uint32_t process_lists(const char *graphics, const char *mps)
{
    static const char *const choices[] = {"yes", "also", NULL};
    static const uint32_t lists[] = {NODE_LIST_GRAPHICS, NODE_LIST_COMPUTE | NODE_LIST_GRAPHICS};
    int which = choice(graphics, choices);
    if ((graphics && which < 0) || (mps && strcmp(mps, "yes") != 0))
        return 0;
    /* A client of MPS also has a context of its own. */
    return (which < 0 ? NODE_LIST_COMPUTE : lists[which]) | (mps ? NODE_LIST_MPS : 0);
}

enum command_result handle_process(struct request *r)
{
    struct node_state *n = r->node;
    long pid = 0, mib = 1024, percent = 100, slot = -1;
    if (!parse_process_numbers(r, &pid, &mib, &percent, &slot))
        return COMMAND_FAILED;
    int gpu = parse_gpu(r);
    if (gpu < 0)
        return COMMAND_FAILED;
    uint32_t lists = process_lists(option(r, 1, "graphics"), option(r, 1, "mps"));
    if (pid == 0 || lists == 0)
        return COMMAND_USAGE;
    if (slot >= 0 && !n->gpu[gpu].ci[slot].present)
        return answer_error(r, "GPU %u has no compute instance %ld", n->gpu[gpu].dcgm_id, slot);
    const char *name = option(r, 1, "name"), *memory = option(r, 1, "memory");
    node_lock(n);
    struct node_process *p = NULL;
    for (int i = 0; i < NODE_MAX_PROCESSES && !p; i++)
        if (!n->process[i].present)
            p = &n->process[i];
    if (p) {
        memset(p, 0, sizeof *p);
        p->present = true;
        p->pid = (uint32_t)pid;
        p->gpu = (uint32_t)gpu;
        p->ci = (int32_t)slot;
        p->lists = lists;
        p->memory_bytes = memory && strcmp(memory, "unknown") == 0 ? NODE_MEMORY_UNKNOWN : (uint64_t)mib * 1048576;
        p->share = (double)percent / 100;
        p->start_us = node_now_us();
        snprintf(p->name, sizeof p->name, "%s", name ? name : "python3");
    }
    node_unlock(n);
    return p ? answer_done(r) : answer_error(r, "more than %d processes", NODE_MAX_PROCESSES);
}

enum command_result handle_process_gone(struct request *r)
{
    struct node_state *n = r->node;
    long pid;
    if (!parse_number(option(r, 1, "pid"), 1, 9999999, &pid))
        return COMMAND_USAGE;
    node_lock(n);
    for (int i = 0; i < NODE_MAX_PROCESSES; i++)
        if (n->process[i].pid == (uint32_t)pid)
            n->process[i].present = false;
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_process_none(struct request *r)
{
    struct node_state *n = r->node;
    struct request_target target;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_ALL, &target))
        return COMMAND_FAILED;
    node_lock(n);
    for (int i = 0; i < NODE_MAX_PROCESSES; i++)
        if (target.position == -1 || n->process[i].gpu == (uint32_t)target.position)
            n->process[i].present = false;
    node_unlock(n);
    return answer_done(r);
}
