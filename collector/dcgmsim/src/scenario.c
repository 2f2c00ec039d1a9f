/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Scenario files, and the built-in scenarios, which are written the same way. */
#define _GNU_SOURCE
#include "node.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MODELS 16
#define MAX_DEPTH 4
#define MAX_WORDS 64

struct named_model {
    char key[32];
    struct node_model model;
};

struct parser {
    struct node_state *node;
    const char *file;
    int line, depth;
    bool started; /* a statement other than base was seen in this file */
    struct named_model models[MAX_MODELS];
    int model_count;
    char *err;
    size_t err_len;
};

enum attr_type { A_NAME, A_TEXT, A_UINT, A_U64, A_DOUBLE, A_BOOL };

#define ATTR(type, member) {#member, type, offsetof(struct node_model, member), sizeof(((struct node_model *)0)->member)}

static const struct attr {
    const char *name;
    enum attr_type type;
    size_t offset, size;
} attrs[] = {
    ATTR(A_NAME, name),
    ATTR(A_TEXT, brand),
    ATTR(A_TEXT, architecture),
    ATTR(A_UINT, cuda_major),
    ATTR(A_UINT, cuda_minor),
    ATTR(A_UINT, pci_device_id),
    ATTR(A_UINT, pci_subsystem_id),
    ATTR(A_U64, fb_total_mib),
    ATTR(A_U64, fb_reserved_mib),
    ATTR(A_U64, bar1_total_mib),
    ATTR(A_DOUBLE, power_idle_w),
    ATTR(A_DOUBLE, power_limit_w),
    ATTR(A_DOUBLE, power_min_w),
    ATTR(A_DOUBLE, power_max_w),
    ATTR(A_DOUBLE, temp_idle_c),
    ATTR(A_DOUBLE, temp_load_c),
    ATTR(A_DOUBLE, temp_slowdown_c),
    ATTR(A_DOUBLE, temp_shutdown_c),
    ATTR(A_BOOL, has_memory_temp),
    ATTR(A_BOOL, has_fan),
    ATTR(A_BOOL, has_energy),
    ATTR(A_BOOL, has_ecc),
    ATTR(A_BOOL, has_remap),
    ATTR(A_BOOL, mig_capable),
    ATTR(A_BOOL, profiling),
    ATTR(A_UINT, sm_idle_mhz),
    ATTR(A_UINT, sm_max_mhz),
    ATTR(A_UINT, mem_idle_mhz),
    ATTR(A_UINT, mem_max_mhz),
    ATTR(A_UINT, video_max_mhz),
    ATTR(A_UINT, pcie_gen),
    ATTR(A_UINT, pcie_width),
    ATTR(A_UINT, nvlinks),
    ATTR(A_UINT, nvlink_version),
    ATTR(A_DOUBLE, nvlink_link_bps),
    ATTR(A_UINT, sm_count),
    ATTR(A_UINT, encoders),
    ATTR(A_UINT, decoders),
    ATTR(A_UINT, c2c_links),
    ATTR(A_DOUBLE, c2c_link_mbps),
    ATTR(A_BOOL, ecc_locations),
};

