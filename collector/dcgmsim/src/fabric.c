/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What fields of NVLinks and NVSwitches show. Which of them a link of a GPU, a
 * port of a switch and a switch have, and what stands in a value's place, is as
 * in DCGM 4.6 (DcgmCacheManager.cpp, ReadAndCacheNvLink*; modules/nvswitch with
 * NSCQ, which serves HGX and DGX boards).
 */
#include "engine.h"

#include <math.h>
#include <string.h>

#define KIB 1024.0
#define NVLINK5 5

static int gpu_of(const struct snapshot *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->gpu_count; i++)
        if (s->gpu[i].dcgm_id == id)
            return (int)i;
    return -1;
}

static int switch_of(const struct snapshot *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->switch_count; i++)
        if (s->nvswitch[i].id == id)
            return (int)i;
    return -1;
}

/* DCGM looks at the parent only: any index goes into a group. */
bool fabric_has(const struct snapshot *s, int group, uint32_t id)
{
    dcgm_link_t link = {.raw = id};
    if (group == DCGM_FE_SWITCH)
        return switch_of(s, id) >= 0;
    if (link.parsed.type == DCGM_FE_GPU)
        return gpu_of(s, link.parsed.gpuId) >= 0;
    return link.parsed.type == DCGM_FE_SWITCH && switch_of(s, link.parsed.switchId) >= 0;
}

bool fabric_port_shows(const struct snapshot *s, const struct node_port *p)
{
    return p->kind == NODE_PORT_TRUNK || (p->kind == NODE_PORT_GPU && s->gpu_ports);
}

bool fabric_port_up(const struct snapshot *s, const struct node_port *p)
{
    return (p->kind == NODE_PORT_GPU ? &s->gpu[p->gpu].link[p->gpu_link] : &p->link)->down == 0;
}

static double mean_util(struct engine *e)
{
    double sum = 0;
    for (uint32_t i = 0; i < e->now.gpu_count; i++)
        sum += value_gpu_reading(e, (int)i)->util;
    return e->now.gpu_count ? sum / e->now.gpu_count : 0;
}

static void read_port(struct engine *e, const struct node_port *p, struct node_link_reading *out)
{
    node_read_port(p, &e->now.gpu[p->gpu], value_gpu_reading(e, p->gpu), out);
}

/* An error stays, with its own time; each look at it is one more sample, a microsecond later. */
static enum read_result sxid(struct sample *out, uint32_t code, int64_t at_us)
{
    if (at_us > 0)
        out->ts = at_us;
    return value_integer(out, at_us > 0 ? code : 0);
}

static enum read_result read_switch(struct engine *e, const struct field_fact *f, int at, struct sample *out)
{
    const struct node_switch *sw = &e->now.nvswitch[at];
    const struct node_override *o = e->now.override_count ? value_override(&e->now, NODE_OF_SWITCH, at, f->id) : NULL;
    if (f->level != DCGM_FE_SWITCH && f->id != DCGM_FI_DEV_GPU_UUID)
        return READ_NO_DATA;
    if (sw->lost || (o && o->blank))
        return READ_BLANK;
    if (o && f->type == DCGM_FT_INT64)
        return value_integer(out, o->value);
    double load = mean_util(e), tx = 0, rx = 0;
    switch (f->id) {
    case DCGM_FI_DEV_NVSWITCH_VOLTAGE_MVOLT:
        return value_integer(out, 800 + (double)(sw->seed % 12));
    case DCGM_FI_DEV_NVSWITCH_CURRENT_IDDQ:
        return value_integer(out, 20 + (double)(sw->seed % 7));
    case DCGM_FI_DEV_NVSWITCH_CURRENT_IDDQ_REV:
        return value_integer(out, 2);
    case DCGM_FI_DEV_NVSWITCH_CURRENT_IDDQ_DVDD:
        return value_integer(out, 4 + (double)(sw->seed % 3));
    case DCGM_FI_DEV_NVSWITCH_POWER_VDD_WATTS:
        return value_integer(out, 38 + 40 * load);
    case DCGM_FI_DEV_NVSWITCH_POWER_DVDD_WATTS:
        return value_integer(out, 14 + 6 * load);
    case DCGM_FI_DEV_NVSWITCH_POWER_HVDD_WATTS:
        return value_integer(out, 9 + 4 * load);
    case DCGM_FI_DEV_SXID_FATAL_ERROR:
        return sxid(out, sw->fatal.sxid, sw->fatal.at_us);
    case DCGM_FI_DEV_SXID_NON_FATAL_ERROR:
        return sxid(out, sw->non_fatal.sxid, sw->non_fatal.at_us);
    case DCGM_FI_DEV_NVSWITCH_TEMP_CELSIUS:
        return value_integer(out, 36 + 22 * load + (double)(sw->seed % 4) + sw->heat_c);
    case DCGM_FI_DEV_NVSWITCH_TEMP_SLOWDOWN_CELSIUS:
        return value_integer(out, 115);
    case DCGM_FI_DEV_NVSWITCH_TEMP_SHUTDOWN_CELSIUS:
        return value_integer(out, 120);
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
        return value_integer(out, (f->id == DCGM_FI_DEV_NVSWITCH_THROUGHPUT_TX ? tx : rx) / KIB);
    case DCGM_FI_DEV_NVSWITCH_PHYSICAL_ID:
        return value_integer(out, sw->id);
    case DCGM_FI_DEV_NVSWITCH_RESET_REQUIRED:
        return value_integer(out, sw->fatal.at_us > 0);
    case DCGM_FI_DEV_NVSWITCH_PCIE_DOMAIN:
        return value_integer(out, sw->pci_domain);
    case DCGM_FI_DEV_NVSWITCH_PCIE_BUS:
        return value_integer(out, sw->pci_bus);
    case DCGM_FI_DEV_NVSWITCH_PCIE_DEVICE:
        return value_integer(out, sw->pci_device);
    case DCGM_FI_DEV_NVSWITCH_PCIE_FUNCTION:
        return value_integer(out, 0);
    case DCGM_FI_DEV_GPU_UUID:
        return value_text(e, out, sw->uuid);
    default: /* NSCQ does not tell */
        return READ_BLANK;
    }
}

