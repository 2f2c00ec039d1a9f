/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Statements that define GPUs, NVSwitches and CPUs. */
#ifndef DCGMSIM_SCENARIO_DEVICES_H
#define DCGMSIM_SCENARIO_DEVICES_H

#include "scenario/parser.h"

enum statement_result statement_gpu(struct parser *p, char **words, int count, const char *line);
enum statement_result statement_gpus(struct parser *p, char **words, int count, const char *line);
enum statement_result statement_profiling(struct parser *p, char **words, int count, const char *line);
enum statement_result statement_switches(struct parser *p, char **words, int count, const char *line);
enum statement_result statement_cpus(struct parser *p, char **words, int count, const char *line);

/* Sets what depends on all GPUs together: NVML's order, minors, identities, loads. Idempotent. */
void complete_gpus(struct node_state *n);

#endif
