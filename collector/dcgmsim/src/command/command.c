/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The table of all commands, and the dispatch of a command line. Command lines
 * come from the control socket, a scenario, or dcgmsimd --command.
 */
#include "command/command.h"

#include "command/handlers.h"

#include <string.h>

/*
 * One row for each form of a command. A row with a second word ("xid pace MS")
 * matches only lines with that word. The first row that matches handles the
 * line, so these rows come first.
 */
static const struct command {
    const char *name, *second; /* second word of the line, or NULL for any */
    const char *arguments;     /* after the name and the second word */
    const char *help;
    enum command_result (*run)(struct request *r);
} commands[] = {
    {"xid", "pace", "MS", "let an engine receive one XID every MS milliseconds; 0: all at once; default 1000", handle_xid_pace},
    {"xid", NULL, "N gpu I [gi G|ci C] [count TIMES] [kmsg only|both|twice]", "make DCGM report an XID; kmsg: also log it in the kernel log (only: instead; twice: DCGM reports both)", handle_xid},
    {"sxid", NULL, "N switch S [port P] fatal|nonfatal", "make DCGM report an SXid of an NVSwitch", handle_sxid},
    {"lose", NULL, "gpu I", "make a GPU fall off the bus", handle_presence},
    {"mute", NULL, "gpu I", "make every NVML query of a GPU fail while its handle opens: DCGM does not mark it as lost", handle_presence},
    {"return", NULL, "gpu I", "bring a lost or mute GPU back", handle_presence},
    {"detach", NULL, "gpu I", "unbind a GPU from the driver", handle_presence},
    {"attach", NULL, "gpu I", "bind a detached GPU to the driver", handle_presence},
    {"mig", NULL, "gpu I LAYOUT", "partition a GPU: 1g.10gb*7, 3g.40gb+2g.20gb*2, 3g.40gb/1c,2c, none or off", handle_mig},
    {"link", NULL, "gpu I|switch S port P down|up", "take an NVLink down or up", handle_link},
    {"link", NULL, "gpu I|switch S port P error replay|recovery|flit|crc|ecc N", "add N errors to an NVLink", handle_link},
    {"switch", NULL, "S lost|back", "lose an NVSwitch, or bring it back", handle_switch},
    {"reason", NULL, "gpu I NAME on|off|auto", "force a clock event reason, or let it follow the load and the heat", handle_reason},
    {"heat", NULL, "gpu I|switch S|cpu C DEGREES", "add degrees Celsius to the temperature that follows from the load", handle_heat},
    {"ecc", NULL, "gpu I sbe|dbe N [device|sram|l1|l2|register|texture|shared|cbu]", "add N ECC errors; the default location is device", handle_ecc},
    {"remap", NULL, "gpu I correctable|uncorrectable N", "add N remapped rows", handle_repair},
    {"remap", NULL, "gpu I pending|failure 0|1", "set whether a row remapping is pending or has failed", handle_repair},
    {"retire", NULL, "gpu I sbe|dbe N", "add N retired pages", handle_repair},
    {"retire", NULL, "gpu I pending 0|1", "set whether a page retirement is pending", handle_repair},
    {"recovery", NULL, "gpu I none|reset|reboot|drain-p2p|drain-and-reset", "set the recovery action", handle_recovery},
    {"fabric", NULL, "gpu I unsupported|not-started|in-progress|success|failure [CODE]", "set the fabric manager's status; CODE is the error of a failure", handle_fabric},
    {"health", NULL, "gpu I|switch S|cpu C SYSTEM pass|warn|fail [CODE]", "set the result of a health check; CODE is a DCGM_FR_* number", handle_health},
    {"profiling", NULL, "gpu I|all frozen|zero|stalled [for-good]", "break profiling until the next new watch; for-good: until profiling ok", handle_profiling},
    {"profiling", NULL, "gpu I|all locked [CODE]", "let a different client hold the profiling lock; watching fails with CODE", handle_profiling},
    {"profiling", NULL, "gpu I|all ok", "repair profiling", handle_profiling},
    {"blank", NULL, "field F [gpu I|switch S|cpu C]", "make a field blank", handle_override},
    {"unblank", NULL, "field F [gpu I|switch S|cpu C]", "remove the blank, or the value set, of a field", handle_override},
    {"set", NULL, "field F value V [gpu I|switch S|cpu C]", "set the value of a field", handle_override},
    {"unset", NULL, "field F [gpu I|switch S|cpu C]", "remove the value set, or the blank, of a field", handle_override},
    {"hang", NULL, "CALL", "make a call block until the fault is cleared", handle_fault},
    {"slow", NULL, "CALL MS", "delay a call by MS milliseconds", handle_fault},
    {"fail", NULL, "CALL CODE", "make a call return CODE", handle_fault},
    {"crash", NULL, "CALL", "make a call end its process with SIGSEGV", handle_fault},
    {"garbage", NULL, "CALL BYTE|noise|size", "fill a call's answers of NVML or an embedded engine with a byte, change some bytes, or demand a huge buffer", handle_fault},
    {"clear", NULL, "[CALL]", "remove the faults of a call; without CALL, undo all commands except counters, loads, processes and MIG", handle_clear},
    {"engine", NULL, "lost|back", "lose the host engine, so that calls fail and connections drop, or bring it back", handle_engine},
    {"clock", NULL, "MS", "set the clock of engines ahead of the node's by MS milliseconds, which may be negative", handle_clock},
    {"load", NULL, "gpu I|all util PERCENT [mem PERCENT]", "set a constant load", handle_load},
    {"load", NULL, "gpu I|all idle|steady|bursty|training|bursts", "set a kind of load", handle_load},
    {"process", "gone", "pid P", "end a process", handle_process_gone},
    {"process", "none", "[gpu I]", "end all processes, or those on a GPU", handle_process_none},
    {"process", NULL, "gpu I pid P [ci C] [name N] [memory MIB|unknown] [share PERCENT] [graphics yes|also] [mps yes]", "start a process", handle_process},
    {"print", NULL, "stdout|stderr TEXT", "make each engine print a line", handle_print},
    {"truth", "link", "gpu I|switch S port P", "show the exact state and totals of an NVLink", handle_truth_link},
    {"truth", NULL, "gpu I", "show the exact readings and totals that every published value derives from", handle_truth},
    {"state", NULL, "", "show which devices and faults the node has", handle_state},
};

