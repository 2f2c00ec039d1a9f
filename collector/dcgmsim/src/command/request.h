/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* A command line split into words, its arguments, and the answer to it. */
#ifndef DCGMSIM_COMMAND_REQUEST_H
#define DCGMSIM_COMMAND_REQUEST_H

#include "node/node.h"

#define REQUEST_MAX_WORDS 40

struct request {
    struct node_state *node;
    char *word[REQUEST_MAX_WORDS]; /* word[0] is the command */
    int count;
    const char *text; /* the whole line */
    char *answer;
    size_t answer_len;
};

/* The result of a handler. For COMMAND_USAGE the dispatcher answers with the forms of the command. */
enum command_result { COMMAND_OK = 0, COMMAND_FAILED = -1, COMMAND_USAGE = -2 };

/* These write the answer and return the result. */
enum command_result answer_ok(struct request *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum command_result answer_error(struct request *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum command_result answer_done(struct request *r);

/* Parses a decimal number within bounds; false if the word is not one. */
bool parse_number(const char *word, long low, long high, long *out);
/* The word at an index; NULL past the end. */
const char *word_at(const struct request *r, int index);
/* VALUE of `key VALUE`, searched from an index; NULL if absent. */
const char *option(const struct request *r, int from, const char *key);
/* Index of the word in a list that ends with NULL; -1 if it is not in it, or NULL. */
int choice(const char *word, const char *const list[]);

/* The kinds of target that a command accepts. */
enum target_kinds {
    TARGET_GPU = 1,    /* gpu I */
    TARGET_ALL = 2,    /* no target, or gpu all */
    TARGET_SWITCH = 4, /* switch S */
    TARGET_CPU = 8     /* cpu C */
};

struct request_target {
    enum node_entity_kind kind;
    int position; /* in the node's array of that kind; -1 for all GPUs */
};

/* Parses the target among the words from an index; false if it is missing or unknown, with the error answered. */
bool parse_target(struct request *r, int from, unsigned kinds, struct request_target *out);
/* Parses `gpu I`. Returns its position, or -1 with the error answered. */
int parse_gpu(struct request *r);

/* Signals to engines that GPUs, switches, CPUs or health incidents changed. */
void mark_changed(struct node_state *n);

#endif
