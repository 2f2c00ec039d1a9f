/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Scenario files: the table of statements, and the loading of a scenario into a
 * new node. A line that is no statement is a command, executed at load time.
 */
#include "scenario/scenario.h"

#include "command/command.h"
#include "node/mig.h"
#include "scenario/builtins.h"
#include "scenario/devices.h"
#include "scenario/models.h"
#include "scenario/parser.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BASES 4 /* depth of nested base statements */
#define MAX_WORDS 64
#define MAX_LINE 512
#define MAX_FILE (64 * 1024)

static enum statement_result parse_named(struct parser *p, const char *name, int depth);

static enum statement_result statement_seed(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    uint64_t seed;
    if (count != 2 || !parse_uint(words[1], UINT64_MAX, &seed))
        return STATEMENT_USAGE;
    if (p->started || p->node->gpu_count > 0) /* identities derive from it */
        return fail(p, "seed must be the first statement");
    p->node->seed = seed;
    return STATEMENT_OK;
}

static enum statement_result statement_base(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    if (count != 2)
        return STATEMENT_USAGE;
    if (p->started)
        return fail(p, "base must be the first statement after seed");
    if (p->depth + 1 >= MAX_BASES)
        return fail(p, "more than %d nested base statements", MAX_BASES - 1);
    p->started = true;
    return parse_named(p, words[1], p->depth + 1);
}

static enum statement_result statement_version(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    struct node_state *n = p->node;
    bool driver = strcmp(words[0], "driver") == 0;
    char *to = driver ? n->driver_version : n->nvml_version;
    size_t size = driver ? sizeof n->driver_version : sizeof n->nvml_version;
    if (count != 2)
        return STATEMENT_USAGE;
    if (strlen(words[1]) >= size)
        return fail(p, "%s %s is too long", words[0], words[1]);
    snprintf(to, size, "%s", words[1]);
    return STATEMENT_OK;
}

static enum statement_result statement_cuda(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    int major, minor;
    char rest;
    if (count != 2)
        return STATEMENT_USAGE;
    if (sscanf(words[1], "%d.%d%c", &major, &minor, &rest) != 2)
        return fail(p, "cuda: %s is not a version such as 12.8", words[1]);
    p->node->cuda_version = major * 1000 + minor * 10;
    snprintf(p->node->cuda_version_text, sizeof p->node->cuda_version_text, "%d.%d", major % 100, minor % 100);
    return STATEMENT_OK;
}

static enum statement_result statement_uptime(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    int64_t us;
    if (count != 2 || !parse_duration(words[1], &us))
        return STATEMENT_USAGE;
    p->node->boot_us = node_now_us() - us;
    return STATEMENT_OK;
}

static enum statement_result statement_init(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    int64_t base, per_gpu = p->node->init_delay_us_per_gpu;
    if ((count != 2 && (count != 4 || strcmp(words[2], "per-gpu") != 0)) || !parse_duration(words[1], &base) ||
        (count == 4 && !parse_duration(words[3], &per_gpu)))
        return STATEMENT_USAGE;
    p->node->init_delay_us_base = base;
    p->node->init_delay_us_per_gpu = per_gpu;
    return STATEMENT_OK;
}

static enum statement_result statement_timeout(struct parser *p, char **words, int count, const char *line)
{
    (void)line;
    int64_t us;
    bool connect = count == 3 && strcmp(words[1], "connect") == 0;
    if (count != 3 || (!connect && strcmp(words[1], "call") != 0) || !parse_duration(words[2], &us))
        return STATEMENT_USAGE;
    *(connect ? &p->node->connect_timeout_us : &p->node->call_timeout_us) = us;
    return STATEMENT_OK;
}

static enum statement_result statement_at(struct parser *p, char **words, int count, const char *line)
{
    struct node_state *n = p->node;
    int64_t us;
    if (count < 3 || !parse_duration(words[1], &us))
        return STATEMENT_USAGE;
    /* The command is the rest of the line, unchanged. */
    const char *command = line + strspn(line, " \t");
    for (int i = 0; i < 2; i++) {
        command += strcspn(command, " \t");
        command += strspn(command, " \t");
    }
    for (int i = 0; i < NODE_MAX_EVENTS; i++) {
        struct node_event *e = &n->event[i];
        if (e->present)
            continue;
        if (strlen(command) >= sizeof e->command)
            return fail(p, "the command is longer than %zu characters", sizeof e->command - 1);
        e->present = true;
        e->at_us = us; /* relative to the start until the scenario is complete */
        snprintf(e->command, sizeof e->command, "%s", command);
        return STATEMENT_OK;
    }
    return fail(p, "more than %d timed commands", NODE_MAX_EVENTS);
}