/* clang-format off */
static const struct named_model builtin_models[] = {
    {"h100", {
        .name = "NVIDIA H100 80GB HBM3", .brand = "NVIDIA", .architecture = "hopper", .cuda_major = 9, .cuda_minor = 0,
        .pci_device_id = 0x233010de, .pci_subsystem_id = 0x16c110de,
        .fb_total_mib = 81559, .fb_reserved_mib = 620, .bar1_total_mib = 131072,
        .power_idle_w = 70, .power_limit_w = 700, .power_min_w = 200, .power_max_w = 700,
        .temp_idle_c = 26, .temp_load_c = 66, .temp_slowdown_c = 89, .temp_shutdown_c = 94,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true, .profiling = true,
        .sm_idle_mhz = 345, .sm_max_mhz = 1980, .mem_idle_mhz = 2619, .mem_max_mhz = 2619, .video_max_mhz = 1545,
        .pcie_gen = 5, .pcie_width = 16, .nvlinks = 18, .nvlink_version = 4, .nvlink_link_bps = 25e9,
        .sm_count = 132, .encoders = 0, .decoders = 7}},
    {"a100-80", {
        .name = "NVIDIA A100-SXM4-80GB", .brand = "NVIDIA", .architecture = "ampere", .cuda_major = 8, .cuda_minor = 0,
        .pci_device_id = 0x20b210de, .pci_subsystem_id = 0x146310de,
        .fb_total_mib = 81920, .fb_reserved_mib = 605, .bar1_total_mib = 131072,
        .power_idle_w = 62, .power_limit_w = 400, .power_min_w = 100, .power_max_w = 400,
        .temp_idle_c = 27, .temp_load_c = 63, .temp_slowdown_c = 90, .temp_shutdown_c = 95,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true,
        .sm_idle_mhz = 210, .sm_max_mhz = 1410, .mem_idle_mhz = 1593, .mem_max_mhz = 1593, .video_max_mhz = 1290,
        .pcie_gen = 4, .pcie_width = 16, .nvlinks = 12, .nvlink_version = 3, .nvlink_link_bps = 25e9,
        .sm_count = 108, .encoders = 0, .decoders = 5}},
    {"a100-40", {
        .name = "NVIDIA A100-SXM4-40GB", .brand = "NVIDIA", .architecture = "ampere", .cuda_major = 8, .cuda_minor = 0,
        .pci_device_id = 0x20b010de, .pci_subsystem_id = 0x134f10de,
        .fb_total_mib = 40960, .fb_reserved_mib = 571, .bar1_total_mib = 65536,
        .power_idle_w = 50, .power_limit_w = 400, .power_min_w = 100, .power_max_w = 400,
        .temp_idle_c = 27, .temp_load_c = 63, .temp_slowdown_c = 90, .temp_shutdown_c = 95,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true,
        .sm_idle_mhz = 210, .sm_max_mhz = 1410, .mem_idle_mhz = 1215, .mem_max_mhz = 1215, .video_max_mhz = 1290,
        .pcie_gen = 4, .pcie_width = 16, .nvlinks = 12, .nvlink_version = 3, .nvlink_link_bps = 25e9,
        .sm_count = 108, .encoders = 0, .decoders = 5}},
    {"t4", {
        .name = "Tesla T4", .brand = "Tesla", .architecture = "turing", .cuda_major = 7, .cuda_minor = 5,
        .pci_device_id = 0x1eb810de, .pci_subsystem_id = 0x12a210de,
        .fb_total_mib = 15360, .fb_reserved_mib = 263, .bar1_total_mib = 256,
        .power_idle_w = 10, .power_limit_w = 70, .power_min_w = 60, .power_max_w = 70,
        .temp_idle_c = 34, .temp_load_c = 76, .temp_slowdown_c = 93, .temp_shutdown_c = 96,
        .has_energy = true, .has_ecc = true,
        .sm_idle_mhz = 300, .sm_max_mhz = 1590, .mem_idle_mhz = 405, .mem_max_mhz = 5001, .video_max_mhz = 1470,
        .pcie_gen = 3, .pcie_width = 16, .sm_count = 40, .encoders = 1, .decoders = 2}},
    {"l4", {
        .name = "NVIDIA L4", .brand = "NVIDIA", .architecture = "ada", .cuda_major = 8, .cuda_minor = 9,
        .pci_device_id = 0x27b810de, .pci_subsystem_id = 0x16ca10de,
        .fb_total_mib = 23034, .fb_reserved_mib = 491, .bar1_total_mib = 32768,
        .power_idle_w = 13, .power_limit_w = 72, .power_min_w = 40, .power_max_w = 72,
        .temp_idle_c = 33, .temp_load_c = 74, .temp_slowdown_c = 87, .temp_shutdown_c = 92,
        .has_energy = true, .has_ecc = true, .has_remap = true,
        .sm_idle_mhz = 210, .sm_max_mhz = 2040, .mem_idle_mhz = 405, .mem_max_mhz = 6251, .video_max_mhz = 1770,
        .pcie_gen = 4, .pcie_width = 16, .sm_count = 58, .encoders = 2, .decoders = 4}},
    {"gb200", {
        .name = "NVIDIA GB200", .brand = "NVIDIA", .architecture = "blackwell", .cuda_major = 10, .cuda_minor = 0,
        .pci_device_id = 0x294110de, .pci_subsystem_id = 0x204610de,
        .fb_total_mib = 189471, .fb_reserved_mib = 707, .bar1_total_mib = 262144,
        .power_idle_w = 165, .power_limit_w = 1200, .power_min_w = 200, .power_max_w = 1200,
        .temp_idle_c = 31, .temp_load_c = 62, .temp_slowdown_c = 87, .temp_shutdown_c = 92,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true, .profiling = true,
        .sm_idle_mhz = 120, .sm_max_mhz = 2062, .mem_idle_mhz = 3996, .mem_max_mhz = 3996, .video_max_mhz = 1965,
        .pcie_gen = 5, .pcie_width = 16, .nvlinks = 18, .nvlink_version = 5, .nvlink_link_bps = 50e9,
        .sm_count = 152, .encoders = 0, .decoders = 7, .c2c_links = 5, .c2c_link_mbps = 44712}},
};

