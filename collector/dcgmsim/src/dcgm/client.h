/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Connections to a standalone engine. */
#ifndef DCGMSIM_DCGM_CLIENT_H
#define DCGMSIM_DCGM_CLIENT_H

#include "dcgm/calls.h"

/* timeout_ms 0: the default. persist: the engine keeps the client's watches after it disconnects. */
dcgmReturn_t client_connect(const char *address, bool is_unix, unsigned timeout_ms, bool persist, dcgmHandle_t *handle);
dcgmReturn_t client_disconnect(dcgmHandle_t handle);
/* The answer's payload is allocated into *out; the caller frees it. */
dcgmReturn_t client_call(dcgmHandle_t handle, enum call call, const struct call_args *args, const void *payload,
                         size_t len, uint8_t **out, size_t *out_len);
void client_set_callback(dcgmHandle_t handle, uint64_t id, fpRecvUpdates callback, uint64_t user_data);

#endif
