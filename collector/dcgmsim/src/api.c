/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The functions of libdcgm.so.4: checks of arguments and versions, then the engine, here or behind a socket. */
#define _GNU_SOURCE
#include "wire.h"

#include <stdlib.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct engine *engine; /* the embedded one */
    unsigned calls;        /* running in it */
    unsigned inits;
    struct embedded_callback *callbacks; /* kept: a call may be under way whenever one is unregistered */
} process = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};

static struct engine *acquire(void)
{
    pthread_mutex_lock(&process.lock);
    struct engine *e = process.engine;
    if (e)
        process.calls++;
    pthread_mutex_unlock(&process.lock);
    return e;
}

static void release(void)
{
    pthread_mutex_lock(&process.lock);
    if (--process.calls == 0)
        pthread_cond_broadcast(&process.idle);
    pthread_mutex_unlock(&process.lock);
}

/* Violations of a policy in the embedding process: to is what was registered. */
struct embedded_callback {
    fpRecvUpdates callback;
    uint64_t user_data;
    struct embedded_callback *next;
};

static void deliver_embedded(void *to, uint64_t id, const dcgmPolicyCallbackResponse_t *response)
{
    (void)id;
    const struct embedded_callback *c = to;
    dcgmPolicyCallbackResponse_t copy = *response;
    c->callback(&copy, c->user_data);
}

/*
 * Carries out a call where the handle says. What comes back is copied into
 * out, at most cap bytes; *used tells how many there were.
 */
static dcgmReturn_t transact(dcgmHandle_t handle, enum call call, struct call_args args, const void *payload, size_t len,
                             void *out, size_t cap, size_t *used)
{
    dcgmReturn_t rc;
    uint8_t *data = NULL;
    size_t size = 0;
    if (handle == DCGM_EMBEDDED_HANDLE) {
        struct buffer b = {0};
        struct engine *e = acquire();
        if (!e)
            return DCGM_ST_UNINITIALIZED;
        rc = call_perform(e, OWNER_EMBEDDED, call, &args, payload, len, &b, deliver_embedded, (void *)(uintptr_t)args.d);
        release();
        data = b.data;
        size = b.len;
    } else {
        rc = client_call(handle, call, &args, payload, len, &data, &size);
    }
    if (used)
        *used = size;
    if (out && size)
        memcpy(out, data, size < cap ? size : cap);
    free(data);
    return rc;
}

/* arguments left out are zero */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define ARGS(...) ((struct call_args){__VA_ARGS__})

static dcgmReturn_t simple(dcgmHandle_t handle, enum call call, struct call_args args)
{
    return transact(handle, call, args, NULL, 0, NULL, 0, NULL);
}

/* Calls on libdcgm itself have faults of their own where the node is known. */
static dcgmReturn_t enter_library(const char *name)
{
    char err[256];
    if (!getenv("DCGMSIM_STATE") && !acquire())
        return DCGM_ST_OK;
    if (!getenv("DCGMSIM_STATE"))
        release();
    struct node_state *n = node_open(err, sizeof err);
    return n ? (dcgmReturn_t)node_enter_call(n, name) : DCGM_ST_OK;
}

/* --- life --- */

