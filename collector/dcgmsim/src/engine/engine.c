/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The life cycle of an engine: start, the sampling thread, stop. */
#define _GNU_SOURCE
#include "engine/engine.h"

#include "access/events.h"
#include "access/faults.h"
#include "access/statefile.h"
#include "engine/control.h"
#include "engine/groups.h"
#include "engine/health.h"
#include "engine/log.h"
#include "engine/policy.h"
#include "engine/snapshot.h"
#include "engine/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POLL_US 100000      /* interval of the checks for timed commands and XIDs */
#define POLICY_US 1000000   /* interval of the checks for policy violations */

static void print_requested_text(struct engine *e)
{
    char text[sizeof e->node->print_text];
    uint32_t seq = atomic_load(&e->node->print_seq);
    if (seq == e->print_seen)
        return;
    node_lock(e->node);
    memcpy(text, e->node->print_text, sizeof text);
    bool to_stderr = e->node->print_stderr;
    node_unlock(e->node);
    e->print_seen = seq;
    fprintf(to_stderr ? stderr : stdout, "%s\n", text);
    fflush(to_stderr ? stderr : stdout);
}

static void *run(void *arg)
{
    struct engine *e = arg;
    int64_t next = 0;
    pthread_mutex_lock(&e->lock);
    while (!e->stopping) {
        int64_t now = node_now_us(), until = now + POLL_US;
        if (next < until)
            until = next;
        if (until > now) {
            struct timespec ts = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
            pthread_cond_timedwait(&e->wake, &e->lock, &ts);
            if (e->stopping)
                break;
            now = node_now_us();
        }
        pthread_mutex_unlock(&e->lock);
        node_run_events(e->node);
        print_requested_text(e);
        int rc = node_enter_call(e->node, "sampling"); /* a stuck driver blocks this thread, but no call */
        if (now >= e->policy_due_us) {
            e->policy_due_us = now + POLICY_US;
            policy_tick(e);
        }
        pthread_mutex_lock(&e->lock);
        watch_take_xids_locked(e);
        health_take_xids_locked(e);
        next = rc == 0 ? watch_sample_due_locked(e) : now + POLL_US;
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

dcgmReturn_t engine_start(struct engine **out)
{
    char err[512] = "";
    struct node_state *n = node_open(err, sizeof err);
    if (!n) {
        fprintf(stderr, "dcgmsim: %s\n", err);
        engine_log("FATAL", "%s", err);
        return DCGM_ST_INIT_ERROR;
    }
    int64_t delay = n->init_delay_us_base + n->init_delay_us_per_gpu * n->gpu_count;
    if (delay > 0) {
        struct timespec ts = {.tv_sec = delay / 1000000, .tv_nsec = delay % 1000000 * 1000};
        while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
            ;
    }
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return DCGM_ST_MEMORY;
    e->node = n;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->wake, NULL);
    e->started_us = node_now_us();
    e->policy_due_us = e->started_us + POLICY_US;
    e->policy_xid_seen = e->health_xid_seen = e->xid_seen = atomic_load(&n->xid_seq); /* an engine receives only XIDs that occur while it runs */
    e->print_seen = atomic_load(&n->print_seq);
    for (uint32_t i = 0; i < n->gpu_count; i++) /* a restart repairs temporary profiling faults */
        if (!n->gpu[i].profiling_permanent && n->gpu[i].profiling_mode != NODE_PROFILING_LOCKED)
            e->profiling_repaired[i] = n->gpu[i].profiling_seq;
    e->snapshot.generation = UINT32_MAX;
    e->snapshot.override_generation = UINT32_MAX;
    snapshot_take(e);
    e->started = true;
    groups_init(e);
    if (pthread_create(&e->thread, NULL, run, e) != 0) {
        watch_free_all(e);
        free(e);
        return DCGM_ST_INIT_ERROR;
    }
    e->control = control_start(n);
    engine_log("INFO", "engine started, %u GPUs, scenario %s", n->gpu_count, n->scenario);
    *out = e;
    return DCGM_ST_OK;
}

void engine_stop(struct engine *e)
{
    control_stop(e->control);
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    engine_log("INFO", "engine stopped");
    watch_free_all(e);
    for (int i = 0; i < DCGM_MAX_NUM_GROUPS; i++)
        free(e->groups[i].entities);
    for (uint32_t i = 0; i < e->string_count; i++)
        free((void *)(uintptr_t)e->strings[i]);
    free(e->strings);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

void engine_forget_owner(struct engine *e, uint32_t owner)
{
    pthread_mutex_lock(&e->lock);
    watch_forget_owner_locked(e, owner);
    policy_forget_owner_locked(e, owner);
    for (int i = 2; i < DCGM_MAX_NUM_GROUPS; i++) {
        if (e->groups[i].used && e->groups[i].owner == owner) {
            free(e->groups[i].entities);
            memset(&e->groups[i], 0, sizeof e->groups[i]);
        }
    }
    for (int i = 0; i < DCGM_MAX_NUM_FIELD_GROUPS; i++)
        if (e->field_groups[i].used && !e->field_groups[i].internal && e->field_groups[i].owner == owner)
            e->field_groups[i].used = false;
    pthread_mutex_unlock(&e->lock);
}
