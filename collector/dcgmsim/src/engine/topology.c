/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Topology: paths between GPUs, and the state of NVLinks and peer-to-peer access. */
#include "engine/topology.h"

#include "engine/entities.h"
#include "engine/groups.h"
#include "engine/linkstate.h"
#include "engine/snapshot.h"

#include <string.h>

static uint64_t path_between(const struct node_gpu *a, const struct node_gpu *b, uint64_t *links)
{
    uint64_t path = a->numa_node == b->numa_node ? DCGM_TOPOLOGY_CPU : DCGM_TOPOLOGY_SYSTEM;
    uint32_t of_a, of_b;
    *links = links_up(a, &of_a);
    links_up(b, &of_b);
    if (of_a == 0 || of_b == 0 || a->model.nvlink_version != b->model.nvlink_version)
        *links = 0;
    else /* the switches connect every link to every GPU */
        path |= (uint64_t)DCGM_TOPOLOGY_NVLINK1 << ((of_a < of_b ? of_a : of_b) - 1);
    return path;
}

dcgmReturn_t topology_of_gpu(struct engine *e, unsigned gpu, dcgmDeviceTopology_v2 *out)
{
    struct location at;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    dcgmReturn_t rc = DCGM_ST_OK;
    if (!snapshot_locate(&e->snapshot, DCGM_FE_GPU, gpu, &at)) {
        rc = DCGM_ST_BADPARAM;
    } else if (entity_status(&e->snapshot, DCGM_FE_GPU, gpu) != DcgmEntityStatusOk) {
        rc = DCGM_ST_GPU_IS_LOST;
    } else {
        const struct node_gpu *g = &e->snapshot.gpu[at.gpu];
        RESET_VERSIONED(out);
        for (int i = 0; i < 4; i++)
            out->cpuAffinityMask[i] = g->cpu_affinity[i];
        for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
            const struct node_gpu *peer = &e->snapshot.gpu[i];
            if (peer == g || peer->lost || peer->detached)
                continue;
            uint64_t links;
            out->gpuPaths[out->numGpus].gpuId = peer->dcgm_id;
            out->gpuPaths[out->numGpus].path = (dcgmGpuTopologyLevel_t)path_between(g, peer, &links);
            out->gpuPaths[out->numGpus++].localNvLinkIds = links;
        }
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t topology_of_group(struct engine *e, uintptr_t group, dcgmGroupTopology_v2 *out)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    struct group *grp = group_find_locked(e, group);
    dcgmReturn_t rc = grp ? (grp->count ? DCGM_ST_OK : DCGM_ST_GROUP_IS_EMPTY) : DCGM_ST_NOT_CONFIGURED;
    if (rc == DCGM_ST_OK) {
        RESET_VERSIONED(out);
        out->numaOptimalFlag = 1;
        uint64_t slowest = 0;
        const struct node_gpu *first = NULL;
        for (uint32_t i = 0; i < grp->count; i++) {
            struct location at, other;
            if (!snapshot_locate(&e->snapshot, (int)grp->entities[i].entityGroupId, grp->entities[i].entityId, &at))
                continue;
            const struct node_gpu *g = &e->snapshot.gpu[at.gpu];
            for (int k = 0; k < 4; k++)
                out->groupCpuAffinityMask[k] |= g->cpu_affinity[k];
            if (first && first->numa_node != g->numa_node)
                out->numaOptimalFlag = 0;
            first = first ? first : g;
            for (uint32_t k = 0; k < i; k++) {
                uint64_t links;
                if (snapshot_locate(&e->snapshot, (int)grp->entities[k].entityGroupId, grp->entities[k].entityId,
                                    &other)) {
                    uint64_t path = path_between(g, &e->snapshot.gpu[other.gpu], &links);
                    if ((path & 0xff) > (slowest & 0xff))
                        slowest = path;
                }
            }
        }
        out->slowestPath = (dcgmGpuTopologyLevel_t)slowest;
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t topology_link_status(struct engine *e, dcgmNvLinkStatus_v5 *out)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    RESET_VERSIONED(out);
    bool mig = false;
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
        mig = mig || e->snapshot.gpu[i].mig_enabled;
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        const struct node_gpu *g = &e->snapshot.gpu[i];
        if (g->detached)
            continue;
        out->gpus[out->numGpus].entityId = g->dcgm_id;
        for (uint32_t k = 0; k < DCGM_NVLINK_MAX_LINKS_PER_GPU; k++) {
            /*
             * As DCGM maps NVML's answers: an error is "not supported"; if a GPU
             * of the node is in MIG mode, down is "disabled".
             */
            dcgmNvLinkLinkState_t state = DcgmNvLinkLinkStateNotSupported;
            if (k < g->model.nvlinks && !g->mig_enabled && !g->lost)
                state = g->link[k].down == 0 ? DcgmNvLinkLinkStateUp : mig ? DcgmNvLinkLinkStateDisabled
                    : DcgmNvLinkLinkStateDown;
            out->gpus[out->numGpus].linkState[k] = state;
        }
        out->numGpus++;
    }
    for (uint32_t i = 0; i < e->snapshot.switch_count; i++) {
        const struct node_switch *sw = &e->snapshot.nvswitch[i];
        dcgmNvLinkNvSwitchLinkStatus_t *s = &out->nvSwitches[out->numNvSwitches++];
        s->entityId = sw->id;
        for (uint32_t k = 0; k < NODE_MAX_PORTS; k++)
            s->linkState[k] = !link_port_visible(&e->snapshot, &sw->port[k]) ? DcgmNvLinkLinkStateDisabled
                              : link_port_up(&e->snapshot, &sw->port[k])   ? DcgmNvLinkLinkStateUp
                                                                        : DcgmNvLinkLinkStateDown;
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

dcgmReturn_t topology_p2p_status(struct engine *e, dcgmNvLinkP2PStatus_v1 *out)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    RESET_VERSIONED(out);
    out->numGpus = e->snapshot.gpu_count;
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        out->gpus[i].entityId = e->snapshot.gpu[i].dcgm_id;
        for (uint32_t k = 0; k < e->snapshot.gpu_count; k++) /* indexed by DCGM id; a GPU has no link to itself */
            out->gpus[i].linkStatus[e->snapshot.gpu[k].dcgm_id] =
                links_connect(&e->snapshot, i, k) ? DcgmNvLinkP2pStatusOK : DcgmNvLinkP2pStatusNotSupported;
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}
