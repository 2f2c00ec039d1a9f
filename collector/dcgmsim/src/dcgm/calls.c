/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Execution of API calls on an engine. */
#include "dcgm/calls.h"

#include "access/faults.h"
#include "engine/devices.h"
#include "engine/entities.h"
#include "engine/groups.h"
#include "engine/health.h"
#include "engine/introspect.h"
#include "engine/policy.h"
#include "engine/profiling.h"
#include "engine/snapshot.h"
#include "engine/topology.h"
#include "engine/watch.h"

#include <stdlib.h>
#include <string.h>

const char *const call_names[] = {
#define X(name) #name,
    WIRE_CALLS(X)
#undef X
};

dcgmReturn_t call_enter(struct node_state *n, const char *name)
{
    int rc = node_enter_call(n, name);
    if (rc != 0)
        return (dcgmReturn_t)rc;
    return atomic_load(&n->engine_lost) ? DCGM_ST_CONNECTION_NOT_VALID : DCGM_ST_OK;
}

/* An aligned copy of a payload that is one struct; NULL if its size is wrong. */
static void *copy_in(const void *payload, size_t len, size_t want)
{
    void *copy = len == want ? malloc(want) : NULL;
    if (copy)
        memcpy(copy, payload, want);
    return copy;
}

static dcgmReturn_t collect_values(struct engine *e, const struct call_args *a, bool latest, struct buffer *out)
{
    struct value_list list = {0};
    int64_t next = a->d;
    dcgmReturn_t rc = watch_collect(e, (uintptr_t)a->a, (uintptr_t)a->b, latest, a->d, &next, &list);
    buffer_add(out, &next, sizeof next);
    /* Strings are interned, so they are valid without the lock. */
    for (size_t i = 0; rc == DCGM_ST_OK && i < list.count; i++)
        buffer_add_value(out, &list.items[i]);
    free(list.items);
    return rc;
}

