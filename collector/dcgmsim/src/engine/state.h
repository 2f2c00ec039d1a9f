/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The data that an engine keeps in its process. Locking: engine.lock guards
 * every member. It is not held while a fault delays a call, nor while a caller's
 * callback runs.
 */
#ifndef DCGMSIM_ENGINE_STATE_H
#define DCGMSIM_ENGINE_STATE_H

#include "engine/fields.h"
#include "node/node.h"
#include "node/reading.h"

#include "dcgm_test_apis.h"
#include "dcgm_test_structs.h"

#include <string.h>

/* The owner of watches and groups is the number of a connection, or this one for the embedding process. */
#define OWNER_EMBEDDED 0u

struct sample { /* the type of the field selects the member of v */
    int64_t ts;
    union {
        int64_t i64;
        double dbl;
        const char *str; /* interned */
    } v;
};

struct watcher {
    uint32_t owner;
    int64_t interval_us, max_age_us;
};

struct watch { /* one field of one entity */
    uint32_t entity_id;
    uint16_t field;
    uint8_t group;
    char type;
    bool profiling_primed, cpu_primed;
    int64_t interval_us, max_age_us, due_us, sampled_us;
    double last_total; /* of a counter that is published as a rate */
    int64_t last_total_us;
    struct watcher *watchers;
    uint32_t watcher_count;
    struct sample *ring;
    uint32_t cap, head, len; /* ring[(head + k) % cap], oldest first */
};

struct group {
    bool used;
    uint32_t id, owner;
    char name[DCGM_MAX_STR_LENGTH];
    dcgmGroupEntityPair_t *entities;
    uint32_t count;
    /* health checks */
    uint32_t health_systems;
    int64_t health_since_us;
    int64_t health_power_ns[NODE_MAX_GPUS], health_thermal_ns[NODE_MAX_GPUS]; /* violation times at health_since_us */
    bool pids_watched;
};

struct field_group {
    bool used, internal;
    uint32_t id, owner;
    char name[DCGM_MAX_STR_LENGTH];
    uint16_t fields[DCGM_MAX_FIELD_IDS_PER_FIELD_GROUP];
    uint32_t count;
};

struct policy { /* of one GPU */
    bool set;
    dcgmPolicy_t value;
    bool over_temperature, over_power; /* beyond the limit at the previous check */
    double dbe, pci, retired_sbe, retired_dbe, nvlink;
};

/* Delivers a violation to its subscriber. Called without engine.lock. */
typedef void (*policy_deliver)(void *to, uint64_t registration, const dcgmPolicyCallbackResponse_t *response);

struct registration {
    bool used;
    uint32_t owner, group;
    uint32_t conditions;
    uint64_t id;
    policy_deliver deliver;
    void *to;
};

/* A copy of the node at one moment. Readings are computed on first use. */
struct snapshot {
    int64_t time_us;
    uint32_t gpu_count;
    struct node_gpu gpu[NODE_MAX_GPUS];
    bool have_gpu[NODE_MAX_GPUS];
    bool have_gi[NODE_MAX_GPUS][NODE_MAX_GIS];
    bool have_ci[NODE_MAX_GPUS][NODE_MAX_CIS];
    struct node_reading gpu_reading[NODE_MAX_GPUS];
    struct node_reading gi_reading[NODE_MAX_GPUS][NODE_MAX_GIS];
    struct node_reading ci_reading[NODE_MAX_GPUS][NODE_MAX_CIS];
    bool have_throttle[NODE_MAX_GPUS];
    struct node_throttle throttle[NODE_MAX_GPUS];
    uint32_t switch_count;
    bool gpu_ports;
    struct node_switch nvswitch[NODE_MAX_SWITCHES];
    uint32_t cpu_count;
    struct node_cpu cpu[NODE_MAX_CPUS];
    bool have_cpu[NODE_MAX_CPUS];
    struct node_cpu_reading cpu_reading[NODE_MAX_CPUS]; /* mean of its cores */
    uint32_t generation; /* of the node, when gpu[] was copied */
    uint32_t override_generation;
    uint32_t override_count;
    struct node_override override[NODE_MAX_OVERRIDES];
};

#define MAX_REGISTRATIONS 64

struct engine {
    struct node_state *node;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool started, stopping;
    int64_t started_us;
    bool driver_dead; /* after a fatal XID every field is blank until a restart */
    uint64_t xid_seen;
    int64_t xid_due_us; /* when the next XID may be received, if node_state.xid_pace_us is set */
    bool profiling_paused;
    uint32_t profiling_repaired[NODE_MAX_GPUS]; /* node_gpu.profiling_seq of the fault that a new watch repaired */
    uint32_t print_seen;
    int64_t policy_due_us;
    uint64_t policy_xid_seen;
    uint64_t health_xid_seen;
    uint32_t health_gpus;                /* bit mask, by DCGM id: health checks receive the XIDs of the GPU */
    uint32_t health_xids[NODE_MAX_GPUS]; /* by DCGM id: bit mask of the incidents of health.c, which are never removed */
    uint32_t detached_seen; /* bit mask of the GPUs */
    int64_t rebinding_until_us; /* an event of one GPU detaches all GPUs until then */
    struct snapshot snapshot;
    struct watch **watches;
    uint32_t watch_count, watch_cap;
    uint32_t *index; /* open addressing: position in watches + 1 */
    uint32_t index_cap;
    struct group groups[DCGM_MAX_NUM_GROUPS];
    struct field_group field_groups[DCGM_MAX_NUM_FIELD_GROUPS];
    uint32_t next_group, next_field_group;
    struct policy policies[NODE_MAX_GPUS];
    struct registration registrations[MAX_REGISTRATIONS];
    const char **strings; /* interned */
    uint32_t string_count, string_cap;
    struct control *control;
};

/* Zeroes a struct of the API, except its version, which the caller set. */
#define RESET_VERSIONED(out)                  \
    do {                                      \
        unsigned kept_version = (out)->version; \
        memset((out), 0, sizeof *(out));      \
        (out)->version = kept_version;        \
    } while (0)

#endif
