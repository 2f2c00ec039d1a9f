/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* GPU models: the built-in ones, their attributes, and the statement that makes more. */
#include "scenario/models.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum attribute_type {
    ATTRIBUTE_TEXT_TO_END, /* the rest of the line */
    ATTRIBUTE_TEXT,
    ATTRIBUTE_UINT32,
    ATTRIBUTE_UINT64,
    ATTRIBUTE_DOUBLE,
    ATTRIBUTE_BOOL
};

#define ATTRIBUTE(type, member) {#member, type, offsetof(struct node_model, member), sizeof(((struct node_model *)0)->member)}

static const struct attribute {
    const char *name;
    enum attribute_type type;
    size_t offset, size;
} attributes[] = {
    ATTRIBUTE(ATTRIBUTE_TEXT_TO_END, name),
    ATTRIBUTE(ATTRIBUTE_TEXT, brand),
    ATTRIBUTE(ATTRIBUTE_TEXT, architecture),
    ATTRIBUTE(ATTRIBUTE_TEXT, vbios),
    ATTRIBUTE(ATTRIBUTE_UINT32, cuda_major),
    ATTRIBUTE(ATTRIBUTE_UINT32, cuda_minor),
    ATTRIBUTE(ATTRIBUTE_UINT32, pci_device_id),
    ATTRIBUTE(ATTRIBUTE_UINT32, pci_subsystem_id),
    ATTRIBUTE(ATTRIBUTE_UINT64, fb_total_mib),
    ATTRIBUTE(ATTRIBUTE_UINT64, fb_reserved_mib),
    ATTRIBUTE(ATTRIBUTE_UINT64, bar1_total_mib),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, power_idle_w),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, power_limit_w),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, power_min_w),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, power_max_w),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, temp_idle_c),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, temp_load_c),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, temp_slowdown_c),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, temp_shutdown_c),
    ATTRIBUTE(ATTRIBUTE_BOOL, has_margin),
    ATTRIBUTE(ATTRIBUTE_BOOL, has_memory_temp),
    ATTRIBUTE(ATTRIBUTE_BOOL, has_fan),
    ATTRIBUTE(ATTRIBUTE_BOOL, has_energy),
    ATTRIBUTE(ATTRIBUTE_BOOL, has_ecc),
    ATTRIBUTE(ATTRIBUTE_BOOL, has_remap),
    ATTRIBUTE(ATTRIBUTE_BOOL, mig_capable),
    ATTRIBUTE(ATTRIBUTE_BOOL, profiling),
    ATTRIBUTE(ATTRIBUTE_UINT32, sm_idle_mhz),
    ATTRIBUTE(ATTRIBUTE_UINT32, sm_max_mhz),
    ATTRIBUTE(ATTRIBUTE_UINT32, mem_idle_mhz),
    ATTRIBUTE(ATTRIBUTE_UINT32, mem_max_mhz),
    ATTRIBUTE(ATTRIBUTE_UINT32, video_max_mhz),
    ATTRIBUTE(ATTRIBUTE_UINT32, pcie_gen),
    ATTRIBUTE(ATTRIBUTE_UINT32, pcie_width),
    ATTRIBUTE(ATTRIBUTE_UINT32, nvlinks),
    ATTRIBUTE(ATTRIBUTE_UINT32, nvlink_version),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, nvlink_link_bps),
    ATTRIBUTE(ATTRIBUTE_UINT32, sm_count),
    ATTRIBUTE(ATTRIBUTE_UINT32, encoders),
    ATTRIBUTE(ATTRIBUTE_UINT32, decoders),
    ATTRIBUTE(ATTRIBUTE_UINT32, c2c_links),
    ATTRIBUTE(ATTRIBUTE_DOUBLE, c2c_link_mbps),
    ATTRIBUTE(ATTRIBUTE_BOOL, ecc_locations),
};

