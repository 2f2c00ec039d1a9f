/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The mapping that holds the simulated node, its lock, faults and events. */
#define _GNU_SOURCE
#include "node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x31304d4953474344ULL /* "DCGSIM01" */
#define PRIVATE_NAME "dcgmsim-node"

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct node_state *opened;

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
        /* A holder may be frozen (SIGSTOP) for good: it changes nothing meanwhile, so go on
         * without it. The unlock that follows is then refused, harmlessly. */
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

/*
 * Without DCGMSIM_STATE the node is private to the process, yet both libraries
 * of the process must see the same one: whichever comes second finds the
 * anonymous file of the first among the process's descriptors. A file with a
 * name would be left behind, since a Go program runs no destructors.
 */
static int find_private(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return -1;
    int found = -1;
    struct dirent *e;
    while (found < 0 && (e = readdir(dir)) != NULL) {
        char path[64], target[128];
        snprintf(path, sizeof path, "/proc/self/fd/%.16s", e->d_name);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len <= 0)
            continue;
        target[len] = 0;
        if (strncmp(target, "/memfd:" PRIVATE_NAME, strlen("/memfd:" PRIVATE_NAME)) == 0)
            found = open(path, O_RDWR | O_CLOEXEC);
    }
    closedir(dir);
    return found;
}

static int init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    int rc = pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc;
}

/* Maps fd, filling it from the scenario when it is new. The caller holds its flock. */
static struct node_state *map_node(int fd, const char *scenario, char *err, size_t err_len)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        snprintf(err, err_len, "reading the state file: %s", strerror(errno));
        return NULL;
    }
    if (st.st_size != 0 && st.st_size != (off_t)sizeof(struct node_state)) {
        snprintf(err, err_len, "the state file is not of this version");
        return NULL;
    }
    if (st.st_size == 0 && ftruncate(fd, sizeof(struct node_state)) != 0) {
        snprintf(err, err_len, "sizing the state file: %s", strerror(errno));
        return NULL;
    }
    struct node_state *n = mmap(NULL, sizeof *n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (n == MAP_FAILED) {
        snprintf(err, err_len, "mapping the state file: %s", strerror(errno));
        return NULL;
    }
    if (atomic_load(&n->ready)) {
        if (n->magic != MAGIC || n->layout != NODE_LAYOUT || n->size != sizeof *n)
            snprintf(err, err_len, "the state file is not of this version");
        else if (scenario && strcmp(scenario, n->scenario) != 0)
            snprintf(err, err_len, "the state file holds scenario %.80s, not %.80s", n->scenario, scenario);
        else
            return n;
        munmap(n, sizeof *n);
        return NULL;
    }
    if (!scenario) {
        snprintf(err, err_len, "DCGMSIM_SCENARIO is not set: nothing to simulate");
        munmap(n, sizeof *n);
        if (st.st_size == 0 && ftruncate(fd, 0) != 0)
            return NULL;
        return NULL;
    }
    memset(n, 0, sizeof *n); /* left half made by a process that died */
    n->magic = MAGIC;
    n->layout = NODE_LAYOUT;
    n->size = sizeof *n;
    n->next_event_us = INT64_MAX;
    snprintf(n->scenario, sizeof n->scenario, "%s", scenario);
    if (init_lock(&n->lock) != 0 || node_load_scenario(n, scenario, err, err_len) != 0) {
        munmap(n, sizeof *n);
        if (ftruncate(fd, 0) != 0)
            return NULL;
        return NULL;
    }
    atomic_store(&n->ready, 1);
    return n;
}

static const char *setting(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static struct node_state *open_node(char *err, size_t err_len)
{
    const char *path = setting("DCGMSIM_STATE"), *scenario = setting("DCGMSIM_SCENARIO");
    int guard = -1, fd;
    if (path) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) {
            snprintf(err, err_len, "opening %.160s: %s", path, strerror(errno));
            return NULL;
        }
        flock(fd, LOCK_EX);
    } else {
        /* One lock that both libraries of this process know. */
        guard = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        if (guard >= 0)
            flock(guard, LOCK_EX);
        fd = find_private();
        if (fd < 0)
            fd = memfd_create(PRIVATE_NAME, MFD_CLOEXEC);
        if (fd < 0) {
            snprintf(err, err_len, "making the private state: %s", strerror(errno));
            if (guard >= 0)
                close(guard);
            return NULL;
        }
    }
    struct node_state *n = map_node(fd, scenario, err, err_len);
    if (path) {
        flock(fd, LOCK_UN);
        close(fd);
    } else {
        /* The descriptor stays open: the other library finds the node by it. */
        if (!n)
            close(fd);
        if (guard >= 0)
            close(guard);
    }
    return n;
}

struct node_state *node_open(char *err, size_t err_len)
{
    pthread_mutex_lock(&open_lock);
    if (!opened)
        opened = open_node(err, err_len);
    struct node_state *n = opened;
    pthread_mutex_unlock(&open_lock);
    return n;
}

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
        volatile int *volatile nowhere = NULL; /* the fault itself, not a signal sent to oneself: */
        *nowhere = 1;                          /* runtimes tell the two apart */
    }
    while (find_fault(n, call, NODE_FAULT_HANG, &f))
        sleep_ms(20);
    if (find_fault(n, call, NODE_FAULT_SLOW, &f))
        sleep_ms(f.arg);
    if (find_fault(n, call, NODE_FAULT_FAIL, &f))
        return f.arg;
    return 0;
}

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
