/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Timed commands of a scenario ("at 30s lose gpu 3"): runs those that are due. */
#include "access/events.h"

#include "command/command.h"

#include <stdio.h>
#include <string.h>

void node_run_events(struct node_state *n)
{
    while (atomic_load_explicit(&n->next_event_us, memory_order_relaxed) <= node_now_us()) {
        char command[sizeof n->event[0].command] = "";
        int64_t now = node_now_us(), next = INT64_MAX;
        node_lock(n);
        struct node_event *due = NULL;
        for (int i = 0; i < NODE_MAX_EVENTS; i++) {
            struct node_event *e = &n->event[i];
            if (e->present && !e->done && e->at_us <= now && (!due || e->at_us < due->at_us))
                due = e;
        }
        if (due) {
            due->done = true;
            memcpy(command, due->command, sizeof command);
        }
        for (int i = 0; i < NODE_MAX_EVENTS; i++) {
            struct node_event *e = &n->event[i];
            if (e->present && !e->done && e->at_us < next)
                next = e->at_us;
        }
        atomic_store(&n->next_event_us, next);
        node_unlock(n);
        if (due) {
            char answer[256];
            if (node_command(n, command, answer, sizeof answer) != 0)
                fprintf(stderr, "dcgmsim: timed command %s: %s\n", command, answer);
        }
    }
}
