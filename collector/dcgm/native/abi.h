/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The part of libdcgm.so.4's binary interface that this package uses. The
 * package declares it itself so that a build needs no include path into the
 * module cache. TestABI compares every size, offset and number below with the
 * headers that go-dcgm ships.
 */
#ifndef GPU_EXPORTER_DCGM_ABI_H
#define GPU_EXPORTER_DCGM_ABI_H

#include <stddef.h>
#include <stdint.h>

#define ABI_EMBEDDED_HANDLE 0x7fffffff
#define ABI_STRING_LENGTH 256
#define ABI_BLOB_LENGTH 4096
#define ABI_MAX_GPUS 32
#define ABI_MAX_HIERARCHY (32 * 14)
#define ABI_MAX_FIELDS 128     /* in a field group, and in one request */
#define ABI_MAX_ENTITIES 1024  /* in a group, and in one request */
#define ABI_GROUP_EMPTY 1
#define ABI_FLAG_LIVE 1        /* read from the driver, not from the cache */
#define ABI_FLAG_SUPPORTED 1   /* only entities that DCGM can read */
#define ABI_KIND_GPU 1
#define ABI_KIND_SWITCH 3
#define ABI_KIND_GPU_INSTANCE 4
#define ABI_KIND_COMPUTE_INSTANCE 5
#define ABI_KIND_CONNECTX 9
#define ABI_MAX_SWITCHES 12
#define ABI_GPU_LINKS 36     /* in dcgmNvLinkStatus_v5 */
#define ABI_GPU_LINKS_V4 18  /* in dcgmNvLinkStatus_v4 */
#define ABI_SWITCH_LINKS 256
#define ABI_MAX_CPUS 8
#define ABI_CORE_WORDS 16 /* of 64 bits: 1024 cores */
#define ABI_MAX_METRIC_GROUPS 10
#define ABI_METRIC_GROUP_FIELDS 64
#define ABI_LINK_NOT_SUPPORTED 0
#define ABI_LINK_DISABLED 1
#define ABI_LINK_DOWN 2
#define ABI_LINK_UP 3

/* dcgmReturn_t */
#define ABI_OK 0
#define ABI_GENERIC_ERROR (-3)
#define ABI_NOT_SUPPORTED (-6)
#define ABI_UNINITIALIZED (-10)
#define ABI_TIMEOUT (-11)
#define ABI_VERSION_MISMATCH (-12)
#define ABI_CONNECTION_NOT_VALID (-21)

/* dcgmConnectV2Params_v2 */
struct abi_connect_v2 {
    uint32_t version;
    uint32_t persist;
    uint32_t timeout_ms; /* 0: DCGM's default */
    uint32_t unix_socket;
};

/* dcgmConnectV3Params_v1 */
struct abi_connect_v3 {
    uint32_t version;
    uint32_t persist;
    uint32_t timeout_ms;
};

#define ABI_CONNECT_V2_VERSION ((uint32_t)(sizeof(struct abi_connect_v2) | (2u << 24)))
#define ABI_CONNECT_V3_VERSION ((uint32_t)(sizeof(struct abi_connect_v3) | (1u << 24)))

/* dcgmGroupEntityPair_t */
struct abi_pair {
    uint32_t kind;
    uint32_t id;
};

/* The value of dcgmFieldValue_v1 and _v2. */
union abi_payload {
    int64_t i64;
    double dbl;
    char str[ABI_STRING_LENGTH];
    char blob[ABI_BLOB_LENGTH];
};

/* dcgmFieldValue_v1: dcgmGetValuesSince_v2 passes it to its callback */
struct abi_value1 {
    uint32_t version;
    uint16_t field;
    uint16_t type;
    int32_t status;
    int64_t ts;
    union abi_payload value;
};

/* dcgmFieldValue_v2: dcgmEntitiesGetLatestValues fills it */
struct abi_value2 {
    uint32_t version;
    uint32_t kind;
    uint32_t id;
    uint16_t field;
    uint16_t type;
    int32_t status;
    uint32_t unused;
    int64_t ts;
    union abi_payload value;
};

/* dcgmMigHierarchyInfo_v2 */
struct abi_mig_entry {
    struct abi_pair entity;
    struct abi_pair parent;
    char gpu_uuid[128];
    uint32_t nvml_index;
    uint32_t nvml_gpu_instance;
    uint32_t nvml_compute_instance;
    uint32_t nvml_profile;
    uint32_t slices;
};

/* dcgmMigHierarchy_v2 */
struct abi_mig_hierarchy {
    uint32_t version;
    uint32_t count;
    struct abi_mig_entry entries[ABI_MAX_HIERARCHY];
};

#define ABI_MIG_HIERARCHY_VERSION ((uint32_t)(sizeof(struct abi_mig_hierarchy) | (2u << 24)))

struct abi_switch_links {
    uint32_t id;
    int32_t state[ABI_SWITCH_LINKS];
};

/* dcgmNvLinkStatus_v5 */
struct abi_link_status {
    uint32_t version;
    uint32_t gpu_count;
    struct {
        uint32_t id;
        int32_t state[ABI_GPU_LINKS];
    } gpus[ABI_MAX_GPUS];
    uint32_t switch_count;
    struct abi_switch_links switches[ABI_MAX_SWITCHES];
};

/* dcgmNvLinkStatus_v4 */
struct abi_link_status_v4 {
    uint32_t version;
    uint32_t gpu_count;
    struct {
        uint32_t id;
        int32_t state[ABI_GPU_LINKS_V4];
    } gpus[ABI_MAX_GPUS];
    uint32_t switch_count;
    struct abi_switch_links switches[ABI_MAX_SWITCHES];
};

#define ABI_LINK_STATUS_VERSION ((uint32_t)(sizeof(struct abi_link_status) | (5u << 24)))
#define ABI_LINK_STATUS_VERSION_V4 ((uint32_t)(sizeof(struct abi_link_status_v4) | (4u << 24)))

/* dcgmCpuHierarchy_v1 */
struct abi_cpu_hierarchy {
    uint32_t version;
    uint32_t count;
    struct {
        uint32_t id;
        struct {
            uint32_t version;
            uint64_t bits[ABI_CORE_WORDS];
        } cores;
    } cpus[ABI_MAX_CPUS];
};

#define ABI_CPU_HIERARCHY_VERSION ((uint32_t)(sizeof(struct abi_cpu_hierarchy) | (1u << 24)))

/* dcgmProfGetMetricGroups_v3 */
struct abi_metric_groups {
    uint32_t version;
    uint32_t unused;
    uint32_t gpu;
    uint32_t count;
    struct {
        uint16_t major, minor;
        uint32_t field_count;
        uint16_t fields[ABI_METRIC_GROUP_FIELDS];
    } groups[ABI_MAX_METRIC_GROUPS];
};

#define ABI_METRIC_GROUPS_VERSION ((uint32_t)(sizeof(struct abi_metric_groups) | (3u << 24)))

typedef int (*abi_values_callback)(uint32_t kind, uint32_t id, struct abi_value1 *values, int count, void *user);

#endif