static const struct {
    const char *name, *text;
} builtins[] = {
    {"h100x8",
        "gpu h100 bus 00000000:18:00.0 numa 0\n"
        "gpu h100 bus 00000000:2A:00.0 numa 0\n"
        "gpu h100 bus 00000000:3A:00.0 numa 0\n"
        "gpu h100 bus 00000000:5D:00.0 numa 0\n"
        "gpu h100 bus 00000000:9A:00.0 numa 1\n"
        "gpu h100 bus 00000000:AB:00.0 numa 1\n"
        "gpu h100 bus 00000000:BA:00.0 numa 1\n"
        "gpu h100 bus 00000000:DB:00.0 numa 1\n"},
    {"h100x8-mig", /* whole, split evenly, split unevenly, MIG on but unsplit, two compute instances in one */
        "base h100x8\n"
        "mig gpu 0 1g.10gb*7\n"
        "mig gpu 1 3g.40gb+2g.20gb*2\n"
        "mig gpu 2 4g.40gb/2c,2c+3g.40gb\n"
        "mig gpu 3 none\n"
        "mig gpu 4 7g.80gb\n"
        "mig gpu 5 2g.20gb*3+1g.10gb\n"},
    {"a100x8",
        "gpu a100-80 bus 00000000:07:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:0F:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:47:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:4E:00.0 numa 0\n"
        "gpu a100-80 bus 00000000:87:00.0 numa 1\n"
        "gpu a100-80 bus 00000000:90:00.0 numa 1\n"
        "gpu a100-80 bus 00000000:B7:00.0 numa 1\n"
        "gpu a100-80 bus 00000000:BD:00.0 numa 1\n"},
    {"a100x7-mig",
        "gpu a100-40 bus 00000000:00:04.0\n"
        "mig gpu 0 1g.5gb*7\n"},
    {"t4x1",
        "gpu t4 bus 00000000:00:04.0\n"},
    {"mixed4", /* ids with gaps; neither NVML's order nor the minors follow them */
        "gpu h100 id 0 minor 2 bus 00000000:C1:00.0 numa 1\n"
        "gpu a100-40 id 1 minor 0 bus 00000000:21:00.0 numa 0\n"
        "gpu l4 id 3 minor 3 bus 00000000:41:00.0 numa 0\n"
        "gpu t4 id 5 minor 1 bus 00000000:81:00.0 numa 1\n"},
    {"dgx-h100", /* on the NVLink network: 144 links between GPUs and switches, 72 from the switches to the world */
        "base h100x8\n"
        "switches 4 gpu-ports no trunks 20,16,16,20\n"},
    {"gb200", /* a compute tray of an NVL72: its switches are elsewhere in the rack */
        "driver 580.95.05\n"
        "nvml 13.580.95.05\n"
        "cuda 13.0\n"
        "gpu gb200 bus 00000008:01:00.0 numa 0\n"
        "gpu gb200 bus 00000009:01:00.0 numa 0\n"
        "gpu gb200 bus 00000018:01:00.0 numa 1\n"
        "gpu gb200 bus 00000019:01:00.0 numa 1\n"
        "cpus 2 cores 72\n"},
    {"none",
        "# a driver, and no GPU\n"},
};
/* clang-format on */

const char *node_builtin_name(size_t i)
{
    return i < sizeof builtins / sizeof builtins[0] ? builtins[i].name : NULL;
}

__attribute__((format(printf, 2, 3))) static int fail(struct parser *p, const char *format, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    snprintf(p->err, p->err_len, "%s:%d: %s", p->file, p->line, what);
    return -1;
}

static int parse_uint(const char *word, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)word[0]))
        return -1;
    unsigned long long v = strtoull(word, &end, 0);
    if (errno || *end || v > max)
        return -1;
    *out = v;
    return 0;
}

static int parse_double(const char *word, double *out)
{
    char *end;
    *out = strtod(word, &end);
    return *end || end == word ? -1 : 0;
}

/* "30s", "200ms", "5m", "1h" */
static int parse_duration(const char *word, int64_t *us)
{
    char *end;
    double v = strtod(word, &end);
    double unit;
    if (end == word || v < 0)
        return -1;
    if (strcmp(end, "us") == 0)
        unit = 1;
    else if (strcmp(end, "ms") == 0)
        unit = 1e3;
    else if (strcmp(end, "s") == 0)
        unit = 1e6;
    else if (strcmp(end, "m") == 0)
        unit = 60e6;
    else if (strcmp(end, "h") == 0)
        unit = 3600e6;
    else
        return -1;
    *us = (int64_t)(v * unit);
    return 0;
}

static struct node_model *find_model(struct parser *p, const char *key)
{
    for (int i = 0; i < p->model_count; i++)
        if (strcmp(p->models[i].key, key) == 0)
            return &p->models[i].model;
    return NULL;
}