/* Latency: how many packets of each virtual channel took how long. All go over the first. */
static enum read_result latency(unsigned field, double packets, struct sample *out)
{
    static const double share[] = {0.91, 0.08, 0.0099, 0.0001, 1}; /* low, medium, high, panic, all */
    unsigned bin = (field - DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_LOW_VC0) / 4, vc = (field - DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_LOW_VC0) % 4;
    return value_integer(out, vc == 0 ? floor(packets * share[bin]) : 0);
}

static enum read_result read_switch_link(struct engine *e, const struct field_fact *f, int at, unsigned index, struct sample *out)
{
    const struct node_switch *sw = &e->now.nvswitch[at];
    unsigned id = f->id;
    if (f->level != DCGM_FE_LINK || index >= NODE_MAX_PORTS)
        return READ_NO_DATA;
    if (id >= DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL && id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_PER_LINK)
        return READ_NOT_SUPPORTED; /* of GPUs' links only, as are those below */
    if (id == DCGM_FI_PROF_NVLINK_TX_BYTES_PER_LINK || id == DCGM_FI_PROF_NVLINK_RX_BYTES_PER_LINK)
        return READ_BLANK;
    if (id < DCGM_FI_FIRST_NVSWITCH_FIELD_ID || id > DCGM_FI_LAST_NVSWITCH_FIELD_ID)
        return READ_NO_DATA;
    if (sw->lost)
        return READ_BLANK;
    const struct node_port *p = &sw->port[index];
    bool shows = fabric_port_shows(&e->now, p);
    const struct node_link *l = p->kind == NODE_PORT_GPU ? &e->now.gpu[p->gpu].link[p->gpu_link] : &p->link;
    static const struct node_link none;
    struct node_link_reading r = {0};
    if (shows)
        read_port(e, p, &r);
    else
        l = &none;
    if (id >= DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_LOW_VC0 && id <= DCGM_FI_DEV_NVSWITCH_LINK_LATENCY_SAMPLE_VC3_TOTAL)
        return latency(id, r.rx_bytes / 256, out);
    if (id >= DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_L0_TOTAL && id <= DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_L3_TOTAL)
        return value_integer(out, (double)((l->error[NODE_LINK_CRC] + 3 - (id - DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_L0_TOTAL)) / 4));
    if (id >= DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_L0_TOTAL && id <= DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_L3_TOTAL)
        return value_integer(out, (double)((l->error[NODE_LINK_ECC] + 3 - (id - DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_L0_TOTAL)) / 4));
    bool to_gpu = shows && p->kind == NODE_PORT_GPU;
    const struct node_gpu *g = &e->now.gpu[p->gpu];
    switch (id) {
    case DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_TX:
        return value_integer(out, r.tx_bytes / KIB);
    case DCGM_FI_DEV_NVSWITCH_LINK_THROUGHPUT_RX:
        return value_integer(out, r.rx_bytes / KIB);
    case DCGM_FI_DEV_NVSWITCH_LINK_FATAL_ERRORS:
        return sxid(out, sw->fatal.sxid, sw->fatal.port == index ? sw->fatal.at_us : 0);
    case DCGM_FI_DEV_NVSWITCH_LINK_NON_FATAL_ERRORS:
        return sxid(out, sw->non_fatal.sxid, sw->non_fatal.port == index ? sw->non_fatal.at_us : 0);
    case DCGM_FI_DEV_NVSWITCH_LINK_REPLAY_ERROR_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_REPLAY]);
    case DCGM_FI_DEV_NVSWITCH_LINK_RECOVERY_ERROR_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_RECOVERY]);
    case DCGM_FI_DEV_NVSWITCH_LINK_FLIT_ERROR_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_FLIT]);
    case DCGM_FI_DEV_NVSWITCH_LINK_CRC_ERROR_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_CRC]);
    case DCGM_FI_DEV_NVSWITCH_LINK_ECC_ERROR_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_ECC]);
    case DCGM_FI_DEV_NVSWITCH_LINK_ID:
        return value_integer(out, index);
    case DCGM_FI_DEV_NVSWITCH_LINK_STATUS: /* off, active, error */
        return value_integer(out, !shows ? 0 : r.up ? 2 : 3);
    case DCGM_FI_DEV_NVSWITCH_LINK_TYPE: /* as NSCQ numbers what is at the other end */
        return shows ? value_integer(out, to_gpu ? 1 : 2) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_DOMAIN:
        return to_gpu ? value_integer(out, g->pci_domain) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_BUS:
        return to_gpu ? value_integer(out, g->pci_bus) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_DEVICE:
        return to_gpu ? value_integer(out, g->pci_device) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_PCIE_FUNCTION:
        return to_gpu ? value_integer(out, 0) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_LINK_REMOTE_LINK_ID:
        return to_gpu ? value_integer(out, p->gpu_link) : READ_BLANK;
    case DCGM_FI_DEV_NVSWITCH_UUID:
        return value_text(e, out, sw->uuid);
    default: /* lanes 4 to 7, SIDs */
        return READ_BLANK;
    }
}

