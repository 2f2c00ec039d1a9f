/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Statements that define GPUs, NVSwitches and CPUs. */
#include "scenario/devices.h"

#include "node/links.h"
#include "scenario/models.h"

#include <stdio.h>
#include <string.h>

static bool parse_bus(struct node_gpu *g, const char *word)
{
    unsigned domain, bus, device, function;
    char rest;
    if (sscanf(word, "%8x:%2x:%2x.%1x%c", &domain, &bus, &device, &function, &rest) != 4 || function != 0)
        return false;
    g->pci_domain = domain;
    g->pci_bus = bus;
    g->pci_device = device;
    snprintf(g->pci_bus_id, sizeof g->pci_bus_id, "%08X:%02X:%02X.0", domain, bus, device);
    return true;
}

static uint32_t lowest_free_id(const struct node_state *n)
{
    for (uint32_t id = 0;; id++)
        if (node_gpu_by_dcgm_id(n, id) < 0)
            return id;
}

/* Sets one `KEY VALUE` of a gpu statement; false if the key is unknown or the value is invalid. */
static bool set_gpu_option(struct node_gpu *g, const char *key, const char *value)
{
    const struct {
        const char *key;
        uint64_t max;
        uint32_t *out;
    } numbers[] = {
        {"id", NODE_MAX_GPUS - 1, &g->dcgm_id},
        {"minor", 254, &g->minor},
        {"numa", 7, &g->numa_node},
    };
    const struct {
        const char *key;
        char *out;
        size_t size;
    } texts[] = {
        {"uuid", g->uuid, sizeof g->uuid},
        {"serial", g->serial, sizeof g->serial},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint64_t u;
        if (strcmp(numbers[i].key, key) != 0)
            continue;
        if (!parse_uint(value, numbers[i].max, &u))
            return false;
        *numbers[i].out = (uint32_t)u;
        return true;
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(texts[i].key, key) != 0)
            continue;
        if (strlen(value) >= texts[i].size)
            return false;
        snprintf(texts[i].out, texts[i].size, "%s", value);
        return true;
    }
    return strcmp(key, "bus") == 0 && parse_bus(g, value);
}

static enum statement_result add_gpu(struct parser *p, const struct node_model *m, char **words, int count)
{
    struct node_state *n = p->node;
    if (n->gpu_count == NODE_MAX_GPUS)
        return fail(p, "more than %d GPUs", NODE_MAX_GPUS);
    if (n->switch_count > 0)
        return fail(p, "GPUs must be defined before the switches");
    struct node_gpu g;
    memset(&g, 0, sizeof g);
    g.model = *m;
    g.dcgm_id = lowest_free_id(n);
    g.minor = UINT32_MAX;
    g.fabric_status = NODE_FABRIC_SUCCESS;
    for (int i = 2; i < count; i += 2) {
        if (i + 1 == count)
            return fail(p, "%s takes a value", words[i]);
        if (strcmp(words[i], "count") != 0 && !set_gpu_option(&g, words[i], words[i + 1]))
            return fail(p, "gpu: %s %s is not valid", words[i], words[i + 1]);
    }
    if (node_gpu_by_dcgm_id(n, g.dcgm_id) >= 0)
        return fail(p, "GPU id %u is in use", g.dcgm_id);
    if (!g.pci_bus_id[0]) {
        char bus[32];
        snprintf(bus, sizeof bus, "00000000:%02X:00.0", 0x10 + 7 * n->gpu_count);
        parse_bus(&g, bus);
    }
    for (uint32_t i = 0; i < n->gpu_count; i++)
        if (strcmp(n->gpu[i].pci_bus_id, g.pci_bus_id) == 0)
            return fail(p, "bus id %s is in use", g.pci_bus_id);
    uint32_t at = n->gpu_count;
    while (at > 0 && n->gpu[at - 1].dcgm_id > g.dcgm_id) {
        n->gpu[at] = n->gpu[at - 1];
        at--;
    }
    n->gpu[at] = g;
    n->gpu_count++;
    return STATEMENT_OK;
}

enum statement_result statement_gpu(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    if (count < 2)
        return STATEMENT_USAGE;
    const struct node_model *m = find_model(p, words[1]);
    if (!m)
        return fail(p, "no model %s", words[1]);
    uint64_t copies = 1;
    for (int i = 2; i + 1 < count; i += 2) {
        if (strcmp(words[i], "count") != 0)
            continue;
        if (!parse_uint(words[i + 1], NODE_MAX_GPUS, &copies))
            return fail(p, "count %s is not a number up to %d", words[i + 1], NODE_MAX_GPUS);
        if (count > 4)
            return fail(p, "count cannot be combined with other options");
    }
    for (uint64_t i = 0; i < copies; i++) {
        enum statement_result result = add_gpu(p, m, words, count);
        if (result != STATEMENT_OK)
            return result;
    }
    return STATEMENT_OK;
}

enum statement_result statement_gpus(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    if (count != 2 || strcmp(words[1], "none") != 0)
        return STATEMENT_USAGE;
    memset(p->node->gpu, 0, sizeof p->node->gpu);
    p->node->gpu_count = p->node->switch_count = 0;
    return STATEMENT_OK;
}

