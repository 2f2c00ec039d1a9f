/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Health checks and the topology between GPUs. They have their own state, so that
 * one thread can make these calls while another thread reads samples. Every
 * returned int is a dcgmReturn_t.
 */
#ifndef GPU_EXPORTER_DCGM_HEALTH_H
#define GPU_EXPORTER_DCGM_HEALTH_H

#include "abi_health.h"
#include "library.h"

struct native_health {
    struct abi_health health;             /* of the last check */
    struct abi_p2p p2p;                   /* of the last native_health_p2p */
    struct abi_device_topology topology; /* of the last native_health_topology */
    int (*set)(uintptr_t, uintptr_t, uint32_t);
    int (*check)(uintptr_t, uintptr_t, struct abi_health *);
    int (*get_p2p)(uintptr_t, struct abi_p2p *);
    int (*get_topology)(uintptr_t, uint32_t, struct abi_device_topology *);
};

/* Finds the functions. Calling a missing one returns "not supported". NULL: out of memory. */
struct native_health *native_health_open(struct native *n);
/* Watches all health systems of the group's entities. It does not affect groups of other clients. */
int native_health_set(struct native *n, struct native_health *h, uintptr_t group);
int native_health_check(struct native *n, struct native_health *h, uintptr_t group);
int native_health_p2p(struct native *n, struct native_health *h);
int native_health_topology(struct native *n, struct native_health *h, uint32_t gpu);

#endif
