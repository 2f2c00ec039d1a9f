/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Routing of a call: to the engine embedded in this process, or to a standalone engine. */
#include "dcgm/transact.h"

#include "access/faults.h"
#include "dcgm/client.h"
#include "engine/engine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct embedded_callback {
    fpRecvUpdates callback;
    uint64_t user_data;
    struct embedded_callback *next;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct engine *engine; /* the embedded one */
    unsigned calls;        /* running in it */
    unsigned inits;
    struct embedded_callback *callbacks; /* never freed: a delivery may be in progress when one is unregistered */
} process = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};

struct engine *acquire(void)
{
    pthread_mutex_lock(&process.lock);
    struct engine *e = process.engine;
    if (e)
        process.calls++;
    pthread_mutex_unlock(&process.lock);
    return e;
}

void release(void)
{
    pthread_mutex_lock(&process.lock);
    if (--process.calls == 0)
        pthread_cond_broadcast(&process.idle);
    pthread_mutex_unlock(&process.lock);
}

void library_init(void)
{
    pthread_mutex_lock(&process.lock);
    process.inits++;
    pthread_mutex_unlock(&process.lock);
}

bool library_shutdown(void)
{
    pthread_mutex_lock(&process.lock);
    bool last = process.inits > 0 && --process.inits == 0;
    pthread_mutex_unlock(&process.lock);
    return last;
}

bool library_initialised(void)
{
    pthread_mutex_lock(&process.lock);
    bool ready = process.inits > 0;
    pthread_mutex_unlock(&process.lock);
    return ready;
}

dcgmReturn_t library_start_engine(void)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&process.lock);
    if (process.inits == 0)
        rc = DCGM_ST_UNINITIALIZED;
    else if (!process.engine)
        rc = engine_start(&process.engine);
    pthread_mutex_unlock(&process.lock);
    return rc;
}

dcgmReturn_t library_stop_engine(void)
{
    pthread_mutex_lock(&process.lock);
    struct engine *e = process.engine;
    process.engine = NULL;
    while (process.calls > 0)
        pthread_cond_wait(&process.idle, &process.lock);
    pthread_mutex_unlock(&process.lock);
    if (!e)
        return DCGM_ST_UNINITIALIZED;
    engine_stop(e);
    return DCGM_ST_OK;
}

void *embedded_callback_add(fpRecvUpdates callback, uint64_t user_data)
{
    struct embedded_callback *c = malloc(sizeof *c);
    if (!c)
        return NULL;
    pthread_mutex_lock(&process.lock);
    *c = (struct embedded_callback){callback, user_data, process.callbacks};
    process.callbacks = c;
    pthread_mutex_unlock(&process.lock);
    return c;
}

/* Delivers a policy violation to a callback of this process. */
static void deliver_embedded(void *to, uint64_t id, const dcgmPolicyCallbackResponse_t *response)
{
    (void)id;
    const struct embedded_callback *c = to;
    dcgmPolicyCallbackResponse_t copy = *response;
    c->callback(&copy, c->user_data);
}

dcgmReturn_t exchange(dcgmHandle_t handle, enum call call, const struct call_args *args, const void *payload, size_t len,
                      uint8_t **data, size_t *size)
{
    if (handle != DCGM_EMBEDDED_HANDLE)
        return client_call(handle, call, args, payload, len, data, size);
    struct buffer b = {0};
    struct engine *e = acquire();
    if (!e)
        return DCGM_ST_UNINITIALIZED;
    dcgmReturn_t rc = call_perform(e, OWNER_EMBEDDED, call, args, payload, len, &b, deliver_embedded, (void *)(uintptr_t)args->d);
    release();
    *data = b.data;
    *size = b.len;
    return rc;
}

bool garble_answer(dcgmHandle_t handle, enum call call, void *answer, size_t size)
{
    struct engine *e = handle == DCGM_EMBEDDED_HANDLE ? acquire() : NULL;
    if (!e)
        return false;
    bool garbled = node_garble(e->node, call_names[call], answer, size);
    release();
    return garbled;
}

dcgmReturn_t transact(dcgmHandle_t handle, enum call call, struct call_args args, const void *payload, size_t len,
                      void *out, size_t cap, size_t *used)
{
    uint8_t *data = NULL;
    size_t size = 0;
    dcgmReturn_t rc = exchange(handle, call, &args, payload, len, &data, &size);
    if (used)
        *used = size;
    if (out && size)
        memcpy(out, data, size < cap ? size : cap);
    if (rc == DCGM_ST_OK && out)
        garble_answer(handle, call, out, cap);
    free(data);
    return rc;
}

dcgmReturn_t simple(dcgmHandle_t handle, enum call call, struct call_args args)
{
    return transact(handle, call, args, NULL, 0, NULL, 0, NULL);
}
