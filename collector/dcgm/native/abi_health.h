/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The part of libdcgm.so.4's binary interface that health.c uses; see abi.h.
 */
#ifndef GPU_EXPORTER_DCGM_ABI_HEALTH_H
#define GPU_EXPORTER_DCGM_ABI_HEALTH_H

#include "abi.h"

#define ABI_MAX_INCIDENTS 1024
#define ABI_HEALTH_ALL 0xffffffffu
#define ABI_AFFINITY_WORDS 8

/* dcgmIncidentInfo_t */
struct abi_incident {
    uint32_t system;
    int32_t result;
    char message[1024];
    uint32_t code;
    struct abi_pair entity;
};

/* dcgmHealthResponse_v5 */
struct abi_health {
    uint32_t version;
    int32_t overall;
    uint32_t count;
    struct abi_incident incidents[ABI_MAX_INCIDENTS];
};

#define ABI_HEALTH_VERSION ((uint32_t)(sizeof(struct abi_health) | (5u << 24)))

/* dcgmNvLinkP2PStatus_v1 */
struct abi_p2p {
    uint32_t version;
    uint32_t count;
    struct abi_p2p_gpu {
        uint32_t gpu;
        uint32_t status[ABI_MAX_GPUS]; /* by GPU id */
    } gpus[ABI_MAX_GPUS];
};

#define ABI_P2P_VERSION ((uint32_t)(sizeof(struct abi_p2p) | (1u << 24)))

/* dcgmDeviceTopology_v2 */
struct abi_device_topology {
    uint32_t version;
    unsigned long affinity[ABI_AFFINITY_WORDS];
    uint32_t count;
    struct abi_gpu_path {
        uint32_t gpu;
        uint64_t path;
        uint64_t links; /* bit mask of this GPU's links to the peer */
    } paths[ABI_MAX_GPUS - 1];
};

#define ABI_DEVICE_TOPOLOGY_VERSION ((uint32_t)(sizeof(struct abi_device_topology) | (2u << 24)))

#endif