static int set_attr(struct parser *p, struct node_model *m, const char *name, char **words, int count)
{
    for (size_t i = 0; i < sizeof attrs / sizeof attrs[0]; i++) {
        const struct attr *a = &attrs[i];
        if (strcmp(a->name, name) != 0)
            continue;
        char *at = (char *)m + a->offset;
        uint64_t u;
        if (a->type != A_NAME && count != 1)
            return fail(p, "%s takes one value", name);
        switch (a->type) {
        case A_NAME: /* the rest of the line */
        case A_TEXT: {
            size_t used = 0;
            if (count < 1)
                return fail(p, "%s takes a value", name);
            for (int w = 0; w < count; w++)
                used += (size_t)snprintf(at + used, used < a->size ? a->size - used : 0, "%s%s", w ? " " : "", words[w]);
            return used < a->size ? 0 : fail(p, "%s is too long", name);
        }
        case A_UINT:
            if (parse_uint(words[0], UINT32_MAX, &u) != 0)
                return fail(p, "%s: %s is not a number", name, words[0]);
            *(uint32_t *)(void *)at = (uint32_t)u;
            return 0;
        case A_U64:
            if (parse_uint(words[0], UINT64_MAX, (uint64_t *)(void *)at) != 0)
                return fail(p, "%s: %s is not a number", name, words[0]);
            return 0;
        case A_DOUBLE:
            if (parse_double(words[0], (double *)(void *)at) != 0)
                return fail(p, "%s: %s is not a number", name, words[0]);
            return 0;
        case A_BOOL:
            if (strcmp(words[0], "yes") != 0 && strcmp(words[0], "no") != 0)
                return fail(p, "%s: yes or no, not %s", name, words[0]);
            *(bool *)at = words[0][0] == 'y';
            return 0;
        }
    }
    return fail(p, "no model attribute %s", name);
}

static int statement_model(struct parser *p, char **words, int count)
{
    if (count < 3)
        return fail(p, "model NAME like OTHER, or model NAME ATTRIBUTE VALUE");
    if (strcmp(words[2], "like") == 0) {
        struct node_model *from = count == 4 ? find_model(p, words[3]) : NULL;
        if (!from)
            return fail(p, "no model %s", count == 4 ? words[3] : "given");
        if (find_model(p, words[1]))
            return fail(p, "model %s exists", words[1]);
        if (p->model_count == MAX_MODELS)
            return fail(p, "more than %d models", MAX_MODELS);
        if (strlen(words[1]) >= sizeof p->models[0].key)
            return fail(p, "model name %s is too long", words[1]);
        struct node_model copy = *from;
        snprintf(p->models[p->model_count].key, sizeof p->models[0].key, "%s", words[1]);
        p->models[p->model_count++].model = copy;
        return 0;
    }
    struct node_model *m = find_model(p, words[1]);
    if (!m)
        return fail(p, "no model %s", words[1]);
    return set_attr(p, m, words[2], words + 3, count - 3);
}

static void uuid_text(char *out, const char *prefix, uint64_t a, uint64_t b)
{
    /* the form of a version 5 UUID, as NVIDIA's are */
    snprintf(out, NODE_UUID_LEN, "%s-%08x-%04x-5%03x-%04x-%012llx", prefix, (unsigned)(a >> 32),
             (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff), (unsigned)(0x8000 | (b >> 48 & 0x3fff)),
             (unsigned long long)(b & 0xffffffffffffULL));
}

static int parse_bus(struct node_gpu *g, const char *word)
{
    unsigned domain, bus, device, function;
    char rest;
    if (sscanf(word, "%8x:%2x:%2x.%1x%c", &domain, &bus, &device, &function, &rest) != 4 || function != 0)
        return -1;
    g->pci_domain = domain;
    g->pci_bus = bus;
    g->pci_device = device;
    snprintf(g->pci_bus_id, sizeof g->pci_bus_id, "%08X:%02X:%02X.0", domain, bus, device);
    return 0;
}

static uint32_t free_id(const struct node_state *n)
{
    for (uint32_t id = 0;; id++)
        if (node_gpu_by_dcgm_id(n, id) < 0)
            return id;
}

