// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package field is the catalogue of DCGM fields, and counters: the fields that a counters
// file selects, with the name, type and help text of their metrics. FIELDS.md lists all
// of them.
//
// This package must not read values or build metrics, and must not know DCGM's library.
package field