/* a = entities, b = fields, c = flags; payload: the pairs, then the field ids */
static dcgmReturn_t latest_values(struct engine *e, const struct call_args *a, const uint8_t *payload, size_t len,
                                  struct buffer *out)
{
    if (a->a < 1 || a->b < 1 || a->a > DCGM_GROUP_MAX_ENTITIES_V2 || a->b > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP ||
        len != a->a * sizeof(dcgmGroupEntityPair_t) + a->b * sizeof(uint16_t))
        return DCGM_ST_BADPARAM;
    bool live = a->c & DCGM_FV_FLAG_LIVE_DATA;
    pthread_mutex_lock(&e->lock);
    if (live)
        snapshot_take(e);
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
    const struct field_info *f = field_info(v->fieldId);
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

/* The functions behind calls that answer with a struct. The request may hold its first members. */
#define STRUCT_CALL(name, type, expression)                                                    \
    static dcgmReturn_t struct_##name(struct engine *e, const struct call_args *a, void *out) \
    {                                                                                          \
        (void)a;                                                                               \
        type *s = out;                                                                         \
        return expression;                                                                     \
    }
STRUCT_CALL(attributes, dcgmDeviceAttributes_t, describe_gpu(e, (unsigned)a->a, s))
STRUCT_CALL(mig, dcgmMigHierarchy_v2, describe_mig(e, s))
STRUCT_CALL(links, dcgmNvLinkStatus_v5, topology_link_status(e, s))
STRUCT_CALL(p2p, dcgmNvLinkP2PStatus_v1, topology_p2p_status(e, s))
STRUCT_CALL(cpus, dcgmCpuHierarchy_v2, describe_cpus(e, s))
STRUCT_CALL(group, dcgmGroupInfo_t, group_info(e, (uintptr_t)a->a, s))
STRUCT_CALL(field_group, dcgmFieldGroupInfo_t, field_group_info(e, s))
STRUCT_CALL(pid, dcgmPidInfo_t, pid_info(e, (uintptr_t)a->a, s))
STRUCT_CALL(health, dcgmHealthResponse_t, health_check(e, (uintptr_t)a->a, s))
STRUCT_CALL(gpu_topology, dcgmDeviceTopology_v2, topology_of_gpu(e, (unsigned)a->a, s))
STRUCT_CALL(group_topology, dcgmGroupTopology_v2, topology_of_group(e, (uintptr_t)a->a, s))
STRUCT_CALL(memory, dcgmIntrospectMemory_t, memory_usage(e, s))
STRUCT_CALL(cpu, dcgmIntrospectCpuUtil_t, cpu_usage(e, s))
STRUCT_CALL(metric_groups, dcgmProfGetMetricGroups_t, profiling_metric_groups(e, s))

/* Structs that end with an array of which only the first elements are sent. */
static size_t used_size(enum call call, const void *s, size_t size)
{
    switch (call) {
    case CALL_dcgmGetGpuInstanceHierarchy:
        return offsetof(dcgmMigHierarchy_v2,
                        entityList) + ((const dcgmMigHierarchy_v2 *)s)->count * sizeof(dcgmMigHierarchyInfo_v2);
    case CALL_dcgmGroupGetInfo:
        return offsetof(dcgmGroupInfo_t, entityList) + ((const dcgmGroupInfo_t *)s)->count * sizeof(dcgmGroupEntityPair_t);
    case CALL_dcgmHealthCheck:
        return offsetof(dcgmHealthResponse_t, incidents) +
               ((const dcgmHealthResponse_t *)s)->incidentCount * sizeof(dcgmIncidentInfo_t);
    default:
        return size;
    }
}

static dcgmReturn_t perform_struct(struct engine *e, enum call call, const struct call_args *a, const void *payload,
                                   size_t len, struct buffer *out)
{
    static const struct {
        enum call call;
        size_t size;
        dcgmReturn_t (*run)(struct engine *e, const struct call_args *a, void *out);
    } calls[] = {
        {CALL_dcgmGetDeviceAttributes, sizeof(dcgmDeviceAttributes_t), struct_attributes},
        {CALL_dcgmGetGpuInstanceHierarchy, sizeof(dcgmMigHierarchy_v2), struct_mig},
        {CALL_dcgmGetNvLinkLinkStatus, sizeof(dcgmNvLinkStatus_v5), struct_links},
        {CALL_dcgmGetNvLinkP2PStatus, sizeof(dcgmNvLinkP2PStatus_v1), struct_p2p},
        {CALL_dcgmGetCpuHierarchy, sizeof(dcgmCpuHierarchy_v2), struct_cpus}, /* the caller copies what version 1 has */
        {CALL_dcgmGetCpuHierarchy_v2, sizeof(dcgmCpuHierarchy_v2), struct_cpus},
        {CALL_dcgmGroupGetInfo, sizeof(dcgmGroupInfo_t), struct_group},
        {CALL_dcgmFieldGroupGetInfo, sizeof(dcgmFieldGroupInfo_t), struct_field_group},
        {CALL_dcgmGetPidInfo, sizeof(dcgmPidInfo_t), struct_pid},
        {CALL_dcgmHealthCheck, sizeof(dcgmHealthResponse_t), struct_health},
        {CALL_dcgmGetDeviceTopology, sizeof(dcgmDeviceTopology_v2), struct_gpu_topology},
        {CALL_dcgmGetGroupTopology, sizeof(dcgmGroupTopology_v2), struct_group_topology},
        {CALL_dcgmIntrospectGetHostengineMemoryUsage, sizeof(dcgmIntrospectMemory_t), struct_memory},
        {CALL_dcgmIntrospectGetHostengineCpuUtilization, sizeof(dcgmIntrospectCpuUtil_t), struct_cpu},
        {CALL_dcgmProfGetSupportedMetricGroups, sizeof(dcgmProfGetMetricGroups_t), struct_metric_groups},
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if (calls[i].call != call)
            continue;
        if (len > calls[i].size)
            return DCGM_ST_BADPARAM;
        void *s = calloc(1, calls[i].size); /* members that the caller did not send are zero */
        if (!s)
            return DCGM_ST_MEMORY;
        if (len)
            memcpy(s, payload, len);
        dcgmReturn_t rc = calls[i].run(e, a, s);
        buffer_add(out, s, used_size(call, s, calls[i].size));
        free(s);
        return rc;
    }
    return DCGM_ST_FUNCTION_NOT_FOUND;
}

static dcgmReturn_t perform_list(struct engine *e, enum call call, const struct call_args *a, struct buffer *out)
{
    unsigned ids[NODE_MAX_CORES];
    int count = (int)(sizeof ids / sizeof ids[0]);
    dcgmReturn_t rc = call == CALL_dcgmGetEntityGroupEntities
                          ? list_entities(e, (int)a->a, (unsigned)a->b, ids, &count)
                          : list_gpus(e, call == CALL_dcgmGetAllSupportedDevices, ids, &count);
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
        buffer_add(out, build_info(), strlen(build_info()) + 1);
        return DCGM_ST_OK;
    case CALL_dcgmHostengineIsHealthy:
        return DCGM_ST_OK;
    case CALL_dcgmProfPause:
    case CALL_dcgmProfResume:
        return profiling_pause(e, call == CALL_dcgmProfPause);
    case CALL_dcgmGetAllDevices:
    case CALL_dcgmGetAllSupportedDevices:
    case CALL_dcgmGetEntityGroupEntities:
        return perform_list(e, call, a, out);
    case CALL_dcgmGetGpuStatus: {
        DcgmEntityStatus_t status;
        rc = gpu_status(e, (unsigned)a->a, &status);
        buffer_add(out, &status, sizeof status);
        return rc;
    }
    case CALL_dcgmGetGpuChipArchitecture: {
        dcgmChipArchitecture_t chip;
        rc = chip_architecture(e, (unsigned)a->a, &chip);
        buffer_add(out, &chip, sizeof chip);
        return rc;
    }
    case CALL_dcgmGroupCreate:
    case CALL_dcgmFieldGroupCreate: {
        /* payload: the name; for field groups a is the number of field ids that precede it */
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
        return collect_values(e, a, false, out);
    case CALL_dcgmGetLatestValues:
    case CALL_dcgmGetLatestValues_v2:
        return collect_values(e, a, true, out);
    case CALL_dcgmGetLatestValuesForFields:
    case CALL_dcgmEntityGetLatestValues:
    case CALL_dcgmEntitiesGetLatestValues:
        return latest_values(e, a, payload, len, out);
    case CALL_dcgmWatchPidFields:
        return watch_pids(e, (uintptr_t)a->a);
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
        return attach_driver(e, call == CALL_dcgmAttachDriver);
    case CALL_dcgmCreateFakeEntities:
    case CALL_dcgmActionValidate:
    case CALL_dcgmStopDiagnostic:
    case CALL_dcgmModuleGetStatuses:
        return DCGM_ST_NOT_SUPPORTED;
    case CALL_dcgmRunDiagnostic: /* needs a program that is not part of the library */
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
