/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* What the commands that steer the node have in common. */
#ifndef DCGMSIM_COMMAND_H
#define DCGMSIM_COMMAND_H

#include "node.h"

#define MAX_WORDS 40

struct request {
    struct node_state *node;
    char *word[MAX_WORDS];
    int count;
    const char *text; /* the whole line */
    char *answer;
    size_t answer_len;
};

/* The answer to a request: the return value is that of its command. */
int ok(struct request *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
int bad(struct request *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* 0, or -1 when the word is no number in the range. */
int number(const char *word, long low, long high, long *out);
/* VALUE of `key VALUE` from word `from` on; NULL when absent. */
const char *option(const struct request *r, int from, const char *key);
/* Position in a list that ends with NULL; -1 when the word is not in it. */
int choice(const char *word, const char *const list[]);

/* Position of `gpu I` from word `from` on, I being a DCGM id or `all`; -2 when wrong, and answered; -1 for all. */
int gpu_of(struct request *r, int from, bool all_allowed);
/* Position of `switch S` or `cpu C`; -2 when wrong, and answered. */
int switch_of(struct request *r, int from);
int cpu_of(struct request *r, int from);

/* conditions.c: what is wrong with the hardware */
int command_link(struct request *r);
int command_switch_state(struct request *r);
int command_sxid(struct request *r);
int command_reason(struct request *r);
int command_heat(struct request *r);
int command_ecc(struct request *r);
int command_remap(struct request *r);
int command_retire(struct request *r);
int command_recovery(struct request *r);
int command_fabric(struct request *r);
int command_health(struct request *r);
int command_profiling(struct request *r);
void conditions_clear(struct node_state *n); /* under node_lock */

#endif
