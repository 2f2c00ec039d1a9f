/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The memory mapping that holds the node, shared by all processes of one state file. */
#define _GNU_SOURCE
#include "access/statefile.h"

#include "scenario/scenario.h"

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
#include <unistd.h>

#define MAGIC 0x31304d4953474344ULL /* "DCGSIM01" */
#define PRIVATE_NAME "dcgmsim-node"

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct node_state *opened;

/*
 * Without DCGMSIM_STATE the node is private to the process. Both libraries of
 * the process must map the same node, so the second one searches the process's
 * descriptors for the anonymous file of the first. A named file would remain
 * after the process, because Go programs run no destructors.
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

/* Maps fd, and fills it from the scenario if it is new. The caller holds its flock. */
static struct node_state *map_node(int fd, const char *scenario, char *err, size_t err_len)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        snprintf(err, err_len, "reading the state file: %s", strerror(errno));
        return NULL;
    }
    if (st.st_size != 0 && st.st_size != (off_t)sizeof(struct node_state)) {
        snprintf(err, err_len, "the state file has a different version");
        return NULL;
    }
    /* A file system that is full would otherwise end the process by SIGBUS. */
    int rc = st.st_size == 0 ? posix_fallocate(fd, 0, sizeof(struct node_state)) : 0;
    if (rc != 0) {
        snprintf(err, err_len, "sizing the state file: %s", strerror(rc));
        if (ftruncate(fd, 0) != 0)
            return NULL;
        return NULL;
    }
    struct node_state *n = mmap(NULL, sizeof *n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (n == MAP_FAILED) {
        snprintf(err, err_len, "mapping the state file: %s", strerror(errno));
        return NULL;
    }
    if (atomic_load(&n->ready)) {
        if (n->magic != MAGIC || n->layout != NODE_LAYOUT || n->size != sizeof *n)
            snprintf(err, err_len, "the state file has a different version");
        else if (scenario && strcmp(scenario, n->scenario) != 0)
            snprintf(err, err_len, "the state file holds scenario %.80s, not %.80s", n->scenario, scenario);
        else
            return n;
        munmap(n, sizeof *n);
        return NULL;
    }
    if (!scenario) {
        snprintf(err, err_len, "DCGMSIM_SCENARIO is not set");
        munmap(n, sizeof *n);
        if (st.st_size == 0 && ftruncate(fd, 0) != 0)
            return NULL;
        return NULL;
    }
    memset(n, 0, sizeof *n); /* a process that died may have left it incomplete */
    n->magic = MAGIC;
    n->layout = NODE_LAYOUT;
    n->size = sizeof *n;
    n->next_event_us = INT64_MAX;
    snprintf(n->scenario, sizeof n->scenario, "%s", scenario);
    if (init_lock(&n->lock) != 0 || scenario_load(n, scenario, err, err_len) != 0) {
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
        /* A lock that both libraries of this process can take. */
        guard = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        if (guard >= 0)
            flock(guard, LOCK_EX);
        fd = find_private();
        if (fd < 0)
            fd = memfd_create(PRIVATE_NAME, MFD_CLOEXEC);
        if (fd < 0) {
            snprintf(err, err_len, "creating the private state: %s", strerror(errno));
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
        /* The descriptor remains open, because the second library finds the node through it. */
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
