// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package collector is the domain of gpu_exporter: what a GPU node consists of
// (entities), what is measured on it (fields), one reading of everything
// (a sample), the process that takes the readings (the sampler, supervised
// from here), what is counted over time (accumulators), and the metric
// families that all of it becomes.
//
// The road of a value: collector/dcgm reads it in the sampler process and
// writes it into a frame ([FrameWriter]); [Supervisor] reads the frame and hands
// it to [Node], which keeps the newest sample; [Families] turns what
// is known then into families, and [Exposition] encodes them.
//
// This package must not call into native code, must not know Kubernetes, HTTP
// or flags, and must never block on anything but the sampler's pipe.
package collector
