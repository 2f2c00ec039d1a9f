/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The engine itself, and processes on GPUs. */
#ifndef DCGMSIM_ENGINE_INTROSPECT_H
#define DCGMSIM_ENGINE_INTROSPECT_H

#include "engine/state.h"

const char *build_info(void);
dcgmReturn_t memory_usage(struct engine *e, dcgmIntrospectMemory_t *out);
dcgmReturn_t cpu_usage(struct engine *e, dcgmIntrospectCpuUtil_t *out);
dcgmReturn_t watch_pids(struct engine *e, uintptr_t group);
dcgmReturn_t pid_info(struct engine *e, uintptr_t group, dcgmPidInfo_t *out);

#endif
