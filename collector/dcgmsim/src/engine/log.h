/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* The engine's log. */
#ifndef DCGMSIM_ENGINE_LOG_H
#define DCGMSIM_ENGINE_LOG_H

void engine_log(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