static int add_gpu(struct parser *p, const struct node_model *m, char **words, int count)
{
    struct node_state *n = p->node;
    if (n->gpu_count == NODE_MAX_GPUS)
        return fail(p, "more than %d GPUs", NODE_MAX_GPUS);
    if (n->switch_count > 0)
        return fail(p, "GPUs come before the switches that join them");
    struct node_gpu g;
    memset(&g, 0, sizeof g);
    g.model = *m;
    g.dcgm_id = free_id(n);
    g.minor = UINT32_MAX;
    g.fabric_status = 3; /* DcgmFMStatusSuccess */
    for (int i = 2; i < count; i += 2) {
        uint64_t u;
        const char *key = words[i], *value = words[i + 1];
        if (i + 1 == count)
            return fail(p, "%s takes a value", key);
        if (strcmp(key, "count") == 0)
            continue;
        if (strcmp(key, "id") == 0 && parse_uint(value, NODE_MAX_GPUS - 1, &u) == 0)
            g.dcgm_id = (uint32_t)u;
        else if (strcmp(key, "minor") == 0 && parse_uint(value, 254, &u) == 0)
            g.minor = (uint32_t)u;
        else if (strcmp(key, "numa") == 0 && parse_uint(value, 7, &u) == 0)
            g.numa_node = (uint32_t)u;
        else if (strcmp(key, "bus") == 0 && parse_bus(&g, value) == 0)
            continue;
        else if (strcmp(key, "uuid") == 0 && strlen(value) < sizeof g.uuid)
            snprintf(g.uuid, sizeof g.uuid, "%s", value);
        else if (strcmp(key, "serial") == 0 && strlen(value) < sizeof g.serial)
            snprintf(g.serial, sizeof g.serial, "%s", value);
        else
            return fail(p, "gpu: bad %s %s", key, value);
    }
    if (node_gpu_by_dcgm_id(n, g.dcgm_id) >= 0)
        return fail(p, "GPU id %u is taken", g.dcgm_id);
    if (!g.pci_bus_id[0]) {
        char bus[32];
        snprintf(bus, sizeof bus, "00000000:%02X:00.0", 0x10 + 7 * n->gpu_count);
        parse_bus(&g, bus);
    }
    for (uint32_t i = 0; i < n->gpu_count; i++)
        if (strcmp(n->gpu[i].pci_bus_id, g.pci_bus_id) == 0)
            return fail(p, "bus id %s is taken", g.pci_bus_id);
    uint32_t at = n->gpu_count;
    while (at > 0 && n->gpu[at - 1].dcgm_id > g.dcgm_id) {
        n->gpu[at] = n->gpu[at - 1];
        at--;
    }
    n->gpu[at] = g;
    n->gpu_count++;
    return 0;
}

static int statement_gpu(struct parser *p, char **words, int count)
{
    const struct node_model *m = count > 1 ? find_model(p, words[1]) : NULL;
    if (!m)
        return fail(p, "no model %s", count > 1 ? words[1] : "given");
    uint64_t copies = 1;
    for (int i = 2; i + 1 < count; i += 2) {
        if (strcmp(words[i], "count") != 0)
            continue;
        if (parse_uint(words[i + 1], NODE_MAX_GPUS, &copies) != 0)
            return fail(p, "count %s is not a number up to %d", words[i + 1], NODE_MAX_GPUS);
        if (count > 4)
            return fail(p, "count goes with no other setting of a gpu");
    }
    for (uint64_t i = 0; i < copies; i++)
        if (add_gpu(p, m, words, count) != 0)
            return -1;
    return 0;
}

/* Fills what follows from the whole: order in NVML, minors, identities, loads. */
static void settle(struct node_state *n)
{
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        struct node_gpu *g = &n->gpu[i];
        g->nvml_index = 0;
        for (uint32_t j = 0; j < n->gpu_count; j++)
            if (strcmp(n->gpu[j].pci_bus_id, g->pci_bus_id) < 0)
                g->nvml_index++;
        g->seed = node_hash(n->seed, 1000 + g->dcgm_id);
        if (g->minor == UINT32_MAX)
            g->minor = g->nvml_index;
        if (!g->uuid[0])
            uuid_text(g->uuid, "GPU", node_hash(g->seed, 1), node_hash(g->seed, 2));
        if (!g->serial[0])
            snprintf(g->serial, sizeof g->serial, "165%010llu", (unsigned long long)(node_hash(g->seed, 3) % 10000000000ULL));
        snprintf(g->vbios, sizeof g->vbios, "96.00.%02X.00.%02X", (unsigned)(node_hash(g->seed, 4) & 0xff), 1 + i);
        g->cpu_affinity[0] = g->numa_node == 0 ? 0x00000000ffffffffULL : 0xffffffff00000000ULL;
        if (g->numa_node < n->cpu_count) {
            const struct node_cpu *cpu = &n->cpu[g->numa_node];
            memset(g->cpu_affinity, 0, sizeof g->cpu_affinity);
            for (uint32_t c = cpu->first_core; c < cpu->first_core + cpu->core_count && c < 256; c++)
                g->cpu_affinity[c / 64] |= UINT64_C(1) << (c % 64);
        }
        if (g->load.scale == 0) { /* none given yet */
            static const uint32_t kinds[] = {NODE_LOAD_BURSTY, NODE_LOAD_TRAINING, NODE_LOAD_STEADY};
            g->load.kind = kinds[node_hash(g->seed, 5) % 3];
            g->load.fixed_mem = -1;
            g->load.scale = 1;
            g->load.since_us = n->boot_us;
        }
    }
}

static int parse_text(struct parser *p, const char *file, const char *text, int depth);

