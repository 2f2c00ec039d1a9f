// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics builds the metric families of a node from its state, with the
// labels of devices and their owners, and encodes them. METRICS.md lists the families
// that do not come from a counters file.
//
// This package must not accumulate values over time (see state), find owners, or serve
// HTTP.
package metrics
