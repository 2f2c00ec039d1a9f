/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

#define _GNU_SOURCE
#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STRING_BYTES (64 * 1024)
#define MAX_EVENTS 65536
#define LIST_SECONDS 2 /* between two lists of all GPUs while all are healthy */
#define AHEAD 12       /* prefetch distance, in values */

struct native_private {
    void *library;
    int (*connect_v2)(const char *, struct abi_connect_v2 *, uintptr_t *);
    int (*connect_v3)(const char *, struct abi_connect_v3 *, uintptr_t *); /* NULL before DCGM 4.5 */
    int (*disconnect)(uintptr_t);
    int (*get_entities)(uintptr_t, uint32_t, uint32_t *, int *, uint32_t);
    int (*get_gpu_status)(uintptr_t, uint32_t, int32_t *);
    int (*get_hierarchy)(uintptr_t, struct abi_mig_hierarchy *);
    int (*get_metric_groups)(uintptr_t, struct abi_metric_groups *);
    int (*get_latest)(uintptr_t, struct abi_pair *, uint32_t, uint16_t *, uint32_t, uint32_t, struct abi_value2 *);
    int (*get_since)(uintptr_t, uintptr_t, uintptr_t, long long, long long *, abi_values_callback, void *);
    int (*group_create)(uintptr_t, uint32_t, const char *, uintptr_t *);
    int (*group_add)(uintptr_t, uintptr_t, uint32_t, uint32_t);
    int (*group_destroy)(uintptr_t, uintptr_t);
    int (*field_group_create)(uintptr_t, int, const uint16_t *, const char *, uintptr_t *);
    int (*field_group_destroy)(uintptr_t, uintptr_t);
    int (*watch)(uintptr_t, uintptr_t, uintptr_t, long long, double, int);
    int (*unwatch)(uintptr_t, uintptr_t, uintptr_t);
    int (*update)(uintptr_t, int);
    const char *(*error_text)(int);
    uint32_t good[ABI_MAX_GPUS]; /* the healthy GPUs when all GPUs were last listed */
    int good_count;
    time_t listed; /* time of that list, in seconds of the monotonic clock */
    struct native_topology next;
    struct abi_mig_hierarchy hierarchy;
    size_t strings_size;
    size_t event_room;
    struct abi_value2 values[NATIVE_CHUNK + AHEAD]; /* the last AHEAD are only prefetched */
};

/* What go-dcgm calls for us: it does not check that these functions exist. */
static const char *const called_by_go_dcgm[] = {
    "dcgmInit", "dcgmShutdown", "dcgmStartEmbedded", "dcgmStopEmbedded", "dcgmVersionInfo", "dcgmHostengineVersionInfo",
};

