// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package definition has the names, types, labels and HELP texts of the metric families
// that the exporter defines, and the groups that --families selects. It is the vocabulary
// of the pages, dashboards and rules as well, so that a renamed family breaks their build. The
// conditions that make a GPU unhealthy, and the remedies of faults, are here for the same reason:
// the status page and the rules share them.
//
// This package must not build families from values.
package definition
