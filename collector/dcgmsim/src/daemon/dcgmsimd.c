/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* dcgmsimd: an engine in its own process behind a socket, as nv-hostengine is. Also runs single commands. */
#define _GNU_SOURCE
#include "access/statefile.h"
#include "command/command.h"
#include "dcgm/calls.h"
#include "dcgm/wire.h"
#include "engine/engine.h"
#include "engine/log.h"
#include "scenario/builtins.h"
#include "scenario/scenario.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_PEERS 64

struct peer { /* one connection */
    uint32_t owner;
    int fd;
    bool persist;
    unsigned users; /* its reader thread and the calls in progress */
    pthread_mutex_t send_lock;
};

static struct {
    struct engine *engine;
    pthread_mutex_t lock;
    uint32_t last_owner;
    struct peer *peer[MAX_PEERS];
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
    (void)signal;
    stop = 1;
}

static struct peer *acquire_peer(uint32_t owner)
{
    struct peer *p = NULL;
    pthread_mutex_lock(&server.lock);
    for (int i = 0; i < MAX_PEERS; i++)
        if (server.peer[i] && server.peer[i]->owner == owner)
            p = server.peer[i];
    if (p)
        p->users++;
    pthread_mutex_unlock(&server.lock);
    return p;
}

static void release_peer(struct peer *p)
{
    pthread_mutex_lock(&server.lock);
    bool last = --p->users == 0;
    for (int i = 0; i < MAX_PEERS && last; i++)
        if (server.peer[i] == p)
            server.peer[i] = NULL;
    pthread_mutex_unlock(&server.lock);
    if (!last)
        return;
    if (!p->persist)
        engine_forget_owner(server.engine, p->owner);
    close(p->fd);
    pthread_mutex_destroy(&p->send_lock);
    free(p);
}

static void send_frame(struct peer *p, struct frame *f, const void *payload, size_t len)
{
    f->magic = WIRE_MAGIC;
    f->length = (uint32_t)len;
    pthread_mutex_lock(&p->send_lock);
    if (wire_send(p->fd, f, NULL, payload, len) != 0)
        shutdown(p->fd, SHUT_RDWR);
    pthread_mutex_unlock(&p->send_lock);
}

/* Sends a policy violation to the peer that registered for it; `to` is its owner number. */
static void deliver(void *to, uint64_t id, const dcgmPolicyCallbackResponse_t *response)
{
    struct peer *p = acquire_peer((uint32_t)(uintptr_t)to);
    if (!p)
        return;
    struct buffer b = {0};
    struct frame f = {.kind = FRAME_POLICY};
    buffer_add(&b, &id, sizeof id);
    buffer_add(&b, response, sizeof *response);
    if (!b.failed)
        send_frame(p, &f, b.data, b.len);
    free(b.data);
    release_peer(p);
}

struct work {
    struct peer *peer;
    struct frame frame;
    struct call_args args;
    uint8_t *payload;
    size_t len;
};

static void answer(struct work *w)
{
    struct buffer b = {0};
    struct frame f = {.id = w->frame.id, .call = w->frame.call, .kind = FRAME_ANSWER};
    f.status = call_perform(server.engine, w->peer->owner, (enum call)w->frame.call, &w->args, w->payload, w->len, &b,
                            deliver, (void *)(uintptr_t)w->peer->owner);
    send_frame(w->peer, &f, b.data, b.len);
    if (atomic_load(&server.engine->node->engine_lost)) /* a lost engine drops every connection */
        shutdown(w->peer->fd, SHUT_RDWR);
    free(b.data);
    free(w->payload);
}

static void *answer_in_thread(void *arg)
{
    struct work *w = arg;
    answer(w);
    release_peer(w->peer);
    free(w);
    return NULL;
}

static bool serve_one(struct peer *p)
{
    struct work w = {.peer = p};
    if (wire_read(p->fd, &w.frame, sizeof w.frame) != 0 || w.frame.magic != WIRE_MAGIC ||
        w.frame.kind != FRAME_REQUEST || w.frame.length < sizeof w.args || w.frame.length > WIRE_MAX_PAYLOAD)
        return false;
    w.len = w.frame.length - sizeof w.args;
    w.payload = malloc(w.len ? w.len : 1);
    if (!w.payload || wire_read(p->fd, &w.args, sizeof w.args) != 0 || wire_read(p->fd, w.payload, w.len) != 0) {
        free(w.payload);
        return false;
    }
    if (w.frame.call == CALL_hello) {
        struct frame f = {.id = w.frame.id, .kind = FRAME_ANSWER};
        f.status = w.args.a == WIRE_VERSION ? DCGM_ST_OK : DCGM_ST_VER_MISMATCH;
        p->persist = w.args.b != 0;
        send_frame(p, &f, NULL, 0);
        free(w.payload);
        return true;
    }
    if (atomic_load(&server.engine->node->fault_count) == 0) {
        answer(&w);
        return true;
    }
    /* A call that hangs must not delay the other calls of its connection. */
    struct work *own = malloc(sizeof *own);
    pthread_t thread;
    if (!own) {
        free(w.payload);
        return false;
    }
    *own = w;
    pthread_mutex_lock(&server.lock);
    p->users++;
    pthread_mutex_unlock(&server.lock);
    if (pthread_create(&thread, NULL, answer_in_thread, own) != 0) {
        answer_in_thread(own);
        return true;
    }
    pthread_detach(thread);
    return true;
}

