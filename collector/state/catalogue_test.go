// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"log/slog"
	"testing"

	"gpu_exporter/collector/xid"
)

// TestDescribeXIDs checks that a reloaded catalogue describes further XIDs in the log.
func TestDescribeXIDs(t *testing.T) {
	first, second := &xid.Catalogue{}, &xid.Catalogue{}
	n := NewNode(slog.New(slog.DiscardHandler), first)
	n.DescribeXIDs(second)
	if n.report.xids != second {
		t.Error("the log keeps the catalogue of the start")
	}
}
