/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Shared by the functions of libnvidia-ml: initialisation, handles, and the start of each call. */
#ifndef DCGMSIM_NVML_HANDLES_H
#define DCGMSIM_NVML_HANDLES_H

#ifndef NVML_NO_UNVERSIONED_FUNC_DEFS /* the old names are functions here, not macros */
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#endif
#include "nvml.h"

#include "node/node.h"

#define EXPORT __attribute__((visibility("default")))

/*
 * A handle names a position, as with the real library: "handles may be reused
 * and their properties can change". The position is a GPU, and for a MIG device
 * also the slot of its compute instance. Each use of the handle checks whether
 * the device exists.
 */
struct nvmlDevice_st {
    uint32_t gpu;
    int ci; /* slot, or -1 for the GPU itself */
};

struct nvmlGpuInstance_st {
    uint32_t gpu;
    uint32_t gi; /* slot */
};

extern struct nvmlDevice_st nvml_handles[NODE_MAX_GPUS][1 + NODE_MAX_CIS];
extern struct nvmlGpuInstance_st nvml_gi_handles[NODE_MAX_GPUS][NODE_MAX_GIS];
extern struct node_state *nvml_node; /* valid after initialise */

nvmlReturn_t initialise(const char *call);
/* Fails unless the library is initialised. Call it once for each successful initialise. */
nvmlReturn_t shut_down(const char *call);

/* Starts a call: checks the initialisation and applies the faults on the call. */
nvmlReturn_t enter(const char *call);

/* The device of a handle at one moment. */
struct target {
    struct node_gpu gpu;
    uint32_t position;
    int ci; /* slot, or -1 */
    const struct node_ci *instance; /* NULL for a GPU */
    const struct node_gi *gi;
};

bool is_handle(nvmlDevice_t device);

/* Starts a call on a device: enter, then the lookup of the device. */
nvmlReturn_t begin(const char *call, nvmlDevice_t device, struct target *t);

/* Calls begin, and returns from the calling function if it fails. */
#define BEGIN(device, t)                                    \
    do {                                                    \
        nvmlReturn_t begin_rc = begin(__func__, device, t); \
        if (begin_rc != NVML_SUCCESS)                       \
            return begin_rc;                                \
    } while (0)

/* Returns NVML_SUCCESS, after the command garbage was applied to the answer. */
#define ANSWER(answer) garbled(__func__, answer, sizeof *(answer))
nvmlReturn_t garbled(const char *call, void *answer, size_t size);

/* Copies a string; NVML_ERROR_INSUFFICIENT_SIZE if it does not fit. */
nvmlReturn_t copy_text(const char *call, const char *from, char *to, unsigned int length);

#endif
