// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

// RecordGroups returns all recording rules in the order of their evaluation.
func RecordGroups() []RecordGroup { return nil }