/* NVLink 5's counters: of one link, or of all links of a GPU. */
static enum read_result read_count(const struct field_fact *f, const struct node_link_reading *r, const uint64_t *error, struct sample *out)
{
    switch (f->id) {
    case DCGM_FI_DEV_NVLINK_TX_PACKET_TOTAL:
        return value_integer(out, floor(r->tx_bytes / 144));
    case DCGM_FI_DEV_NVLINK_TX_BYTES_TOTAL:
        return value_integer(out, r->tx_bytes);
    case DCGM_FI_DEV_NVLINK_RX_PACKET_TOTAL:
        return value_integer(out, floor(r->rx_bytes / 144));
    case DCGM_FI_DEV_NVLINK_RX_BYTES_TOTAL:
        return value_integer(out, r->rx_bytes);
    case DCGM_FI_DEV_NVLINK_RX_ERROR_TOTAL:
    case DCGM_FI_DEV_NVLINK_RX_GENERAL_ERROR_TOTAL:
        return value_integer(out, (double)error[NODE_LINK_CRC]);
    case DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL:
    case DCGM_FI_DEV_NVLINK_RECOVERY_EVENT_TOTAL:
        return value_integer(out, (double)error[NODE_LINK_RECOVERY]);
    case DCGM_FI_DEV_NVLINK_RX_SYMBOL_ERROR_TOTAL:
        return value_integer(out, (double)error[NODE_LINK_FLIT]);
    case DCGM_FI_DEV_NVLINK_ECC_ERROR_TOTAL:
        return value_integer(out, (double)error[NODE_LINK_ECC]);
    case DCGM_FI_DEV_NVLINK_FEC_HISTORY_0_TOTAL:
        return value_integer(out, floor(r->rx_bytes / 272));
    case DCGM_FI_DEV_NVLINK_FEC_HISTORY_1_TOTAL:
        return value_integer(out, floor(r->rx_bytes / 1e10) + (double)error[NODE_LINK_FLIT]);
    default:
        return f->type == DCGM_FT_DOUBLE ? value_real(out, 0) : value_integer(out, 0);
    }
}

static bool is_count(unsigned id)
{
    return (id >= DCGM_FI_DEV_NVLINK_TX_PACKET_TOTAL && id <= DCGM_FI_DEV_NVLINK_ECC_ERROR_TOTAL) ||
           (id >= DCGM_FI_DEV_NVLINK_FEC_HISTORY_0_TOTAL && id <= DCGM_FI_DEV_NVLINK_FEC_HISTORY_15_TOTAL);
}