struct native *native_open(char *text, size_t size, int *missing)
{
    struct native *n = calloc(1, sizeof(*n));
    struct native_private *p = calloc(1, sizeof(*p));
    *missing = 0;
    if (!n || !p) {
        snprintf(text, size, "out of memory");
        goto fail;
    }
    n->p = p;
    p->strings_size = STRING_BYTES;
    n->strings = malloc(p->strings_size);
    if (!n->strings) {
        snprintf(text, size, "out of memory");
        goto fail;
    }
    /*
     * go-dcgm opens the same library later, and the loader returns the same
     * handle. This call comes first because go-dcgm reports neither the loader's
     * message nor a missing function.
     */
    p->library = dlopen("libdcgm.so.4", RTLD_LAZY | RTLD_GLOBAL);
    if (!p->library) {
        const char *why = dlerror();
        snprintf(text, size, "%s", why ? why : "libdcgm.so.4: unknown error of the loader");
        goto fail;
    }
    struct {
        const char *name;
        void *into;
    } symbols[] = {
        { "dcgmConnect_v2", &p->connect_v2 },
        { "dcgmDisconnect", &p->disconnect },
        { "dcgmGetEntityGroupEntities", &p->get_entities },
        { "dcgmGetGpuStatus", &p->get_gpu_status },
        { "dcgmGetGpuInstanceHierarchy", &p->get_hierarchy },
        { "dcgmProfGetSupportedMetricGroups", &p->get_metric_groups },
        { "dcgmEntitiesGetLatestValues", &p->get_latest },
        { "dcgmGetValuesSince_v2", &p->get_since },
        { "dcgmGroupCreate", &p->group_create },
        { "dcgmGroupAddEntity", &p->group_add },
        { "dcgmGroupDestroy", &p->group_destroy },
        { "dcgmFieldGroupCreate", &p->field_group_create },
        { "dcgmFieldGroupDestroy", &p->field_group_destroy },
        { "dcgmWatchFields", &p->watch },
        { "dcgmUnwatchFields", &p->unwatch },
        { "dcgmUpdateAllFields", &p->update },
        { "errorString", &p->error_text },
    };
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        if (!native_symbol(n, symbols[i].name)) {
            snprintf(text, size, "%s", symbols[i].name);
            *missing = 1;
            goto fail;
        }
        native_find(n, symbols[i].name, symbols[i].into);
    }
    native_find(n, "dcgmConnect_v3", &p->connect_v3);
    for (size_t i = 0; i < sizeof(called_by_go_dcgm) / sizeof(called_by_go_dcgm[0]); i++) {
        if (!dlsym(p->library, called_by_go_dcgm[i])) {
            snprintf(text, size, "%s", called_by_go_dcgm[i]);
            *missing = 1;
            goto fail;
        }
    }
    Dl_info info;
    void *address;
    memcpy(&address, &p->get_latest, sizeof(address));
    if (dladdr(address, &info) && info.dli_fname)
        snprintf(text, size, "%s", info.dli_fname);
    else if (size)
        text[0] = 0;
    return n;

fail:
    /* The library stays open: the process ends after this error. */
    if (n)
        free(n->strings);
    free(p);
    free(n);
    return NULL;
}

void *native_symbol(struct native *n, const char *symbol)
{
    return dlsym(n->p->library, symbol);
}

void native_find(struct native *n, const char *symbol, void *into)
{
    void *address = native_symbol(n, symbol);
    memcpy(into, &address, sizeof(address));
}

int native_connect(struct native *n, const char *address, enum native_address kind)
{
    if (kind == NATIVE_URI) {
        struct abi_connect_v3 v3 = { .version = ABI_CONNECT_V3_VERSION };
        return n->p->connect_v3 ? n->p->connect_v3(address, &v3, &n->handle) : ABI_NOT_SUPPORTED;
    }
    struct abi_connect_v2 v2 = { .version = ABI_CONNECT_V2_VERSION, .unix_socket = kind == NATIVE_UNIX };
    return n->p->connect_v2(address, &v2, &n->handle);
}

int native_disconnect(struct native *n)
{
    return n->p->disconnect(n->handle);
}

const char *native_error_text(struct native *n, int code)
{
    return n->p->error_text(code);
}

int native_lost(int code)
{
    return code == ABI_CONNECTION_NOT_VALID || code == ABI_TIMEOUT || code == ABI_UNINITIALIZED;
}

int native_list(struct native *n, uint32_t kind, uint32_t flags, uint32_t *ids, int room, int *count)
{
    *count = room;
    int rc = n->p->get_entities(n->handle, kind, ids, count, flags);
    if (rc == ABI_OK && (*count < 0 || *count > room)) /* DCGM answers "insufficient size" instead */
        rc = ABI_GENERIC_ERROR;
    if (rc != ABI_OK)
        *count = 0;
    return rc;
}

