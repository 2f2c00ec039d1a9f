/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls into libdcgm.so.4, found with dlsym so that a missing one is an error
 * and not the loader's exit(127). Every int that is returned is a dcgmReturn_t.
 */
#ifndef GPU_EXPORTER_DCGM_NATIVE_H
#define GPU_EXPORTER_DCGM_NATIVE_H

#include "abi.h"

/* One value, small enough to copy. For a string, bits is its place in strings. */
struct native_cell {
    int64_t bits;
    int64_t ts;     /* µs since 1970, as the engine says */
    int32_t status; /* dcgmReturn_t, or NATIVE_NO_ANSWER */
    uint16_t type;  /* DCGM_FT_*: 'i', 'd', 's', 't', 'b' */
    uint16_t length;
};

#define NATIVE_NO_ANSWER INT32_MIN

/* One sample of a field that dcgmGetValuesSince_v2 gave. */
struct native_event {
    struct abi_pair entity;
    int64_t ts;
    int64_t code;
};

struct native_gpu {
    uint32_t id;
    int32_t status; /* DcgmEntityStatus_t */
};

/* What the node consists of. */
struct native_topology {
    uint32_t gpu_count;
    uint32_t mig_count;
    struct native_gpu gpus[ABI_MAX_GPUS];
    struct abi_mig_entry mig[ABI_MAX_HIERARCHY];
};

struct native {
    uintptr_t handle;
    struct native_topology topology; /* the current one */
    char *strings;                   /* of the reads since native_reset */
    size_t strings_used;
    struct native_event *events; /* of the last native_values_since */
    size_t event_count;
    uint64_t calls;    /* bulk reads made */
    uint64_t degraded; /* bulk reads that failed and were made per entity */
    struct native_private *p;
};

/*
 * Opens libdcgm.so.4 as go-dcgm will (by name, its symbols global) and finds
 * what go-dcgm and we call. NULL on failure, with the loader's message or the
 * name of the missing symbol in text; *missing says which of the two.
 * On success, text is the path of the library.
 */
struct native *native_open(char *text, size_t size, int *missing);
/* Whether the library has one more symbol. */
int native_has(struct native *n, const char *symbol);
/* The address of one more symbol, or NULL. */
void *native_symbol(struct native *n, const char *symbol);
/* The ids of a kind's entities; none where the kind cannot be listed. */
int native_list(struct native *n, uint32_t kind, uint32_t flags, uint32_t *ids, int room, int *count);
const char *native_error_text(struct native *n, int code);

/* Whether the code means that the engine is gone. */
int native_lost(int code);

/*
 * Finds out what the node consists of. *instances is the code of listing the
 * instances of the GPUs: when it is not good, they stay as they were. For how long
 * that is good enough is the caller's to say.
 */
int native_check_topology(struct native *n, int *changed, int *instances);

/*
 * Reads every field on every entity; the cell of entity e and field f is
 * cells[base[e] + column[f]]. A request that fails as a whole is made again for
 * each of its entities, so that one bad entity costs its own cells only; they
 * get the code. Fails only when the engine is gone.
 */
int native_read(struct native *n, const struct abi_pair *entities, uint32_t entity_count, const uint16_t *fields,
                uint32_t field_count, const uint32_t *base, const uint16_t *column, uint32_t flags,
                struct native_cell *cells);
void native_reset_strings(struct native *n);

int native_group_create(struct native *n, const char *name, uintptr_t *group);
int native_group_add(struct native *n, uintptr_t group, uint32_t kind, uint32_t id);
int native_group_remove(struct native *n, uintptr_t group, uint32_t kind, uint32_t id);
int native_group_destroy(struct native *n, uintptr_t group);
int native_field_group_create(struct native *n, const char *name, const uint16_t *fields, int count,
                              uintptr_t *field_group);
int native_field_group_destroy(struct native *n, uintptr_t field_group);
int native_watch(struct native *n, uintptr_t group, uintptr_t field_group, int64_t interval_us, double keep_seconds,
                 int keep_samples);
int native_unwatch(struct native *n, uintptr_t group, uintptr_t field_group);
int native_update(struct native *n);
/* Collects samples with a good status into n->events. */
int native_values_since(struct native *n, uintptr_t group, uintptr_t field_group, int64_t since, int64_t *next);

/*
 * The floor that the benchmark measures against: the bulk calls that
 * native_read makes for the same request, and nothing else.
 */
int native_floor(struct native *n, const struct abi_pair *entities, uint32_t entity_count, const uint16_t *fields,
                 uint32_t field_count, uint32_t times);
/* CPU time of the calling thread in ns. */
int64_t native_thread_cpu(void);

#endif
