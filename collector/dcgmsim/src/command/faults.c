/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Commands that inject faults: into calls, fields, engines and output. */
#include "command/handlers.h"
#include "node/links.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The slot of a fault; a free slot if there is none; NULL if all are in use. */
static struct node_fault *find_fault(struct node_state *n, uint32_t kind, const char *call)
{
    struct node_fault *empty = NULL;
    for (int i = 0; i < NODE_MAX_FAULTS; i++) {
        struct node_fault *f = &n->fault[i];
        if (f->kind == kind && strcmp(f->call, call) == 0)
            return f;
        if (f->kind == NODE_FAULT_NONE && !empty)
            empty = f;
    }
    return empty;
}

/* hang, slow, fail, crash, garbage */
enum command_result handle_fault(struct request *r)
{
    static const struct {
        const char *verb;
        enum node_fault_kind kind;
        int words;
        long low, high; /* bounds of the argument, if there is one */
    } kinds[] = {
        {"hang", NODE_FAULT_HANG, 2, 0, 0},
        {"slow", NODE_FAULT_SLOW, 3, 0, 600000},
        {"fail", NODE_FAULT_FAIL, 3, -1000, 600000},
        {"crash", NODE_FAULT_CRASH, 2, 0, 0},
        {"garbage", NODE_FAULT_GARBAGE, 3, 0, 255},
    };
    struct node_state *n = r->node;
    size_t k = 0;
    while (strcmp(r->word[0], kinds[k].verb) != 0)
        k++;
    long arg = 0;
    if (r->count != kinds[k].words || strlen(r->word[1]) >= sizeof n->fault[0].call)
        return COMMAND_USAGE;
    if (kinds[k].kind == NODE_FAULT_GARBAGE && strcmp(r->word[2], "noise") == 0)
        arg = NODE_GARBAGE_NOISE;
    else if (kinds[k].kind == NODE_FAULT_GARBAGE && strcmp(r->word[2], "size") == 0)
        arg = NODE_GARBAGE_SIZE;
    else if (r->count == 3 && !parse_number(r->word[2], kinds[k].low, kinds[k].high, &arg))
        return answer_error(r, "%s is not a number from %ld to %ld", r->word[2], kinds[k].low, kinds[k].high);
    node_lock(n);
    struct node_fault *f = find_fault(n, kinds[k].kind, r->word[1]);
    if (f) {
        if (f->kind == NODE_FAULT_NONE)
            atomic_fetch_add(&n->fault_count, 1);
        snprintf(f->call, sizeof f->call, "%s", r->word[1]);
        f->arg = (int32_t)arg;
        f->kind = kinds[k].kind;
    }
    node_unlock(n);
    return f ? answer_done(r) : answer_error(r, "more than %d faults", NODE_MAX_FAULTS);
}

/* blank, unblank, set, unset */
enum command_result handle_override(struct request *r)
{
    struct node_state *n = r->node;
    const char *id = option(r, 1, "field"), *text = option(r, 1, "value");
    long field;
    bool set = strcmp(r->word[0], "set") == 0, blank = strcmp(r->word[0], "blank") == 0;
    if (!parse_number(id, 1, 2000, &field) || (set && !text))
        return COMMAND_USAGE;
    double value = 0;
    if (set) {
        char *end;
        value = strtod(text, &end);
        if (end == text || *end)
            return answer_error(r, "%s is not a number", text);
    }
    struct request_target target;
    if (!parse_target(r, 1, TARGET_GPU | TARGET_ALL | TARGET_SWITCH | TARGET_CPU, &target))
        return COMMAND_FAILED;
    node_lock(n);
    struct node_override *empty = NULL, *same = NULL;
    for (int i = 0; i < NODE_MAX_OVERRIDES; i++) {
        struct node_override *o = &n->override[i];
        if (!o->present && !empty)
            empty = o;
        if (o->present && o->field == field && o->gpu == target.position && o->group == target.kind)
            same = o;
    }
    struct node_override *o = same ? same : empty;
    if (set || blank) {
        if (o)
            *o = (struct node_override){.present = true,
                                        .blank = blank,
                                        .group = (uint8_t)target.kind,
                                        .gpu = target.position,
                                        .field = (uint16_t)field,
                                        .value = value};
    } else if (same) {
        same->present = false;
    }
    atomic_fetch_add(&n->override_generation, 1);
    node_unlock(n);
    if ((set || blank) && !o)
        return answer_error(r, "more than %d overrides", NODE_MAX_OVERRIDES);
    return answer_done(r);
}

enum command_result handle_clear(struct request *r)
{
    struct node_state *n = r->node;
    const char *call = word_at(r, 1);
    node_lock(n);
    for (int i = 0; i < NODE_MAX_FAULTS; i++) {
        struct node_fault *f = &n->fault[i];
        if (f->kind != NODE_FAULT_NONE && (!call || strcmp(f->call, call) == 0)) {
            f->kind = NODE_FAULT_NONE;
            atomic_fetch_sub(&n->fault_count, 1);
        }
    }
    if (!call) {
        memset(n->override, 0, sizeof n->override);
        atomic_fetch_add(&n->override_generation, 1);
        for (uint32_t i = 0; i < n->gpu_count; i++) {
            n->gpu[i].mute = false;
            node_set_presence(n, i, false, false);
        }
        conditions_clear(n);
        n->xid_pace_us = NODE_XID_PACE_US;
        atomic_store(&n->engine_lost, 0);
        atomic_store(&n->engine_clock_us, 0);
    }
    node_unlock(n);
    return answer_done(r);
}

enum command_result handle_engine(struct request *r)
{
    static const char *const states[] = {"back", "lost", NULL};
    int state = r->count == 2 ? choice(r->word[1], states) : -1;
    if (state < 0)
        return COMMAND_USAGE;
    atomic_store(&r->node->engine_lost, (unsigned)state);
    return answer_done(r);
}

enum command_result handle_clock(struct request *r)
{
    long ms;
    if (r->count != 2 || !parse_number(r->word[1], -86400000, 86400000, &ms))
        return COMMAND_USAGE;
    atomic_store(&r->node->engine_clock_us, ms * 1000);
    return answer_done(r);
}

enum command_result handle_print(struct request *r)
{
    static const char *const streams[] = {"stdout", "stderr", NULL};
    struct node_state *n = r->node;
    int stream = r->count >= 3 ? choice(r->word[1], streams) : -1;
    if (stream < 0)
        return COMMAND_USAGE;
    const char *text = strstr(r->text, r->word[1]) + strlen(r->word[1]);
    text += strspn(text, " \t");
    node_lock(n);
    n->print_stderr = stream == 1;
    snprintf(n->print_text, sizeof n->print_text, "%s", text);
    atomic_fetch_add(&n->print_seq, 1);
    node_unlock(n);
    return answer_done(r);
}
