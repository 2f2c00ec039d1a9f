/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls into libdcgm.so.4. dlsym finds every function, because the loader ends
 * the process (exit status 127) at the first call of a missing one. Every
 * returned int is a dcgmReturn_t unless a comment says otherwise.
 */
#ifndef GPU_EXPORTER_DCGM_LIBRARY_H
#define GPU_EXPORTER_DCGM_LIBRARY_H

#include "abi.h"

/* One value without DCGM's 4 KiB payload. A string's bits are its offset in strings. */
struct native_cell {
    int64_t bits;
    int64_t ts;     /* µs since 1970, by the engine's clock */
    int32_t status; /* dcgmReturn_t, or NATIVE_NO_ANSWER */
    uint16_t type;  /* DCGM_FT_*: 'i', 'd', 's', 't', 'b' */
    uint16_t length;
};

#define NATIVE_NO_ANSWER INT32_MIN

/*
 * Values per request. DCGM's messages are limited to 4 MiB and a value takes
 * 4 KiB: 512 values are 2 MiB, enough for 8 GPUs with 64 fields.
 */
#define NATIVE_CHUNK 512

/* One sample from dcgmGetValuesSince_v2. */
struct native_event {
    struct abi_pair entity;
    int64_t ts;
    int64_t code;
};

struct native_gpu {
    uint32_t id;
    int32_t status; /* DcgmEntityStatus_t */
};

/* A GPU instance or compute instance. It has no padding: memcmp compares it. */
struct native_instance {
    struct abi_pair entity, parent;
    uint32_t nvml_gpu_instance, nvml_compute_instance;
};

struct native_topology {
    uint32_t gpu_count;
    uint32_t instance_count;
    struct native_gpu gpus[ABI_MAX_GPUS];
    struct native_instance instances[ABI_MAX_HIERARCHY];
};

struct native {
    uintptr_t handle;
    struct native_topology topology; /* of the last native_check_topology */
    char *strings;                   /* of the reads since native_reset_strings */
    size_t strings_used;
    struct native_event *events; /* of the last native_values_since */
    size_t event_count;
    struct native_private *p;
};

/*
 * Opens libdcgm.so.4 by the name and flags that go-dcgm uses, and finds all
 * functions that go-dcgm and this package call. NULL on failure: text holds the
 * loader's message or, if *missing is set, the name of the missing function.
 * On success text is the library's path.
 */
struct native *native_open(char *text, size_t size, int *missing);
/* The address of an optional function, or NULL. */
void *native_symbol(struct native *n, const char *symbol);
/* The same, stored in *into, which is a function pointer. */
void native_find(struct native *n, const char *symbol, void *into);

enum native_address { NATIVE_TCP, NATIVE_UNIX, NATIVE_URI };
/* Connects to a standalone engine and uses that connection. DCGM must be initialised. */
int native_connect(struct native *n, const char *address, enum native_address kind);
int native_disconnect(struct native *n);

/* The ids of all entities of a kind; *count is 0 on failure. */
int native_list(struct native *n, uint32_t kind, uint32_t flags, uint32_t *ids, int room, int *count);
const char *native_error_text(struct native *n, int code);

/* Not a dcgmReturn_t: whether the code means that the engine is gone. */
int native_lost(int code);

/*
 * Updates n->topology. *instances is the result of listing the instances: if it
 * is an error, the instances stay as they were, and the caller bounds for how long.
 */
int native_check_topology(struct native *n, int *changed, int *instances);

#define NATIVE_PROFILING_FIELDS (ABI_MAX_METRIC_GROUPS * ABI_METRIC_GROUP_FIELDS)
/*
 * The profiling fields of a GPU, at most NATIVE_PROFILING_FIELDS; *count is 0 on failure.
 * go-dcgm has this call too, but allocates whatever number of groups and fields the library
 * returns: garbage would exhaust the memory.
 */
int native_profiling_fields(struct native *n, uint32_t gpu, uint16_t *fields, int *count);

/*
 * Reads every field of every entity; the cell of entity e and field f is
 * cells[base[e] + f]. A request that fails as a whole is repeated for
 * each of its entities, so that one bad entity only costs its own cells: they
 * get the error code. Fails only if the engine is gone.
 */
int native_read(struct native *n, const struct abi_pair *entities, uint32_t entity_count, const uint16_t *fields,
                uint32_t field_count, const uint32_t *base, uint32_t flags, struct native_cell *cells);
/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t native_uptime(void);
void native_reset_strings(struct native *n);

int native_group_create(struct native *n, const char *name, uintptr_t *group);
int native_group_add(struct native *n, uintptr_t group, uint32_t kind, uint32_t id);
int native_group_destroy(struct native *n, uintptr_t group);
int native_field_group_create(struct native *n, const char *name, const uint16_t *fields, int count,
                              uintptr_t *field_group);
int native_field_group_destroy(struct native *n, uintptr_t field_group);
int native_watch(struct native *n, uintptr_t group, uintptr_t field_group, int64_t interval_us, double keep_seconds,
                 int keep_samples);
int native_unwatch(struct native *n, uintptr_t group, uintptr_t field_group);
/* Makes the engine update all fields that are due, and waits for it. */
int native_update(struct native *n);
/* Stores the samples that have a good status in n->events. */
int native_values_since(struct native *n, uintptr_t group, uintptr_t field_group, int64_t since, int64_t *next);

#endif
