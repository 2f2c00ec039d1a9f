/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Shared by the functions of libdcgm: argument checks, and the routing of a call to its engine. */
#ifndef DCGMSIM_DCGM_TRANSACT_H
#define DCGMSIM_DCGM_TRANSACT_H

#include "dcgm/calls.h"

/* The engine embedded in this process; NULL if there is none. Every acquire that returns one needs a release. */
struct engine *acquire(void);
void release(void);

/* Initialisation count and embedded engine of this process. */
void library_init(void);
bool library_shutdown(void); /* true for the last one */
bool library_initialised(void);
dcgmReturn_t library_start_engine(void);
dcgmReturn_t library_stop_engine(void);

/* Registers a policy callback for the embedded engine; the result is its policy_deliver argument, NULL if out of memory. */
void *embedded_callback_add(fpRecvUpdates callback, uint64_t user_data);

/* Executes a call. The answer's payload is allocated into *data; the caller frees it. */
dcgmReturn_t exchange(dcgmHandle_t handle, enum call call, const struct call_args *args, const void *payload, size_t len,
                      uint8_t **data, size_t *size);
/* Applies the command garbage to an answer of the embedded engine. Returns whether it did. */
bool garble_answer(dcgmHandle_t handle, enum call call, void *answer, size_t size);

/* Executes a call and copies at most cap bytes of the answer to out. *used is the size of the answer. */
dcgmReturn_t transact(dcgmHandle_t handle, enum call call, struct call_args args, const void *payload, size_t len,
                      void *out, size_t cap, size_t *used);
/* Executes a call that has no payload in either direction. */
dcgmReturn_t simple(dcgmHandle_t handle, enum call call, struct call_args args);

/* Omitted arguments are zero. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define ARGS(...) ((struct call_args){__VA_ARGS__})

/* Returns from the calling function unless the struct has the expected version. */
#define CHECK(pointer, expected)                                                                                       \
    do {                                                                                                               \
        if (!(pointer))                                                                                                \
            return DCGM_ST_BADPARAM;                                                                                   \
        if ((pointer)->version != (expected))                                                                          \
            return DCGM_ST_VER_MISMATCH;                                                                               \
    } while (0)

#endif
