/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Descriptions of devices: attributes, MIG hierarchy, CPU hierarchy, chip architecture. */
#include "engine/devices.h"

#include "engine/entities.h"
#include "engine/snapshot.h"
#include "engine/watch.h"
#include "node/links.h"

#include <stdio.h>
#include <string.h>

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

dcgmReturn_t describe_gpu(struct engine *e, unsigned gpu, dcgmDeviceAttributes_t *a)
{
    struct location at;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    if (!snapshot_locate(&e->snapshot, DCGM_FE_GPU, gpu, &at)) {
        pthread_mutex_unlock(&e->lock);
        return DCGM_ST_BADPARAM;
    }
    RESET_VERSIONED(a);
    a->clockSets.version = dcgmDeviceSupportedClockSets_version;
    const struct node_model *m = &e->snapshot.gpu[at.gpu].model;
    if (entity_status(&e->snapshot, DCGM_FE_GPU, gpu) == DcgmEntityStatusOk) {
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

/* NVML's profile number of a GPU instance, as nvidia-smi prints it. */
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

dcgmReturn_t describe_mig(struct engine *e, dcgmMigHierarchy_v2 *out)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    RESET_VERSIONED(out);
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++) {
        const struct node_gpu *g = &e->snapshot.gpu[i];
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

dcgmReturn_t chip_architecture(struct engine *e, unsigned gpu, dcgmChipArchitecture_t *out)
{
    static const struct {
        const char *name;
        dcgmChipArchitecture_t chip;
    } chips[] = {
        {"volta", DCGM_CHIP_ARCH_VOLTA}, {"turing", DCGM_CHIP_ARCH_TURING}, {"ampere", DCGM_CHIP_ARCH_AMPERE},
        {"ada", DCGM_CHIP_ARCH_ADA},     {"hopper", DCGM_CHIP_ARCH_HOPPER}, {"blackwell", DCGM_CHIP_ARCH_BLACKWELL},
    };
    struct location at;
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    bool here = snapshot_locate(&e->snapshot, DCGM_FE_GPU, gpu, &at);
    *out = DCGM_CHIP_ARCH_UNKNOWN;
    for (size_t i = 0; here && i < sizeof chips / sizeof chips[0]; i++)
        if (strcmp(chips[i].name, e->snapshot.gpu[at.gpu].model.architecture) == 0)
            *out = chips[i].chip;
    pthread_mutex_unlock(&e->lock);
    return here ? DCGM_ST_OK : DCGM_ST_BADPARAM;
}

dcgmReturn_t describe_cpus(struct engine *e, dcgmCpuHierarchy_v2 *out)
{
    pthread_mutex_lock(&e->lock);
    snapshot_take(e);
    RESET_VERSIONED(out);
    out->numCpus = e->snapshot.cpu_count;
    for (uint32_t i = 0; i < e->snapshot.cpu_count; i++) {
        const struct node_cpu *cpu = &e->snapshot.cpu[i];
        out->cpus[i].cpuId = cpu->id;
        out->cpus[i].ownedCores.version = dcgmCpuHierarchyOwnedCores_version1;
        for (uint32_t c = cpu->first_core; c < cpu->first_core + cpu->core_count; c++)
            out->cpus[i].ownedCores.bitmask[c / 64] |= UINT64_C(1) << (c % 64);
        snprintf(out->cpus[i].serial, sizeof out->cpus[i].serial, "%s", cpu->serial);
    }
    pthread_mutex_unlock(&e->lock);
    return e->node->cpu_count ? DCGM_ST_OK : DCGM_ST_MODULE_NOT_LOADED;
}

dcgmReturn_t attach_driver(struct engine *e, bool attach)
{
    node_lock(e->node);
    for (uint32_t i = 0; i < e->node->gpu_count; i++) {
        struct node_gpu *g = &e->node->gpu[i];
        node_set_presence(e->node, i, g->lost, !attach);
        if (attach) /* a reloaded driver counts from zero */
            memset(g->ecc_volatile, 0, sizeof g->ecc_volatile);
    }
    node_unlock(e->node);
    return DCGM_ST_OK;
}