/* Lists the GPUs and their status. */
static int check_gpus(struct native *n, struct native_topology *t, const struct native_topology *old)
{
    struct native_private *p = n->p;
    uint32_t all[ABI_MAX_GPUS], good[ABI_MAX_GPUS];
    int all_count, good_count;
    struct timespec now;

    int rc = native_list(n, ABI_KIND_GPU, ABI_FLAG_SUPPORTED, good, ABI_MAX_GPUS, &good_count);
    if (rc != ABI_OK)
        return rc;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if (good_count == p->good_count && !memcmp(good, p->good, (size_t)good_count * sizeof(good[0])) &&
        (uint32_t)good_count == old->gpu_count && now.tv_sec - p->listed < LIST_SECONDS) {
        /* All known GPUs are healthy: only an unhealthy one can have been added. */
        memcpy(t->gpus, old->gpus, old->gpu_count * sizeof(t->gpus[0]));
        t->gpu_count = old->gpu_count;
        return ABI_OK;
    }
    rc = native_list(n, ABI_KIND_GPU, 0, all, ABI_MAX_GPUS, &all_count);
    if (rc != ABI_OK)
        return rc;
    t->gpu_count = 0;
    for (int i = 0; i < all_count; i++) {
        struct native_gpu *gpu = &t->gpus[t->gpu_count++];
        gpu->id = all[i];
        gpu->status = 0;
        for (int j = 0; j < good_count && !gpu->status; j++)
            gpu->status = good[j] == all[i]; /* DcgmEntityStatusOk is 1; a fake GPU counts as healthy */
        if (gpu->status == 1)
            continue;
        rc = p->get_gpu_status(n->handle, gpu->id, &gpu->status);
        if (native_lost(rc))
            return rc;
        if (rc != ABI_OK || gpu->status == 1) /* it is recovering and not in the list yet */
            gpu->status = 0;
    }
    memcpy(p->good, good, (size_t)good_count * sizeof(good[0]));
    p->good_count = good_count;
    p->listed = now.tv_sec;
    return ABI_OK;
}

/* Lists the GPU instances and compute instances. */
static int check_instances(struct native *n, struct native_topology *t)
{
    uint32_t ids[ABI_MAX_HIERARCHY];
    int count;

    t->instance_count = 0;
    /* The hierarchy is a 70 KiB message: read it only if instances exist. */
    int rc = native_list(n, ABI_KIND_GPU_INSTANCE, 0, ids, ABI_MAX_HIERARCHY, &count);
    if (rc != ABI_OK || count == 0)
        return rc;
    struct abi_mig_hierarchy *h = &n->p->hierarchy;
    h->version = ABI_MIG_HIERARCHY_VERSION;
    h->count = 0;
    rc = n->p->get_hierarchy(n->handle, h);
    if (rc != ABI_OK)
        return rc;
    if (h->count > ABI_MAX_HIERARCHY)
        return ABI_GENERIC_ERROR;
    t->instance_count = h->count;
    for (uint32_t i = 0; i < h->count; i++) {
        const struct abi_mig_entry *e = &h->entries[i];
        t->instances[i] = (struct native_instance) { e->entity, e->parent, e->nvml_gpu_instance, e->nvml_compute_instance };
    }
    return ABI_OK;
}

int native_check_topology(struct native *n, int *changed, int *instances)
{
    struct native_topology *t = &n->p->next, *old = &n->topology;

    *changed = 0;
    *instances = ABI_OK;
    int rc = check_gpus(n, t, old);
    if (rc != ABI_OK)
        return rc;
    rc = check_instances(n, t);
    if (native_lost(rc))
        return rc;
    if (rc != ABI_OK) {
        *instances = rc;
        t->instance_count = old->instance_count;
        memcpy(t->instances, old->instances, old->instance_count * sizeof(t->instances[0]));
    }
    if (old->gpu_count != t->gpu_count || old->instance_count != t->instance_count ||
        memcmp(old->gpus, t->gpus, t->gpu_count * sizeof(t->gpus[0])) ||
        memcmp(old->instances, t->instances, t->instance_count * sizeof(t->instances[0]))) {
        *old = *t;
        *changed = 1;
    }
    return ABI_OK;
}

