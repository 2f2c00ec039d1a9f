// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package kmsg follows the kernel log and tells of the XID errors that NVIDIA's
// driver writes there. DCGM misses some: those that come while no engine runs,
// and codes that the driver gives no event for. The package must not know what
// GPUs there are, nor count: whoever calls it does.
package kmsg
