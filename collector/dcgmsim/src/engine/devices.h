/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Descriptions of devices. */
#ifndef DCGMSIM_ENGINE_DEVICES_H
#define DCGMSIM_ENGINE_DEVICES_H

#include "engine/state.h"

dcgmReturn_t describe_gpu(struct engine *e, unsigned gpu, dcgmDeviceAttributes_t *out);
dcgmReturn_t describe_mig(struct engine *e, dcgmMigHierarchy_v2 *out);
dcgmReturn_t chip_architecture(struct engine *e, unsigned gpu, dcgmChipArchitecture_t *out);
dcgmReturn_t describe_cpus(struct engine *e, dcgmCpuHierarchy_v2 *out);
/* Attaches or detaches the driver: every GPU returns or leaves. */
dcgmReturn_t attach_driver(struct engine *e, bool attach);

#endif
