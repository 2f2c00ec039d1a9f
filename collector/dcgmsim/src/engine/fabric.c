/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Values of NVLink and NVSwitch fields.
 *
 * Which fields a GPU's link, a switch port and a switch have, and which blank
 * or status replaces a missing value, follows DCGM 4.6: DcgmCacheManager.cpp
 * (ReadAndCacheNvLink*) and modules/nvswitch with NSCQ, which HGX and DGX
 * boards use.
 */
#include "engine/fabric.h"

#include "engine/linkstate.h"
#include "engine/profiling.h"
#include "engine/sample.h"
#include "engine/snapshot.h"
#include "node/linktraffic.h"

#include <math.h>
#include <string.h>

#define KIB 1024.0
#define NVLINK5 5

/* Fields that count one kind of error of a link. */
static const struct {
    unsigned field;
    enum node_link_error error;
} error_fields[] = {
    {DCGM_FI_DEV_NVSWITCH_LINK_REPLAY_ERROR_TOTAL, NODE_LINK_REPLAY},
    {DCGM_FI_DEV_NVSWITCH_LINK_RECOVERY_ERROR_TOTAL, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVSWITCH_LINK_FLIT_ERROR_TOTAL, NODE_LINK_FLIT},
    {DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_TOTAL, NODE_LINK_CRC},
    {DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_TOTAL, NODE_LINK_ECC},
    {DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL, NODE_LINK_FLIT},
    {DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL + 1, NODE_LINK_CRC},
    {DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL + 2, NODE_LINK_REPLAY},
    {DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL + 3, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVLINK_RX_ERROR_TOTAL, NODE_LINK_CRC},
    {DCGM_FI_DEV_NVLINK_RX_GENERAL_ERROR_TOTAL, NODE_LINK_CRC},
    {DCGM_FI_DEV_NVLINK_RX_SYMBOL_ERROR_TOTAL, NODE_LINK_FLIT},
    {DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVLINK_ECC_ERROR_TOTAL, NODE_LINK_ECC},
    {DCGM_FI_DEV_NVLINK_PPCNT_RECOVERY_SUCCESSFUL_TOTAL, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVLINK_PPCNT_PHYSICAL_RECOVERY_SUCCESSFUL_TOTAL, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVLINK_PPCNT_PLR_SYNC_EVENT_TOTAL, NODE_LINK_RECOVERY},
    {DCGM_FI_DEV_NVLINK_PPCNT_PLR_RX_CODE_ERROR_TOTAL, NODE_LINK_FLIT},
    {DCGM_FI_DEV_NVLINK_PPCNT_PLR_TX_RETRY_CODE_TOTAL, NODE_LINK_REPLAY},
    {DCGM_FI_DEV_NVLINK_PPCNT_PLR_TX_RETRY_EVENT_TOTAL, NODE_LINK_REPLAY},
};

/* Fields that count the traffic of a link, in units of so many bytes. */
static const struct {
    unsigned field;
    bool received;
    double unit_bytes;
} traffic_fields[] = {
    {DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_TX, false, KIB},
    {DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_RX, true, KIB},
    {DCGM_FI_DEV_NVLINK_TX_BYTES_TOTAL, false, 1},
    {DCGM_FI_DEV_NVLINK_RX_BYTES_TOTAL, true, 1},
    {DCGM_FI_DEV_NVLINK_TX_PACKET_TOTAL, false, 144},
    {DCGM_FI_DEV_NVLINK_RX_PACKET_TOTAL, true, 144},
    {DCGM_FI_DEV_NVLINK_FEC_HISTORY_0_TOTAL, true, 272},
    {DCGM_FI_DEV_NVLINK_PPCNT_PLR_TX_CODE_TOTAL, false, 272},
    {DCGM_FI_DEV_NVLINK_PPCNT_PLR_RX_CODE_TOTAL, true, 272},
    {DCGM_FI_DEV_NVLINK_PPCNT_IBPC_TX_WAIT_TOTAL, false, 1e6},
};

/* Reads a field of the two tables; false if the field is in neither. */
static bool read_link_counter(unsigned id, const struct node_link_reading *r, const uint64_t *error, struct sample *out)
{
    for (size_t i = 0; i < sizeof error_fields / sizeof error_fields[0]; i++)
        if (error_fields[i].field == id)
            return sample_integer(out, (double)error[error_fields[i].error]) == READ_OK;
    for (size_t i = 0; i < sizeof traffic_fields / sizeof traffic_fields[0]; i++) {
        if (traffic_fields[i].field != id)
            continue;
        double bytes = traffic_fields[i].received ? r->rx_bytes : r->tx_bytes;
        return sample_integer(out, bytes / traffic_fields[i].unit_bytes) == READ_OK;
    }
    return false;
}

