/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

#include "health.h"

#include <stdlib.h>
#include <string.h>

struct native_health *native_health_open(struct native *n)
{
    struct native_health *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    native_find(n, "dcgmHealthSet", &h->set);
    native_find(n, "dcgmHealthCheck", &h->check);
    native_find(n, "dcgmGetNvLinkP2PStatus", &h->get_p2p);
    native_find(n, "dcgmGetDeviceTopology", &h->get_topology);
    return h;
}

/* Sets the count of a failed answer to 0. A count beyond the array is an error: no incidents would mean healthy. */
static int counted(int rc, uint32_t *count, uint32_t max)
{
    if (rc == ABI_OK && *count > max)
        rc = ABI_GENERIC_ERROR;
    if (rc != ABI_OK)
        *count = 0;
    return rc;
}

int native_health_set(struct native *n, struct native_health *h, uintptr_t group)
{
    return h->set ? h->set(n->handle, group, ABI_HEALTH_ALL) : ABI_NOT_SUPPORTED;
}

int native_health_check(struct native *n, struct native_health *h, uintptr_t group)
{
    h->health.version = ABI_HEALTH_VERSION;
    h->health.count = 0;
    int rc = h->check ? h->check(n->handle, group, &h->health) : ABI_NOT_SUPPORTED;
    return counted(rc, &h->health.count, ABI_MAX_INCIDENTS);
}

int native_health_p2p(struct native *n, struct native_health *h)
{
    memset(&h->p2p, 0, sizeof(h->p2p)); /* no GPUs listed: DCGM returns all */
    h->p2p.version = ABI_P2P_VERSION;
    int rc = h->get_p2p ? h->get_p2p(n->handle, &h->p2p) : ABI_NOT_SUPPORTED;
    return counted(rc, &h->p2p.count, ABI_MAX_GPUS);
}

int native_health_topology(struct native *n, struct native_health *h, uint32_t gpu)
{
    memset(&h->topology, 0, sizeof(h->topology));
    h->topology.version = ABI_DEVICE_TOPOLOGY_VERSION;
    int rc = h->get_topology ? h->get_topology(n->handle, gpu, &h->topology) : ABI_NOT_SUPPORTED;
    return counted(rc, &h->topology.count, ABI_MAX_GPUS - 1);
}