int native_profiling_fields(struct native *n, uint32_t gpu, uint16_t *fields, int *count)
{
    struct abi_metric_groups g = { .version = ABI_METRIC_GROUPS_VERSION, .gpu = gpu };

    *count = 0;
    int rc = n->p->get_metric_groups(n->handle, &g);
    if (rc != ABI_OK)
        return rc;
    if (g.count > ABI_MAX_METRIC_GROUPS)
        return ABI_GENERIC_ERROR;
    int found = 0;
    for (uint32_t i = 0; i < g.count; i++) {
        if (g.groups[i].field_count > ABI_METRIC_GROUP_FIELDS)
            return ABI_GENERIC_ERROR;
        for (uint32_t j = 0; j < g.groups[i].field_count; j++)
            fields[found++] = g.groups[i].fields[j];
    }
    *count = found;
    return ABI_OK;
}

int64_t native_uptime(void)
{
    struct timespec now = { 0 };
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void native_reset_strings(struct native *n)
{
    n->strings_used = 0;
}

static int keep_string(struct native *n, struct native_cell *cell, const char *s)
{
    struct native_private *p = n->p;
    size_t length = strnlen(s, ABI_STRING_LENGTH - 1);
    if (n->strings_used + length > p->strings_size) {
        char *more = realloc(n->strings, p->strings_size * 2);
        if (!more)
            return -1;
        n->strings = more;
        p->strings_size *= 2;
    }
    memcpy(n->strings + n->strings_used, s, length);
    cell->bits = (int64_t)n->strings_used;
    cell->length = (uint16_t)length;
    n->strings_used += length;
    return 0;
}

static void fill(struct native_cell *cells, const uint32_t *base, uint32_t entity_count, uint32_t field_count,
                 int32_t status)
{
    for (uint32_t e = 0; e < entity_count; e++)
        for (uint32_t f = 0; f < field_count; f++)
            cells[base[e] + f] = (struct native_cell) { .status = status };
}

static void put_cell(struct native *n, struct native_cell *cell, const struct abi_value2 *v)
{
    cell->bits = v->value.i64;
    cell->ts = v->ts;
    cell->status = v->status;
    cell->type = v->type;
    cell->length = 0;
    if (v->type == 's' && v->status == ABI_OK && keep_string(n, cell, v->value.str))
        cell->status = NATIVE_NO_ANSWER;
}

/* One request, at most NATIVE_CHUNK values. */
static int read_chunk(struct native *n, const struct abi_pair *entities, uint32_t entity_count,
                      const uint16_t *fields, uint32_t field_count, const uint32_t *base,
                      uint32_t flags, struct native_cell *cells)
{
    struct native_private *p = n->p;

    int rc = p->get_latest(n->handle, (struct abi_pair *)entities, entity_count, (uint16_t *)fields, field_count,
                           flags, p->values);
    if (rc != ABI_OK)
        return rc;

    /* Cached values have the order of the request. Live ones may not, and DCGM documents no order. */
    const struct abi_value2 *v = p->values;
    for (uint32_t e = 0; e < entity_count; e++) {
        struct native_cell *row = &cells[base[e]];
        for (uint32_t f = 0; f < field_count; f++, v++) {
            __builtin_prefetch(v + AHEAD);
            __builtin_prefetch(&v[AHEAD].value);
            if (entities[e].id != v->id || entities[e].kind != v->kind || fields[f] != v->field)
                goto disorder;
            put_cell(n, &row[f], v);
        }
    }
    return ABI_OK;

disorder:
    fill(cells, base, entity_count, field_count, NATIVE_NO_ANSWER);
    for (v = p->values; v < p->values + entity_count * field_count; v++) {
        uint32_t e = 0, f = 0;
        while (e < entity_count && (entities[e].id != v->id || entities[e].kind != v->kind))
            e++;
        while (f < field_count && fields[f] != v->field)
            f++;
        if (e < entity_count && f < field_count)
            put_cell(n, &cells[base[e] + f], v);
    }
    return ABI_OK;
}

int native_read(struct native *n, const struct abi_pair *entities, uint32_t entity_count, const uint16_t *fields,
                uint32_t field_count, const uint32_t *base, uint32_t flags,
                struct native_cell *cells)
{
    for (uint32_t f = 0; f < field_count; f += ABI_MAX_FIELDS) {
        uint32_t nf = field_count - f < ABI_MAX_FIELDS ? field_count - f : ABI_MAX_FIELDS;
        uint32_t step = NATIVE_CHUNK / nf;
        for (uint32_t e = 0; e < entity_count; e += step) {
            uint32_t ne = entity_count - e < step ? entity_count - e : step;
            int rc = read_chunk(n, entities + e, ne, fields + f, nf, base + e, flags, cells + f);
            if (native_lost(rc))
                return rc;
            if (rc == ABI_OK)
                continue;
            for (uint32_t i = e; i < e + ne; i++) {
                if (ne > 1)
                    rc = read_chunk(n, entities + i, 1, fields + f, nf, base + i, flags, cells + f);
                if (native_lost(rc))
                    return rc;
                if (rc != ABI_OK)
                    fill(cells + f, base + i, 1, nf, rc);
            }
        }
    }
    return ABI_OK;
}

int native_group_create(struct native *n, const char *name, uintptr_t *group)
{
    return n->p->group_create(n->handle, ABI_GROUP_EMPTY, name, group);
}

int native_group_add(struct native *n, uintptr_t group, uint32_t kind, uint32_t id)
{
    return n->p->group_add(n->handle, group, kind, id);
}

int native_group_destroy(struct native *n, uintptr_t group)
{
    return n->p->group_destroy(n->handle, group);
}

int native_field_group_create(struct native *n, const char *name, const uint16_t *fields, int count,
                              uintptr_t *field_group)
{
    return n->p->field_group_create(n->handle, count, fields, name, field_group);
}

int native_field_group_destroy(struct native *n, uintptr_t field_group)
{
    return n->p->field_group_destroy(n->handle, field_group);
}

int native_watch(struct native *n, uintptr_t group, uintptr_t field_group, int64_t interval_us, double keep_seconds,
                 int keep_samples)
{
    return n->p->watch(n->handle, group, field_group, interval_us, keep_seconds, keep_samples);
}

int native_unwatch(struct native *n, uintptr_t group, uintptr_t field_group)
{
    return n->p->unwatch(n->handle, group, field_group);
}

int native_update(struct native *n)
{
    return n->p->update(n->handle, 1);
}

/* Returns non-zero to end the enumeration. */
static int keep_event(uint32_t kind, uint32_t id, struct abi_value1 *values, int count, void *user)
{
    struct native *n = user;
    for (int i = 0; i < count; i++) {
        const struct abi_value1 *v = &values[i];
        if (v->status != ABI_OK || v->type != 'i')
            continue;
        if (n->event_count == n->p->event_room) {
            size_t room = n->p->event_room ? n->p->event_room * 2 : 64;
            struct native_event *more = room > MAX_EVENTS ? NULL : realloc(n->events, room * sizeof(*more));
            if (!more)
                return 1;
            n->events = more;
            n->p->event_room = room;
        }
        n->events[n->event_count++] = (struct native_event) { { kind, id }, v->ts, v->value.i64 };
    }
    return 0;
}

int native_values_since(struct native *n, uintptr_t group, uintptr_t field_group, int64_t since, int64_t *next)
{
    long long next_since = since;
    n->event_count = 0;
    int rc = n->p->get_since(n->handle, group, field_group, since, &next_since, keep_event, n);
    *next = next_since;
    return rc;
}