static double mean_util(struct engine *e)
{
    double sum = 0;
    for (uint32_t i = 0; i < e->snapshot.gpu_count; i++)
        sum += snapshot_gpu_reading(e, (int)i)->util;
    return e->snapshot.gpu_count ? sum / e->snapshot.gpu_count : 0;
}

static void read_port(struct engine *e, const struct node_port *p, struct node_link_reading *out)
{
    node_read_port(p, &e->snapshot.gpu[p->gpu], snapshot_gpu_reading(e, p->gpu), out);
}

/* An SXid remains, with its own time. Each reading is a new sample, one microsecond later. */
static enum read_result sxid(struct sample *out, uint32_t code, int64_t at_us)
{
    if (at_us > 0)
        out->ts = at_us;
    return sample_integer(out, at_us > 0 ? code : 0);
}

static enum read_result read_switch(struct engine *e, const struct field_info *f, int at, struct sample *out)
{
    const struct node_switch *sw = &e->snapshot.nvswitch[at];
    const struct node_override *o = e->snapshot.override_count
        ? snapshot_override(&e->snapshot, NODE_ENTITY_SWITCH, at, f->id) : NULL;
    if (f->level != DCGM_FE_SWITCH && f->id != DCGM_FI_DEV_GPU_UUID)
        return READ_NO_DATA;
    if (sw->lost || (o && o->blank))
        return READ_BLANK;
    if (o && f->type == DCGM_FT_INT64)
        return sample_integer(out, o->value);
    double load = mean_util(e), tx = 0, rx = 0;
    switch (f->id) {
    case DCGM_FI_DEV_NVSWITCH_VOLTAGE_MVOLT:
        return sample_integer(out, 800 + (double)(sw->seed % 12));
    case DCGM_FI_DEV_NVSWITCH_CURRENT_IDDQ:
        return sample_integer(out, 20 + (double)(sw->seed % 7));
    case DCGM_FI_DEV_NVSWITCH_CURRENT_IDDQ_REV:
        return sample_integer(out, 2);
    case DCGM_FI_DEV_NVSWITCH_CURRENT_IDDQ_DVDD:
        return sample_integer(out, 4 + (double)(sw->seed % 3));
    case DCGM_FI_DEV_NVSWITCH_POWER_VDD_WATTS:
        return sample_integer(out, 38 + 40 * load);
    case DCGM_FI_DEV_NVSWITCH_POWER_DVDD_WATTS:
        return sample_integer(out, 14 + 6 * load);
    case DCGM_FI_DEV_NVSWITCH_POWER_HVDD_WATTS:
        return sample_integer(out, 9 + 4 * load);
    case DCGM_FI_DEV_SXID_FATAL_ERROR:
        return sxid(out, sw->fatal.sxid, sw->fatal.at_us);
    case DCGM_FI_DEV_SXID_NON_FATAL_ERROR:
        return sxid(out, sw->non_fatal.sxid, sw->non_fatal.at_us);
    case DCGM_FI_DEV_NVSWITCH_TEMP_CELSIUS:
        return sample_integer(out, 36 + 22 * load + (double)(sw->seed % 4) + sw->heat_c);
    case DCGM_FI_DEV_NVSWITCH_TEMP_SLOWDOWN_CELSIUS:
        return sample_integer(out, 115);
    case DCGM_FI_DEV_NVSWITCH_TEMP_SHUTDOWN_CELSIUS:
        return sample_integer(out, 120);
    case DCGM_FI_DEV_NVSWITCH_THROUGHPUT_TX:
    case DCGM_FI_DEV_NVSWITCH_THROUGHPUT_RX:
        for (int p = 0; p < NODE_MAX_PORTS; p++) {
            struct node_link_reading r;
            if (sw->port[p].kind == NODE_PORT_UNUSED)
                continue;
            read_port(e, &sw->port[p], &r);
            tx += r.tx_bytes;
            rx += r.rx_bytes;
        }
        return sample_integer(out, (f->id == DCGM_FI_DEV_NVSWITCH_THROUGHPUT_TX ? tx : rx) / KIB);
    case DCGM_FI_DEV_NVSWITCH_PHYSICAL_ID:
        return sample_integer(out, sw->id);
    case DCGM_FI_DEV_NVSWITCH_RESET_REQUIRED:
        return sample_integer(out, sw->fatal.at_us > 0);
    case DCGM_FI_DEV_NVSWITCH_PCIE_DOMAIN:
        return sample_integer(out, sw->pci_domain);
    case DCGM_FI_DEV_NVSWITCH_PCIE_BUS:
        return sample_integer(out, sw->pci_bus);
    case DCGM_FI_DEV_NVSWITCH_PCIE_DEVICE:
        return sample_integer(out, sw->pci_device);
    case DCGM_FI_DEV_NVSWITCH_PCIE_FUNCTION:
        return sample_integer(out, 0);
    case DCGM_FI_DEV_GPU_UUID:
        return sample_string(e, out, sw->uuid);
    default: /* NSCQ does not report it */
        return READ_BLANK;
    }
}

