/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Values of GPU fields that identify or configure a GPU or an instance, and of its fabric membership. */
#include "engine/gpufields.h"

#include "engine/linkstate.h"
#include "engine/profiling.h"
#include "engine/sample.h"

#include <stdio.h>
#include <string.h>

bool is_identity(unsigned id)
{
    return (id >= DCGM_FI_DEV_GPU_NAME && id <= DCGM_FI_DEV_MEMORY_AFFINITY_3) || id == DCGM_FI_DEV_GPM_SUPPORT ||
           (id >= DCGM_FI_DEV_FABRIC_MANAGER_STATUS && id <= DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY) ||
           (id >= DCGM_FI_DEV_PLATFORM_INFINIBAND_GUID && id <= DCGM_FI_DEV_PLATFORM_MODULE_ID) ||
           id == DCGM_FI_DEV_GPU_VIRTUAL_MODE || id == DCGM_FI_DEV_VGPU_LICENSE_STATUS ||
               id == DCGM_FI_DEV_GPU_RECOVERY_ACTION;
}

/* The NVLink fabric of the GPU: the node itself, or a rack if the node has Grace CPUs. */
static enum read_result read_fabric(struct engine *e, unsigned field, int gpu, struct sample *out)
{
    const struct node_gpu *g = &e->snapshot.gpu[gpu];
    bool rack = e->snapshot.cpu_count > 0;
    bool done = g->fabric_status == NODE_FABRIC_SUCCESS, failed = g->fabric_status == NODE_FABRIC_FAILURE;
    char uuid[40] = "00000000-0000-0000-0000-000000000000";
    uint64_t a = node_hash(e->node->seed, 7001), b = node_hash(e->node->seed, 7002);
    uint32_t down = 0;
    for (uint32_t i = 0; i < g->model.nvlinks; i++)
        down += g->link[i].down != 0;
    switch (field) {
    case DCGM_FI_DEV_FABRIC_MANAGER_STATUS:
        return sample_integer(out, g->fabric_status);
    case DCGM_FI_DEV_FABRIC_MANAGER_ERROR: /* unknown until link training has ended */
        return done || failed ? sample_integer(out, failed ? g->fabric_error : 0) : READ_BLANK;
    case DCGM_FI_DEV_FABRIC_CLUSTER_UUID:
        if (rack)
            snprintf(uuid, sizeof uuid, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)(a >> 32),
                     (unsigned)(a >> 16 & 0xffff),
                     (unsigned)(a & 0xfff), (unsigned)(b >> 48 & 0xfff), (unsigned long long)(b & 0xffffffffffff));
        return sample_string(e, out, uuid);
    case DCGM_FI_DEV_FABRIC_CLIQUE_ID:
        return sample_integer(out, rack ? 32766 : 0);
    case DCGM_FI_DEV_FABRIC_HEALTH_MASK: /* degraded bandwidth: 1 yes, 2 no */
        return sample_integer(out, down ? 1 : 2);
    default: /* 1 healthy, 2 unhealthy, 3 limited capacity */
        return sample_integer(out, failed ? 2 : down ? 3 : 1);
    }
}