#define COMMANDS (sizeof commands / sizeof commands[0])

/* Writes a form as the user types it. */
static int format_command(const struct command *c, char *out, size_t len)
{
    return snprintf(out, len, "%s%s%s%s%s", c->name, c->second ? " " : "", c->second ? c->second : "", *c->arguments ? " " : "",
                    c->arguments);
}

void command_print_help(FILE *to)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        char form[160];
        format_command(&commands[i], form, sizeof form);
        fprintf(to, "  %-44s  %s\n", form, commands[i].help);
    }
}

static enum command_result answer_usage(struct request *r)
{
    char forms[600] = "";
    size_t used = 0;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, r->word[0]) != 0 || used >= sizeof forms)
            continue;
        used += (size_t)snprintf(forms + used, sizeof forms - used, "%s", used ? ", or " : "");
        if (used < sizeof forms)
            used += (size_t)format_command(&commands[i], forms + used, sizeof forms - used);
    }
    return answer_error(r, "usage: %s", forms);
}

int node_command(struct node_state *n, const char *line, char *answer, size_t answer_len)
{
    char copy[512], *save = NULL;
    struct request r = {.node = n, .text = line, .answer = answer, .answer_len = answer_len};
    if (strlen(line) >= sizeof copy)
        return answer_error(&r, "the line is longer than %zu characters", sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
        if (r.count == REQUEST_MAX_WORDS)
            return answer_error(&r, "more than %d words", REQUEST_MAX_WORDS);
        r.word[r.count++] = w;
    }
    if (r.count == 0)
        return answer_error(&r, "empty command");
    for (size_t i = 0; i < COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (strcmp(c->name, r.word[0]) != 0 || (c->second && (r.count < 2 || strcmp(c->second, r.word[1]) != 0)))
            continue;
        enum command_result result = c->run(&r);
        return result == COMMAND_USAGE ? answer_usage(&r) : result;
    }
    return answer_error(&r, "unknown command %s", r.word[0]);
}