static int read_file(struct parser *p, const char *path, char **text)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        snprintf(p->err, p->err_len, "scenario %.160s: neither a built-in name nor a readable file: %s", path, strerror(errno));
        return -1;
    }
    size_t size = 0, cap = 64 * 1024;
    char *buffer = malloc(cap);
    if (buffer)
        size = fread(buffer, 1, cap - 1, f);
    bool whole = buffer && feof(f) && !ferror(f);
    fclose(f);
    if (!whole) {
        free(buffer);
        snprintf(p->err, p->err_len, "scenario %.160s: unreadable, or larger than 64 KiB", path);
        return -1;
    }
    buffer[size] = 0;
    *text = buffer;
    return 0;
}

static int parse_named(struct parser *p, const char *name, int depth)
{
    for (size_t i = 0; i < sizeof builtins / sizeof builtins[0]; i++)
        if (strcmp(builtins[i].name, name) == 0)
            return parse_text(p, builtins[i].name, builtins[i].text, depth);
    char *text;
    if (read_file(p, name, &text) != 0)
        return -1;
    int rc = parse_text(p, name, text, depth);
    free(text);
    return rc;
}

static int statement_version(struct parser *p, char **words, int count)
{
    struct node_state *n = p->node;
    if (count != 2)
        return fail(p, "%s takes one value", words[0]);
    if (strcmp(words[0], "cuda") == 0) {
        int major, minor;
        char rest;
        if (sscanf(words[1], "%d.%d%c", &major, &minor, &rest) != 2)
            return fail(p, "cuda: %s is not like 12.8", words[1]);
        n->cuda_version = major * 1000 + minor * 10;
        snprintf(n->cuda_version_text, sizeof n->cuda_version_text, "%d.%d", major % 100, minor % 100);
        return 0;
    }
    bool driver = strcmp(words[0], "driver") == 0;
    char *to = driver ? n->driver_version : n->nvml_version;
    size_t size = driver ? sizeof n->driver_version : sizeof n->nvml_version;
    if (strlen(words[1]) >= size)
        return fail(p, "%s %s is too long", words[0], words[1]);
    snprintf(to, size, "%s", words[1]);
    return 0;
}

static int statement_time(struct parser *p, char **words, int count)
{
    struct node_state *n = p->node;
    int64_t us;
    if (strcmp(words[0], "uptime") == 0) {
        if (count != 2 || parse_duration(words[1], &us) != 0)
            return fail(p, "uptime DURATION, such as 1h");
        n->boot_us = node_now_us() - us;
        return 0;
    }
    if (strcmp(words[0], "init") == 0) {
        if ((count != 2 && (count != 4 || strcmp(words[2], "per-gpu") != 0)) || parse_duration(words[1], &us) != 0)
            return fail(p, "init DURATION [per-gpu DURATION]");
        n->init_delay_us_base = us;
        if (count == 4) {
            if (parse_duration(words[3], &us) != 0)
                return fail(p, "per-gpu: %s is not a duration", words[3]);
            n->init_delay_us_per_gpu = us;
        }
        return 0;
    }
    if (count != 3 || parse_duration(words[2], &us) != 0)
        return fail(p, "timeout connect|call DURATION");
    if (strcmp(words[1], "connect") == 0)
        n->connect_timeout_us = us;
    else if (strcmp(words[1], "call") == 0)
        n->call_timeout_us = us;
    else
        return fail(p, "timeout connect|call DURATION");
    return 0;
}

static int statement_at(struct parser *p, char **words, int count, const char *line)
{
    struct node_state *n = p->node;
    int64_t us;
    if (count < 3 || parse_duration(words[1], &us) != 0)
        return fail(p, "at DURATION COMMAND");
    /* the command is the rest of the line, untouched */
    const char *rest = line + strspn(line, " \t");
    for (int i = 0; i < 2; i++) {
        rest += strcspn(rest, " \t");
        rest += strspn(rest, " \t");
    }
    for (int i = 0; i < NODE_MAX_EVENTS; i++) {
        struct node_event *e = &n->event[i];
        if (e->present)
            continue;
        if (strlen(rest) >= sizeof e->command)
            return fail(p, "the command is too long");
        e->present = true;
        e->at_us = us; /* made absolute at the end */
        snprintf(e->command, sizeof e->command, "%s", rest);
        return 0;
    }
    return fail(p, "more than %d timed commands", NODE_MAX_EVENTS);
}