/* Latency histogram: packets by latency bin and virtual channel. All packets use channel 0. */
static enum read_result latency(unsigned field, double packets, struct sample *out)
{
    static const double share[] = {0.91, 0.08, 0.0099, 0.0001, 1}; /* low, medium, high, panic, all */
    unsigned at = field - DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_LOW_VC0, bin = at / 4, channel = at % 4;
    return sample_integer(out, channel == 0 ? floor(packets * share[bin]) : 0);
}

/* The errors of one of the four lanes of a link, which share them evenly. */
static enum read_result lane_errors(uint64_t errors, unsigned lane, struct sample *out)
{
    return sample_integer(out, (double)((errors + 3 - lane) / 4));
}

static enum read_result read_switch_link(struct engine *e, const struct field_info *f, int at, unsigned index,
                                         struct sample *out)
{
    const struct node_switch *sw = &e->snapshot.nvswitch[at];
    unsigned id = f->id;
    if (f->level != DCGM_FE_LINK || index >= NODE_MAX_PORTS)
        return READ_NO_DATA;
    if (id >= DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL && id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_PER_LINK)
        return READ_NOT_SUPPORTED; /* only links of GPUs have these and the next two */
    if (id == DCGM_FI_PROF_NVLINK_TX_BYTES_PER_LINK || id == DCGM_FI_PROF_NVLINK_RX_BYTES_PER_LINK)
        return READ_BLANK;
    if (id < DCGM_FI_FIRST_NVSWITCH_FIELD_ID || id > DCGM_FI_LAST_NVSWITCH_FIELD_ID)
        return READ_NO_DATA;
    if (sw->lost)
        return READ_BLANK;
    const struct node_port *p = &sw->port[index];
    bool visible = link_port_visible(&e->snapshot, p);
    const struct node_link *l = p->kind == NODE_PORT_GPU ? &e->snapshot.gpu[p->gpu].link[p->gpu_link] : &p->link;
    static const struct node_link none;
    struct node_link_reading r = {0};
    if (visible)
        read_port(e, p, &r);
    else
        l = &none;
    if (id >= DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_LOW_VC0 && id <= DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_SAMPLE_VC3_TOTAL)
        return latency(id, r.rx_bytes / 256, out);
    if (id >= DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_L0_TOTAL && id <= DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_L3_TOTAL)
        return lane_errors(l->error[NODE_LINK_CRC], id - DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_L0_TOTAL, out);
    if (id >= DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_L0_TOTAL && id <= DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_L3_TOTAL)
        return lane_errors(l->error[NODE_LINK_ECC], id - DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_L0_TOTAL, out);
    if (read_link_counter(id, &r, l->error, out))
        return READ_OK;
    bool leads_to_gpu = visible && p->kind == NODE_PORT_GPU;
    const struct node_gpu *g = &e->snapshot.gpu[p->gpu];
    switch (id) {
    case DCGM_FI_DEV_NVSWITCH_LINK_FATAL_ERRORS:
        return sxid(out, sw->fatal.sxid, sw->fatal.port == index ? sw->fatal.at_us : 0);
    case DCGM_FI_DEV_NVSWITCH_LINK_NON_FATAL_ERRORS:
        return sxid(out, sw->non_fatal.sxid, sw->non_fatal.port == index ? sw->non_fatal.at_us : 0);
    case DCGM_FI_DEV_NVSWITCH_LINK_ID:
        return sample_integer(out, index);
    case DCGM_FI_DEV_NVSWITCH_LINK_STATUS: /* off, active, error */
        return sample_integer(out, !visible ? 0 : r.up ? 2 : 3);
    case DCGM_FI_DEV_NVSWITCH_LINK_TYPE: /* NSCQ's number for the kind of the remote end */
        return visible ? sample_integer(out, leads_to_gpu ? 1 : 2) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_DOMAIN:
        return leads_to_gpu ? sample_integer(out, g->pci_domain) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_BUS:
        return leads_to_gpu ? sample_integer(out, g->pci_bus) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_DEVICE:
        return leads_to_gpu ? sample_integer(out, g->pci_device) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_FUNCTION:
        return leads_to_gpu ? sample_integer(out, 0) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_LINK_ID:
        return leads_to_gpu ? sample_integer(out, p->gpu_link) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_UUID:
        return sample_string(e, out, sw->uuid);
    default: /* lanes 4 to 7, SIDs */
        return READ_BLANK;
    }
}

