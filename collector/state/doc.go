// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package state holds the exporter's knowledge of its node: the newest inventory and sample,
// GPUs that disappeared, and everything that accumulates over time. [Node] validates each
// frame before it uses it.
//
// A [Node] outlives samplers. These survive a sampler restart, so counters continue: XID
// counts, integrals, histograms, clock event times, health failures, the identities of lost
// GPUs and NVSwitches, and the NVLinks that were once up. The newest sample, health check and
// topology remain until a new frame replaces them.
//
// This package must not name or format metrics, and must not know owners of devices. No
// method may block on a sampler, a log or a scrape.
package state
