// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package native calls libdcgm.so.4 and returns what DCGM returns.
//
// go-dcgm initialises DCGM, and reports versions and profiling metric groups.
// All other calls use this package, for two reasons. go-dcgm copies and clears
// 4 KiB for each value and drops most error codes. This package reads all values
// into one reused buffer and keeps DCGM's code.
//
// Any call can hang, crash or leak, so only the sampler process may use this
// package. It must not decide what to read, and must not log.
package native