/* NVLink 5 counters, of one link or of all links of a GPU. */
static bool is_count(unsigned id)
{
    return (id >= DCGM_FI_DEV_NVLINK_TX_PACKET_TOTAL && id <= DCGM_FI_DEV_NVLINK_ECC_ERROR_TOTAL) ||
           (id >= DCGM_FI_DEV_NVLINK_FEC_HISTORY_0_TOTAL && id <= DCGM_FI_DEV_NVLINK_FEC_HISTORY_15_TOTAL);
}

static enum read_result read_count(const struct field_info *f, const struct node_link_reading *r, const uint64_t *error,
                                   struct sample *out)
{
    if (read_link_counter(f->id, r, error, out))
        return READ_OK;
    if (f->id == DCGM_FI_DEV_NVLINK_FEC_HISTORY_1_TOTAL)
        return sample_integer(out, floor(r->rx_bytes / 1e10) + (double)error[NODE_LINK_FLIT]);
    return f->type == DCGM_FT_DOUBLE ? sample_double(out, 0) : sample_integer(out, 0);
}

/* Counters in the registers of a link, which are readable with NVLink 5. */
static bool is_register(unsigned id)
{
    return (id >= DCGM_FI_DEV_NVLINK_PPRM_OPER_RECOVERY && id <= DCGM_FI_DEV_NVLINK_PPCNT_PLR_SYNC_EVENT_TOTAL) ||
           id == DCGM_FI_DEV_NVLINK_PPCNT_IBPC_TX_WAIT_TOTAL;
}

static enum read_result read_register(unsigned id, const struct node_link *l, const struct node_link_reading *r,
                                      struct sample *out)
{
    if (read_link_counter(id, r, l->error, out))
        return READ_OK;
    return sample_integer(out, id == DCGM_FI_DEV_NVLINK_PPCNT_PHYSICAL_LINK_DOWN_TOTAL ? (double)l->downs : 0);
}

static enum read_result read_gpu_link(struct engine *e, const struct field_info *f, int at, unsigned index,
                                      struct watch *w, struct sample *out)
{
    const struct node_gpu *g = &e->snapshot.gpu[at];
    unsigned id = f->id;
    bool throughput = id >= DCGM_FI_DEV_NVLINK_THROUGHPUT_PER_LINK && id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_PER_LINK;
    bool per_link = id >= DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL &&
        id <= DCGM_FI_PROF_NVLINK_RX_BYTES_PER_LINK;
    if (!per_link && !is_register(id) && !is_count(id) && id != DCGM_FI_DEV_NVLINK_LINK_STATUS)
        return READ_NO_DATA;
    if (e->driver_dead || g->detached)
        return READ_BLANK;
    if (is_count(id) && g->model.nvlink_version < NVLINK5)
        return READ_NOT_SUPPORTED;
    /* A throughput that cannot be read leaves no sample, so the latest one remains. */
    if (g->lost || index >= g->model.nvlinks)
        return throughput ? READ_NO_DATA : READ_BLANK;
    const struct node_link *l = &g->link[index];
    struct node_link_reading r;
    node_read_link(g, index, snapshot_gpu_reading(e, at), &r);
    if (is_count(id))
        return read_count(f, &r, l->error, out);
    if (is_register(id))
        return g->model.nvlink_version < NVLINK5 ? READ_NOT_SUPPORTED : read_register(id, l, &r, out);
    switch (id) {
    case DCGM_FI_DEV_NVLINK_LINK_STATUS:
        return g->model.nvlink_version < 4 ? READ_NOT_SUPPORTED : sample_integer(out, r.up);
    case DCGM_FI_DEV_NVLINK_THROUGHPUT_PER_LINK:
        return sample_rate(e, w, out, r.tx_bytes + r.rx_bytes);
    case DCGM_FI_DEV_NVLINK_TX_THROUGHPUT_PER_LINK:
        return sample_rate(e, w, out, r.tx_bytes);
    case DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_PER_LINK:
        return sample_rate(e, w, out, r.rx_bytes);
    case DCGM_FI_PROF_NVLINK_TX_BYTES_PER_LINK:
    case DCGM_FI_PROF_NVLINK_RX_BYTES_PER_LINK: {
        struct node_reading p;
        if (profiling_reading(e, at, NULL, w, &p, NULL) != READ_OK)
            return READ_BLANK;
        node_read_link(g, index, &p, &r);
        return sample_integer(out, id == DCGM_FI_PROF_NVLINK_TX_BYTES_PER_LINK ? r.tx_bps : r.rx_bps);
    }
    default:
        if (g->model.nvlink_version >= NVLINK5)
            return READ_NOT_SUPPORTED;
        return read_link_counter(id, &r, l->error, out) ? READ_OK : READ_BLANK;
    }
}