dcgmReturn_t dcgmInit(void)
{
    dcgmReturn_t rc = enter_library(__func__);
    if (rc != DCGM_ST_OK)
        return rc;
    DcgmFieldsInit();
    pthread_mutex_lock(&process.lock);
    process.inits++;
    pthread_mutex_unlock(&process.lock);
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmShutdown(void)
{
    dcgmReturn_t rc = enter_library(__func__);
    if (rc != DCGM_ST_OK)
        return rc;
    pthread_mutex_lock(&process.lock);
    bool last = process.inits > 0 && --process.inits == 0;
    pthread_mutex_unlock(&process.lock);
    if (last)
        DcgmFieldsTerm();
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmStartEmbedded(dcgmOperationMode_t mode, dcgmHandle_t *handle)
{
    if (!handle || (mode != DCGM_OPERATION_MODE_AUTO && mode != DCGM_OPERATION_MODE_MANUAL))
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = enter_library(__func__);
    if (rc != DCGM_ST_OK)
        return rc;
    pthread_mutex_lock(&process.lock);
    if (process.inits == 0)
        rc = DCGM_ST_UNINITIALIZED;
    else if (!process.engine)
        rc = engine_start(&process.engine);
    pthread_mutex_unlock(&process.lock);
    if (rc == DCGM_ST_OK)
        *handle = DCGM_EMBEDDED_HANDLE;
    return rc;
}

dcgmReturn_t dcgmStopEmbedded(dcgmHandle_t handle)
{
    if (handle != DCGM_EMBEDDED_HANDLE)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = enter_library(__func__);
    if (rc != DCGM_ST_OK)
        return rc;
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

/* host, host:port, [v6]:port; the port defaults in the client */
static dcgmReturn_t connect_to(const char *name, const char *address, bool is_unix, unsigned timeout_ms, bool persist,
                               dcgmHandle_t *handle)
{
    if (!address || !*address || !handle)
        return DCGM_ST_BADPARAM;
    pthread_mutex_lock(&process.lock);
    bool ready = process.inits > 0;
    pthread_mutex_unlock(&process.lock);
    if (!ready)
        return DCGM_ST_UNINITIALIZED;
    dcgmReturn_t rc = enter_library(name);
    return rc != DCGM_ST_OK ? rc : client_connect(address, is_unix, timeout_ms, persist, handle);
}

dcgmReturn_t dcgmConnect(const char *address, dcgmHandle_t *handle)
{
    return connect_to(__func__, address, false, 0, false, handle);
}

dcgmReturn_t dcgmConnect_v2(const char *address, dcgmConnectV2Params_t *params, dcgmHandle_t *handle)
{
    if (!params)
        return DCGM_ST_BADPARAM;
    if (params->version != dcgmConnectV2Params_version && params->version != dcgmConnectV2Params_version1)
        return DCGM_ST_VER_MISMATCH;
    bool v2 = params->version == dcgmConnectV2Params_version;
    return connect_to(__func__, address, v2 && params->addressIsUnixSocket, v2 ? params->timeoutMs : 0,
                      params->persistAfterDisconnect, handle);
}

dcgmReturn_t dcgmConnect_v3(const char *address, dcgmConnectV3Params_t *params, dcgmHandle_t *handle)
{
    if (!params || !address)
        return DCGM_ST_BADPARAM;
    if (params->version != dcgmConnectV3Params_version)
        return DCGM_ST_VER_MISMATCH;
    bool is_unix = strncasecmp(address, DCGM_UNIX_SOCKET_PREFIX, strlen(DCGM_UNIX_SOCKET_PREFIX)) == 0;
    if (is_unix)
        address += strlen(DCGM_UNIX_SOCKET_PREFIX);
    else if (strncasecmp(address, DCGM_TCP_SOCKET_PREFIX, strlen(DCGM_TCP_SOCKET_PREFIX)) == 0)
        address += strlen(DCGM_TCP_SOCKET_PREFIX);
    else if (strncasecmp(address, DCGM_VSOCK_SOCKET_PREFIX, strlen(DCGM_VSOCK_SOCKET_PREFIX)) == 0)
        return DCGM_ST_CONNECTION_NOT_VALID; /* no simulated machine has a host to reach */
    return connect_to(__func__, address, is_unix, params->timeoutMs, params->persistAfterDisconnect, handle);
}

dcgmReturn_t dcgmDisconnect(dcgmHandle_t handle)
{
    dcgmReturn_t rc = enter_library(__func__);
    return rc != DCGM_ST_OK ? rc : client_disconnect(handle);
}

dcgmReturn_t dcgmVersionInfo(dcgmVersionInfo_t *info)
{
    if (!info)
        return DCGM_ST_BADPARAM;
    if (info->version != dcgmVersionInfo_version)
        return DCGM_ST_VER_MISMATCH;
    strncpy(info->rawBuildInfoString, engine_build_info(), sizeof info->rawBuildInfoString - 1);
    return DCGM_ST_OK;
}

/* Structs in and out: the caller's version is checked, then `send` bytes travel and what comes back is copied. */
#define CHECK(pointer, expected)                                                                                       \
    do {                                                                                                               \
        if (!(pointer))                                                                                                \
            return DCGM_ST_BADPARAM;                                                                                   \
        if ((pointer)->version != (expected))                                                                          \
            return DCGM_ST_VER_MISMATCH;                                                                               \
    } while (0)

dcgmReturn_t dcgmHostengineVersionInfo(dcgmHandle_t handle, dcgmVersionInfo_t *info)
{
    CHECK(info, dcgmVersionInfo_version);
    info->rawBuildInfoString[sizeof info->rawBuildInfoString - 1] = 0;
    return transact(handle, CALL_dcgmHostengineVersionInfo, ARGS(0), NULL, 0, info->rawBuildInfoString,
                    sizeof info->rawBuildInfoString - 1, NULL);
}

dcgmReturn_t dcgmHostengineIsHealthy(dcgmHandle_t handle, dcgmHostengineHealth_t *health)
{
    CHECK(health, dcgmHostengineHealth_version);
    health->overallHealth = 0;
    return simple(handle, CALL_dcgmHostengineIsHealthy, ARGS(0));
}

/* --- devices --- */

static dcgmReturn_t devices(dcgmHandle_t handle, enum call call, unsigned *ids, int *count)
{
    size_t used = 0;
    if (!ids || !count)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = transact(handle, call, ARGS(0), NULL, 0, ids, DCGM_MAX_NUM_DEVICES * sizeof *ids, &used);
    if (rc == DCGM_ST_OK)
        *count = (int)(used / sizeof *ids);
    return rc;
}

dcgmReturn_t dcgmGetAllDevices(dcgmHandle_t handle, unsigned int ids[DCGM_MAX_NUM_DEVICES], int *count)
{
    return devices(handle, CALL_dcgmGetAllDevices, ids, count);
}

dcgmReturn_t dcgmGetAllSupportedDevices(dcgmHandle_t handle, unsigned int ids[DCGM_MAX_NUM_DEVICES], int *count)
{
    return devices(handle, CALL_dcgmGetAllSupportedDevices, ids, count);
}

dcgmReturn_t dcgmGetEntityGroupEntities(dcgmHandle_t handle, dcgm_field_entity_group_t group, dcgm_field_eid_t *entities,
                                        int *count, unsigned int flags)
{
    size_t used = 0;
    if (!entities || !count || *count < 1)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = transact(handle, CALL_dcgmGetEntityGroupEntities, ARGS(group, flags), NULL, 0, entities,
                               (size_t)*count * sizeof *entities, &used);
    if (rc != DCGM_ST_OK)
        return rc;
    int room = *count;
    *count = (int)(used / sizeof *entities);
    return *count > room ? DCGM_ST_INSUFFICIENT_SIZE : DCGM_ST_OK;
}

dcgmReturn_t dcgmGetDeviceAttributes(dcgmHandle_t handle, unsigned int gpu, dcgmDeviceAttributes_t *out)
{
    CHECK(out, dcgmDeviceAttributes_version);
    return transact(handle, CALL_dcgmGetDeviceAttributes, ARGS(gpu), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetGpuStatus(dcgmHandle_t handle, unsigned int gpu, DcgmEntityStatus_t *status)
{
    if (!status)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGetGpuStatus, ARGS(gpu), NULL, 0, status, sizeof *status, NULL);
}

dcgmReturn_t dcgmGetGpuChipArchitecture(dcgmHandle_t handle, unsigned int gpu, dcgmChipArchitecture_t *chip)
{
    if (!chip)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGetGpuChipArchitecture, ARGS(gpu), NULL, 0, chip, sizeof *chip, NULL);
}

dcgmReturn_t dcgmGetGpuInstanceHierarchy(dcgmHandle_t handle, dcgmMigHierarchy_v2 *out)
{
    CHECK(out, dcgmMigHierarchy_version2);
    return transact(handle, CALL_dcgmGetGpuInstanceHierarchy, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

/* A caller of before 36 links a GPU passes the struct of its version in place of this one. */
static void link_status_v4(const dcgmNvLinkStatus_v5 *from, dcgmNvLinkStatus_v4 *to)
{
    to->numGpus = from->numGpus;
    for (unsigned i = 0; i < from->numGpus; i++) {
        to->gpus[i].entityId = from->gpus[i].entityId;
        memcpy(to->gpus[i].linkState, from->gpus[i].linkState, sizeof to->gpus[i].linkState);
    }
    to->numNvSwitches = from->numNvSwitches;
    memcpy(to->nvSwitches, from->nvSwitches, sizeof to->nvSwitches);
}

dcgmReturn_t dcgmGetNvLinkLinkStatus(dcgmHandle_t handle, dcgmNvLinkStatus_v5 *out)
{
    if (!out)
        return DCGM_ST_BADPARAM;
    if (out->version != dcgmNvLinkStatus_version4) {
        CHECK(out, dcgmNvLinkStatus_version5);
        return transact(handle, CALL_dcgmGetNvLinkLinkStatus, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
    }
    dcgmNvLinkStatus_v5 *now = calloc(1, sizeof *now);
    if (!now)
        return DCGM_ST_MEMORY;
    dcgmReturn_t rc = transact(handle, CALL_dcgmGetNvLinkLinkStatus, ARGS(0), NULL, 0, now, sizeof *now, NULL);
    if (rc == DCGM_ST_OK)
        link_status_v4(now, (dcgmNvLinkStatus_v4 *)(void *)out);
    free(now);
    return rc;
}

dcgmReturn_t dcgmGetNvLinkP2PStatus(dcgmHandle_t handle, dcgmNvLinkP2PStatus_v1 *out)
{
    CHECK(out, dcgmNvLinkP2PStatus_version1);
    return transact(handle, CALL_dcgmGetNvLinkP2PStatus, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetCpuHierarchy(dcgmHandle_t handle, dcgmCpuHierarchy_v1 *out)
{
    dcgmCpuHierarchy_v2 now;
    CHECK(out, dcgmCpuHierarchy_version1);
    dcgmReturn_t rc = transact(handle, CALL_dcgmGetCpuHierarchy, ARGS(0), NULL, 0, &now, sizeof now, NULL);
    if (rc != DCGM_ST_OK)
        return rc;
    out->numCpus = now.numCpus;
    for (unsigned i = 0; i < now.numCpus; i++) {
        out->cpus[i].cpuId = now.cpus[i].cpuId;
        out->cpus[i].ownedCores = now.cpus[i].ownedCores;
    }
    return DCGM_ST_OK;
}

dcgmReturn_t dcgmGetCpuHierarchy_v2(dcgmHandle_t handle, dcgmCpuHierarchy_v2 *out)
{
    CHECK(out, dcgmCpuHierarchy_version2);
    return transact(handle, CALL_dcgmGetCpuHierarchy_v2, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetDeviceTopology(dcgmHandle_t handle, unsigned int gpu, dcgmDeviceTopology_v2 *out)
{
    CHECK(out, dcgmDeviceTopology_version2);
    return transact(handle, CALL_dcgmGetDeviceTopology, ARGS(gpu), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGetGroupTopology(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmGroupTopology_v2 *out)
{
    CHECK(out, dcgmGroupTopology_version2);
    return transact(handle, CALL_dcgmGetGroupTopology, ARGS(group), out, sizeof out->version, out, sizeof *out, NULL);
}

/* --- groups --- */

dcgmReturn_t dcgmGroupCreate(dcgmHandle_t handle, dcgmGroupType_t type, const char *name, dcgmGpuGrp_t *id)
{
    if (!name || !id || strlen(name) >= DCGM_MAX_STR_LENGTH)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGroupCreate, ARGS((uint64_t)type), name, strlen(name), id, sizeof *id, NULL);
}

dcgmReturn_t dcgmGroupDestroy(dcgmHandle_t handle, dcgmGpuGrp_t group)
{
    return simple(handle, CALL_dcgmGroupDestroy, ARGS(group));
}

dcgmReturn_t dcgmGroupAddDevice(dcgmHandle_t handle, dcgmGpuGrp_t group, unsigned int gpu)
{
    return simple(handle, CALL_dcgmGroupAddDevice, ARGS(group, DCGM_FE_GPU, gpu));
}

dcgmReturn_t dcgmGroupAddEntity(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgm_field_entity_group_t entity_group, dcgm_field_eid_t id)
{
    return simple(handle, CALL_dcgmGroupAddEntity, ARGS(group, entity_group, id));
}

dcgmReturn_t dcgmGroupRemoveDevice(dcgmHandle_t handle, dcgmGpuGrp_t group, unsigned int gpu)
{
    return simple(handle, CALL_dcgmGroupRemoveDevice, ARGS(group, DCGM_FE_GPU, gpu));
}

dcgmReturn_t dcgmGroupRemoveEntity(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgm_field_entity_group_t entity_group, dcgm_field_eid_t id)
{
    return simple(handle, CALL_dcgmGroupRemoveEntity, ARGS(group, entity_group, id));
}

dcgmReturn_t dcgmGroupGetInfo(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmGroupInfo_t *out)
{
    CHECK(out, dcgmGroupInfo_version3);
    return transact(handle, CALL_dcgmGroupGetInfo, ARGS(group), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmGroupGetAllIds(dcgmHandle_t handle, dcgmGpuGrp_t ids[], unsigned int *count)
{
    size_t used = 0;
    if (!ids || !count)
        return DCGM_ST_BADPARAM;
    dcgmReturn_t rc = transact(handle, CALL_dcgmGroupGetAllIds, ARGS(0), NULL, 0, ids, DCGM_MAX_NUM_GROUPS * sizeof *ids, &used);
    if (rc == DCGM_ST_OK)
        *count = (unsigned)(used / sizeof *ids);
    return rc;
}

dcgmReturn_t dcgmFieldGroupCreate(dcgmHandle_t handle, int count, const unsigned short *fields, const char *name, dcgmFieldGrp_t *id)
{
    uint8_t payload[DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP * sizeof *fields + DCGM_MAX_STR_LENGTH];
    if (count < 1 || count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP || !fields || !name || !*name ||
        strlen(name) >= DCGM_MAX_STR_LENGTH || !id)
        return DCGM_ST_BADPARAM;
    size_t ids = (size_t)count * sizeof *fields;
    memcpy(payload, fields, ids);
    memcpy(payload + ids, name, strlen(name));
    return transact(handle, CALL_dcgmFieldGroupCreate, ARGS((uint64_t)count), payload, ids + strlen(name), id, sizeof *id, NULL);
}

dcgmReturn_t dcgmFieldGroupDestroy(dcgmHandle_t handle, dcgmFieldGrp_t id)
{
    return simple(handle, CALL_dcgmFieldGroupDestroy, ARGS(id));
}

dcgmReturn_t dcgmFieldGroupGetInfo(dcgmHandle_t handle, dcgmFieldGroupInfo_t *info)
{
    CHECK(info, dcgmFieldGroupInfo_version);
    return transact(handle, CALL_dcgmFieldGroupGetInfo, ARGS(0), info, sizeof *info, info, sizeof *info, NULL);
}

/* --- watches and values --- */

dcgmReturn_t dcgmWatchFields(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields, long long interval, double age, int samples)
{
    if (samples < 0)
        return DCGM_ST_BADPARAM;
    return simple(handle, CALL_dcgmWatchFields, ARGS(group, fields, (uint64_t)samples, interval, age));
}

dcgmReturn_t dcgmUnwatchFields(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields)
{
    return simple(handle, CALL_dcgmUnwatchFields, ARGS(group, fields));
}

dcgmReturn_t dcgmUpdateAllFields(dcgmHandle_t handle, int wait)
{
    return simple(handle, CALL_dcgmUpdateAllFields, ARGS((uint64_t)wait));
}

/* The hot path: embedded, straight from the samples into the caller's buffer. */
dcgmReturn_t dcgmEntitiesGetLatestValues(dcgmHandle_t handle, dcgmGroupEntityPair_t entities[], unsigned int entity_count,
                                         unsigned short fields[], unsigned int field_count, unsigned int flags,
                                         dcgmFieldValue_v2 values[])
{
    if (handle == DCGM_EMBEDDED_HANDLE) {
        struct engine *e = acquire();
        if (!e)
            return DCGM_ST_UNINITIALIZED;
        dcgmReturn_t rc = call_enter(e->node, __func__);
        if (rc == DCGM_ST_OK)
            rc = watch_latest(e, entities, entity_count, fields, field_count, flags, values);
        release();
        return rc;
    }
    if (!entities || !fields || !values || entity_count < 1 || field_count < 1 ||
        entity_count > DCGM_GROUP_MAX_ENTITIES_V2 || field_count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP)
        return DCGM_ST_BADPARAM;
    uint8_t payload[DCGM_GROUP_MAX_ENTITIES_V2 * sizeof entities[0] + DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP * sizeof fields[0]];
    struct call_args args = ARGS(entity_count, field_count, flags);
    uint8_t *data = NULL;
    size_t size = 0;
    memcpy(payload, entities, entity_count * sizeof entities[0]);
    memcpy(payload + entity_count * sizeof entities[0], fields, field_count * sizeof fields[0]);
    dcgmReturn_t rc = client_call(handle, CALL_dcgmEntitiesGetLatestValues, &args, payload,
                                  entity_count * sizeof entities[0] + field_count * sizeof fields[0], &data, &size);
    struct value_reader r = {.at = data, .end = data + size};
    struct value v;
    for (size_t i = 0; rc == DCGM_ST_OK && i < (size_t)entity_count * field_count; i++) {
        if (value_reader_next(&r, &v))
            value_to_v2(&v, &values[i]);
        else
            rc = DCGM_ST_GENERIC_ERROR;
    }
    free(data);
    return rc;
}

static dcgmReturn_t latest_v1(dcgmHandle_t handle, enum call call, dcgm_field_entity_group_t group, int id,
                              unsigned short fields[], unsigned count, dcgmFieldValue_v1 values[])
{
    uint8_t payload[sizeof(dcgmGroupEntityPair_t) + DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP * sizeof fields[0]], *data = NULL;
    if (!fields || !values || count < 1 || count > DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP)
        return DCGM_ST_BADPARAM;
    dcgmGroupEntityPair_t pair = {group, (dcgm_field_eid_t)id};
    memcpy(payload, &pair, sizeof pair);
    memcpy(payload + sizeof pair, fields, count * sizeof fields[0]);
    struct call_args args = ARGS(1, count, 0);
    size_t size = 0, len = sizeof pair + count * sizeof fields[0];
    dcgmReturn_t rc;
    if (handle == DCGM_EMBEDDED_HANDLE) {
        struct buffer b = {0};
        struct engine *e = acquire();
        if (!e)
            return DCGM_ST_UNINITIALIZED;
        rc = call_perform(e, OWNER_EMBEDDED, call, &args, payload, len, &b, NULL, NULL);
        release();
        data = b.data;
        size = b.len;
    } else {
        rc = client_call(handle, call, &args, payload, len, &data, &size);
    }
    struct value_reader r = {.at = data, .end = data + size};
    struct value v;
    for (unsigned i = 0; rc == DCGM_ST_OK && i < count; i++) {
        if (value_reader_next(&r, &v))
            value_to_v1(&v, &values[i]);
        else
            rc = DCGM_ST_GENERIC_ERROR;
    }
    free(data);
    return rc;
}

dcgmReturn_t dcgmEntityGetLatestValues(dcgmHandle_t handle, dcgm_field_entity_group_t group, int id, unsigned short fields[],
                                       unsigned int count, dcgmFieldValue_v1 values[])
{
    return latest_v1(handle, CALL_dcgmEntityGetLatestValues, group, id, fields, count, values);
}

dcgmReturn_t dcgmGetLatestValuesForFields(dcgmHandle_t handle, int gpu, unsigned short fields[], unsigned int count,
                                          dcgmFieldValue_v1 values[])
{
    return latest_v1(handle, CALL_dcgmGetLatestValuesForFields, DCGM_FE_GPU, gpu, fields, count, values);
}

/* Values of groups, handed to a callback one at a time; either kind of callback. */
static dcgmReturn_t enumerate(dcgmHandle_t handle, enum call call, struct call_args args, long long *next,
                              dcgmFieldValueEnumeration_f by_gpu, dcgmFieldValueEntityEnumeration_f by_entity, void *user)
{
    uint8_t *data = NULL;
    size_t size = 0;
    dcgmReturn_t rc;
    if (!by_gpu && !by_entity)
        return DCGM_ST_BADPARAM;
    if (next)
        *next = args.d;
    if (handle == DCGM_EMBEDDED_HANDLE) {
        struct buffer b = {0};
        struct engine *e = acquire();
        if (!e)
            return DCGM_ST_UNINITIALIZED;
        rc = call_perform(e, OWNER_EMBEDDED, call, &args, NULL, 0, &b, NULL, NULL);
        release();
        data = b.data;
        size = b.len;
    } else {
        rc = client_call(handle, call, &args, NULL, 0, &data, &size);
    }
    int64_t until = args.d;
    if (rc == DCGM_ST_OK && size < sizeof until)
        rc = DCGM_ST_GENERIC_ERROR;
    dcgmFieldValue_v1 *one = rc == DCGM_ST_OK ? calloc(1, sizeof *one) : NULL;
    if (rc == DCGM_ST_OK && !one)
        rc = DCGM_ST_MEMORY;
    if (rc == DCGM_ST_OK) {
        memcpy(&until, data, sizeof until);
        struct value_reader r = {.at = data + sizeof until, .end = data + size};
        struct value v;
        int stop = 0;
        while (!stop && value_reader_next(&r, &v)) {
            value_to_v1(&v, one);
            if (by_entity)
                stop = by_entity((dcgm_field_entity_group_t)v.group, v.entity_id, one, 1, user);
            else if (v.group == DCGM_FE_GPU || v.group == DCGM_FE_NONE)
                stop = by_gpu(v.entity_id, one, 1, user);
        }
        if (!stop && next)
            *next = until;
    }
    free(one);
    free(data);
    return rc;
}

dcgmReturn_t dcgmGetValuesSince(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields, long long since, long long *next,
                                dcgmFieldValueEnumeration_f callback, void *user)
{
    if (!next)
        return DCGM_ST_BADPARAM;
    return enumerate(handle, CALL_dcgmGetValuesSince, ARGS(group, fields, 0, since), next, callback, NULL, user);
}

dcgmReturn_t dcgmGetValuesSince_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields, long long since,
                                   long long *next, dcgmFieldValueEntityEnumeration_f callback, void *user)
{
    if (!next)
        return DCGM_ST_BADPARAM;
    return enumerate(handle, CALL_dcgmGetValuesSince_v2, ARGS(group, fields, 0, since), next, NULL, callback, user);
}

dcgmReturn_t dcgmGetLatestValues(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields,
                                 dcgmFieldValueEnumeration_f callback, void *user)
{
    return enumerate(handle, CALL_dcgmGetLatestValues, ARGS(group, fields), NULL, callback, NULL, user);
}

dcgmReturn_t dcgmGetLatestValues_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmFieldGrp_t fields,
                                    dcgmFieldValueEntityEnumeration_f callback, void *user)
{
    return enumerate(handle, CALL_dcgmGetLatestValues_v2, ARGS(group, fields), NULL, NULL, callback, user);
}

dcgmReturn_t dcgmInjectFieldValue(dcgmHandle_t handle, unsigned int gpu, dcgmInjectFieldValue_t *value)
{
    CHECK(value, dcgmInjectFieldValue_version1);
    return transact(handle, CALL_dcgmInjectFieldValue, ARGS(gpu), value, sizeof *value, NULL, 0, NULL);
}

/* --- processes, health, policy --- */

dcgmReturn_t dcgmWatchPidFields(dcgmHandle_t handle, dcgmGpuGrp_t group, long long interval, double age, int samples)
{
    (void)age;
    (void)samples;
    return interval > 0 ? simple(handle, CALL_dcgmWatchPidFields, ARGS(group)) : DCGM_ST_BADPARAM;
}

dcgmReturn_t dcgmGetPidInfo(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPidInfo_t *info)
{
    CHECK(info, dcgmPidInfo_version2);
    if (info->pid == 0)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmGetPidInfo, ARGS(group), info, offsetof(dcgmPidInfo_t, unused), info, sizeof *info, NULL);
}

dcgmReturn_t dcgmHealthSet(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmHealthSystems_t systems)
{
    return simple(handle, CALL_dcgmHealthSet, ARGS(group, (uint32_t)systems));
}

dcgmReturn_t dcgmHealthSet_v2(dcgmHandle_t handle, dcgmHealthSetParams_v2 *params)
{
    CHECK(params, dcgmHealthSetParams_version2);
    return simple(handle, CALL_dcgmHealthSet_v2, ARGS(params->groupId, (uint32_t)params->systems));
}

dcgmReturn_t dcgmHealthGet(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmHealthSystems_t *systems)
{
    if (!systems)
        return DCGM_ST_BADPARAM;
    return transact(handle, CALL_dcgmHealthGet, ARGS(group), NULL, 0, systems, sizeof *systems, NULL);
}

dcgmReturn_t dcgmHealthCheck(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmHealthResponse_t *out)
{
    CHECK(out, dcgmHealthResponse_version5);
    return transact(handle, CALL_dcgmHealthCheck, ARGS(group), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmPolicySet(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicy_t *policy, dcgmStatus_t status)
{
    (void)status;
    CHECK(policy, dcgmPolicy_version);
    return transact(handle, CALL_dcgmPolicySet, ARGS(group), policy, sizeof *policy, NULL, 0, NULL);
}

dcgmReturn_t dcgmPolicyGet(dcgmHandle_t handle, dcgmGpuGrp_t group, int count, dcgmPolicy_t *policy, dcgmStatus_t status)
{
    (void)status;
    if (count < 1 || count > DCGM_MAX_NUM_DEVICES)
        return DCGM_ST_BADPARAM;
    CHECK(policy, dcgmPolicy_version);
    return transact(handle, CALL_dcgmPolicyGet, ARGS(group, (uint64_t)count), NULL, 0, policy, (size_t)count * sizeof *policy, NULL);
}

dcgmReturn_t dcgmPolicyRegister_v2(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicyCondition_t condition,
                                   fpRecvUpdates callback, uint64_t user_data)
{
    if (!callback)
        return DCGM_ST_BADPARAM;
    if (handle != DCGM_EMBEDDED_HANDLE) {
        static atomic_ulong next_id = 1;
        uint64_t id = atomic_fetch_add(&next_id, 1);
        client_set_callback(handle, id, callback, user_data);
        return simple(handle, CALL_dcgmPolicyRegister_v2, ARGS(group, (uint32_t)condition, id));
    }
    struct embedded_callback *c = malloc(sizeof *c);
    if (!c)
        return DCGM_ST_MEMORY;
    pthread_mutex_lock(&process.lock);
    *c = (struct embedded_callback){callback, user_data, process.callbacks};
    process.callbacks = c;
    pthread_mutex_unlock(&process.lock);
    return simple(handle, CALL_dcgmPolicyRegister_v2, ARGS(group, (uint32_t)condition, 0, (int64_t)(intptr_t)c));
}

dcgmReturn_t dcgmPolicyUnregister(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicyCondition_t condition)
{
    return simple(handle, CALL_dcgmPolicyUnregister, ARGS(group, (uint32_t)condition));
}

dcgmReturn_t dcgmPolicyTrigger(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmPolicyTrigger, ARGS(0));
}

/* --- the engine, profiling, driver --- */

dcgmReturn_t dcgmIntrospectGetHostengineMemoryUsage(dcgmHandle_t handle, dcgmIntrospectMemory_t *out, int wait)
{
    (void)wait;
    CHECK(out, dcgmIntrospectMemory_version1);
    return transact(handle, CALL_dcgmIntrospectGetHostengineMemoryUsage, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmIntrospectGetHostengineCpuUtilization(dcgmHandle_t handle, dcgmIntrospectCpuUtil_t *out, int wait)
{
    (void)wait;
    CHECK(out, dcgmIntrospectCpuUtil_version1);
    return transact(handle, CALL_dcgmIntrospectGetHostengineCpuUtilization, ARGS(0), out, sizeof out->version, out, sizeof *out, NULL);
}

dcgmReturn_t dcgmProfGetSupportedMetricGroups(dcgmHandle_t handle, dcgmProfGetMetricGroups_t *out)
{
    CHECK(out, dcgmProfGetMetricGroups_version3);
    return transact(handle, CALL_dcgmProfGetSupportedMetricGroups, ARGS(0), out,
                    offsetof(dcgmProfGetMetricGroups_t, numMetricGroups), out, sizeof *out, NULL);
}

dcgmReturn_t dcgmProfPause(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmProfPause, ARGS(0));
}

dcgmReturn_t dcgmProfResume(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmProfResume, ARGS(0));
}

dcgmReturn_t dcgmAttachDriver(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmAttachDriver, ARGS(0));
}

dcgmReturn_t dcgmDetachDriver(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmDetachDriver, ARGS(0));
}

/* --- what this engine does not do, answered as an engine without the part answers --- */

dcgmReturn_t dcgmCreateFakeEntities(dcgmHandle_t handle, dcgmCreateFakeEntities_t *entities)
{
    CHECK(entities, dcgmCreateFakeEntities_version);
    return simple(handle, CALL_dcgmCreateFakeEntities, ARGS(0));
}

dcgmReturn_t dcgmRunDiagnostic(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmDiagnosticLevel_t level, dcgmDiagResponse_v12 *out)
{
    CHECK(out, dcgmDiagResponse_version12);
    return simple(handle, CALL_dcgmRunDiagnostic, ARGS(group, (uint64_t)level));
}

dcgmReturn_t dcgmActionValidate(dcgmHandle_t handle, dcgmGpuGrp_t group, dcgmPolicyValidation_t level, dcgmDiagResponse_v12 *out)
{
    CHECK(out, dcgmDiagResponse_version12);
    return simple(handle, CALL_dcgmActionValidate, ARGS(group, (uint64_t)level));
}

dcgmReturn_t dcgmStopDiagnostic(dcgmHandle_t handle)
{
    return simple(handle, CALL_dcgmStopDiagnostic, ARGS(0));
}

dcgmReturn_t dcgmModuleGetStatuses(dcgmHandle_t handle, dcgmModuleGetStatuses_t *out)
{
    if (!out)
        return DCGM_ST_BADPARAM;
    return simple(handle, CALL_dcgmModuleGetStatuses, ARGS(0));
}
