/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Questions about the node that need no watch: devices, attributes, hierarchy, topology, the engine itself. */
#define _GNU_SOURCE
#include "engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *engine_build_info(void)
{
    return "version:4.6.0;arch:x86_64;buildid:0;commit:dcgmsim;branch:dcgmsim;buildtype:Release;builddate:1970-01-01;"
           "buildplatform:simulated";
}

DcgmEntityStatus_t engine_entity_status(const struct snapshot *s, int group, uint32_t id)
{
    struct place at;
    if (group == DCGM_FE_SWITCH || group == DCGM_FE_LINK)
        return fabric_has(s, group, id) ? DcgmEntityStatusOk : DcgmEntityStatusUnknown;
    if (group == DCGM_FE_CPU || group == DCGM_FE_CPU_CORE)
        return cpu_has(s, group, id) ? DcgmEntityStatusOk : DcgmEntityStatusUnknown;
    if (!engine_locate(s, group, id, &at))
        return DcgmEntityStatusUnknown;
    const struct node_gpu *g = &s->gpu[at.gpu];
    return g->detached ? DcgmEntityStatusDetached : g->lost ? DcgmEntityStatusLost : DcgmEntityStatusOk;
}

dcgmReturn_t engine_devices(struct engine *e, bool only_supported, unsigned *ids, int *count)
{
    int n = 0;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    for (uint32_t i = 0; i < e->now.gpu_count; i++)
        if (!only_supported || engine_entity_status(&e->now, DCGM_FE_GPU, e->now.gpu[i].dcgm_id) == DcgmEntityStatusOk)
            ids[n++] = e->now.gpu[i].dcgm_id;
    pthread_mutex_unlock(&e->lock);
    *count = n;
    return DCGM_ST_OK;
}

dcgmReturn_t engine_entities(struct engine *e, int group, unsigned flags, unsigned *ids, int *count)
{
    if ((group == DCGM_FE_CPU || group == DCGM_FE_CPU_CORE) && e->node->cpu_count == 0) /* served by a module that needs Grace */
        return DCGM_ST_MODULE_NOT_LOADED;
    if (group == DCGM_FE_CONNECTX) {
        *count = 0;
        return DCGM_ST_OK;
    }
    /* links are not listed with NSCQ, nor vGPUs ever; dcgmGetNvLinkLinkStatus tells of the links */
    if (group != DCGM_FE_GPU && group != DCGM_FE_GPU_I && group != DCGM_FE_GPU_CI && group != DCGM_FE_SWITCH &&
        group != DCGM_FE_CPU && group != DCGM_FE_CPU_CORE)
        return DCGM_ST_NOT_SUPPORTED;
    unsigned all[NODE_MAX_CORES];
    int n = 0;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    for (uint32_t i = 0; group == DCGM_FE_SWITCH && i < e->now.switch_count; i++)
        all[n++] = e->now.nvswitch[i].id;
    for (uint32_t i = 0; group == DCGM_FE_CPU && i < e->now.cpu_count; i++)
        all[n++] = e->now.cpu[i].id;
    for (uint32_t i = 0; group == DCGM_FE_CPU_CORE && i < e->now.cpu_count; i++)
        for (uint32_t c = 0; c < e->now.cpu[i].core_count; c++)
            all[n++] = e->now.cpu[i].first_core + c;
    for (uint32_t i = 0; i < e->now.gpu_count; i++) {
        const struct node_gpu *g = &e->now.gpu[i];
        if ((flags & DCGM_GEGE_FLAG_ONLY_SUPPORTED) && (g->lost || g->detached))
            continue;
        if (group == DCGM_FE_GPU)
            all[n++] = g->dcgm_id;
        for (int k = 0; group == DCGM_FE_GPU_I && !g->detached && k < NODE_MAX_GIS; k++)
            if (g->gi[k].present)
                all[n++] = g->gi[k].entity_id;
        for (int k = 0; group == DCGM_FE_GPU_CI && !g->detached && k < NODE_MAX_CIS; k++)
            if (g->ci[k].present)
                all[n++] = g->ci[k].entity_id;
    }
    pthread_mutex_unlock(&e->lock);
    int room = *count;
    *count = n;
    if (n > room)
        return DCGM_ST_INSUFFICIENT_SIZE;
    memcpy(ids, all, (size_t)n * sizeof all[0]);
    return DCGM_ST_OK;
}