enum read_result fabric_read(struct engine *e, const struct field_info *f, int group, uint32_t id, struct watch *w,
                             struct sample *out)
{
    dcgm_link_t link = {.raw = id};
    int at;
    if (group == DCGM_FE_SWITCH) {
        at = switch_of(&e->snapshot, id);
        return at < 0 ? READ_NO_DATA : read_switch(e, f, at, out);
    }
    if (link.parsed.type == DCGM_FE_GPU) {
        at = gpu_of(&e->snapshot, link.parsed.gpuId);
        return at < 0 ? READ_NO_DATA : read_gpu_link(e, f, at, link.parsed.index, w, out);
    }
    at = link.parsed.type == DCGM_FE_SWITCH ? switch_of(&e->snapshot, link.parsed.switchId) : -1;
    return at < 0 ? READ_NO_DATA : read_switch_link(e, f, at, link.parsed.index, out);
}

bool fabric_is_gpu_field(unsigned id)
{
    return (id >= DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_L0_TOTAL && id <= DCGM_FI_DEV_NVLINK_REPLAY_TOTAL) ||
           (id >= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_L0 && id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_TOTAL) || is_count(id);
}

/* The link number of a field, from the suffix "_lN" or "_linkN" of its tag; -1 if there is none. */
static int field_link(const char *tag)
{
    const char *p = tag + strlen(tag), *end = p;
    while (p > tag && p[-1] >= '0' && p[-1] <= '9')
        p--;
    if (p == end || !((p >= tag + 2 && strncmp(p - 2, "_l", 2) == 0) ||
                      (p >= tag + 5 && strncmp(p - 5, "_link", 5) == 0)))
        return -1;
    int n = 0;
    for (; p < end; p++)
        n = n * 10 + (*p - '0');
    return n;
}

/* The error that a field such as "nvlink_flit_crc_error_count_l3" counts; -1 for a throughput. */
static int field_error(const char *tag)
{
    if (strstr(tag, "throughput"))
        return -1;
    return strstr(tag, "flit") ? NODE_LINK_FLIT
         : strstr(tag, "crc") ? NODE_LINK_CRC
         : strstr(tag, "replay") ? NODE_LINK_REPLAY
         : strstr(tag, "recovery") ? NODE_LINK_RECOVERY
                                     : NODE_LINK_ERRORS;
}

enum read_result fabric_read_gpu(struct engine *e, const struct field_info *f, int at, struct watch *w,
                                 struct sample *out)
{
    const struct node_gpu *g = &e->snapshot.gpu[at];
    const struct node_model *m = &g->model;
    const struct node_reading *whole = snapshot_gpu_reading(e, at);
    struct node_link_reading r = {true, whole->nvlink_tx_bps, whole->nvlink_rx_bps, whole->nvlink_tx_bytes,
                                  whole->nvlink_rx_bytes};
    uint64_t error[NODE_LINK_ERRORS + 1] = {0};
    if (m->nvlinks == 0 || (is_count(f->id) && m->nvlink_version < NVLINK5))
        return READ_NOT_SUPPORTED;
    int link = field_link(f->tag), kind = field_error(f->tag);
    if (link >= (int)m->nvlinks)
        return READ_NOT_SUPPORTED;
    if (link >= 0)
        node_read_link(g, (uint32_t)link, whole, &r);
    for (uint32_t i = 0; i < m->nvlinks; i++)
        for (int k = 0; k < NODE_LINK_ERRORS; k++)
            error[k] += link < 0 || (int)i == link ? g->link[i].error[k] : 0;
    if (is_count(f->id))
        return read_count(f, &r, error, out);
    if (kind < 0 && f->id >= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_L0 && f->id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_TOTAL)
        return sample_rate(e, w, out, r.rx_bytes);
    if (kind < 0)
        return sample_rate(e, w, out, r.tx_bytes + r.rx_bytes);
    if (m->nvlink_version >= NVLINK5)
        return READ_NOT_SUPPORTED;
    if (f->id == DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL)
        error[NODE_LINK_CRC] += error[NODE_LINK_FLIT];
    return sample_integer(out, (double)error[kind]);
}
