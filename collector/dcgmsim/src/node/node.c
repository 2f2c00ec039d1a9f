/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Access to the shared state of the simulated node: clock, lock, lookups, identities. */
#define _GNU_SOURCE
#include "node/node.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t node_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

uint64_t node_hash(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15ULL + b + 0x632be59bd9b4e019ULL;
    for (int i = 0; i < 2; i++) {
        x ^= x >> 30;
        x *= 0xbf58476d1ce4e5b9ULL;
        x ^= x >> 27;
        x *= 0x94d049bb133111ebULL;
        x ^= x >> 31;
    }
    return x;
}

void node_lock(struct node_state *n)
{
    int rc = pthread_mutex_trylock(&n->lock);
    if (rc == EBUSY) {
        /*
         * The holder may be stopped (SIGSTOP) and then changes nothing, so
         * continue without the lock. The unlock that follows fails, without
         * harm.
         */
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 2;
        rc = pthread_mutex_timedlock(&n->lock, &until);
    }
    if (rc == EOWNERDEAD)
        pthread_mutex_consistent(&n->lock);
}

void node_unlock(struct node_state *n)
{
    pthread_mutex_unlock(&n->lock);
}

void node_copy_gpu(struct node_state *n, uint32_t position, struct node_gpu *out)
{
    node_lock(n);
    *out = n->gpu[position];
    node_unlock(n);
}

int node_gpu_by_dcgm_id(const struct node_state *n, uint32_t dcgm_id)
{
    for (uint32_t i = 0; i < n->gpu_count; i++)
        if (n->gpu[i].dcgm_id == dcgm_id)
            return (int)i;
    return -1;
}

int node_gpu_by_nvml_index(const struct node_state *n, uint32_t index)
{
    for (uint32_t i = 0; i < n->gpu_count; i++)
        if (n->gpu[i].nvml_index == index)
            return (int)i;
    return -1;
}

int node_gpu_by_uuid(const struct node_state *n, const char *uuid)
{
    for (uint32_t i = 0; i < n->gpu_count; i++)
        if (strcmp(n->gpu[i].uuid, uuid) == 0)
            return (int)i;
    return -1;
}

int node_switch_by_id(const struct node_state *n, uint32_t id)
{
    for (uint32_t i = 0; i < n->switch_count; i++)
        if (n->nvswitch[i].id == id)
            return (int)i;
    return -1;
}

void node_format_uuid(char *out, const char *prefix, uint64_t a, uint64_t b)
{
    /* NVIDIA's identifiers have the form of a version 5 UUID. */
    snprintf(out, NODE_UUID_LEN, "%s-%08x-%04x-5%03x-%04x-%012llx", prefix, (unsigned)(a >> 32),
             (unsigned)(a >> 16 & 0xffff),
             (unsigned)(a & 0xfff), (unsigned)(0x8000 | (b >> 48 & 0x3fff)), (unsigned long long)(b & 0xffffffffffffULL));
}
