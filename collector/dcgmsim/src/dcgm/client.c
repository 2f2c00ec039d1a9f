/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The client side of a standalone engine's socket: connections, calls with a time limit, policy callbacks. */
#define _GNU_SOURCE
#include "dcgm/client.h"

#include "access/statefile.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNS 64
#define MAX_CALLBACKS 64

struct waiter {
    uint32_t id;
    bool done;
    int32_t status;
    uint8_t *data;
    size_t len;
    struct waiter *next;
};

struct conn {
    dcgmHandle_t handle;
    int fd;
    bool dead;
    int64_t call_timeout_us;
    uint32_t next_id;
    unsigned users; /* calls in progress, and the reader thread */
    pthread_mutex_t lock, send_lock;
    pthread_cond_t changed;
    pthread_t reader;
    struct waiter *waiters;
    struct {
        uint64_t id, user_data;
        fpRecvUpdates callback;
    } callback[MAX_CALLBACKS];
    int callback_count;
};

static struct {
    pthread_mutex_t lock;
    dcgmHandle_t last;
    struct conn *conn[MAX_CONNS];
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The time limit from the environment ("250ms", "5s"), from the node, or that of the real library. */
static int64_t timeout_us(const char *variable, bool connect)
{
    const char *v = getenv(variable);
    char *end;
    if (v && *v) {
        double n = strtod(v, &end);
        if (end != v && n >= 0 && strcmp(end, "ms") == 0)
            return (int64_t)(n * 1e3);
        if (end != v && n >= 0 && strcmp(end, "s") == 0)
            return (int64_t)(n * 1e6);
        fprintf(stderr, "dcgmsim: %s: %s is not a duration such as 250ms or 5s\n", variable, v);
    }
    char err[256];
    struct node_state *n = getenv("DCGMSIM_STATE") ? node_open(err, sizeof err) : NULL;
    if (n)
        return connect ? n->connect_timeout_us : n->call_timeout_us;
    return connect ? 5000000 : 60000000;
}

static int connect_once(const char *address, bool is_unix)
{
    int fd;
    if (is_unix) {
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        if (strlen(address) >= sizeof addr.sun_path)
            return -1;
        memcpy(addr.sun_path, address, strlen(address) + 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0)
            return fd;
        if (fd >= 0)
            close(fd);
        return -1;
    }
    char host[256], port[16];
    snprintf(port, sizeof port, "%d", DCGM_HE_PORT_NUMBER);
    snprintf(host, sizeof host, "%s", address);
    char *bracket = host[0] == '[' ? strchr(host, ']') : NULL, *colon = strrchr(host, ':');
    if (bracket) {
        *bracket = 0;
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
        memmove(host, host + 1, strlen(host));
        if (colon)
            snprintf(port, sizeof port, "%.10s", colon + 1);
    } else if (colon && strchr(host, ':') == colon) {
        *colon = 0;
        snprintf(port, sizeof port, "%.10s", colon + 1);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(host, port, &hints, &list) != 0)
        return -1;
    fd = -1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    int one = 1;
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void mark_dead(struct conn *c)
{
    pthread_mutex_lock(&c->lock);
    c->dead = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void handle_policy(struct conn *c, uint64_t id, const uint8_t *data, size_t len)
{
    dcgmPolicyCallbackResponse_t response;
    fpRecvUpdates callback = NULL;
    uint64_t user_data = 0;
    if (len != sizeof response)
        return;
    memcpy(&response, data, sizeof response);
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->callback_count; i++) {
        if (c->callback[i].id == id) {
            callback = c->callback[i].callback;
            user_data = c->callback[i].user_data;
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (callback)
        callback(&response, user_data);
}

static void *read_answers(void *arg)
{
    struct conn *c = arg;
    struct frame f;
    while (wire_read(c->fd, &f, sizeof f) == 0 && f.magic == WIRE_MAGIC && f.length <= WIRE_MAX_PAYLOAD) {
        uint8_t *data = malloc(f.length ? f.length : 1);
        if (!data || wire_read(c->fd, data, f.length) != 0) {
            free(data);
            break;
        }
        if (f.kind == FRAME_POLICY) {
            if (f.length >= sizeof(uint64_t)) {
                uint64_t id;
                memcpy(&id, data, sizeof id);
                handle_policy(c, id, data + sizeof id, f.length - sizeof id);
            }
            free(data);
            continue;
        }
        pthread_mutex_lock(&c->lock);
        struct waiter *w = c->waiters;
        while (w && w->id != f.id)
            w = w->next;
        if (w) {
            w->status = f.status;
            w->data = data;
            w->len = f.length;
            w->done = true;
            data = NULL;
            pthread_cond_broadcast(&c->changed);
        }
        pthread_mutex_unlock(&c->lock);
        free(data); /* the call may have timed out */
    }
    mark_dead(c);
    return NULL;
}

static dcgmReturn_t call_on(struct conn *c, uint16_t call, const struct call_args *args, const void *payload, size_t len,
                            int64_t limit_us, uint8_t **out, size_t *out_len)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += limit_us / 1000000;
    until.tv_nsec += limit_us % 1000000 * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    struct waiter w = {0};
    pthread_mutex_lock(&c->lock);
    if (c->dead) {
        pthread_mutex_unlock(&c->lock);
        return DCGM_ST_CONNECTION_NOT_VALID;
    }
    w.id = ++c->next_id;
    w.next = c->waiters;
    c->waiters = &w;
    pthread_mutex_unlock(&c->lock);

    struct frame f = {.magic = WIRE_MAGIC, .length = (uint32_t)(sizeof *args + len), .id = w.id, .call = call,
                      .kind = FRAME_REQUEST};
    pthread_mutex_lock(&c->send_lock);
    bool sent = wire_send(c->fd, &f, args, payload, len) == 0;
    pthread_mutex_unlock(&c->send_lock);
    if (!sent)
        mark_dead(c);

    pthread_mutex_lock(&c->lock);
    int rc = 0;
    while (!w.done && !c->dead && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&c->changed, &c->lock, &until);
    for (struct waiter **p = &c->waiters; *p; p = &(*p)->next) {
        if (*p == &w) {
            *p = w.next;
            break;
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (!w.done)
        return rc == ETIMEDOUT ? DCGM_ST_TIMEOUT : DCGM_ST_CONNECTION_NOT_VALID;
    if (out) {
        *out = w.data;
        *out_len = w.len;
    } else {
        free(w.data);
    }
    return (dcgmReturn_t)w.status;
}

static void destroy(struct conn *c)
{
    shutdown(c->fd, SHUT_RDWR);
    pthread_join(c->reader, NULL);
    close(c->fd);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->send_lock);
    free(c);
}

dcgmReturn_t client_connect(const char *address, bool is_unix, unsigned timeout_ms, bool persist, dcgmHandle_t *handle)
{
    int64_t limit = timeout_ms ? (int64_t)timeout_ms * 1000 : timeout_us("DCGMSIM_CONNECT_TIMEOUT", true);
    int64_t until = node_now_us() + limit;
    int fd = connect_once(address, is_unix);
    while (fd < 0 && node_now_us() < until) { /* the real client also retries until the time limit */
        int64_t left = until - node_now_us();
        usleep((useconds_t)(left < 20000 ? (left > 0 ? left : 0) : 20000));
        fd = connect_once(address, is_unix);
    }
    if (fd < 0)
        return DCGM_ST_CONNECTION_NOT_VALID;
    struct conn *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return DCGM_ST_MEMORY;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->send_lock, NULL);
    c->fd = fd;
    c->call_timeout_us = timeout_us("DCGMSIM_CALL_TIMEOUT", false);
    if (pthread_create(&c->reader, NULL, read_answers, c) != 0) {
        close(fd);
        free(c);
        return DCGM_ST_GENERIC_ERROR;
    }
    /*
     * The real client asks for the version and logs in, with the time limit of calls. If that
     * fails, it disconnects and succeeds: every call on the handle then fails
     * (DcgmClientHandler.cpp and dcgmConnect_v2 in DcgmApi.cpp).
     */
    struct call_args hello = {.a = WIRE_VERSION, .b = persist};
    if (call_on(c, CALL_hello, &hello, NULL, 0, 2 * c->call_timeout_us, NULL, NULL) != DCGM_ST_OK) {
        destroy(c);
        pthread_mutex_lock(&table.lock);
        *handle = ++table.last; /* of no connection */
        pthread_mutex_unlock(&table.lock);
        return DCGM_ST_OK;
    }
    int at = -1;
    pthread_mutex_lock(&table.lock);
    for (int i = 0; i < MAX_CONNS && at < 0; i++)
        if (!table.conn[i])
            at = i;
    if (at >= 0) {
        c->handle = ++table.last; /* handles are never reused, so an old one remains invalid */
        table.conn[at] = c;
        *handle = c->handle;
    }
    pthread_mutex_unlock(&table.lock);
    if (at < 0) {
        destroy(c);
        return DCGM_ST_MAX_LIMIT;
    }
    return DCGM_ST_OK;
}

static struct conn *acquire(dcgmHandle_t handle)
{
    struct conn *c = NULL;
    pthread_mutex_lock(&table.lock);
    for (int i = 0; i < MAX_CONNS && !c; i++)
        if (table.conn[i] && table.conn[i]->handle == handle)
            c = table.conn[i];
    if (c)
        c->users++;
    pthread_mutex_unlock(&table.lock);
    return c;
}

static void release(struct conn *c)
{
    pthread_mutex_lock(&table.lock);
    bool last = c->users-- == 1;
    for (int i = 0; i < MAX_CONNS && last; i++)
        if (table.conn[i] == c)
            last = false; /* the connection is still open */
    pthread_mutex_unlock(&table.lock);
    if (last)
        destroy(c);
}

dcgmReturn_t client_disconnect(dcgmHandle_t handle)
{
    struct conn *c = acquire(handle);
    if (!c)
        return DCGM_ST_BADPARAM;
    pthread_mutex_lock(&table.lock);
    for (int i = 0; i < MAX_CONNS; i++)
        if (table.conn[i] == c)
            table.conn[i] = NULL;
    pthread_mutex_unlock(&table.lock);
    mark_dead(c);
    release(c);
    return DCGM_ST_OK;
}

dcgmReturn_t client_call(dcgmHandle_t handle, enum call call, const struct call_args *args, const void *payload,
                         size_t len, uint8_t **out, size_t *out_len)
{
    struct conn *c = acquire(handle);
    if (!c)
        return DCGM_ST_CONNECTION_NOT_VALID;
    dcgmReturn_t rc = call_on(c, (uint16_t)call, args, payload, len, c->call_timeout_us, out, out_len);
    release(c);
    return rc;
}

void client_set_callback(dcgmHandle_t handle, uint64_t id, fpRecvUpdates callback, uint64_t user_data)
{
    struct conn *c = acquire(handle);
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    int at = c->callback_count < MAX_CALLBACKS ? c->callback_count++ : (int)(id % MAX_CALLBACKS);
    c->callback[at].id = id;
    c->callback[at].callback = callback;
    c->callback[at].user_data = user_data;
    pthread_mutex_unlock(&c->lock);
    release(c);
}
