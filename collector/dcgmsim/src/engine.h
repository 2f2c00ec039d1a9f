/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The engine: what a DCGM host engine keeps in its process, over the simulated
 * node. It serves libdcgm.so.4 in embedded mode, and dcgmsimd behind a socket.
 *
 * Locking: e->lock guards everything in struct engine. It is never held while
 * a fault makes a call wait, nor while a caller's callback runs.
 */
#ifndef DCGMSIM_ENGINE_H
#define DCGMSIM_ENGINE_H

#include "node.h"

#include "dcgm_agent.h"
#include "dcgm_errors.h"
#include "dcgm_fields.h"
#include "dcgm_structs.h"
#include "dcgm_test_apis.h"
#include "dcgm_test_structs.h"

/* Facts on a field: fieldtable.c. */
struct field_fact {
    uint16_t id;
    char type;
    int scope, level, nvml_id, size;
    short width;
    const char *tag, *short_name, *unit;
};
extern const struct field_fact field_facts[];
extern const size_t field_facts_len;
const struct field_fact *field_fact(unsigned id); /* NULL when unknown */

/* Who watches: a connection, or the embedding process. */
#define OWNER_EMBEDDED 0u

struct sample { /* the field's type tells which member */
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
    double last_total; /* of counters that are published as a rate */
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
    /* health */
    uint32_t health_systems;
    int64_t health_since_us;
    uint64_t health_xid_seq;
    int64_t health_power_ns[NODE_MAX_GPUS], health_thermal_ns[NODE_MAX_GPUS]; /* of violation, at health_since_us */
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
    bool thermal_out, power_out; /* beyond the limit at the last look */
    double dbe, pci, retired_sbe, retired_dbe, nvlink;
};

/* How a violation reaches who asked for it; called without the engine's lock. */
typedef void (*policy_deliver)(void *to, uint64_t registration, const dcgmPolicyCallbackResponse_t *response);

struct registration {
    bool used;
    uint32_t owner, group;
    uint32_t conditions;
    uint64_t id;
    policy_deliver deliver;
    void *to;
};

