// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package kmsg follows the kernel log and delivers the XID errors that NVIDIA's driver
// writes to it. DCGM misses some of them: those that occur while no engine runs, and codes
// for which the driver raises no event.
//
// This package must not count XIDs and must not know which GPUs exist.
package kmsg
