/* Copyright The gpu_exporter Authors */
/* SPDX-License-Identifier: Apache-2.0 */

/* Topology and link status. */
#ifndef DCGMSIM_ENGINE_TOPOLOGY_H
#define DCGMSIM_ENGINE_TOPOLOGY_H

#include "engine/state.h"

dcgmReturn_t topology_of_gpu(struct engine *e, unsigned gpu, dcgmDeviceTopology_v2 *out);
dcgmReturn_t topology_of_group(struct engine *e, uintptr_t group, dcgmGroupTopology_v2 *out);
dcgmReturn_t topology_link_status(struct engine *e, dcgmNvLinkStatus_v5 *out);
dcgmReturn_t topology_p2p_status(struct engine *e, dcgmNvLinkP2PStatus_v1 *out);

#endif
