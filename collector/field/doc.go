// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package field contains the catalogue of DCGM fields, which FIELDS.md lists, and the
// counters. A counter is a field that a counters file selects, with the name, type and help
// text of its metric.
//
// This package must not read values, build metrics or call DCGM's library.
package field

//go:generate go run ./internal/fieldgen -o catalogue_table.go
