// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package model defines the data that the sampler and the exporter share: the inventory
// of the node's entities, and their samples, processes, events, health, profiling state
// and topology. Each type has its validation. Values are immutable once published.
//
// This package must not read, count, log or format anything, and must not import another
// package of the exporter.
package model
