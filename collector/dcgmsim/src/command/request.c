/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Parsing of command arguments, and answers. */
#include "command/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_answer(struct request *r, const char *prefix, const char *format, va_list ap)
{
    int used = snprintf(r->answer, r->answer_len, "%s", prefix);
    if ((size_t)used < r->answer_len)
        vsnprintf(r->answer + used, r->answer_len - (size_t)used, format, ap);
}

enum command_result answer_ok(struct request *r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    write_answer(r, "ok ", format, ap);
    va_end(ap);
    return COMMAND_OK;
}

enum command_result answer_done(struct request *r)
{
    snprintf(r->answer, r->answer_len, "ok");
    return COMMAND_OK;
}

enum command_result answer_error(struct request *r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    write_answer(r, "error: ", format, ap);
    va_end(ap);
    return COMMAND_FAILED;
}

bool parse_number(const char *word, long low, long high, long *out)
{
    char *end;
    if (!word)
        return false;
    errno = 0;
    long v = strtol(word, &end, 10);
    if (errno || end == word || *end || v < low || v > high)
        return false;
    *out = v;
    return true;
}

const char *word_at(const struct request *r, int index)
{
    return index < r->count ? r->word[index] : NULL;
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

static int find_gpu(const struct request *r, const char *word)
{
    long id;
    return parse_number(word, 0, NODE_MAX_GPUS - 1, &id) ? node_gpu_by_dcgm_id(r->node, (uint32_t)id) : -1;
}

static int find_switch(const struct request *r, const char *word)
{
    long id;
    return parse_number(word, 0, 255, &id) ? node_switch_by_id(r->node, (uint32_t)id) : -1;
}

static int find_cpu(const struct request *r, const char *word)
{
    long id;
    return parse_number(word, 0, (long)r->node->cpu_count - 1, &id) ? (int)id : -1;
}

bool parse_target(struct request *r, int from, unsigned kinds, struct request_target *out)
{
    static const struct {
        enum target_kinds flag;
        enum node_entity_kind kind;
        const char *key, *form, *name;
        int (*find)(const struct request *r, const char *word);
    } targets[] = {
        {TARGET_SWITCH, NODE_ENTITY_SWITCH, "switch", "switch S", "NVSwitch", find_switch},
        {TARGET_CPU, NODE_ENTITY_CPU, "cpu", "cpu C", "CPU", find_cpu},
        {TARGET_GPU, NODE_ENTITY_GPU, "gpu", "gpu I", "GPU with DCGM id", find_gpu},
    };
    const char *missing = "";
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (!(kinds & targets[i].flag))
            continue;
        missing = targets[i].form;
        const char *word = option(r, from, targets[i].key);
        if (!word)
            continue;
        out->kind = targets[i].kind;
        out->position = -1;
        if (targets[i].flag == TARGET_GPU && (kinds & TARGET_ALL) && strcmp(word, "all") == 0)
            return true;
        out->position = targets[i].find(r, word);
        if (out->position < 0)
            answer_error(r, "no %s %s", targets[i].name, word);
        return out->position >= 0;
    }
    *out = (struct request_target){NODE_ENTITY_GPU, -1};
    if (kinds & TARGET_ALL)
        return true;
    answer_error(r, "%s: %s is missing", r->word[0], missing);
    return false;
}

int parse_gpu(struct request *r)
{
    struct request_target t;
    return parse_target(r, 1, TARGET_GPU, &t) ? t.position : -1;
}

void mark_changed(struct node_state *n)
{
    atomic_fetch_add(&n->generation, 1);
}