/* clang-format off */
static const struct named_model builtin_models[] = {
    {"h100", {
        .name = "NVIDIA H100 80GB HBM3", .brand = "NVIDIA", .architecture = "hopper", .vbios = "96.00.74.00.01", .cuda_major = 9, .cuda_minor = 0,
        .pci_device_id = 0x233010de, .pci_subsystem_id = 0x16c110de,
        .fb_total_mib = 81559, .fb_reserved_mib = 620, .bar1_total_mib = 131072,
        .power_idle_w = 70, .power_limit_w = 700, .power_min_w = 200, .power_max_w = 700,
        .temp_idle_c = 26, .temp_load_c = 66, .temp_slowdown_c = 89, .temp_shutdown_c = 94, .has_margin = true,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true, .profiling = true,
        .sm_idle_mhz = 345, .sm_max_mhz = 1980, .mem_idle_mhz = 2619, .mem_max_mhz = 2619, .video_max_mhz = 1545,
        .pcie_gen = 5, .pcie_width = 16, .nvlinks = 18, .nvlink_version = 4, .nvlink_link_bps = 25e9,
        .sm_count = 132, .encoders = 0, .decoders = 7}},
    {"a100-80", {
        .name = "NVIDIA A100-SXM4-80GB", .brand = "NVIDIA", .architecture = "ampere", .vbios = "92.00.45.00.03", .cuda_major = 8, .cuda_minor = 0,
        .pci_device_id = 0x20b210de, .pci_subsystem_id = 0x146310de,
        .fb_total_mib = 81920, .fb_reserved_mib = 605, .bar1_total_mib = 131072,
        .power_idle_w = 62, .power_limit_w = 400, .power_min_w = 100, .power_max_w = 400,
        .temp_idle_c = 27, .temp_load_c = 63, .temp_slowdown_c = 90, .temp_shutdown_c = 95, .has_margin = true,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true,
        .sm_idle_mhz = 210, .sm_max_mhz = 1410, .mem_idle_mhz = 1593, .mem_max_mhz = 1593, .video_max_mhz = 1290,
        .pcie_gen = 4, .pcie_width = 16, .nvlinks = 12, .nvlink_version = 3, .nvlink_link_bps = 25e9,
        .sm_count = 108, .encoders = 0, .decoders = 5}},
    {"a100-40", {
        .name = "NVIDIA A100-SXM4-40GB", .brand = "NVIDIA", .architecture = "ampere", .vbios = "92.00.45.00.03", .cuda_major = 8, .cuda_minor = 0,
        .pci_device_id = 0x20b010de, .pci_subsystem_id = 0x134f10de,
        .fb_total_mib = 40960, .fb_reserved_mib = 571, .bar1_total_mib = 65536,
        .power_idle_w = 50, .power_limit_w = 400, .power_min_w = 100, .power_max_w = 400,
        .temp_idle_c = 27, .temp_load_c = 63, .temp_slowdown_c = 90, .temp_shutdown_c = 95, .has_margin = true,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true,
        .sm_idle_mhz = 210, .sm_max_mhz = 1410, .mem_idle_mhz = 1215, .mem_max_mhz = 1215, .video_max_mhz = 1290,
        .pcie_gen = 4, .pcie_width = 16, .nvlinks = 12, .nvlink_version = 3, .nvlink_link_bps = 25e9,
        .sm_count = 108, .encoders = 0, .decoders = 5}},
    {"t4", {
        .name = "Tesla T4", .brand = "Tesla", .architecture = "turing", .vbios = "90.04.38.00.03", .cuda_major = 7, .cuda_minor = 5,
        .pci_device_id = 0x1eb810de, .pci_subsystem_id = 0x12a210de,
        .fb_total_mib = 15360, .fb_reserved_mib = 263, .bar1_total_mib = 256,
        .power_idle_w = 10, .power_limit_w = 70, .power_min_w = 60, .power_max_w = 70,
        .temp_idle_c = 34, .temp_load_c = 76, .temp_slowdown_c = 93, .temp_shutdown_c = 96,
        .has_energy = true, .has_ecc = true,
        .sm_idle_mhz = 300, .sm_max_mhz = 1590, .mem_idle_mhz = 405, .mem_max_mhz = 5001, .video_max_mhz = 1470,
        .pcie_gen = 3, .pcie_width = 16, .sm_count = 40, .encoders = 1, .decoders = 2}},
    {"l4", {
        .name = "NVIDIA L4", .brand = "NVIDIA", .architecture = "ada", .vbios = "95.04.29.00.06", .cuda_major = 8, .cuda_minor = 9,
        .pci_device_id = 0x27b810de, .pci_subsystem_id = 0x16ca10de,
        .fb_total_mib = 23034, .fb_reserved_mib = 491, .bar1_total_mib = 32768,
        .power_idle_w = 13, .power_limit_w = 72, .power_min_w = 40, .power_max_w = 72,
        .temp_idle_c = 33, .temp_load_c = 74, .temp_slowdown_c = 87, .temp_shutdown_c = 92, .has_margin = true,
        .has_energy = true, .has_ecc = true, .has_remap = true,
        .sm_idle_mhz = 210, .sm_max_mhz = 2040, .mem_idle_mhz = 405, .mem_max_mhz = 6251, .video_max_mhz = 1770,
        .pcie_gen = 4, .pcie_width = 16, .sm_count = 58, .encoders = 2, .decoders = 4}},
    {"gb200", {
        .name = "NVIDIA GB200", .brand = "NVIDIA", .architecture = "blackwell", .vbios = "97.00.82.00.18", .cuda_major = 10, .cuda_minor = 0,
        .pci_device_id = 0x294110de, .pci_subsystem_id = 0x204610de,
        .fb_total_mib = 189471, .fb_reserved_mib = 707, .bar1_total_mib = 262144,
        .power_idle_w = 165, .power_limit_w = 1200, .power_min_w = 200, .power_max_w = 1200,
        .temp_idle_c = 31, .temp_load_c = 62, .temp_slowdown_c = 87, .temp_shutdown_c = 92, .has_margin = true,
        .has_memory_temp = true, .has_energy = true, .has_ecc = true, .has_remap = true, .mig_capable = true, .profiling = true,
        .sm_idle_mhz = 120, .sm_max_mhz = 2062, .mem_idle_mhz = 3996, .mem_max_mhz = 3996, .video_max_mhz = 1965,
        .pcie_gen = 5, .pcie_width = 16, .nvlinks = 18, .nvlink_version = 5, .nvlink_link_bps = 50e9,
        .sm_count = 152, .encoders = 0, .decoders = 7, .c2c_links = 5, .c2c_link_mbps = 44712}},
};

