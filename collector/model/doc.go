// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package model is the data that the sampler and the exporter share: the entities of a
// node and their inventory, samples, processes, events, health, profiling and topology,
// each with its validation. All values are immutable once they are published.
//
// This package must not read, count, log or format anything, and must not import any
// other package of the exporter.
package model