/* Counters in the link's own registers, which NVLink 5 lets read. */
static enum read_result read_registers(unsigned id, const struct node_link *l, const struct node_link_reading *r, struct sample *out)
{
    switch (id) {
    case DCGM_FI_DEV_NVLINK_PPCNT_RECOVERY_SUCCESSFUL_TOTAL:
    case DCGM_FI_DEV_NVLINK_PPCNT_PHYSICAL_RECOVERY_SUCCESSFUL_TOTAL:
    case DCGM_FI_DEV_NVLINK_PPCNT_PLR_SYNC_EVENT_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_RECOVERY]);
    case DCGM_FI_DEV_NVLINK_PPCNT_PHYSICAL_LINK_DOWN_TOTAL:
        return value_integer(out, (double)l->downs);
    case DCGM_FI_DEV_NVLINK_PPCNT_PLR_RX_CODE_TOTAL:
        return value_integer(out, floor(r->rx_bytes / 272));
    case DCGM_FI_DEV_NVLINK_PPCNT_PLR_RX_CODE_ERROR_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_FLIT]);
    case DCGM_FI_DEV_NVLINK_PPCNT_PLR_TX_CODE_TOTAL:
        return value_integer(out, floor(r->tx_bytes / 272));
    case DCGM_FI_DEV_NVLINK_PPCNT_PLR_TX_RETRY_CODE_TOTAL:
    case DCGM_FI_DEV_NVLINK_PPCNT_PLR_TX_RETRY_EVENT_TOTAL:
        return value_integer(out, (double)l->error[NODE_LINK_REPLAY]);
    case DCGM_FI_DEV_NVLINK_PPCNT_IBPC_TX_WAIT_TOTAL:
        return value_integer(out, floor(r->tx_bytes / 1e6));
    default:
        return value_integer(out, 0);
    }
}

static enum read_result read_gpu_link(struct engine *e, const struct field_fact *f, int at, unsigned index, struct watch *w,
                                      struct sample *out)
{
    const struct node_gpu *g = &e->now.gpu[at];
    unsigned id = f->id;
    bool throughput = id >= DCGM_FI_DEV_NVLINK_THROUGHPUT_PER_LINK && id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_PER_LINK;
    bool per_link = id >= DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL && id <= DCGM_FI_PROF_NVLINK_RX_BYTES_PER_LINK;
    bool registers = (id >= DCGM_FI_DEV_NVLINK_PPRM_OPER_RECOVERY && id <= DCGM_FI_DEV_NVLINK_PPCNT_PLR_SYNC_EVENT_TOTAL) ||
                     id == DCGM_FI_DEV_NVLINK_PPCNT_IBPC_TX_WAIT_TOTAL;
    if (!per_link && !registers && !is_count(id) && id != DCGM_FI_DEV_NVLINK_LINK_STATUS)
        return READ_NO_DATA;
    if (e->driver_dead || g->detached)
        return READ_BLANK;
    if (is_count(id) && g->model.nvlink_version < NVLINK5)
        return READ_NOT_SUPPORTED;
    /* a throughput that cannot be read leaves no sample at all: the last one stays */
    if (g->lost || index >= g->model.nvlinks)
        return throughput ? READ_NO_DATA : READ_BLANK;
    const struct node_link *l = &g->link[index];
    struct node_link_reading r;
    node_read_link(g, index, value_gpu_reading(e, at), &r);
    if (is_count(id))
        return read_count(f, &r, l->error, out);
    if (registers)
        return g->model.nvlink_version < NVLINK5 ? READ_NOT_SUPPORTED : read_registers(id, l, &r, out);
    static const enum node_link_error errors[] = {NODE_LINK_FLIT, NODE_LINK_CRC, NODE_LINK_REPLAY, NODE_LINK_RECOVERY};
    switch (id) {
    case DCGM_FI_DEV_NVLINK_LINK_STATUS:
        return g->model.nvlink_version < 4 ? READ_NOT_SUPPORTED : value_integer(out, r.up);
    case DCGM_FI_DEV_NVLINK_THROUGHPUT_PER_LINK:
        return value_rate(e, w, out, r.tx_bytes + r.rx_bytes);
    case DCGM_FI_DEV_NVLINK_TX_THROUGHPUT_PER_LINK:
        return value_rate(e, w, out, r.tx_bytes);
    case DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_PER_LINK:
        return value_rate(e, w, out, r.rx_bytes);
    case DCGM_FI_PROF_NVLINK_TX_BYTES_PER_LINK:
    case DCGM_FI_PROF_NVLINK_RX_BYTES_PER_LINK: {
        const struct node_reading *p;
        struct node_reading scratch;
        enum read_result rc = value_profiling_reading(e, at, NULL, w, &scratch, &p, NULL);
        if (rc != READ_OK)
            return READ_BLANK;
        node_read_link(g, index, p, &r);
        return value_integer(out, id == DCGM_FI_PROF_NVLINK_TX_BYTES_PER_LINK ? r.tx_bps : r.rx_bps);
    }
    default:
        if (g->model.nvlink_version >= NVLINK5)
            return READ_NOT_SUPPORTED;
        return value_integer(out, (double)l->error[errors[id - DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_PER_LINK_TOTAL]]);
    }
}