/* One row for each form of a statement; the first row of a name handles it. */
static const struct statement {
    const char *name, *arguments, *help;
    enum statement_result (*run)(struct parser *p, char **words, int count, const char *line);
} statements[] = {
    {"seed", "NUMBER", "set what identities and loads derive from; the first statement", statement_seed},
    {"base", "NAME|PATH", "start from a built-in scenario or a different file; the first statement after seed", statement_base},
    {"driver", "VERSION", "set the driver version", statement_version},
    {"nvml", "VERSION", "set the NVML version", statement_version},
    {"cuda", "VERSION", "set the CUDA version", statement_cuda},
    {"uptime", "DURATION", "set the time since boot, for which energy and bytes count; default 1h", statement_uptime},
    {"init", "DURATION [per-gpu DURATION]", "set how long an engine takes to start; default 0s", statement_init},
    {"timeout", "connect|call DURATION", "set the time limits of a standalone client; defaults 5s and 60s", statement_timeout},
    {"gpus", "none", "remove the GPUs and switches defined so far", statement_gpus},
    {"gpu", "MODEL [count N]", "add N GPUs of a model", statement_gpu},
    {"gpu", "MODEL [id N] [minor N] [bus 00000000:18:00.0] [uuid U] [serial S] [numa N]", "add one GPU", statement_gpu},
    {"model", "NAME like MODEL", "define a model as a copy of another", statement_model},
    {"model", "NAME ATTRIBUTE VALUE", "set an attribute of a model: a member of struct node_model in src/node/node.h", statement_model},
    {"profiling", "yes|no", "set whether profiling fields work on the GPUs and models defined so far", statement_profiling},
    {"switches", "N [gpu-ports yes|no] [trunks N,N,…]", "connect the GPUs to NVSwitches; trunks lead out of the node", statement_switches},
    {"cpus", "N cores N", "add Grace CPUs with N cores each", statement_cpus},
    {"at", "DURATION COMMAND", "run a command at a time after the start", statement_at},
};

#define STATEMENTS (sizeof statements / sizeof statements[0])

void scenario_print_help(FILE *to)
{
    for (size_t i = 0; i < STATEMENTS; i++) {
        char form[120];
        snprintf(form, sizeof form, "%s %s", statements[i].name, statements[i].arguments);
        fprintf(to, "  %-44s  %s\n", form, statements[i].help);
    }
    fprintf(to, "  %-44s  %s\n", "COMMAND", "run a command while the node is created");
}

static enum statement_result fail_usage(struct parser *p, const char *name)
{
    char forms[300] = "";
    size_t used = 0;
    for (size_t i = 0; i < STATEMENTS; i++)
        if (strcmp(statements[i].name, name) == 0 && used < sizeof forms)
            used += (size_t)snprintf(forms + used, sizeof forms - used, "%s%s %s", used ? ", or " : "", name,
                                     statements[i].arguments);
    return fail(p, "usage: %s", forms);
}

/* Runs a command at load time. */
static enum statement_result run_command(struct parser *p, const char *line)
{
    char answer[512];
    p->started = true;
    complete_gpus(p->node);
    if (node_command(p->node, line, answer, sizeof answer) == 0)
        return STATEMENT_OK;
    return fail(p, "%s", answer + (strncmp(answer, "error: ", 7) == 0 ? 7 : 0));
}

static enum statement_result parse_line(struct parser *p, char *line)
{
    char copy[MAX_LINE], *words[MAX_WORDS], *save = NULL;
    int count = 0;
    line[strcspn(line, "#")] = 0;
    for (char *end = line + strlen(line); end > line && isspace((unsigned char)end[-1]);)
        *--end = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok_r(copy, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        if (count == MAX_WORDS)
            return fail(p, "more than %d words", MAX_WORDS);
        words[count++] = w;
    }
    if (count == 0)
        return STATEMENT_OK;
    for (size_t i = 0; i < STATEMENTS; i++) {
        const struct statement *s = &statements[i];
        if (strcmp(s->name, words[0]) != 0)
            continue;
        if (s->run != statement_seed && s->run != statement_base)
            p->started = true;
        enum statement_result result = s->run(p, words, count, line);
        return result == STATEMENT_USAGE ? fail_usage(p, words[0]) : result;
    }
    return run_command(p, line);
}