dcgmReturn_t engine_gpu_status(struct engine *e, unsigned gpu, DcgmEntityStatus_t *status)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    *status = engine_entity_status(&e->now, DCGM_FE_GPU, gpu);
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

static void live_text(struct engine *e, unsigned gpu, unsigned field, char *to)
{
    struct value v;
    watch_latest_locked(e, DCGM_FE_GPU, gpu, field, true, &v);
    snprintf(to, DCGM_MAX_STR_LENGTH, "%s", v.type == DCGM_FT_STRING ? v.v.str : "");
}

static unsigned live_number(struct engine *e, unsigned gpu, unsigned field)
{
    struct value v;
    watch_latest_locked(e, DCGM_FE_GPU, gpu, field, true, &v);
    if (v.type == DCGM_FT_DOUBLE)
        return DCGM_FP64_IS_BLANK(v.v.dbl) ? DCGM_INT32_BLANK : (unsigned)v.v.dbl;
    if (v.v.i64 == DCGM_INT64_NOT_SUPPORTED)
        return DCGM_INT32_NOT_SUPPORTED;
    return DCGM_INT64_IS_BLANK(v.v.i64) ? DCGM_INT32_BLANK : (unsigned)v.v.i64;
}

dcgmReturn_t engine_attributes(struct engine *e, unsigned gpu, dcgmDeviceAttributes_t *a)
{
    struct place at;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    if (!engine_locate(&e->now, DCGM_FE_GPU, gpu, &at)) {
        pthread_mutex_unlock(&e->lock);
        return DCGM_ST_BADPARAM;
    }
    unsigned version = a->version;
    memset(a, 0, sizeof *a);
    a->version = version;
    a->clockSets.version = dcgmDeviceSupportedClockSets_version;
    const struct node_model *m = &e->now.gpu[at.gpu].model;
    if (engine_entity_status(&e->now, DCGM_FE_GPU, gpu) == DcgmEntityStatusOk) {
        for (unsigned mhz = m->sm_max_mhz; mhz >= m->sm_idle_mhz && mhz > 0 && a->clockSets.count < 64; mhz -= 15)
            a->clockSets.clockSet[a->clockSets.count++] = (dcgmClockSet_t){dcgmClockSet_version, m->mem_max_mhz, mhz};
    }
    a->thermalSettings.version = dcgmDeviceThermals_version1;
    a->thermalSettings.slowdownTemp = live_number(e, gpu, DCGM_FI_DEV_GPU_TEMP_SLOWDOWN_CELSIUS);
    a->thermalSettings.shutdownTemp = live_number(e, gpu, DCGM_FI_DEV_GPU_TEMP_SHUTDOWN_CELSIUS);
    a->powerLimits.version = dcgmDevicePowerLimits_version1;
    a->powerLimits.curPowerLimit = live_number(e, gpu, DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS);
    a->powerLimits.defaultPowerLimit = live_number(e, gpu, DCGM_FI_DEV_BOARD_POWER_LIMIT_DEFAULT_WATTS);
    a->powerLimits.enforcedPowerLimit = live_number(e, gpu, DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS);
    a->powerLimits.minPowerLimit = live_number(e, gpu, DCGM_FI_DEV_BOARD_POWER_LIMIT_MIN_WATTS);
    a->powerLimits.maxPowerLimit = live_number(e, gpu, DCGM_FI_DEV_BOARD_POWER_LIMIT_MAX_WATTS);
    a->identifiers.version = dcgmDeviceIdentifiers_version1;
    live_text(e, gpu, DCGM_FI_DEV_GPU_BRAND, a->identifiers.brandName);
    live_text(e, gpu, DCGM_FI_DEV_GPU_NAME, a->identifiers.deviceName);
    live_text(e, gpu, DCGM_FI_DEV_PCI_BUS_ID, a->identifiers.pciBusId);
    live_text(e, gpu, DCGM_FI_DEV_BOARD_SERIAL, a->identifiers.serial);
    live_text(e, gpu, DCGM_FI_DEV_GPU_UUID, a->identifiers.uuid);
    live_text(e, gpu, DCGM_FI_DEV_VBIOS_VERSION, a->identifiers.vbios);
    live_text(e, gpu, DCGM_FI_DEV_INFOROM_IMAGE_VERSION, a->identifiers.inforomImageVersion);
    live_text(e, gpu, DCGM_FI_SYSTEM_DRIVER_VERSION, a->identifiers.driverVersion);
    a->identifiers.pciDeviceId = live_number(e, gpu, DCGM_FI_DEV_PCI_COMBINED_ID);
    a->identifiers.pciSubSystemId = live_number(e, gpu, DCGM_FI_DEV_PCI_SUBSYS_ID);
    a->identifiers.virtualizationMode = live_number(e, gpu, DCGM_FI_DEV_GPU_VIRTUAL_MODE);
    a->memoryUsage.version = dcgmDeviceMemoryUsage_version1;
    a->memoryUsage.bar1Total = live_number(e, gpu, DCGM_FI_DEV_BAR1_TOTAL);
    a->memoryUsage.fbTotal = live_number(e, gpu, DCGM_FI_DEV_FB_TOTAL);
    a->memoryUsage.fbUsed = live_number(e, gpu, DCGM_FI_DEV_FB_USED);
    a->memoryUsage.fbFree = live_number(e, gpu, DCGM_FI_DEV_FB_FREE);
    a->settings.version = dcgmDeviceSettings_version2;
    a->settings.persistenceModeEnabled = live_number(e, gpu, DCGM_FI_DEV_GPU_PERSISTENCE_MODE);
    a->settings.migModeEnabled = live_number(e, gpu, DCGM_FI_DEV_MIG_MODE);
    a->settings.confidentialComputeMode = live_number(e, gpu, DCGM_FI_DEV_CC_MODE);
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

/* NVML's numbers for the instance profiles, as nvidia-smi prints them. */
static unsigned gi_profile_id(const struct node_gi *gi)
{
    switch (gi->slices) {
    case 7:
        return 0;
    case 4:
        return 5;
    case 3:
        return 9;
    case 2:
        return 14;
    default:
        return gi->memory_slices == 2 ? 15 : 19;
    }
}

static unsigned ci_profile_id(unsigned slices)
{
    return slices == 7 ? 4 : slices - 1;
}

dcgmReturn_t engine_hierarchy(struct engine *e, dcgmMigHierarchy_v2 *out)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    unsigned version = out->version;
    memset(out, 0, sizeof *out);
    out->version = version;
    for (uint32_t i = 0; i < e->now.gpu_count; i++) {
        const struct node_gpu *g = &e->now.gpu[i];
        for (int k = 0; g->mig_enabled && !g->detached && k < NODE_MAX_GIS; k++) {
            const struct node_gi *gi = &g->gi[k];
            if (!gi->present)
                continue;
            dcgmMigHierarchyInfo_v2 *h = &out->entityList[out->count++];
            h->entity = (dcgmGroupEntityPair_t){DCGM_FE_GPU_I, gi->entity_id};
            h->parent = (dcgmGroupEntityPair_t){DCGM_FE_GPU, g->dcgm_id};
            snprintf(h->info.gpuUuid, sizeof h->info.gpuUuid, "%s", g->uuid);
            h->info.nvmlGpuIndex = g->nvml_index;
            h->info.nvmlInstanceId = gi->nvml_id;
            h->info.nvmlComputeInstanceId = (unsigned)-1;
            h->info.nvmlMigProfileId = gi_profile_id(gi);
            h->info.nvmlProfileSlices = gi->slices;
            for (int c = 0; c < NODE_MAX_CIS; c++) {
                const struct node_ci *ci = &g->ci[c];
                if (!ci->present || ci->gi != k)
                    continue;
                dcgmMigHierarchyInfo_v2 *hc = &out->entityList[out->count++];
                hc->entity = (dcgmGroupEntityPair_t){DCGM_FE_GPU_CI, ci->entity_id};
                hc->parent = h->entity;
                hc->info = h->info;
                hc->info.nvmlComputeInstanceId = ci->nvml_id;
                hc->info.nvmlMigProfileId = ci_profile_id(ci->slices);
                hc->info.nvmlProfileSlices = ci->slices;
            }
        }
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

static uint64_t links_up(const struct node_gpu *g, uint32_t *count)
{
    uint64_t up = 0;
    *count = 0;
    for (uint32_t i = 0; i < g->model.nvlinks; i++) {
        if (g->link[i].down)
            continue;
        up |= UINT64_C(1) << i;
        ++*count;
    }
    return up;
}

bool engine_peers(const struct snapshot *s, uint32_t a, uint32_t b)
{
    const struct node_gpu *x = &s->gpu[a], *y = &s->gpu[b];
    uint32_t up_x, up_y;
    links_up(x, &up_x);
    links_up(y, &up_y);
    return a != b && x->model.nvlink_version == y->model.nvlink_version && up_x > 0 && up_y > 0 && !x->mig_enabled && !y->mig_enabled;
}

static uint64_t path_between(const struct node_gpu *a, const struct node_gpu *b, uint64_t *links)
{
    uint64_t path = a->numa_node == b->numa_node ? DCGM_TOPOLOGY_CPU : DCGM_TOPOLOGY_SYSTEM;
    uint32_t of_a, of_b;
    *links = links_up(a, &of_a);
    links_up(b, &of_b);
    if (of_a == 0 || of_b == 0 || a->model.nvlink_version != b->model.nvlink_version)
        *links = 0;
    else /* every link reaches every GPU, through switches */
        path |= (uint64_t)DCGM_TOPOLOGY_NVLINK1 << ((of_a < of_b ? of_a : of_b) - 1);
    return path;
}

dcgmReturn_t engine_topology(struct engine *e, unsigned gpu, dcgmDeviceTopology_v2 *out)
{
    struct place at;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    dcgmReturn_t rc = DCGM_ST_OK;
    unsigned version = out->version;
    if (!engine_locate(&e->now, DCGM_FE_GPU, gpu, &at)) {
        rc = DCGM_ST_BADPARAM;
    } else if (engine_entity_status(&e->now, DCGM_FE_GPU, gpu) != DcgmEntityStatusOk) {
        rc = DCGM_ST_GPU_IS_LOST;
    } else {
        const struct node_gpu *g = &e->now.gpu[at.gpu];
        memset(out, 0, sizeof *out);
        out->version = version;
        for (int i = 0; i < 4; i++)
            out->cpuAffinityMask[i] = g->cpu_affinity[i];
        for (uint32_t i = 0; i < e->now.gpu_count; i++) {
            const struct node_gpu *peer = &e->now.gpu[i];
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

dcgmReturn_t engine_group_topology(struct engine *e, uintptr_t group, dcgmGroupTopology_v2 *out)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    struct group *grp = group_find_locked(e, group);
    dcgmReturn_t rc = grp ? (grp->count ? DCGM_ST_OK : DCGM_ST_GROUP_IS_EMPTY) : DCGM_ST_NOT_CONFIGURED;
    if (rc == DCGM_ST_OK) {
        unsigned version = out->version;
        memset(out, 0, sizeof *out);
        out->version = version;
        out->numaOptimalFlag = 1;
        uint64_t slowest = 0;
        const struct node_gpu *first = NULL;
        for (uint32_t i = 0; i < grp->count; i++) {
            struct place at, other;
            if (!engine_locate(&e->now, (int)grp->entities[i].entityGroupId, grp->entities[i].entityId, &at))
                continue;
            const struct node_gpu *g = &e->now.gpu[at.gpu];
            for (int k = 0; k < 4; k++)
                out->groupCpuAffinityMask[k] |= g->cpu_affinity[k];
            if (first && first->numa_node != g->numa_node)
                out->numaOptimalFlag = 0;
            first = first ? first : g;
            for (uint32_t k = 0; k < i; k++) {
                uint64_t links;
                if (engine_locate(&e->now, (int)grp->entities[k].entityGroupId, grp->entities[k].entityId, &other)) {
                    uint64_t path = path_between(g, &e->now.gpu[other.gpu], &links);
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

dcgmReturn_t engine_link_status(struct engine *e, dcgmNvLinkStatus_v5 *out)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    unsigned version = out->version;
    memset(out, 0, sizeof *out);
    out->version = version;
    bool mig = false;
    for (uint32_t i = 0; i < e->now.gpu_count; i++)
        mig = mig || e->now.gpu[i].mig_enabled;
    for (uint32_t i = 0; i < e->now.gpu_count; i++) {
        const struct node_gpu *g = &e->now.gpu[i];
        if (g->detached)
            continue;
        out->gpus[out->numGpus].entityId = g->dcgm_id;
        for (uint32_t k = 0; k < DCGM_NVLINK_MAX_LINKS_PER_GPU; k++) {
            /* as DCGM makes it of NVML's answers: any error is "not supported", and with MIG about, down is "disabled" */
            dcgmNvLinkLinkState_t state = DcgmNvLinkLinkStateNotSupported;
            if (k < g->model.nvlinks && !g->mig_enabled && !g->lost)
                state = g->link[k].down == 0 ? DcgmNvLinkLinkStateUp : mig ? DcgmNvLinkLinkStateDisabled : DcgmNvLinkLinkStateDown;
            out->gpus[out->numGpus].linkState[k] = state;
        }
        out->numGpus++;
    }
    for (uint32_t i = 0; i < e->now.switch_count; i++) {
        const struct node_switch *sw = &e->now.nvswitch[i];
        dcgmNvLinkNvSwitchLinkStatus_t *s = &out->nvSwitches[out->numNvSwitches++];
        s->entityId = sw->id;
        for (uint32_t k = 0; k < NODE_MAX_PORTS; k++)
            s->linkState[k] = !fabric_port_shows(&e->now, &sw->port[k]) ? DcgmNvLinkLinkStateDisabled
                              : fabric_port_up(&e->now, &sw->port[k])   ? DcgmNvLinkLinkStateUp
                                                                        : DcgmNvLinkLinkStateDown;
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

dcgmReturn_t engine_p2p_status(struct engine *e, dcgmNvLinkP2PStatus_v1 *out)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    unsigned version = out->version;
    memset(out, 0, sizeof *out);
    out->version = version;
    out->numGpus = e->now.gpu_count;
    for (uint32_t i = 0; i < e->now.gpu_count; i++) {
        out->gpus[i].entityId = e->now.gpu[i].dcgm_id;
        for (uint32_t k = 0; k < e->now.gpu_count; k++) /* by DCGM id; of a GPU with itself: not supported */
            out->gpus[i].linkStatus[e->now.gpu[k].dcgm_id] =
                engine_peers(&e->now, i, k) ? DcgmNvLinkP2pStatusOK : DcgmNvLinkP2pStatusNotSupported;
    }
    pthread_mutex_unlock(&e->lock);
    return DCGM_ST_OK;
}

static dcgmProfMetricGroupInfo_v2 *metric_group(dcgmProfGetMetricGroups_t *out, unsigned short major, unsigned first,
                                                unsigned last)
{
    dcgmProfMetricGroupInfo_v2 *g = &out->metricGroups[out->numMetricGroups++];
    g->majorId = major;
    g->minorId = 0;
    g->numFieldIds = 0;
    for (unsigned f = first; f <= last; f++)
        g->fieldIds[g->numFieldIds++] = (unsigned short)f;
    return g;
}

/*
 * Before Hopper, what the SMs do is counted in turns: an A10 lists 1002 to 1004 and
 * 1007 as A.1 and 1008 as A.3 (NVIDIA/DCGM issue 144); that 1006 is A.2 is a guess.
 */
static void metric_groups_in_turns(dcgmProfGetMetricGroups_t *out)
{
    dcgmProfMetricGroupInfo_v2 *g =
        metric_group(out, 1, DCGM_FI_PROF_SM_UTIL_RATIO, DCGM_FI_PROF_TENSOR_UTIL_RATIO);
    g->minorId = 1;
    g->fieldIds[g->numFieldIds++] = DCGM_FI_PROF_FP32_UTIL_RATIO;
    metric_group(out, 1, DCGM_FI_PROF_FP64_UTIL_RATIO, DCGM_FI_PROF_FP64_UTIL_RATIO)->minorId = 2;
    metric_group(out, 1, DCGM_FI_PROF_FP16_UTIL_RATIO, DCGM_FI_PROF_FP16_UTIL_RATIO)->minorId = 3;
    metric_group(out, 7, DCGM_FI_PROF_DRAM_UTIL_RATIO, DCGM_FI_PROF_DRAM_UTIL_RATIO);
    metric_group(out, 8, DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO, DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO);
}

dcgmReturn_t engine_metric_groups(struct engine *e, dcgmProfGetMetricGroups_t *out)
{
    struct place at;
    dcgmReturn_t rc = DCGM_ST_OK;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    out->numMetricGroups = 0;
    if (!engine_locate(&e->now, DCGM_FE_GPU, out->gpuId, &at)) {
        rc = DCGM_ST_BADPARAM;
    } else if (!e->now.gpu[at.gpu].model.profiling) {
        rc = DCGM_ST_MODULE_NOT_LOADED;
    } else {
        const struct node_model *m = &e->now.gpu[at.gpu].model;
        if (strcmp(m->architecture, "hopper") && strcmp(m->architecture, "blackwell"))
            metric_groups_in_turns(out);
        else
            metric_group(out, 1, DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO, DCGM_FI_PROF_FP16_UTIL_RATIO);
        metric_group(out, 2, DCGM_FI_PROF_PCIE_TX_BYTES, DCGM_FI_PROF_PCIE_RX_BYTES);
        if (m->nvlinks > 0)
            metric_group(out, 3, DCGM_FI_PROF_NVLINK_TX_BYTES, DCGM_FI_PROF_NVLINK_RX_BYTES);
        metric_group(out, 4, DCGM_FI_PROF_IMMA_UTIL_RATIO, DCGM_FI_PROF_INT_UTIL_RATIO);
        if (m->decoders > 0)
            metric_group(out, 5, DCGM_FI_PROF_NVDEC_UTIL_0_RATIO, DCGM_FI_PROF_NVDEC_UTIL_0_RATIO + (m->decoders > 8 ? 8 : m->decoders) - 1);
        if (m->nvlinks > 0)
            metric_group(out, 6, DCGM_FI_PROF_NVLINK_L0_TX_BYTES, DCGM_FI_PROF_NVLINK_L0_TX_BYTES + 2 * (m->nvlinks > 18 ? 18 : m->nvlinks) - 1);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

dcgmReturn_t engine_memory(struct engine *e, dcgmIntrospectMemory_t *out)
{
    (void)e;
    long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%ld %ld", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    out->bytesUsed = (long long)resident * sysconf(_SC_PAGESIZE);
    return DCGM_ST_OK;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

dcgmReturn_t engine_cpu(struct engine *e, dcgmIntrospectCpuUtil_t *out)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double wall = (double)(node_now_us() - e->started_us) / 1e6;
    if (wall < 1)
        wall = 1;
    double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);
    out->kernel = seconds(use.ru_stime) / wall / cpus;
    out->user = seconds(use.ru_utime) / wall / cpus;
    out->total = out->kernel + out->user;
    return DCGM_ST_OK;
}

static void fill_pid(struct engine *e, const struct node_process *p, int gpu, dcgmPidSingleInfo_t *out)
{
    const struct node_reading *r = value_gpu_reading(e, gpu);
    double lived = (double)(e->now.now_us - p->start_us) / 1e6;
    memset(out, 0, sizeof *out);
    out->gpuId = e->now.gpu[gpu].dcgm_id;
    out->energyConsumed = (long long)(r->power_w * p->share * lived * 1e3);
    out->pcieRxBandwidth = (dcgmStatSummaryInt64_t){(long long)r->pcie_rx_bps, (long long)r->pcie_rx_bps, (long long)r->pcie_rx_bps};
    out->pcieTxBandwidth = (dcgmStatSummaryInt64_t){(long long)r->pcie_tx_bps, (long long)r->pcie_tx_bps, (long long)r->pcie_tx_bps};
    out->startTime = p->start_us;
    out->processUtilization = (dcgmProcessUtilInfo_t){p->pid, r->util * p->share * 100, r->mem_util * p->share * 100};
    int sm = (int)(r->util * 100), mem = (int)(r->mem_util * 100);
    out->smUtilization = (dcgmStatSummaryInt32_t){sm, sm, sm};
    out->memoryUtilization = (dcgmStatSummaryInt32_t){mem, mem, mem};
    out->memoryClock = (dcgmStatSummaryInt32_t){(int)r->mem_mhz, (int)r->mem_mhz, (int)r->mem_mhz};
    out->smClock = (dcgmStatSummaryInt32_t){(int)r->sm_mhz, (int)r->sm_mhz, (int)r->sm_mhz};
    out->eccSingleBit = DCGM_INT32_NOT_SUPPORTED;
    out->maxGpuMemoryUsed = p->memory_bytes == NODE_MEMORY_UNKNOWN ? DCGM_INT64_BLANK : (long long)p->memory_bytes;
    out->powerViolationTime = value_throttle(e, gpu)->reason_ns[2] / 1000;
}

dcgmReturn_t engine_pid_info(struct engine *e, uintptr_t group, dcgmPidInfo_t *out)
{
    dcgmReturn_t rc = DCGM_ST_OK;
    unsigned version = out->version, pid = out->pid;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    struct group *g = group_find_locked(e, group);
    if (!g)
        rc = DCGM_ST_NOT_CONFIGURED;
    else if (!g->pids_watched)
        rc = DCGM_ST_NOT_WATCHED;
    memset(out, 0, sizeof *out);
    out->version = version;
    out->pid = pid;
    for (int i = 0; rc == DCGM_ST_OK && i < NODE_MAX_PROCESSES && out->numGpus < DCGM_MAX_NUM_DEVICES; i++) {
        struct node_process p;
        node_lock(e->node);
        p = e->node->process[i];
        node_unlock(e->node);
        if (!p.present || p.pid != pid)
            continue;
        for (uint32_t k = 0; k < g->count; k++)
            if (g->entities[k].entityGroupId == DCGM_FE_GPU && g->entities[k].entityId == e->now.gpu[p.gpu].dcgm_id)
                fill_pid(e, &p, (int)p.gpu, &out->gpus[out->numGpus++]);
    }
    pthread_mutex_unlock(&e->lock);
    if (rc == DCGM_ST_OK && out->numGpus == 0)
        rc = DCGM_ST_NO_DATA;
    if (rc == DCGM_ST_OK) {
        out->summary = out->gpus[0];
        out->summary.gpuId = DCGM_INT32_BLANK;
    }
    return rc;
}

dcgmReturn_t engine_watch_pids(struct engine *e, uintptr_t group)
{
    pthread_mutex_lock(&e->lock);
    struct group *g = group_find_locked(e, group);
    if (g)
        g->pids_watched = true;
    pthread_mutex_unlock(&e->lock);
    return g ? DCGM_ST_OK : DCGM_ST_NOT_CONFIGURED;
}

dcgmReturn_t engine_chip(struct engine *e, unsigned gpu, dcgmChipArchitecture_t *out)
{
    static const struct {
        const char *name;
        dcgmChipArchitecture_t chip;
    } chips[] = {
        {"volta", DCGM_CHIP_ARCH_VOLTA}, {"turing", DCGM_CHIP_ARCH_TURING}, {"ampere", DCGM_CHIP_ARCH_AMPERE},
        {"ada", DCGM_CHIP_ARCH_ADA},     {"hopper", DCGM_CHIP_ARCH_HOPPER}, {"blackwell", DCGM_CHIP_ARCH_BLACKWELL},
    };
    struct place at;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    bool here = engine_locate(&e->now, DCGM_FE_GPU, gpu, &at);
    *out = DCGM_CHIP_ARCH_UNKNOWN;
    for (size_t i = 0; here && i < sizeof chips / sizeof chips[0]; i++)
        if (strcmp(chips[i].name, e->now.gpu[at.gpu].model.architecture) == 0)
            *out = chips[i].chip;
    pthread_mutex_unlock(&e->lock);
    return here ? DCGM_ST_OK : DCGM_ST_BADPARAM;
}

/* Detach and attach of the driver as a whole: every GPU leaves, or comes back. */
dcgmReturn_t engine_attach(struct engine *e, bool attach)
{
    node_lock(e->node);
    for (uint32_t i = 0; i < e->node->gpu_count; i++) {
        struct node_gpu *g = &e->node->gpu[i];
        node_set_presence(e->node, i, g->lost, !attach);
        if (attach) /* a driver that is loaded anew counts from zero */
            memset(g->ecc_volatile, 0, sizeof g->ecc_volatile);
    }
    node_unlock(e->node);
    return DCGM_ST_OK;
}

dcgmReturn_t engine_cpus(struct engine *e, dcgmCpuHierarchy_v2 *out)
{
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    unsigned version = out->version;
    memset(out, 0, sizeof *out);
    out->version = version;
    out->numCpus = e->now.cpu_count;
    for (uint32_t i = 0; i < e->now.cpu_count; i++) {
        const struct node_cpu *cpu = &e->now.cpu[i];
        out->cpus[i].cpuId = cpu->id;
        out->cpus[i].ownedCores.version = dcgmCpuHierarchyOwnedCores_version1;
        for (uint32_t c = cpu->first_core; c < cpu->first_core + cpu->core_count; c++)
            out->cpus[i].ownedCores.bitmask[c / 64] |= UINT64_C(1) << (c % 64);
        snprintf(out->cpus[i].serial, sizeof out->cpus[i].serial, "%s", cpu->serial);
    }
    pthread_mutex_unlock(&e->lock);
    return e->node->cpu_count ? DCGM_ST_OK : DCGM_ST_MODULE_NOT_LOADED;
}

/* The module does it, which serves GPUs before Hopper only: without one of those it is not loaded. */
dcgmReturn_t engine_pause_profiling(struct engine *e, bool pause)
{
    bool module = false;
    pthread_mutex_lock(&e->lock);
    engine_look(e);
    for (uint32_t i = 0; i < e->now.gpu_count; i++)
        module = module || (e->now.gpu[i].model.profiling && !value_gpm(&e->now.gpu[i].model));
    if (module)
        e->profiling_paused = pause;
    pthread_mutex_unlock(&e->lock);
    return module ? DCGM_ST_OK : DCGM_ST_NOT_SUPPORTED;
}
