// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package xid describes XID error codes and counts XID errors. Each error counts once,
// although DCGM and the kernel log may both report it.
//
// This package must not read the kernel log (see kmsg) or build metrics.
package xid