/* switches COUNT [gpu-ports yes|no] [trunks N[,N…]] */
static int statement_switches(struct parser *p, char **words, int count)
{
    struct node_state *n = p->node;
    uint64_t switches;
    uint32_t trunks[NODE_MAX_SWITCHES] = {0};
    bool gpu_ports = true;
    if (count < 2 || count % 2 != 0 || parse_uint(words[1], NODE_MAX_SWITCHES, &switches) != 0 || switches == 0)
        return fail(p, "switches COUNT [gpu-ports yes|no] [trunks N,N,…]");
    for (int i = 2; i < count; i += 2) {
        if (strcmp(words[i], "gpu-ports") == 0 && (strcmp(words[i + 1], "yes") == 0 || strcmp(words[i + 1], "no") == 0)) {
            gpu_ports = words[i + 1][0] == 'y';
            continue;
        }
        if (strcmp(words[i], "trunks") != 0)
            return fail(p, "switches: bad %s %s", words[i], words[i + 1]);
        char *save = NULL;
        uint64_t s = 0, u = 0;
        for (char *w = strtok_r(words[i + 1], ",", &save); w; w = strtok_r(NULL, ",", &save)) {
            if (s == switches || parse_uint(w, NODE_MAX_PORTS, &u) != 0)
                return fail(p, "trunks: one number of ports for all switches, or one each");
            trunks[s++] = (uint32_t)u;
        }
        for (uint64_t k = 1; s == 1 && k < switches; k++)
            trunks[k] = (uint32_t)u;
        if (s != 1 && s != switches)
            return fail(p, "trunks: one number of ports for all switches, or one each");
    }
    settle(n);
    if (node_wire(n, (uint32_t)switches, trunks) != 0)
        return fail(p, "a switch has %d ports: too few for these GPUs and trunks", NODE_MAX_PORTS);
    n->gpu_ports = gpu_ports;
    for (uint32_t s = 0; s < n->switch_count; s++) {
        struct node_switch *sw = &n->nvswitch[s];
        sw->id = s;
        sw->pci_bus = 5 + s;
        sw->seed = node_hash(n->seed, 5000 + s);
        uuid_text(sw->uuid, "SWX", node_hash(sw->seed, 1), node_hash(sw->seed, 2));
    }
    return 0;
}

/* cpus COUNT cores N, each */
static int statement_cpus(struct parser *p, char **words, int count)
{
    struct node_state *n = p->node;
    uint64_t cpus, cores;
    if (count != 4 || strcmp(words[2], "cores") != 0 || parse_uint(words[1], NODE_MAX_CPUS, &cpus) != 0 ||
        parse_uint(words[3], NODE_MAX_CORES, &cores) != 0 || cores == 0 || cpus * cores > NODE_MAX_CORES)
        return fail(p, "cpus COUNT cores N: at most %d CPUs, and %d cores together", NODE_MAX_CPUS, NODE_MAX_CORES);
    n->cpu_count = (uint32_t)cpus;
    for (uint32_t i = 0; i < n->cpu_count; i++) {
        n->cpu[i] = (struct node_cpu){.id = i, .first_core = i * (uint32_t)cores, .core_count = (uint32_t)cores};
        snprintf(n->cpu[i].serial, sizeof n->cpu[i].serial, "0x%016llX", (unsigned long long)node_hash(n->seed, 6000 + i));
    }
    return 0;
}

static int statement(struct parser *p, char *line)
{
    char copy[512], *words[MAX_WORDS], *save = NULL;
    int count = 0;
    char *hash = strchr(line, '#');
    if (hash)
        *hash = 0;
    for (char *end = line + strlen(line); end > line && isspace((unsigned char)end[-1]);)
        *--end = 0;
    if (strlen(line) >= sizeof copy)
        return fail(p, "line too long");
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok_r(copy, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        if (count == MAX_WORDS)
            return fail(p, "too many words");
        words[count++] = w;
    }
    if (count == 0)
        return 0;
    struct node_state *n = p->node;
    bool first = !p->started;
    const char *verb = words[0];
    uint64_t u;
    if (strcmp(verb, "seed") == 0) { /* identities derive from it: it comes before any GPU */
        if (count != 2 || parse_uint(words[1], UINT64_MAX, &u) != 0)
            return fail(p, "seed NUMBER");
        if (!first || n->gpu_count > 0)
            return fail(p, "seed comes before anything else");
        n->seed = u;
        return 0;
    }
    p->started = true;
    if (strcmp(verb, "base") == 0) {
        if (!first || count != 2)
            return fail(p, "base NAME, as the first statement");
        if (p->depth + 1 >= MAX_DEPTH)
            return fail(p, "base within base too deep");
        return parse_named(p, words[1], p->depth + 1);
    }
    if (strcmp(verb, "driver") == 0 || strcmp(verb, "nvml") == 0 || strcmp(verb, "cuda") == 0)
        return statement_version(p, words, count);
    if (strcmp(verb, "uptime") == 0 || strcmp(verb, "init") == 0 || strcmp(verb, "timeout") == 0)
        return statement_time(p, words, count);
    if (strcmp(verb, "model") == 0)
        return statement_model(p, words, count);
    if (strcmp(verb, "gpu") == 0)
        return statement_gpu(p, words, count);
    if (strcmp(verb, "gpus") == 0) {
        if (count != 2 || strcmp(words[1], "none") != 0)
            return fail(p, "gpus none");
        memset(n->gpu, 0, sizeof n->gpu);
        n->gpu_count = n->switch_count = 0;
        return 0;
    }
    if (strcmp(verb, "profiling") == 0) {
        if (count != 2 || (strcmp(words[1], "yes") != 0 && strcmp(words[1], "no") != 0))
            return fail(p, "profiling yes|no");
        for (uint32_t i = 0; i < n->gpu_count; i++)
            n->gpu[i].model.profiling = words[1][0] == 'y';
        for (int i = 0; i < p->model_count; i++)
            p->models[i].model.profiling = words[1][0] == 'y';
        return 0;
    }
    if (strcmp(verb, "switches") == 0)
        return statement_switches(p, words, count);
    if (strcmp(verb, "cpus") == 0)
        return statement_cpus(p, words, count);
    if (strcmp(verb, "at") == 0)
        return statement_at(p, words, count, line);
    /* whatever else the control socket understands, carried out before the start */
    char answer[256];
    settle(n);
    if (node_command(n, line, answer, sizeof answer) != 0)
        return fail(p, "%s", answer + (strncmp(answer, "error: ", 7) == 0 ? 7 : 0));
    return 0;
}