enum statement_result statement_profiling(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    bool profiling;
    if (count != 2 || !parse_yes_no(words[1], &profiling))
        return STATEMENT_USAGE;
    for (uint32_t i = 0; i < p->node->gpu_count; i++)
        p->node->gpu[i].model.profiling = profiling;
    for (int i = 0; i < p->model_count; i++)
        p->models[i].model.profiling = profiling;
    return STATEMENT_OK;
}

/* Parses "20,16,16,20", or one number for all switches. */
static bool parse_trunks(char *word, uint64_t switches, uint32_t *trunks)
{
    char *save = NULL;
    uint64_t given = 0, u = 0;
    for (char *w = strtok_r(word, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        if (given == switches || !parse_uint(w, NODE_MAX_PORTS, &u))
            return false;
        trunks[given++] = (uint32_t)u;
    }
    for (uint64_t i = 1; given == 1 && i < switches; i++)
        trunks[i] = (uint32_t)u;
    return given == 1 || given == switches;
}

enum statement_result statement_switches(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    struct node_state *n = p->node;
    uint64_t switches;
    uint32_t trunks[NODE_MAX_SWITCHES] = {0};
    bool gpu_ports = true;
    if (count < 2 || count % 2 != 0 || !parse_uint(words[1], NODE_MAX_SWITCHES, &switches) || switches == 0)
        return STATEMENT_USAGE;
    for (int i = 2; i < count; i += 2) {
        if (strcmp(words[i], "gpu-ports") == 0 && parse_yes_no(words[i + 1], &gpu_ports))
            continue;
        if (strcmp(words[i], "trunks") != 0)
            return fail(p, "switches: %s %s is not valid", words[i], words[i + 1]);
        if (!parse_trunks(words[i + 1], switches, trunks))
            return fail(p, "trunks: give one number of ports for all switches, or one for each");
    }
    complete_gpus(n);
    if (node_connect_switches(n, (uint32_t)switches, trunks) != 0)
        return fail(p, "a switch has %d ports: too few for these GPUs and trunks", NODE_MAX_PORTS);
    n->gpu_ports = gpu_ports;
    for (uint32_t s = 0; s < n->switch_count; s++) {
        struct node_switch *sw = &n->nvswitch[s];
        sw->id = s;
        sw->pci_bus = 5 + s;
        sw->seed = node_hash(n->seed, 5000 + s);
        node_format_uuid(sw->uuid, "SWX", node_hash(sw->seed, 1), node_hash(sw->seed, 2));
    }
    return STATEMENT_OK;
}

enum statement_result statement_cpus(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    struct node_state *n = p->node;
    uint64_t cpus, cores;
    if (count != 4 || strcmp(words[2], "cores") != 0 || !parse_uint(words[1], UINT32_MAX, &cpus) ||
        !parse_uint(words[3], UINT32_MAX, &cores) || cores == 0)
        return STATEMENT_USAGE;
    if (cpus > NODE_MAX_CPUS || cores > NODE_MAX_CORES || cpus * cores > NODE_MAX_CORES)
        return fail(p, "more than %d CPUs, or more than %d cores in total", NODE_MAX_CPUS, NODE_MAX_CORES);
    n->cpu_count = (uint32_t)cpus;
    for (uint32_t i = 0; i < n->cpu_count; i++) {
        n->cpu[i] = (struct node_cpu){.id = i, .first_core = i * (uint32_t)cores, .core_count = (uint32_t)cores};
        snprintf(n->cpu[i].serial, sizeof n->cpu[i].serial, "0x%016llX", (unsigned long long)node_hash(n->seed, 6000 + i));
    }
    return STATEMENT_OK;
}

static void set_cpu_affinity(const struct node_state *n, struct node_gpu *g)
{
    g->cpu_affinity[0] = g->numa_node == 0 ? 0x00000000ffffffffULL : 0xffffffff00000000ULL;
    if (g->numa_node >= n->cpu_count)
        return;
    const struct node_cpu *cpu = &n->cpu[g->numa_node];
    memset(g->cpu_affinity, 0, sizeof g->cpu_affinity);
    for (uint32_t c = cpu->first_core; c < cpu->first_core + cpu->core_count && c < 256; c++)
        g->cpu_affinity[c / 64] |= UINT64_C(1) << (c % 64);
}

void complete_gpus(struct node_state *n)
{
    static const uint32_t default_loads[] = {NODE_LOAD_BURSTY, NODE_LOAD_TRAINING, NODE_LOAD_STEADY};
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
            node_format_uuid(g->uuid, "GPU", node_hash(g->seed, 1), node_hash(g->seed, 2));
        if (!g->serial[0])
            snprintf(g->serial, sizeof g->serial, "165%010llu", (unsigned long long)(node_hash(g->seed, 3) % 10000000000ULL));
        set_cpu_affinity(n, g);
        if (g->load.scale == 0) { /* no load was set */
            g->load.kind = default_loads[node_hash(g->seed, 5) % 3];
            g->load.fixed_mem = -1;
            g->load.scale = 1;
            g->load.since_us = n->boot_us;
        }
    }
}