enum read_result read_identity(struct engine *e, unsigned field, const struct location *at, struct sample *out)
{
    const struct node_gpu *g = &e->snapshot.gpu[at->gpu];
    const struct node_model *m = &g->model;
    const struct node_ci *ci = at->ci >= 0 ? &g->ci[at->ci] : NULL;
    for (int i = 0; !ci && at->gi >= 0 && i < NODE_MAX_CIS; i++)
        if (g->ci[i].present && g->ci[i].gi == at->gi)
            ci = &g->ci[i]; /* a GPU instance has the UUID of its first MIG device */
    char name[NODE_NAME_LEN];
    switch (field) {
    case DCGM_FI_DEV_GPU_NAME:
        if (at->gi < 0)
            return sample_string(e, out, m->name);
        snprintf(name, sizeof name, "%.60s MIG %.30s", m->name,
                 at->ci >= 0 ? g->ci[at->ci].profile : g->gi[at->gi].profile);
        return sample_string(e, out, name);
    case DCGM_FI_DEV_GPU_BRAND:
        return sample_string(e, out, m->brand);
    case DCGM_FI_DEV_NVML_INDEX:
        return sample_integer(out, g->nvml_index);
    case DCGM_FI_DEV_BOARD_SERIAL:
        return sample_string(e, out, g->serial);
    case DCGM_FI_DEV_GPU_UUID:
    case DCGM_FI_CUDA_GPU_VISIBLE_DEVICES:
        if (at->gi >= 0)
            return ci ? sample_string(e, out, ci->uuid) : READ_BLANK;
        return sample_string(e, out, g->uuid);
    case DCGM_FI_DEV_GPU_MINOR_NUMBER:
        return sample_integer(out, g->minor);
    case DCGM_FI_DEV_INFOROM_OEM_VERSION:
        return sample_string(e, out, "2.1");
    case DCGM_FI_DEV_PCI_BUS_ID:
        return sample_string(e, out, g->pci_bus_id);
    case DCGM_FI_DEV_PCI_COMBINED_ID:
        return sample_integer(out, m->pci_device_id);
    case DCGM_FI_DEV_PCI_SUBSYS_ID:
        return sample_integer(out, m->pci_subsystem_id);
    case DCGM_FI_CUDA_GPU_COMPUTE_CAPABILITY:
        return sample_integer(out, (double)(m->cuda_major << 16 | m->cuda_minor));
    case DCGM_FI_DEV_GPU_COMPUTE_MODE:
    case DCGM_FI_DEV_CC_MODE:
    case DCGM_FI_DEV_GPU_VIRTUAL_MODE:
    case DCGM_FI_DEV_VGPU_LICENSE_STATUS:
        return sample_integer(out, 0);
    case DCGM_FI_DEV_GPU_RECOVERY_ACTION:
        return sample_integer(out, g->recovery_action);
    case DCGM_FI_DEV_GPU_PERSISTENCE_MODE:
    case DCGM_FI_DEV_INFOROM_VALID:
        return sample_integer(out, 1);
    case DCGM_FI_DEV_NVLINK_P2P_STATUS: /* one bit per peer */
        if (m->nvlinks == 0)
            return READ_NOT_SUPPORTED;
        out->v.i64 = 0;
        for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
            if (links_connect(&e->snapshot, (uint32_t)at->gpu, i))
                out->v.i64 |= INT64_C(1) << e->snapshot.gpu[i].dcgm_id;
        return READ_OK;
    case DCGM_FI_DEV_MIG_MODE:
        return m->mig_capable ? sample_integer(out, g->mig_enabled) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_MIG_MAX_SLICES:
        return m->mig_capable ? sample_integer(out, 7) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_CPU_AFFINITY_0:
    case DCGM_FI_DEV_CPU_AFFINITY_1:
    case DCGM_FI_DEV_CPU_AFFINITY_2:
    case DCGM_FI_DEV_CPU_AFFINITY_3:
        out->v.i64 = (int64_t)g->cpu_affinity[field - DCGM_FI_DEV_CPU_AFFINITY_0];
        return READ_OK;
    case DCGM_FI_DEV_MEMORY_AFFINITY_0:
        return sample_integer(out, 1u << g->numa_node);
    case DCGM_FI_DEV_MEMORY_AFFINITY_1:
    case DCGM_FI_DEV_MEMORY_AFFINITY_2:
    case DCGM_FI_DEV_MEMORY_AFFINITY_3:
        return sample_integer(out, 0);
    case DCGM_FI_DEV_INFOROM_ECC_VERSION:
        return m->has_ecc ? sample_string(e, out, "7.16") : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_INFOROM_POWER_VERSION:
        return READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_INFOROM_IMAGE_VERSION:
        return sample_string(e, out, "G520.0200.00.05");
    case DCGM_FI_DEV_INFOROM_CHECKSUM:
        return sample_integer(out, (double)(g->seed & 0xffffff));
    case DCGM_FI_DEV_VBIOS_VERSION:
        return sample_string(e, out, m->vbios);
    case DCGM_FI_DEV_GPM_SUPPORT:
        return sample_integer(out, profiling_by_driver(m));
    case DCGM_FI_DEV_FABRIC_MANAGER_STATUS:
    case DCGM_FI_DEV_FABRIC_MANAGER_ERROR:
    case DCGM_FI_DEV_FABRIC_CLUSTER_UUID:
    case DCGM_FI_DEV_FABRIC_CLIQUE_ID:
    case DCGM_FI_DEV_FABRIC_HEALTH_MASK:
    case DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY:
        return m->nvlink_version >= 4 ? read_fabric(e, field, at->gpu, out) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_CHASSIS_SERIAL_NUMBER: /* the position in a rack */
        return e->snapshot.cpu_count ? sample_string(e, out, "1820325000042") : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_CHASSIS_SLOT_NUMBER:
        return e->snapshot.cpu_count ? sample_integer(out, 12) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_TRAY_INDEX:
        return e->snapshot.cpu_count ? sample_integer(out, 4) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_HOST_ID:
    case DCGM_FI_DEV_PLATFORM_PEER_TYPE:
        return e->snapshot.cpu_count ? sample_integer(out, 1) : READ_NOT_SUPPORTED;
    case DCGM_FI_DEV_PLATFORM_MODULE_ID:
        return e->snapshot.cpu_count ? sample_integer(out, at->gpu + 1) : READ_NOT_SUPPORTED;
    default:
        return READ_NOT_SUPPORTED;
    }
}
