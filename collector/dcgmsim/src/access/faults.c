/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Injected faults: every exported function calls node_enter_call first. */
#define _GNU_SOURCE
#include "access/faults.h"

#include "access/events.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static bool call_matches(const char *pattern, const char *call)
{
    size_t len = strlen(pattern);
    if (len > 0 && pattern[len - 1] == '*')
        return strncmp(pattern, call, len - 1) == 0;
    return strcmp(pattern, call) == 0;
}

static bool find_fault(struct node_state *n, const char *call, uint32_t kind, struct node_fault *out)
{
    bool found = false;
    node_lock(n);
    for (int i = 0; i < NODE_MAX_FAULTS && !found; i++) {
        if (n->fault[i].kind == kind && call_matches(n->fault[i].call, call)) {
            *out = n->fault[i];
            found = true;
        }
    }
    node_unlock(n);
    return found;
}

static void sleep_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        ;
}

int node_enter_call(struct node_state *n, const char *call)
{
    node_run_events(n);
    if (atomic_load_explicit(&n->fault_count, memory_order_relaxed) == 0)
        return 0;
    struct node_fault f;
    if (find_fault(n, call, NODE_FAULT_CRASH, &f)) {
        volatile int *volatile nowhere = NULL; /* A real fault, not a signal sent to itself: */
        *nowhere = 1;                          /* language runtimes handle the two differently. */
    }
    while (find_fault(n, call, NODE_FAULT_HANG, &f))
        sleep_ms(20);
    if (find_fault(n, call, NODE_FAULT_SLOW, &f))
        sleep_ms(f.arg);
    if (find_fault(n, call, NODE_FAULT_FAIL, &f))
        return f.arg;
    return 0;
}

/* xorshift64 of George Marsaglia (2003) */
static uint64_t next_random(uint64_t state)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^ state << 17;
}

bool node_garble(struct node_state *n, const char *call, void *answer, size_t size)
{
    struct node_fault f;
    if (atomic_load_explicit(&n->fault_count, memory_order_relaxed) == 0 ||
        !find_fault(n, call, NODE_FAULT_GARBAGE, &f))
        return false;
    if (f.arg == NODE_GARBAGE_SIZE)
        return false;
    if (f.arg != NODE_GARBAGE_NOISE) {
        memset(answer, f.arg, size);
        return true;
    }
    uint64_t r = (uint64_t)node_now_us() | 1;
    for (size_t i = 0; i < size; i++) {
        r = next_random(r);
        if (r % 16 == 0)
            ((uint8_t *)answer)[i] = (uint8_t)(r >> 32);
    }
    return true;
}

unsigned node_garble_size(struct node_state *n, const char *call, unsigned size)
{
    struct node_fault f;
    bool absurd = atomic_load_explicit(&n->fault_count, memory_order_relaxed) != 0 &&
                  find_fault(n, call, NODE_FAULT_GARBAGE, &f) && f.arg == NODE_GARBAGE_SIZE;
    return absurd ? NODE_GARBAGE_ENTRIES : size;
}