/* One look at the node; readings are made when first asked for. */
struct snapshot {
    int64_t now_us;
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
    bool stopping;
    int64_t started_us;
    bool driver_dead; /* a fatal XID was seen: everything blank until restart */
    uint64_t xid_seen;
    int64_t xid_due_us; /* when the next XID is taken, if they come at a pace */
    bool profiling_paused;
    uint32_t profiling_mended[NODE_MAX_GPUS]; /* node_gpu.profiling_seq of the fault that a new watch mended */
    uint32_t print_seen;
    int64_t policy_due_us;
    uint64_t policy_xid_seen;
    struct snapshot now;
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

/* engine.c */
dcgmReturn_t engine_start(struct engine **out);
void engine_stop(struct engine *e);
void engine_look(struct engine *e); /* fresh snapshot; lock held */
void engine_forget_owner(struct engine *e, uint32_t owner);
dcgmReturn_t engine_devices(struct engine *e, bool only_supported, unsigned *ids, int *count);
dcgmReturn_t engine_entities(struct engine *e, int group, unsigned flags, unsigned *ids, int *count);
dcgmReturn_t engine_gpu_status(struct engine *e, unsigned gpu, DcgmEntityStatus_t *status);
dcgmReturn_t engine_attributes(struct engine *e, unsigned gpu, dcgmDeviceAttributes_t *out);
dcgmReturn_t engine_hierarchy(struct engine *e, dcgmMigHierarchy_v2 *out);
dcgmReturn_t engine_topology(struct engine *e, unsigned gpu, dcgmDeviceTopology_v2 *out);
dcgmReturn_t engine_group_topology(struct engine *e, uintptr_t group, dcgmGroupTopology_v2 *out);
dcgmReturn_t engine_link_status(struct engine *e, dcgmNvLinkStatus_v5 *out);
dcgmReturn_t engine_cpus(struct engine *e, dcgmCpuHierarchy_v2 *out);
dcgmReturn_t engine_pause_profiling(struct engine *e, bool pause);
dcgmReturn_t engine_p2p_status(struct engine *e, dcgmNvLinkP2PStatus_v1 *out);
dcgmReturn_t engine_metric_groups(struct engine *e, dcgmProfGetMetricGroups_t *out);
dcgmReturn_t engine_memory(struct engine *e, dcgmIntrospectMemory_t *out);
dcgmReturn_t engine_cpu(struct engine *e, dcgmIntrospectCpuUtil_t *out);
dcgmReturn_t engine_pid_info(struct engine *e, uintptr_t group, dcgmPidInfo_t *out);
dcgmReturn_t engine_watch_pids(struct engine *e, uintptr_t group);
dcgmReturn_t engine_chip(struct engine *e, unsigned gpu, dcgmChipArchitecture_t *out);
const char *engine_build_info(void);
dcgmReturn_t engine_attach(struct engine *e, bool attach);

/* Where an entity is on the node; false when it is not there (any more). */
struct place {
    int gpu, gi, ci; /* positions; -1 where it does not apply */
};
bool engine_locate(const struct snapshot *s, int group, uint32_t id, struct place *out);
DcgmEntityStatus_t engine_entity_status(const struct snapshot *s, int group, uint32_t id);
/* Whether NVLink joins two GPUs that are both there. */
bool engine_peers(const struct snapshot *s, uint32_t a, uint32_t b);
const char *engine_intern(struct engine *e, const char *text);

/* groups.c; lock held by the callers of *_locked only */
void groups_init(struct engine *e);
dcgmReturn_t group_create(struct engine *e, uint32_t owner, int type, const char *name, uintptr_t *id);
dcgmReturn_t group_destroy(struct engine *e, uintptr_t id);
dcgmReturn_t group_add(struct engine *e, uintptr_t id, int group, uint32_t entity);
dcgmReturn_t group_remove(struct engine *e, uintptr_t id, int group, uint32_t entity);
dcgmReturn_t group_info(struct engine *e, uintptr_t id, dcgmGroupInfo_t *out);
dcgmReturn_t group_all_ids(struct engine *e, uintptr_t *ids, unsigned *count);
struct group *group_find_locked(struct engine *e, uintptr_t id);
dcgmReturn_t field_group_create(struct engine *e, uint32_t owner, int count, const unsigned short *fields,
                                const char *name, uintptr_t *id);
dcgmReturn_t field_group_destroy(struct engine *e, uintptr_t id);
dcgmReturn_t field_group_info(struct engine *e, dcgmFieldGroupInfo_t *info);
struct field_group *field_group_find_locked(struct engine *e, uintptr_t id);

/* watch.c */
dcgmReturn_t watch_fields(struct engine *e, uint32_t owner, uintptr_t group, uintptr_t fields, int64_t interval_us,
                          double max_age_s, int max_samples);
dcgmReturn_t unwatch_fields(struct engine *e, uint32_t owner, uintptr_t group, uintptr_t fields);
void watch_forget_owner_locked(struct engine *e, uint32_t owner);
void watch_append_locked(struct engine *e, struct watch *w, struct sample s);
/* Samples what is due; the time of the next one, INT64_MAX when nothing is watched. */
int64_t watch_sample_due_locked(struct engine *e);
void watch_take_xids_locked(struct engine *e);
dcgmReturn_t watch_update_all(struct engine *e);
struct watch *watch_find_locked(struct engine *e, int group, uint32_t id, unsigned field, bool create);
void watch_free_all(struct engine *e);

/* A value on its way out: compact, as it also crosses the socket. */
struct value {
    uint32_t entity_id;
    uint16_t field;
    uint8_t group;
    char type;
    int32_t status;
    int64_t ts;
    union {
        int64_t i64;
        double dbl;
        const char *str;
    } v;
};
/* Latest value, or the status that stands for it. */
void watch_latest_locked(struct engine *e, int group, uint32_t id, unsigned field, bool live, struct value *out);
dcgmReturn_t watch_latest(struct engine *e, const dcgmGroupEntityPair_t *entities, unsigned entity_count,
                          const unsigned short *fields, unsigned field_count, unsigned flags, dcgmFieldValue_v2 *out);
void value_to_v1(const struct value *v, dcgmFieldValue_v1 *out);
void value_to_v2(const struct value *v, dcgmFieldValue_v2 *out);

struct value_list {
    struct value *items;
    size_t count, cap;
};
bool value_list_add(struct value_list *l, const struct value *v);
/* All values of a group × field group: the latest (since_us < 0 and latest), or those since a time. */
dcgmReturn_t watch_collect(struct engine *e, uintptr_t group, uintptr_t fields, bool latest, int64_t since_us,
                           int64_t *next_us, struct value_list *out);

/* values.c: what the hardware shows for a field of an entity right now */
enum read_result { READ_OK, READ_BLANK, READ_NOT_SUPPORTED, READ_NO_DATA };
enum read_result value_read(struct engine *e, const struct field_fact *fact, int group, uint32_t id, struct watch *w,
                            struct sample *out);
/* The same as a value with the sentinel of its type filled in; false for READ_NO_DATA. */
bool value_sample(struct engine *e, const struct field_fact *fact, int group, uint32_t id, struct watch *w,
                  struct sample *out);
struct node_reading *value_gpu_reading(struct engine *e, int gpu);
/* For how long the reasons of that GPU were active until this look. */
const struct node_throttle *value_throttle(struct engine *e, int gpu);
const struct node_override *value_override(const struct snapshot *s, enum node_of of, int position, unsigned field);
enum read_result value_integer(struct sample *out, double v);
enum read_result value_real(struct sample *out, double v);
enum read_result value_text(struct engine *e, struct sample *out, const char *v);
/* MB/s as DCGM works them out of NVML's KiB: thousands of KiB since the previous sample, 0 at the first. */
enum read_result value_rate(struct engine *e, struct watch *w, struct sample *out, double total_bytes);
/* A GPU's counter, overrides applied. */
double value_counter(struct engine *e, int gpu, unsigned field);
bool value_is_profiling(unsigned field);
/*
 * What a profiling field is to be read from: the GPU as it is, or as a fault of
 * profiling shows it, in *scratch. at: the instance, or NULL for the GPU itself.
 * *at_us is the moment that it shows. READ_OK, or what stands in the value's place.
 */
enum read_result value_profiling_reading(struct engine *e, int gpu, const struct place *at, struct watch *w,
                                         struct node_reading *scratch, const struct node_reading **out, int64_t *at_us);
/* Profiling by the driver itself, which DCGM does not pause and which needs no module. */
bool value_gpm(const struct node_model *m);
/* What watching answers: not DCGM_ST_OK where another client has the lock. */
dcgmReturn_t value_profiling_lock(struct engine *e, int gpu);
/* A new watch mends what a fault of profiling broke. */
void value_profiling_mend(struct engine *e, int gpu);

/* fabric.c: NVLinks and NVSwitches */
enum read_result fabric_read(struct engine *e, const struct field_fact *f, int group, uint32_t id, struct watch *w,
                             struct sample *out);
/* Whether the entity can be put in a group: link, switch. */
bool fabric_has(const struct snapshot *s, int group, uint32_t id);
/* Fields of a GPU about all of its links, or about one that the field names. */
bool fabric_is_gpu_field(unsigned id);
enum read_result fabric_read_gpu(struct engine *e, const struct field_fact *f, int gpu, struct watch *w, struct sample *out);
bool fabric_port_shows(const struct snapshot *s, const struct node_port *p);
bool fabric_port_up(const struct snapshot *s, const struct node_port *p);

/* cpus.c: Grace */
enum read_result cpu_read(struct engine *e, const struct field_fact *f, int group, uint32_t id, struct watch *w,
                          struct sample *out);
bool cpu_has(const struct snapshot *s, int group, uint32_t id);

/* health.c, policy.c */
dcgmReturn_t health_set(struct engine *e, uintptr_t group, uint32_t systems);
dcgmReturn_t health_get(struct engine *e, uintptr_t group, uint32_t *systems);
dcgmReturn_t health_check(struct engine *e, uintptr_t group, dcgmHealthResponse_t *out);
dcgmReturn_t policy_set(struct engine *e, uintptr_t group, const dcgmPolicy_t *policy);
dcgmReturn_t policy_get(struct engine *e, uintptr_t group, int count, dcgmPolicy_t *out);
dcgmReturn_t policy_register(struct engine *e, uint32_t owner, uintptr_t group, uint32_t conditions, uint64_t id,
                             policy_deliver deliver, void *to);
dcgmReturn_t policy_unregister(struct engine *e, uint32_t owner, uintptr_t group, uint32_t conditions);
/* About once a second: looks for violations, and delivers them without the lock. */
void policy_tick(struct engine *e);
void policy_forget_owner_locked(struct engine *e, uint32_t owner);

/* control.c */
struct control *control_start(struct node_state *n);
void control_stop(struct control *c);

/* log.c: the file that a real engine writes, /var/log/nv-hostengine.log unless told otherwise */
void engine_log(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
