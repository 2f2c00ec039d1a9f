/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The control socket: one command per line, one answer per line. The engine that started last serves it. */
#define _GNU_SOURCE
#include "engine/control.h"

#include "command/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_CLIENTS 8

struct control {
    struct node_state *node;
    int listener, wake[2];
    pthread_t thread;
    struct {
        int fd;
        size_t used;
        char line[512];
    } client[MAX_CLIENTS];
};

static void drop(struct control *c, int i)
{
    close(c->client[i].fd);
    c->client[i].fd = -1;
    c->client[i].used = 0;
}

static void serve(struct control *c, int i)
{
    char *line = c->client[i].line;
    ssize_t n = read(c->client[i].fd, line + c->client[i].used, sizeof c->client[i].line - 1 - c->client[i].used);
    if (n <= 0) {
        drop(c, i);
        return;
    }
    c->client[i].used += (size_t)n;
    line[c->client[i].used] = 0;
    char *end;
    while ((end = strchr(line, '\n')) != NULL) {
        char answer[2048];
        *end = 0;
        node_command(c->node, line, answer, sizeof answer - 1);
        strcat(answer, "\n");
        if (send(c->client[i].fd, answer, strlen(answer), MSG_NOSIGNAL) < 0) {
            drop(c, i);
            return;
        }
        size_t rest = c->client[i].used - (size_t)(end + 1 - line);
        memmove(line, end + 1, rest + 1);
        c->client[i].used = rest;
    }
    if (c->client[i].used == sizeof c->client[i].line - 1)
        drop(c, i); /* the line is too long */
}

static void *run(void *arg)
{
    struct control *c = arg;
    for (;;) {
        struct pollfd p[MAX_CLIENTS + 2] = {{.fd = c->wake[0], .events = POLLIN},
                                            {.fd = c->listener, .events = POLLIN}};
        for (int i = 0; i < MAX_CLIENTS; i++)
            p[i + 2] = (struct pollfd){.fd = c->client[i].fd, .events = POLLIN};
        if (poll(p, MAX_CLIENTS + 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return NULL;
        }
        if (p[0].revents)
            return NULL;
        for (int i = 0; i < MAX_CLIENTS; i++)
            if (c->client[i].fd >= 0 && p[i + 2].revents)
                serve(c, i);
        if (p[1].revents & POLLIN) {
            int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
            int i = 0;
            while (i < MAX_CLIENTS && c->client[i].fd >= 0)
                i++;
            if (fd >= 0 && i < MAX_CLIENTS)
                c->client[i].fd = fd;
            else if (fd >= 0)
                close(fd);
        }
    }
}

struct control *control_start(struct node_state *n)
{
    const char *path = getenv("DCGMSIM_CONTROL");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (!path || !*path)
        return NULL;
    if (strlen(path) >= sizeof addr.sun_path) {
        fprintf(stderr, "dcgmsim: DCGMSIM_CONTROL: the path %s is too long for a socket\n", path);
        return NULL;
    }
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->node = n;
    for (int i = 0; i < MAX_CLIENTS; i++)
        c->client[i].fd = -1;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&addr, sizeof addr) != 0 ||
        listen(c->listener, 8) != 0 ||
        pipe2(c->wake, O_CLOEXEC) != 0) {
        fprintf(stderr, "dcgmsim: control socket %s: %s\n", path, strerror(errno));
        if (c->listener >= 0)
            close(c->listener);
        free(c);
        return NULL;
    }
    if (pthread_create(&c->thread, NULL, run, c) != 0) {
        close(c->listener);
        close(c->wake[0]);
        close(c->wake[1]);
        free(c);
        return NULL;
    }
    return c;
}

void control_stop(struct control *c)
{
    if (!c)
        return;
    if (write(c->wake[1], "x", 1) == 1)
        pthread_join(c->thread, NULL);
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (c->client[i].fd >= 0)
            close(c->client[i].fd);
    close(c->listener);
    close(c->wake[0]);
    close(c->wake[1]);
    free(c); /* The path remains, because a newer engine may serve it. */
}