static void *serve(void *arg)
{
    struct peer *p = arg;
    while (serve_one(p))
        ;
    shutdown(p->fd, SHUT_RDWR);
    release_peer(p);
    return NULL;
}

static void accept_peer(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), one = 1;
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct peer *p = calloc(1, sizeof *p);
    int at = -1;
    pthread_mutex_lock(&server.lock);
    for (int i = 0; i < MAX_PEERS && at < 0; i++)
        if (!server.peer[i])
            at = i;
    if (p && at >= 0 && !atomic_load(&server.engine->node->engine_lost)) {
        p->fd = fd;
        p->owner = ++server.last_owner;
        p->users = 1;
        pthread_mutex_init(&p->send_lock, NULL);
        server.peer[at] = p;
    } else {
        free(p);
        p = NULL;
        close(fd);
    }
    pthread_mutex_unlock(&server.lock);
    pthread_t thread;
    if (p && pthread_create(&thread, NULL, serve, p) == 0)
        pthread_detach(thread);
    else if (p)
        release_peer(p);
}

static void drop_peers(void)
{
    pthread_mutex_lock(&server.lock);
    for (int i = 0; i < MAX_PEERS; i++)
        if (server.peer[i])
            shutdown(server.peer[i]->fd, SHUT_RDWR);
    pthread_mutex_unlock(&server.lock);
}

static int listen_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0 && listen(fd, 16) == 0 ? fd : -1;
}

static int listen_tcp(const char *host, const char *port, char *at, size_t at_len)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST}, *list = NULL;
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bool good = fd >= 0 && bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, 16) == 0;
    freeaddrinfo(list);
    if (!good)
        return -1;
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    char service[16] = "";
    getsockname(fd, (struct sockaddr *)&addr, &len);
    getnameinfo((struct sockaddr *)&addr, len, NULL, 0, service, sizeof service, NI_NUMERICSERV);
    snprintf(at, at_len, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, service);
    return fd;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: dcgmsimd [--bind ADDRESS] [--port PORT] [--domain-socket PATH]\n"
                "       dcgmsimd --command LINE\n"
                "       dcgmsimd --scenarios\n"
                "Serves the node of DCGMSIM_SCENARIO and DCGMSIM_STATE. Port 0 selects a free port.\n");
    if (to == stderr)
        return 2;
    fprintf(to, "\nCommands:\n");
    command_print_help(to);
    fprintf(to, "\nStatements of a scenario file:\n");
    scenario_print_help(to);
    return 0;
}

static int run_command(const char *line)
{
    char text[2048] = "";
    struct node_state *n = node_open(text, sizeof text);
    if (!n) {
        printf("error: %s\n", text);
        return 1;
    }
    int rc = node_command(n, line, text, sizeof text);
    printf("%s\n", text);
    return rc == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"bind", required_argument, NULL, 'b'},          {"bind-interface", required_argument, NULL, 'b'},
        {"port", required_argument, NULL, 'p'},          {"domain-socket", required_argument, NULL, 'd'},
        {"command", required_argument, NULL, 'c'},       {"help", no_argument, NULL, 'h'},
        {"scenarios", no_argument, NULL, 's'},
        {NULL, 0, NULL, 0},
    };
    const char *host = "127.0.0.1", *port = NULL, *path = NULL;
    for (int o; (o = getopt_long(argc, argv, "b:p:d:c:h", options, NULL)) != -1;) {
        switch (o) {
        case 'b':
            host = optarg;
            break;
        case 'p':
            port = optarg;
            break;
        case 'd':
            path = optarg;
            break;
        case 'c':
            return run_command(optarg);
        case 's':
            for (size_t i = 0; scenario_builtin_name(i); i++)
                printf("%s\n", scenario_builtin_name(i));
            return 0;
        case 'h':
            return usage(stdout);
        default:
            return usage(stderr);
        }
    }
    if (optind != argc)
        return usage(stderr);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    DcgmFieldsInit();
    if (engine_start(&server.engine) != DCGM_ST_OK)
        return 1;
    char at[320] = "";
    struct pollfd listener = {.events = POLLIN};
    if (path) {
        snprintf(at, sizeof at, "%s", path);
        listener.fd = listen_unix(path);
    } else {
        char standard[16];
        snprintf(standard, sizeof standard, "%d", DCGM_HE_PORT_NUMBER);
        listener.fd = listen_tcp(host, port ? port : standard, at, sizeof at);
    }
    if (listener.fd < 0) {
        fprintf(stderr, "dcgmsimd: listening on %s: %s\n", path ? path : host, strerror(errno));
        return 1;
    }
    printf("listening on %s\n", at);
    fflush(stdout);
    while (!stop) {
        if (poll(&listener, 1, 50) > 0)
            accept_peer(listener.fd);
        if (atomic_load(&server.engine->node->engine_lost))
            drop_peers();
    }
    drop_peers();
    if (path)
        unlink(path);
    engine_log("INFO", "dcgmsimd stops");
    return 0; /* The threads of peers may still run; they end with the process. */
}