enum read_result fabric_read(struct engine *e, const struct field_fact *f, int group, uint32_t id, struct watch *w,
                             struct sample *out)
{
    dcgm_link_t link = {.raw = id};
    int at;
    if (group == DCGM_FE_SWITCH) {
        at = switch_of(&e->now, id);
        return at < 0 ? READ_NO_DATA : read_switch(e, f, at, out);
    }
    if (link.parsed.type == DCGM_FE_GPU) {
        at = gpu_of(&e->now, link.parsed.gpuId);
        return at < 0 ? READ_NO_DATA : read_gpu_link(e, f, at, link.parsed.index, w, out);
    }
    at = link.parsed.type == DCGM_FE_SWITCH ? switch_of(&e->now, link.parsed.switchId) : -1;
    return at < 0 ? READ_NO_DATA : read_switch_link(e, f, at, link.parsed.index, out);
}

bool fabric_is_gpu_field(unsigned id)
{
    return (id >= DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_L0_TOTAL && id <= DCGM_FI_DEV_NVLINK_REPLAY_TOTAL) ||
           (id >= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_L0 && id <= DCGM_FI_DEV_NVLINK_RX_THROUGHPUT_TOTAL) || is_count(id);
}

/* Link number of a per-link field, from the "_lN" or "_linkN" that ends its tag; -1 when it has none. */
static int link_of(const char *tag)
{
    const char *p = tag + strlen(tag), *end = p;
    while (p > tag && p[-1] >= '0' && p[-1] <= '9')
        p--;
    if (p == end || !((p >= tag + 2 && strncmp(p - 2, "_l", 2) == 0) || (p >= tag + 5 && strncmp(p - 5, "_link", 5) == 0)))
        return -1;
    int n = 0;
    for (; p < end; p++)
        n = n * 10 + (*p - '0');
    return n;
}

/* What a field of the tag "nvlink_flit_crc_error_count_l3" counts; -1 for a throughput. */
static int error_of(const char *tag)
{
    if (strstr(tag, "throughput"))
        return -1;
    return strstr(tag, "flit") ? NODE_LINK_FLIT
         : strstr(tag, "crc") ? NODE_LINK_CRC
         : strstr(tag, "replay") ? NODE_LINK_REPLAY
         : strstr(tag, "recovery") ? NODE_LINK_RECOVERY
                                     : NODE_LINK_ERRORS;
}

enum read_result fabric_read_gpu(struct engine *e, const struct field_fact *f, int at, struct watch *w, struct sample *out)
{
    const struct node_gpu *g = &e->now.gpu[at];
    const struct node_model *m = &g->model;
    const struct node_reading *whole = value_gpu_reading(e, at);
    struct node_link_reading r = {true, whole->nvlink_tx_bps, whole->nvlink_rx_bps, whole->nvlink_tx_bytes, whole->nvlink_rx_bytes};
    uint64_t error[NODE_LINK_ERRORS + 1] = {0};
    if (m->nvlinks == 0 || (is_count(f->id) && m->nvlink_version < NVLINK5))
        return READ_NOT_SUPPORTED;
    int link = link_of(f->tag), kind = error_of(f->tag);
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
        return value_rate(e, w, out, r.rx_bytes);
    if (kind < 0)
        return value_rate(e, w, out, r.tx_bytes + r.rx_bytes);
    if (m->nvlink_version >= NVLINK5)
        return READ_NOT_SUPPORTED;
    if (f->id == DCGM_FI_DEV_NVLINK_CRC_ERROR_TOTAL)
        error[NODE_LINK_CRC] += error[NODE_LINK_FLIT];
    return value_integer(out, (double)error[kind]);
}