void models_init(struct parser *p)
{
    for (size_t i = 0; i < sizeof builtin_models / sizeof builtin_models[0]; i++)
        p->models[p->model_count++] = builtin_models[i];
}

struct node_model *find_model(struct parser *p, const char *key)
{
    for (int i = 0; i < p->model_count; i++)
        if (strcmp(p->models[i].key, key) == 0)
            return &p->models[i].model;
    return NULL;
}

static enum statement_result set_text(struct parser *p, const struct attribute *a, char *at, char **words, int count)
{
    size_t used = 0;
    for (int w = 0; w < count; w++)
        used += (size_t)snprintf(at + used, used < a->size ? a->size - used : 0, "%s%s", w ? " " : "", words[w]);
    return used < a->size ? STATEMENT_OK : fail(p, "%s is too long", a->name);
}

static enum statement_result set_attribute(struct parser *p, struct node_model *m, const struct attribute *a, char **words,
                                           int count)
{
    void *at = (char *)m + a->offset;
    uint64_t u;
    bool valid = true;
    if (a->type == ATTRIBUTE_TEXT_TO_END ? count < 1 : count != 1)
        return fail(p, "%s takes one value", a->name);
    switch (a->type) {
    case ATTRIBUTE_TEXT_TO_END:
    case ATTRIBUTE_TEXT:
        return set_text(p, a, at, words, count);
    case ATTRIBUTE_UINT32:
        valid = parse_uint(words[0], UINT32_MAX, &u);
        if (valid)
            *(uint32_t *)at = (uint32_t)u;
        break;
    case ATTRIBUTE_UINT64:
        valid = parse_uint(words[0], UINT64_MAX, at);
        break;
    case ATTRIBUTE_DOUBLE:
        valid = parse_double(words[0], at);
        break;
    case ATTRIBUTE_BOOL:
        return parse_yes_no(words[0], at) ? STATEMENT_OK : fail(p, "%s: %s is not yes or no", a->name, words[0]);
    }
    return valid ? STATEMENT_OK : fail(p, "%s: %s is not a number", a->name, words[0]);
}

static enum statement_result copy_model(struct parser *p, const char *key, const struct node_model *from)
{
    if (find_model(p, key))
        return fail(p, "model %s exists", key);
    if (p->model_count == PARSER_MAX_MODELS)
        return fail(p, "more than %d models", PARSER_MAX_MODELS);
    struct named_model *to = &p->models[p->model_count];
    if (strlen(key) >= sizeof to->key)
        return fail(p, "model name %s is too long", key);
    snprintf(to->key, sizeof to->key, "%s", key);
    to->model = *from;
    p->model_count++;
    return STATEMENT_OK;
}

enum statement_result statement_model(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    if (count < 3)
        return STATEMENT_USAGE;
    bool copy = strcmp(words[2], "like") == 0;
    if (copy && count != 4)
        return STATEMENT_USAGE;
    struct node_model *m = find_model(p, words[copy ? 3 : 1]);
    if (!m)
        return fail(p, "no model %s", words[copy ? 3 : 1]);
    if (copy)
        return copy_model(p, words[1], m);
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        if (strcmp(attributes[i].name, words[2]) == 0)
            return set_attribute(p, m, &attributes[i], words + 3, count - 3);
    return fail(p, "no model attribute %s", words[2]);
}
