/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* From a call in its uniform form to the engine's functions. */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

const char *const call_names[] = {
#define X(name) #name,
    WIRE_CALLS(X)
#undef X
};

void buffer_add(struct buffer *b, const void *data, size_t len)
{
    if (b->failed)
        return;
    if (b->len + len > b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 256;
        while (cap < b->len + len)
            cap *= 2;
        uint8_t *more = realloc(b->data, cap);
        if (!more) {
            b->failed = true;
            return;
        }
        b->data = more;
        b->cap = cap;
    }
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

struct packed_value { /* a string follows instead of v when type is 's', v being its length */
    uint32_t entity_id;
    uint16_t field;
    uint8_t group;
    char type;
    int32_t status;
    uint32_t unused;
    int64_t ts, v;
};

void buffer_add_value(struct buffer *b, const struct value *v)
{
    struct packed_value p = {v->entity_id, v->field, v->group, v->type, v->status, 0, v->ts, v->v.i64};
    size_t len = 0;
    if (v->type == DCGM_FT_STRING) {
        len = strnlen(v->v.str, DCGM_MAX_STR_LENGTH - 1);
        p.v = (int64_t)len;
    }
    buffer_add(b, &p, sizeof p);
    buffer_add(b, v->v.str, len);
}

bool value_reader_next(struct value_reader *r, struct value *v)
{
    struct packed_value p;
    if ((size_t)(r->end - r->at) < sizeof p)
        return false;
    memcpy(&p, r->at, sizeof p);
    r->at += sizeof p;
    *v = (struct value){.entity_id = p.entity_id, .field = p.field, .group = p.group, .type = p.type, .status = p.status, .ts = p.ts};
    v->v.i64 = p.v;
    if (p.type == DCGM_FT_STRING) {
        if (p.v < 0 || p.v >= (int64_t)sizeof r->text || r->end - r->at < p.v)
            return false;
        memcpy(r->text, r->at, (size_t)p.v);
        r->text[p.v] = 0;
        r->at += p.v;
        v->v.str = r->text;
    }
    return true;
}

int wire_send(int fd, const struct frame *f, const struct call_args *args, const void *payload, size_t len)
{
    struct iovec part[3] = {{(void *)(uintptr_t)f, sizeof *f}, {(void *)(uintptr_t)args, args ? sizeof *args : 0}, {(void *)(uintptr_t)payload, len}};
    struct msghdr msg = {.msg_iov = part, .msg_iovlen = 3};
    for (;;) {
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        while (msg.msg_iovlen > 0 && (size_t)n >= msg.msg_iov[0].iov_len) {
            n -= (ssize_t)msg.msg_iov[0].iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen == 0)
            return 0;
        msg.msg_iov[0].iov_base = (char *)msg.msg_iov[0].iov_base + n;
        msg.msg_iov[0].iov_len -= (size_t)n;
    }
}

int wire_read(int fd, void *to, size_t len)
{
    for (char *at = to; len > 0;) {
        ssize_t n = read(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

dcgmReturn_t call_enter(struct node_state *n, const char *name)
{
    int rc = node_enter_call(n, name);
    if (rc != 0)
        return (dcgmReturn_t)rc;
    return atomic_load(&n->engine_lost) ? DCGM_ST_CONNECTION_NOT_VALID : DCGM_ST_OK;
}

/* A payload that is one struct, aligned; NULL when its size is wrong. */
static void *copy_in(const void *payload, size_t len, size_t want)
{
    void *copy = len == want ? malloc(want) : NULL;
    if (copy)
        memcpy(copy, payload, want);
    return copy;
}

static dcgmReturn_t values_of(struct engine *e, const struct call_args *a, bool latest, struct buffer *out)
{
    struct value_list list = {0};
    int64_t next = a->d;
    dcgmReturn_t rc = watch_collect(e, (uintptr_t)a->a, (uintptr_t)a->b, latest, a->d, &next, &list);
    buffer_add(out, &next, sizeof next);
    /* interned strings live as long as the engine */
    for (size_t i = 0; rc == DCGM_ST_OK && i < list.count; i++)
        buffer_add_value(out, &list.items[i]);
    free(list.items);
    return rc;
}

/* a = entities, b = fields, c = flags; payload: the pairs, then the field ids */
static dcgmReturn_t latest_of(struct engine *e, const struct call_args *a, const uint8_t *payload, size_t len, struct buffer *out)
{
    if (a->a < 1 || a->b < 1 || a->a > DCGM_GROUP_MAX_ENTITIES_V2 || a->b > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP ||
        len != a->a * sizeof(dcgmGroupEntityPair_t) + a->b * sizeof(uint16_t))
        return DCGM_ST_BADPARAM;
    bool live = a->c & DCGM_FV_FLAG_LIVE_DATA;
    pthread_mutex_lock(&e->lock);
    if (live)
        engine_look(e);
    for (uint64_t i = 0; i < a->a; i++) {
        dcgmGroupEntityPair_t pair;
        memcpy(&pair, payload + i * sizeof pair, sizeof pair);
        for (uint64_t k = 0; k < a->b; k++) {
            uint16_t field;
            struct value v;
            memcpy(&field, payload + a->a * sizeof pair + k * sizeof field, sizeof field);
            watch_latest_locked(e, (int)pair.entityGroupId, pair.entityId, field, live, &v);
            buffer_add_value(out, &v);
        }
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

static dcgmReturn_t inject(struct engine *e, uint64_t gpu, const dcgmInjectFieldValue_t *v)
{
    const struct field_fact *f = field_fact(v->fieldId);
    dcgmReturn_t rc = DCGM_ST_OK;
    if (!f || (f->type != DCGM_FT_INT64 && f->type != DCGM_FT_DOUBLE))
        return DCGM_ST_BADPARAM;
    pthread_mutex_lock(&e->lock);
    struct watch *w = watch_find_locked(e, DCGM_FE_GPU, (uint32_t)gpu, v->fieldId, true);
    if (w)
        watch_append_locked(e, w, (struct sample){.ts = v->ts ? v->ts : node_now_us(), .v.i64 = v->value.i64});
    else
        rc = DCGM_ST_MEMORY;
    pthread_mutex_unlock(&e->lock);
    return rc;
}

/* Calls that answer with a struct which the caller may have filled in part. */
static dcgmReturn_t perform_struct(struct engine *e, enum call call, const struct call_args *a, const void *payload,
                                   size_t len, struct buffer *out)
{
    static const struct {
        enum call call;
        size_t size;
    } sizes[] = {
        {CALL_dcgmGetDeviceAttributes, sizeof(dcgmDeviceAttributes_t)},
        {CALL_dcgmGetGpuInstanceHierarchy, sizeof(dcgmMigHierarchy_v2)},
        {CALL_dcgmGetNvLinkLinkStatus, sizeof(dcgmNvLinkStatus_v5)},
        {CALL_dcgmGetNvLinkP2PStatus, sizeof(dcgmNvLinkP2PStatus_v1)},
        {CALL_dcgmGetCpuHierarchy, sizeof(dcgmCpuHierarchy_v2)}, /* the caller takes its part of it */
        {CALL_dcgmGetCpuHierarchy_v2, sizeof(dcgmCpuHierarchy_v2)},
        {CALL_dcgmGroupGetInfo, sizeof(dcgmGroupInfo_t)},
        {CALL_dcgmFieldGroupGetInfo, sizeof(dcgmFieldGroupInfo_t)},
        {CALL_dcgmGetPidInfo, sizeof(dcgmPidInfo_t)},
        {CALL_dcgmHealthCheck, sizeof(dcgmHealthResponse_t)},
        {CALL_dcgmGetDeviceTopology, sizeof(dcgmDeviceTopology_v2)},
        {CALL_dcgmGetGroupTopology, sizeof(dcgmGroupTopology_v2)},
        {CALL_dcgmIntrospectGetHostengineMemoryUsage, sizeof(dcgmIntrospectMemory_t)},
        {CALL_dcgmIntrospectGetHostengineCpuUtilization, sizeof(dcgmIntrospectCpuUtil_t)},
        {CALL_dcgmProfGetSupportedMetricGroups, sizeof(dcgmProfGetMetricGroups_t)},
    };
    size_t size = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (sizes[i].call == call)
            size = sizes[i].size;
    if (size == 0)
        return DCGM_ST_FUNCTION_NOT_FOUND;
    if (len > size)
        return DCGM_ST_BADPARAM;
    uint8_t *s = calloc(1, size); /* the caller sends the part that matters, the rest is zero */
    if (!s)
        return DCGM_ST_MEMORY;
    if (len)
        memcpy(s, payload, len);
    void *p = s;
    dcgmReturn_t rc;
    switch (call) {
    case CALL_dcgmGetDeviceAttributes:
        rc = engine_attributes(e, (unsigned)a->a, p);
        break;
    case CALL_dcgmGetGpuInstanceHierarchy:
        rc = engine_hierarchy(e, p);
        size = offsetof(dcgmMigHierarchy_v2, entityList) + ((dcgmMigHierarchy_v2 *)p)->count * sizeof(dcgmMigHierarchyInfo_v2);
        break;
    case CALL_dcgmGetNvLinkLinkStatus:
        rc = engine_link_status(e, p);
        break;
    case CALL_dcgmGetNvLinkP2PStatus:
        rc = engine_p2p_status(e, p);
        break;
    case CALL_dcgmGetCpuHierarchy:
    case CALL_dcgmGetCpuHierarchy_v2:
        rc = engine_cpus(e, p);
        break;
    case CALL_dcgmGroupGetInfo:
        rc = group_info(e, (uintptr_t)a->a, p);
        size = offsetof(dcgmGroupInfo_t, entityList) + ((dcgmGroupInfo_t *)p)->count * sizeof(dcgmGroupEntityPair_t);
        break;
    case CALL_dcgmFieldGroupGetInfo:
        rc = field_group_info(e, p);
        break;
    case CALL_dcgmGetPidInfo:
        rc = engine_pid_info(e, (uintptr_t)a->a, p);
        break;
    case CALL_dcgmHealthCheck:
        rc = health_check(e, (uintptr_t)a->a, p);
        size = offsetof(dcgmHealthResponse_t, incidents) + ((dcgmHealthResponse_t *)p)->incidentCount * sizeof(dcgmIncidentInfo_t);
        break;
    case CALL_dcgmGetDeviceTopology:
        rc = engine_topology(e, (unsigned)a->a, p);
        break;
    case CALL_dcgmGetGroupTopology:
        rc = engine_group_topology(e, (uintptr_t)a->a, p);
        break;
    case CALL_dcgmIntrospectGetHostengineMemoryUsage:
        rc = engine_memory(e, p);
        break;
    case CALL_dcgmIntrospectGetHostengineCpuUtilization:
        rc = engine_cpu(e, p);
        break;
    default: /* CALL_dcgmProfGetSupportedMetricGroups */
        rc = engine_metric_groups(e, p);
        break;
    }
    buffer_add(out, s, size);
    free(s);
    return rc;
}

static dcgmReturn_t perform_list(struct engine *e, enum call call, const struct call_args *a, struct buffer *out)
{
    unsigned ids[NODE_MAX_CORES];
    int count = (int)(sizeof ids / sizeof ids[0]);
    dcgmReturn_t rc = call == CALL_dcgmGetEntityGroupEntities
                          ? engine_entities(e, (int)a->a, (unsigned)a->b, ids, &count)
                          : engine_devices(e, call == CALL_dcgmGetAllSupportedDevices, ids, &count);
    if (rc == DCGM_ST_OK)
        buffer_add(out, ids, (size_t)count * sizeof ids[0]);
    return rc;
}

static dcgmReturn_t perform_policy(struct engine *e, uint32_t owner, enum call call, const struct call_args *a,
                                   const void *payload, size_t len, struct buffer *out, policy_deliver deliver, void *to)
{
    switch (call) {
    case CALL_dcgmPolicySet: {
        dcgmPolicy_t *p = copy_in(payload, len, sizeof *p);
        dcgmReturn_t rc = p ? policy_set(e, (uintptr_t)a->a, p) : DCGM_ST_BADPARAM;
        free(p);
        return rc;
    }
    case CALL_dcgmPolicyGet: {
        if (a->b < 1 || a->b > DCGM_MAX_NUM_DEVICES)
            return DCGM_ST_BADPARAM;
        dcgmPolicy_t list[DCGM_MAX_NUM_DEVICES];
        memset(list, 0, sizeof list);
        for (uint64_t i = 0; i < a->b; i++)
            list[i].version = dcgmPolicy_version;
        dcgmReturn_t rc = policy_get(e, (uintptr_t)a->a, (int)a->b, list);
        buffer_add(out, list, (size_t)a->b * sizeof list[0]);
        return rc;
    }
    case CALL_dcgmPolicyRegister_v2:
        return policy_register(e, owner, (uintptr_t)a->a, (uint32_t)a->b, a->c, deliver, to);
    case CALL_dcgmPolicyUnregister:
        return policy_unregister(e, owner, (uintptr_t)a->a, (uint32_t)a->b);
    default: /* CALL_dcgmPolicyTrigger */
        policy_tick(e);
        return DCGM_ST_OK;
    }
}

static dcgmReturn_t perform(struct engine *e, uint32_t owner, enum call call, const struct call_args *a,
                            const void *payload, size_t len, struct buffer *out, policy_deliver deliver, void *to)
{
    char name[DCGM_MAX_STR_LENGTH];
    uintptr_t id = 0;
    uint32_t systems = 0;
    dcgmReturn_t rc;
    switch (call) {
    case CALL_dcgmHostengineVersionInfo:
        buffer_add(out, engine_build_info(), strlen(engine_build_info()) + 1);
        return DCGM_ST_OK;
    case CALL_dcgmHostengineIsHealthy:
        return DCGM_ST_OK;
    case CALL_dcgmProfPause:
    case CALL_dcgmProfResume:
        return engine_pause_profiling(e, call == CALL_dcgmProfPause);
    case CALL_dcgmGetAllDevices:
    case CALL_dcgmGetAllSupportedDevices:
    case CALL_dcgmGetEntityGroupEntities:
        return perform_list(e, call, a, out);
    case CALL_dcgmGetGpuStatus: {
        DcgmEntityStatus_t status;
        rc = engine_gpu_status(e, (unsigned)a->a, &status);
        buffer_add(out, &status, sizeof status);
        return rc;
    }
    case CALL_dcgmGetGpuChipArchitecture: {
        dcgmChipArchitecture_t chip;
        rc = engine_chip(e, (unsigned)a->a, &chip);
        buffer_add(out, &chip, sizeof chip);
        return rc;
    }
    case CALL_dcgmGroupCreate:
    case CALL_dcgmFieldGroupCreate: {
        /* dcgmFieldGroupCreate: a = count of ids, which come before the name */
        const uint8_t *at = payload;
        size_t ids = call == CALL_dcgmFieldGroupCreate ? a->a * sizeof(uint16_t) : 0;
        if (a->a > 100000 || len < ids || len - ids >= sizeof name)
            return DCGM_ST_BADPARAM;
        memcpy(name, at + ids, len - ids);
        name[len - ids] = 0;
        if (call == CALL_dcgmGroupCreate) {
            rc = group_create(e, owner, (int)a->a, name, &id);
        } else {
            unsigned short fields[DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP];
            if (a->a < 1 || a->a > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP)
                return DCGM_ST_BADPARAM;
            memcpy(fields, at, ids);
            rc = field_group_create(e, owner, (int)a->a, fields, name, &id);
        }
        buffer_add(out, &id, sizeof id);
        return rc;
    }
    case CALL_dcgmGroupDestroy:
        return group_destroy(e, (uintptr_t)a->a);
    case CALL_dcgmGroupAddDevice:
    case CALL_dcgmGroupAddEntity:
        return group_add(e, (uintptr_t)a->a, (int)a->b, (uint32_t)a->c);
    case CALL_dcgmGroupRemoveDevice:
    case CALL_dcgmGroupRemoveEntity:
        return group_remove(e, (uintptr_t)a->a, (int)a->b, (uint32_t)a->c);
    case CALL_dcgmGroupGetAllIds: {
        uintptr_t all[DCGM_MAX_NUM_GROUPS];
        unsigned count = 0;
        rc = group_all_ids(e, all, &count);
        buffer_add(out, all, count * sizeof all[0]);
        return rc;
    }
    case CALL_dcgmFieldGroupDestroy:
        return field_group_destroy(e, (uintptr_t)a->a);
    case CALL_dcgmWatchFields:
        return watch_fields(e, owner, (uintptr_t)a->a, (uintptr_t)a->b, a->d, a->f, (int)a->c);
    case CALL_dcgmUnwatchFields:
        return unwatch_fields(e, owner, (uintptr_t)a->a, (uintptr_t)a->b);
    case CALL_dcgmUpdateAllFields:
        return watch_update_all(e);
    case CALL_dcgmGetValuesSince:
    case CALL_dcgmGetValuesSince_v2:
        return values_of(e, a, false, out);
    case CALL_dcgmGetLatestValues:
    case CALL_dcgmGetLatestValues_v2:
        return values_of(e, a, true, out);
    case CALL_dcgmGetLatestValuesForFields:
    case CALL_dcgmEntityGetLatestValues:
    case CALL_dcgmEntitiesGetLatestValues:
        return latest_of(e, a, payload, len, out);
    case CALL_dcgmWatchPidFields:
        return engine_watch_pids(e, (uintptr_t)a->a);
    case CALL_dcgmHealthSet:
    case CALL_dcgmHealthSet_v2:
        return health_set(e, (uintptr_t)a->a, (uint32_t)a->b);
    case CALL_dcgmHealthGet:
        rc = health_get(e, (uintptr_t)a->a, &systems);
        buffer_add(out, &systems, sizeof systems);
        return rc;
    case CALL_dcgmPolicySet:
    case CALL_dcgmPolicyGet:
    case CALL_dcgmPolicyRegister_v2:
    case CALL_dcgmPolicyUnregister:
    case CALL_dcgmPolicyTrigger:
        return perform_policy(e, owner, call, a, payload, len, out, deliver, to);
    case CALL_dcgmInjectFieldValue: {
        dcgmInjectFieldValue_t *v = copy_in(payload, len, sizeof *v);
        rc = v ? inject(e, a->a, v) : DCGM_ST_BADPARAM;
        free(v);
        return rc;
    }
    case CALL_dcgmAttachDriver:
    case CALL_dcgmDetachDriver:
        return engine_attach(e, call == CALL_dcgmAttachDriver);
    case CALL_dcgmCreateFakeEntities:
    case CALL_dcgmActionValidate:
    case CALL_dcgmStopDiagnostic:
    case CALL_dcgmModuleGetStatuses:
        return DCGM_ST_NOT_SUPPORTED;
    case CALL_dcgmRunDiagnostic: /* runs a program that is not part of the library */
        return DCGM_ST_NVVS_BINARY_NOT_FOUND;
    default:
        return perform_struct(e, call, a, payload, len, out);
    }
}

dcgmReturn_t call_perform(struct engine *e, uint32_t owner, enum call call, const struct call_args *args,
                          const void *payload, size_t len, struct buffer *out, policy_deliver deliver, void *to)
{
    if ((unsigned)call >= CALL_COUNT)
        return DCGM_ST_FUNCTION_NOT_FOUND;
    dcgmReturn_t rc = call_enter(e->node, call_names[call]);
    if (rc != DCGM_ST_OK)
        return rc;
    rc = perform(e, owner, call, args, payload, len, out, deliver, to);
    return out->failed ? DCGM_ST_MEMORY : rc;
}