static int parse_text(struct parser *p, const char *file, const char *text, int depth)
{
    struct parser outer = {.file = p->file, .line = p->line, .depth = p->depth, .started = p->started};
    p->file = file;
    p->line = 0;
    p->depth = depth;
    p->started = false;
    int rc = 0;
    while (rc == 0 && *text) {
        char line[512];
        size_t len = strcspn(text, "\n");
        p->line++;
        if (len >= sizeof line) {
            rc = fail(p, "line too long");
            break;
        }
        memcpy(line, text, len);
        line[len] = 0;
        rc = statement(p, line);
        text += len + (text[len] == '\n');
    }
    p->file = outer.file;
    p->line = outer.line;
    p->depth = outer.depth;
    p->started = outer.started;
    return rc;
}

int node_load_scenario(struct node_state *n, const char *name, char *err, size_t err_len)
{
    struct parser *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(err, err_len, "out of memory");
        return -1;
    }
    p->node = n;
    p->err = err;
    p->err_len = err_len;
    for (size_t i = 0; i < sizeof builtin_models / sizeof builtin_models[0]; i++)
        p->models[p->model_count++] = builtin_models[i];
    int64_t start = node_now_us();
    n->seed = 1;
    n->boot_us = start - 3600 * INT64_C(1000000);
    n->connect_timeout_us = 5 * 1000000;
    n->call_timeout_us = 60 * 1000000;
    snprintf(n->driver_version, sizeof n->driver_version, "570.133.20");
    snprintf(n->nvml_version, sizeof n->nvml_version, "12.570.133.20");
    snprintf(n->cuda_version_text, sizeof n->cuda_version_text, "12.8");
    n->cuda_version = 12080;
    int rc = parse_named(p, name, 0);
    free(p);
    if (rc != 0)
        return rc;
    settle(n);
    int64_t next = INT64_MAX;
    for (int i = 0; i < NODE_MAX_EVENTS; i++) {
        struct node_event *e = &n->event[i];
        if (!e->present)
            continue;
        e->at_us += start;
        if (e->at_us < next)
            next = e->at_us;
    }
    atomic_store(&n->next_event_us, next);
    for (uint32_t s = 0; s < n->switch_count; s++)
        for (uint32_t k = 0; k < NODE_MAX_PORTS; k++)
            n->nvswitch[s].port[k].link.missed_busy_s = n->nvswitch[s].port[k].link.down_busy_s = 0;
    const char *kernel_log = getenv("DCGMSIM_KMSG");
    if (kernel_log && strlen(kernel_log) < sizeof n->kernel_log)
        memcpy(n->kernel_log, kernel_log, strlen(kernel_log) + 1);
    for (uint32_t i = 0; i < n->gpu_count; i++) { /* processes where no layout made them */
        char none[64];
        node_lock(n);
        if (!n->gpu[i].mig_enabled)
            node_set_mig(n, i, "off", none, sizeof none);
        node_unlock(n);
    }
    for (uint32_t i = 0; i < n->gpu_count; i++) { /* as if it had been so since the boot */
        struct node_gpu *g = &n->gpu[i];
        g->load.since_us = n->boot_us;
        g->load.base_busy_s = g->load.base_energy_j = 0;
        memset(&g->throttle, 0, sizeof g->throttle);
        for (uint32_t k = 0; k < NODE_MAX_LINKS; k++)
            g->link[k].missed_busy_s = g->link[k].down_busy_s = 0;
    }
    return 0;
}
