// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is the protocol between the exporter and its sampler process: the frames
// that the sampler writes, and the configuration and commands that it reads. Both ends
// are the same binary.
//
// This package must not start processes, interpret values or keep state.
package wire
