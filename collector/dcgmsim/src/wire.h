/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One form for every call that needs an engine: fixed arguments, a payload in,
 * a payload out. Embedded it is a function call; standalone it crosses a
 * socket. The form is our own: nothing else speaks it.
 */
#ifndef DCGMSIM_WIRE_H
#define DCGMSIM_WIRE_H

#include "engine.h"

#define WIRE_MAGIC 0x4d495344u /* "DSIM" */
#define WIRE_VERSION 1
#define WIRE_MAX_PAYLOAD (64u << 20)

/* Every API function that an engine serves. */
#define WIRE_CALLS(X)                                                                                                  \
    X(dcgmHostengineVersionInfo)                                                                                       \
    X(dcgmHostengineIsHealthy)                                                                                         \
    X(dcgmGetAllDevices)                                                                                               \
    X(dcgmGetAllSupportedDevices)                                                                                      \
    X(dcgmGetDeviceAttributes)                                                                                         \
    X(dcgmGetGpuStatus)                                                                                                \
    X(dcgmGetEntityGroupEntities)                                                                                      \
    X(dcgmGetGpuChipArchitecture)                                                                                      \
    X(dcgmGetGpuInstanceHierarchy)                                                                                     \
    X(dcgmGetNvLinkLinkStatus)                                                                                         \
    X(dcgmGetNvLinkP2PStatus)                                                                                          \
    X(dcgmGetCpuHierarchy)                                                                                             \
    X(dcgmGetCpuHierarchy_v2)                                                                                          \
    X(dcgmGroupCreate)                                                                                                 \
    X(dcgmGroupDestroy)                                                                                                \
    X(dcgmGroupAddDevice)                                                                                              \
    X(dcgmGroupAddEntity)                                                                                              \
    X(dcgmGroupRemoveDevice)                                                                                           \
    X(dcgmGroupRemoveEntity)                                                                                           \
    X(dcgmGroupGetInfo)                                                                                                \
    X(dcgmGroupGetAllIds)                                                                                              \
    X(dcgmFieldGroupCreate)                                                                                            \
    X(dcgmFieldGroupDestroy)                                                                                           \
    X(dcgmFieldGroupGetInfo)                                                                                           \
    X(dcgmWatchFields)                                                                                                 \
    X(dcgmUnwatchFields)                                                                                               \
    X(dcgmUpdateAllFields)                                                                                             \
    X(dcgmGetValuesSince)                                                                                              \
    X(dcgmGetValuesSince_v2)                                                                                           \
    X(dcgmGetLatestValues)                                                                                             \
    X(dcgmGetLatestValues_v2)                                                                                          \
    X(dcgmGetLatestValuesForFields)                                                                                    \
    X(dcgmEntityGetLatestValues)                                                                                       \
    X(dcgmEntitiesGetLatestValues)                                                                                     \
    X(dcgmWatchPidFields)                                                                                              \
    X(dcgmGetPidInfo)                                                                                                  \
    X(dcgmHealthSet)                                                                                                   \
    X(dcgmHealthSet_v2)                                                                                                \
    X(dcgmHealthGet)                                                                                                   \
    X(dcgmHealthCheck)                                                                                                 \
    X(dcgmPolicySet)                                                                                                   \
    X(dcgmPolicyGet)                                                                                                   \
    X(dcgmPolicyRegister_v2)                                                                                           \
    X(dcgmPolicyUnregister)                                                                                            \
    X(dcgmPolicyTrigger)                                                                                               \
    X(dcgmGetDeviceTopology)                                                                                           \
    X(dcgmGetGroupTopology)                                                                                            \
    X(dcgmIntrospectGetHostengineMemoryUsage)                                                                          \
    X(dcgmIntrospectGetHostengineCpuUtilization)                                                                       \
    X(dcgmProfGetSupportedMetricGroups)                                                                                \
    X(dcgmProfPause)                                                                                                   \
    X(dcgmProfResume)                                                                                                  \
    X(dcgmInjectFieldValue)                                                                                            \
    X(dcgmAttachDriver)                                                                                                \
    X(dcgmDetachDriver)                                                                                                \
    X(dcgmCreateFakeEntities)                                                                                          \
    X(dcgmRunDiagnostic)                                                                                               \
    X(dcgmActionValidate)                                                                                              \
    X(dcgmStopDiagnostic)                                                                                              \
    X(dcgmModuleGetStatuses)

enum call {
#define X(name) CALL_##name,
    WIRE_CALLS(X)
#undef X
        CALL_COUNT,
    CALL_hello = 1000, /* first frame of a connection */
};

extern const char *const call_names[];

struct call_args {
    uint64_t a, b, c;
    int64_t d;
    double f;
};

enum frame_kind { FRAME_REQUEST, FRAME_ANSWER, FRAME_POLICY };

struct frame {
    uint32_t magic, length; /* of what follows: call_args of a request, then payload */
    uint32_t id;
    uint16_t call, kind;
    int32_t status;
    uint32_t unused;
};

struct buffer {
    uint8_t *data;
    size_t len, cap;
    bool failed; /* out of memory */
};
void buffer_add(struct buffer *b, const void *data, size_t len);
void buffer_add_value(struct buffer *b, const struct value *v);

/*
 * Carries out a call on an engine: faults first, then the call. Policy
 * violations go to deliver(to, …).
 */
dcgmReturn_t call_perform(struct engine *e, uint32_t owner, enum call call, const struct call_args *args,
                          const void *payload, size_t len, struct buffer *out, policy_deliver deliver, void *to);
/* The faults on a call, and a lost engine. */
dcgmReturn_t call_enter(struct node_state *n, const char *name);

/* Values as buffer_add_value wrote them; returns false at the end or at nonsense. */
struct value_reader {
    const uint8_t *at, *end;
    char text[DCGM_MAX_STR_LENGTH]; /* of the value read last */
};
bool value_reader_next(struct value_reader *r, struct value *v);

/* Blocking transfer of a whole buffer; 0, or -1 when the peer is gone. */
int wire_send(int fd, const struct frame *f, const struct call_args *args, const void *payload, size_t len);
int wire_read(int fd, void *to, size_t len);

/* client.c */
struct conn;
dcgmReturn_t client_connect(const char *address, bool is_unix, unsigned timeout_ms, bool persist, dcgmHandle_t *handle);
dcgmReturn_t client_disconnect(dcgmHandle_t handle);
/* Answer's payload is malloc'd into *out; the caller frees it. */
dcgmReturn_t client_call(dcgmHandle_t handle, enum call call, const struct call_args *args, const void *payload,
                         size_t len, uint8_t **out, size_t *out_len);
void client_set_callback(dcgmHandle_t handle, uint64_t id, fpRecvUpdates callback, uint64_t user_data);

#endif
