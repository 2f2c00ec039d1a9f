/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Sample values: conversion to the types of DCGM fields, and interned strings. */
#define _GNU_SOURCE
#include "engine/sample.h"

#include <stdlib.h>
#include <string.h>

const char *intern_string(struct engine *e, const char *text)
{
    for (uint32_t i = 0; i < e->string_count; i++)
        if (strcmp(e->strings[i], text) == 0)
            return e->strings[i];
    if (e->string_count == e->string_cap) {
        uint32_t cap = e->string_cap ? e->string_cap * 2 : 64;
        const char **more = realloc(e->strings, cap * sizeof *more);
        if (!more)
            return DCGM_STR_BLANK;
        e->strings = more;
        e->string_cap = cap;
    }
    char *copy = strdup(text);
    if (!copy)
        return DCGM_STR_BLANK;
    return e->strings[e->string_count++] = copy;
}

enum read_result sample_integer(struct sample *out, double v)
{
    out->v.i64 = (int64_t)v;
    return READ_OK;
}

enum read_result sample_double(struct sample *out, double v)
{
    out->v.dbl = v;
    return READ_OK;
}

enum read_result sample_string(struct engine *e, struct sample *out, const char *v)
{
    out->v.str = intern_string(e, v);
    return READ_OK;
}

enum read_result sample_rate(struct engine *e, struct watch *w, struct sample *out, double total_bytes)
{
    double thousands = 0, kib = total_bytes / 1024;
    if (w && w->last_total_us > 0 && e->snapshot.time_us > w->last_total_us)
        thousands = (kib - w->last_total) / ((double)(e->snapshot.time_us - w->last_total_us) / 1e6) / 1e3;
    if (w) {
        w->last_total = kib;
        w->last_total_us = e->snapshot.time_us;
    }
    return sample_integer(out, thousands < 0 ? 0 : thousands);
}

bool value_list_add(struct value_list *l, const struct value *v)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct value *items = realloc(l->items, cap * sizeof *items);
        if (!items)
            return false;
        l->items = items;
        l->cap = cap;
    }
    l->items[l->count++] = *v;
    return true;
}
