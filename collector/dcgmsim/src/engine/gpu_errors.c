/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Values of the error counters of a GPU: ECC, row remapping, page retirement. */
#include "engine/gpufields.h"

#include "engine/sample.h"

bool is_counter(unsigned id)
{
    return (id >= DCGM_FI_DEV_ECC_MODE && id <= DCGM_FI_DEV_SRAM_EXCEEDED) ||
           (id >= DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX && id <= DCGM_FI_DEV_ROW_REMAP_PENDING) ||
           id == DCGM_FI_DEV_PCIE_REPLAY_TOTAL || id == DCGM_FI_DEV_PCIE_CORRECTABLE_ERROR_TOTAL ||
           id == DCGM_FI_DEV_MEMORY_UNREPAIRABLE;
}

/* Decodes a field that counts ECC errors at one location; false if the field does not. */
static bool decode_ecc(unsigned id, int *location, bool *aggregate, bool *dbe)
{
    static const struct {
        unsigned first; /* for single-bit errors; the next id is for double-bit errors */
        int location;
        bool aggregate;
    } fields[] = {
        {DCGM_FI_DEV_ECC_SBE_VOL_L1, NODE_ECC_L1, false},       {DCGM_FI_DEV_ECC_SBE_VOL_L2, NODE_ECC_L2, false},
        {DCGM_FI_DEV_ECC_SBE_VOL_DEV, NODE_ECC_DEVICE, false},  {DCGM_FI_DEV_ECC_SBE_VOL_REG, NODE_ECC_REGISTER, false},
        {DCGM_FI_DEV_ECC_SBE_VOL_TEX, NODE_ECC_TEXTURE, false}, {DCGM_FI_DEV_ECC_SBE_VOL_SHM, NODE_ECC_SHARED, false},
        {DCGM_FI_DEV_ECC_SBE_VOL_CBU, NODE_ECC_CBU, false},     {DCGM_FI_DEV_ECC_SBE_VOL_SRM, NODE_ECC_SRAM, false},
        {DCGM_FI_DEV_ECC_SBE_AGG_L1, NODE_ECC_L1, true},        {DCGM_FI_DEV_ECC_SBE_AGG_L2, NODE_ECC_L2, true},
        {DCGM_FI_DEV_ECC_SBE_AGG_DEV, NODE_ECC_DEVICE, true},   {DCGM_FI_DEV_ECC_SBE_AGG_REG, NODE_ECC_REGISTER, true},
        {DCGM_FI_DEV_ECC_SBE_AGG_TEX, NODE_ECC_TEXTURE, true},  {DCGM_FI_DEV_ECC_SBE_AGG_SHM, NODE_ECC_SHARED, true},
        {DCGM_FI_DEV_ECC_SBE_AGG_CBU, NODE_ECC_CBU, true},      {DCGM_FI_DEV_ECC_SBE_AGG_SRM, NODE_ECC_SRAM, true},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (id != fields[i].first && id != fields[i].first + 1)
            continue;
        *location = fields[i].location;
        *aggregate = fields[i].aggregate;
        *dbe = id != fields[i].first;
        return true;
    }
    return false;
}

/* A counter of row remapping; every model with row remapping has all of them. */
static enum read_result read_remapping(unsigned id, const struct node_gpu *g, struct sample *out)
{
    const uint64_t banks = 640, remapped = g->remap_correctable + g->remap_uncorrectable;
    uint64_t used = remapped < banks ? remapped : banks; /* each remapping uses a spare row of a different bank */
    switch (id) {
    case DCGM_FI_DEV_SRAM_EXCEEDED:
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_PARTIAL:
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_LOW:
        return sample_integer(out, 0);
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_HIGH:
        return sample_integer(out, (double)used);
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX:
        return sample_integer(out, (double)(banks - used));
    case DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL:
        return sample_integer(out, (double)g->remap_uncorrectable);
    case DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL:
        return sample_integer(out, (double)g->remap_correctable);
    case DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE:
    case DCGM_FI_DEV_ROW_REMAP_FAILED:
    case DCGM_FI_DEV_MEMORY_UNREPAIRABLE:
        return sample_integer(out, g->remap_failed);
    case DCGM_FI_DEV_ROW_REMAP_PENDING:
        return sample_integer(out, g->remap_pending);
    default:
        return READ_NOT_SUPPORTED;
    }
}

enum read_result read_counter(const struct field_info *f, const struct node_gpu *g, struct sample *out)
{
    const struct node_model *m = &g->model;
    unsigned id = f->id;
    int location;
    bool aggregate, dbe;
    if (id == DCGM_FI_DEV_PCIE_REPLAY_TOTAL || id == DCGM_FI_DEV_PCIE_CORRECTABLE_ERROR_TOTAL)
        return sample_integer(out, 0);
    if (id >= DCGM_FI_DEV_ECC_SBE_VOL_TOTAL && id <= DCGM_FI_DEV_ECC_DBE_AGG_TOTAL) {
        dbe = id == DCGM_FI_DEV_ECC_DBE_VOL_TOTAL || id == DCGM_FI_DEV_ECC_DBE_AGG_TOTAL;
        const uint64_t *errors = (id >= DCGM_FI_DEV_ECC_SBE_AGG_TOTAL ? g->ecc_aggregate : g->ecc_volatile)[dbe];
        return m->has_ecc ? sample_integer(out, (double)(errors[NODE_ECC_DEVICE] + errors[NODE_ECC_SRAM]))
            : READ_NOT_SUPPORTED;
    }
    if (decode_ecc(id, &location, &aggregate, &dbe)) {
        if (!m->has_ecc || (location > NODE_ECC_SRAM && !m->ecc_locations))
            return READ_NOT_SUPPORTED;
        return sample_integer(out, (double)(aggregate ? g->ecc_aggregate : g->ecc_volatile)[dbe][location]);
    }
    if (id == DCGM_FI_DEV_ECC_MODE || id == DCGM_FI_DEV_ECC_PENDING)
        return m->has_ecc ? sample_integer(out, 1) : READ_NOT_SUPPORTED;
    if (m->has_remap)
        return read_remapping(id, g, out);
    if (!m->has_ecc)
        return READ_NOT_SUPPORTED;
    switch (id) {
    case DCGM_FI_DEV_PAGE_RETIRED_SBE_TOTAL:
        return sample_integer(out, (double)g->retired_sbe);
    case DCGM_FI_DEV_PAGE_RETIRED_DBE_TOTAL:
        return sample_integer(out, (double)g->retired_dbe);
    case DCGM_FI_DEV_PAGE_RETIRED_PENDING:
        return sample_integer(out, g->retired_pending);
    default:
        return READ_NOT_SUPPORTED;
    }
}
