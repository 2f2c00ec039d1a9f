// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

// AlertGroups returns all alerts.
func AlertGroups() []AlertGroup { return nil }
