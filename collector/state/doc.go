// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package state is what the exporter knows of its node: the newest inventory and sample,
// GPUs that are gone, and everything that accumulates over time. [Node] validates each
// frame before it uses it. Its contents outlive samplers, so counters continue after a
// sampler restart.
//
// This package must not name or format metrics, and must not know owners of devices. No
// method may block on a sampler, a log or a scrape.
package state
