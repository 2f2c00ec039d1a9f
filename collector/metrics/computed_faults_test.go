// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// The computed series of a partitioned GPU have the labels of the node, although only its
// instances are read.
func TestComputedSeriesOfPartitionedGPUs(t *testing.T) {
	f, node, _ := newTestFamilies(t, computedConfig(t))
	sample := testSample(testInventory(t))
	sample.Rows[1] = nil
	deliver(t, node, wire.Frame{Sample: sample})
	found := 0
	for line := range strings.Lines(series(encode(t, f, expfmt.TypeTextPlain), "DCGM_EXP_XID_ERRORS_COUNT")) {
		if strings.Contains(line, `gpu="1"`) && !strings.Contains(line, "GPU_I_ID") {
			found++
			if !strings.Contains(line, `DCGM_FI_DRIVER_VERSION="570.133.20"`) {
				t.Errorf("the driver's version is missing: %s", line)
			}
		}
	}
	if found == 0 {
		t.Error("the partitioned GPU has no series")
	}
}

// The XIDs of a GPU remain the same series when it is lost: XID 79 would otherwise be the
// first value of a new series, which no rate shows.
func TestComputedSeriesOfLostGPUs(t *testing.T) {
	f, node, _ := newTestFamilies(t, computedConfig(t))
	xids := func() (lines string) {
		for line := range strings.Lines(series(encode(t, f, expfmt.TypeTextPlain), "DCGM_EXP_XID_ERRORS_TOTAL")) {
			if strings.Contains(line, `gpu="1"`) && !strings.Contains(line, `GPU_I_ID="12"`) { // which has no values
				lines += line
			}
		}
		return lines
	}
	before := xids()
	if !strings.Contains(before, "GPU_I_ID") || !strings.Contains(before, `DCGM_FI_DRIVER_VERSION="570.133.20"`) {
		t.Fatalf("series\n%s", before)
	}
	inv := testInventory(t)
	inv.Generation = 2
	sample := testSample(inv)
	sample.Generation = 2
	for i := range inv.Entities {
		if gpu := inv.GPUAt(i); gpu != 1 {
			continue
		}
		inv.Entities[i].State = model.EntityLost
		for c := range sample.Rows[i] {
			sample.Rows[i][c] = model.NoValue(model.StatusEntityLost)
		}
	}
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: sample})
	if after := xids(); after != before {
		t.Errorf("after the loss\n%swant\n%s", after, before)
	}
}

// Like dcgm-exporter, a GPU without clock events has no series of their number.
func TestNoClockEvents(t *testing.T) {
	cfg := conditionsConfig(t)
	f, node, _ := newTestFamilies(t, cfg)
	inv := testInventory(t)
	inv.Derived = []model.FieldID{112}
	sample := testSample(inv)
	sample.Derived = [][]model.Cell{{model.Int64Cell(0)}, {model.Int64Cell(0)}, nil, nil, nil, nil}
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: sample})
	body := encode(t, f, expfmt.TypeTextPlain)
	if got := series(body, "DCGM_EXP_CLOCK_EVENTS_COUNT"); got != "" {
		t.Errorf("series without a clock event:\n%s", got)
	}
	if got := series(body, "DCGM_EXP_CLOCK_EVENTS_TOTAL"); !strings.Contains(got, `clock_event="gpu_idle"`) {
		t.Errorf("no clock events are counted:\n%s", got)
	}
}