static enum statement_result parse_text(struct parser *p, const char *file, const char *text, int depth)
{
    struct parser outer = {.file = p->file, .line = p->line, .depth = p->depth, .started = p->started};
    p->file = file;
    p->line = 0;
    p->depth = depth;
    p->started = false;
    enum statement_result result = STATEMENT_OK;
    while (result == STATEMENT_OK && *text) {
        char line[MAX_LINE];
        size_t len = strcspn(text, "\n");
        p->line++;
        if (len >= sizeof line) {
            result = fail(p, "the line is longer than %d characters", MAX_LINE - 1);
            break;
        }
        memcpy(line, text, len);
        line[len] = 0;
        result = parse_line(p, line);
        text += len + (text[len] == '\n');
    }
    p->file = outer.file;
    p->line = outer.line;
    p->depth = outer.depth;
    p->started = outer.started;
    return result;
}

static char *read_file(struct parser *p, const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        snprintf(p->err, p->err_len, "scenario %.160s is not built in, and cannot be read as a file: %s", path, strerror(errno));
        return NULL;
    }
    char *text = malloc(MAX_FILE);
    size_t size = text ? fread(text, 1, MAX_FILE - 1, f) : 0;
    bool whole = text && feof(f) && !ferror(f);
    fclose(f);
    if (!whole) {
        free(text);
        snprintf(p->err, p->err_len, "scenario %.160s cannot be read, or is larger than %d bytes", path, MAX_FILE - 1);
        return NULL;
    }
    text[size] = 0;
    return text;
}

static enum statement_result parse_named(struct parser *p, const char *name, int depth)
{
    const char *builtin = scenario_builtin_text(name);
    if (builtin)
        return parse_text(p, name, builtin, depth);
    char *text = read_file(p, name);
    if (!text)
        return STATEMENT_FAILED;
    enum statement_result result = parse_text(p, name, text, depth);
    free(text);
    return result;
}

static void set_defaults(struct node_state *n, int64_t start_us)
{
    n->seed = 1;
    n->boot_us = start_us - 3600 * INT64_C(1000000);
    n->xid_pace_us = NODE_XID_PACE_US;
    n->connect_timeout_us = 5 * 1000000;
    n->call_timeout_us = 60 * 1000000;
    snprintf(n->driver_version, sizeof n->driver_version, "570.133.20");
    snprintf(n->nvml_version, sizeof n->nvml_version, "12.570.133.20");
    snprintf(n->cuda_version_text, sizeof n->cuda_version_text, "12.8");
    n->cuda_version = 12080;
}

/* Makes the times of timed commands absolute. */
static void schedule_events(struct node_state *n, int64_t start_us)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < NODE_MAX_EVENTS; i++) {
        struct node_event *e = &n->event[i];
        if (!e->present)
            continue;
        e->at_us += start_us;
        if (e->at_us < next)
            next = e->at_us;
    }
    atomic_store(&n->next_event_us, next);
}

/* Rewrites the history of loads and links as if their state had been the same since boot. */
static void backdate(struct node_state *n)
{
    for (uint32_t s = 0; s < n->switch_count; s++)
        for (uint32_t k = 0; k < NODE_MAX_PORTS; k++)
            n->nvswitch[s].port[k].link.missed_busy_s = n->nvswitch[s].port[k].link.down_busy_s = 0;
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        struct node_gpu *g = &n->gpu[i];
        g->load.since_us = n->boot_us;
        g->load.base_busy_s = g->load.base_energy_j = 0;
        memset(&g->throttle, 0, sizeof g->throttle);
        for (uint32_t k = 0; k < NODE_MAX_LINKS; k++)
            g->link[k].missed_busy_s = g->link[k].down_busy_s = 0;
    }
}

/* Starts the processes of GPUs without a MIG layout; node_set_mig started the others. */
static void start_processes(struct node_state *n)
{
    for (uint32_t i = 0; i < n->gpu_count; i++) {
        char err[64];
        node_lock(n);
        if (!n->gpu[i].mig_enabled)
            node_set_mig(n, i, "off", err, sizeof err);
        node_unlock(n);
    }
}

int scenario_load(struct node_state *n, const char *name, char *err, size_t err_len)
{
    struct parser *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(err, err_len, "out of memory");
        return -1;
    }
    p->node = n;
    p->err = err;
    p->err_len = err_len;
    models_init(p);
    int64_t start = node_now_us();
    set_defaults(n, start);
    enum statement_result result = parse_named(p, name, 0);
    free(p);
    if (result != STATEMENT_OK)
        return -1;
    complete_gpus(n);
    schedule_events(n, start);
    const char *kernel_log = getenv("DCGMSIM_KMSG");
    if (kernel_log && strlen(kernel_log) < sizeof n->kernel_log)
        memcpy(n->kernel_log, kernel_log, strlen(kernel_log) + 1);
    start_processes(n);
    backdate(n);
    return 0;
}
