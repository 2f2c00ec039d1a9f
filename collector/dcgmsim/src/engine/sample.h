/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Sample values. */
#ifndef DCGMSIM_ENGINE_SAMPLE_H
#define DCGMSIM_ENGINE_SAMPLE_H

#include "engine/state.h"

/* The result of reading a field. READ_NO_DATA leaves no sample; the others leave one, blank unless READ_OK. */
enum read_result { READ_OK, READ_BLANK, READ_NOT_SUPPORTED, READ_NO_DATA };

/* These set the value of a sample and return READ_OK. */
enum read_result sample_integer(struct sample *out, double v);
enum read_result sample_double(struct sample *out, double v);
enum read_result sample_string(struct engine *e, struct sample *out, const char *v);
/* A rate in MB/s as DCGM computes it: thousands of KiB per second since the previous sample, 0 for the first. */
enum read_result sample_rate(struct engine *e, struct watch *w, struct sample *out, double total_bytes);

/* Returns a copy of the text that lives as long as the engine. */
const char *intern_string(struct engine *e, const char *text);

/* A value on its way to a caller; compact, because it also crosses the socket. */
struct value {
    uint32_t entity_id;
    uint16_t field;
    uint8_t group;
    char type;
    int32_t status;
    int64_t ts;
    union {
        int64_t i64;
        double dbl;
        const char *str;
    } v;
};

struct value_list {
    struct value *items;
    size_t count, cap;
};
bool value_list_add(struct value_list *l, const struct value *v); /* false if out of memory */

#endif
