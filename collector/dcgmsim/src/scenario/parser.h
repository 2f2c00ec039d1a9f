/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The state of a scenario parser, and the parsing of values. */
#ifndef DCGMSIM_SCENARIO_PARSER_H
#define DCGMSIM_SCENARIO_PARSER_H

#include "node/node.h"

#define PARSER_MAX_MODELS 16

struct named_model {
    char key[32]; /* the name in scenario files */
    struct node_model model;
};

struct parser {
    struct node_state *node;
    const char *file;
    int line, depth; /* depth: of nested base statements */
    bool started;    /* this file has had a statement other than seed */
    struct named_model models[PARSER_MAX_MODELS];
    int model_count;
    char *err;
    size_t err_len;
};

/* The result of a statement. For STATEMENT_USAGE the caller reports the forms of the statement. */
enum statement_result { STATEMENT_OK = 0, STATEMENT_FAILED = -1, STATEMENT_USAGE = -2 };

/* Reports an error as FILE:LINE: REASON and returns STATEMENT_FAILED. */
enum statement_result fail(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* These return false if the word is not of that kind. */
bool parse_uint(const char *word, uint64_t max, uint64_t *out); /* decimal, or hexadecimal with 0x */
bool parse_double(const char *word, double *out);
bool parse_duration(const char *word, int64_t *us); /* "30s", "200ms", "5m", "1h" */
bool parse_yes_no(const char *word, bool *out);

#endif
