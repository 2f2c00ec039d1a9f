/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The built-in scenarios, written as scenario files. */
#ifndef DCGMSIM_SCENARIO_BUILTINS_H
#define DCGMSIM_SCENARIO_BUILTINS_H

#include <stddef.h>

/* Name of built-in scenario i; NULL past the last one. */
const char *scenario_builtin_name(size_t i);
/* Text of a built-in scenario; NULL if there is none of that name. */
const char *scenario_builtin_text(const char *name);

#endif
