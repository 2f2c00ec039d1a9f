// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"testing"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// TestOldValues shows which values are withheld because of their age: values that are
// not updated while others are, and values of an earlier instance.
func TestOldValues(t *testing.T) {
	const (
		old = int64(1_000_000_000)
		now = old + 150_000_000 // 150 s later, in µs
	)
	const (
		ok     = model.StatusOK
		noData = model.StatusNoData
		stale  = model.StatusStale
	)
	for name, tc := range map[string]struct {
		interval           time.Duration
		appeared           int64
		power, xid, driver int64 // their times; the temperature is new
		powerIs, xidIs     model.Status
		values             int
	}{
		"all are new":              {time.Second, 0, now, now, now, ok, ok, 2},
		"power is not updated":     {time.Second, 0, old, now, now, stale, ok, 1},
		"only the XID is old":      {time.Second, 0, now, old, now, ok, ok, 2},
		"the interval is long":     {60 * time.Second, 0, old, now, now, ok, ok, 2},
		"of an earlier instance":   {time.Second, now - 1, now - 1, old, now - 1, noData, noData, 1},
		"the first of an instance": {time.Second, now - 1, now, now, now - 1, ok, ok, 2},
		"older than 3 intervals":   {40 * time.Second, 0, old, now, now, stale, ok, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inv := &model.Inventory{Entities: []model.Entity{{Kind: gpu, Parent: model.Unknown}}}
			inv.Columns[gpu] = []model.FieldID{1, 150, 155, 230}
			selector, err := model.ParseSelector("f")
			if err != nil {
				t.Fatal(err)
			}
			p := newPlan(inv, selectors{gpus: selector}, nil)
			r := newReading(&native.Library{}, p, []int64{tc.appeared}, tc.interval, 2*time.Minute)
			if len(r.blocks) != 1 || len(r.cells) != 5 { // the fifth is the MIG mode
				t.Fatalf("%d blocks of %d cells", len(r.blocks), len(r.cells))
			}
			r.cells[0] = native.Cell{Time: tc.driver, Type: 'i', Bits: 1}
			r.cells[1] = native.Cell{Time: now, Type: 'i', Bits: 40}
			r.cells[2] = native.Cell{Time: tc.power, Type: 'i', Bits: 300}
			r.cells[3] = native.Cell{Time: tc.xid, Type: 'i', Bits: 79}
			r.cells[4] = native.Cell{Time: now, Type: 'i', Bits: 0}
			r.fill()
			// The driver version is node-wide, so its age is not limited. A number is not its type.
			if got := r.rows[0][0].Status; got != model.StatusUnexpectedType {
				t.Errorf("the driver's version is %v", got)
			}
			if got := r.rows[0][2].Status; got != tc.powerIs {
				t.Errorf("power is %v, want %v", got, tc.powerIs)
			}
			if got := r.rows[0][3].Status; got != tc.xidIs {
				t.Errorf("XID is %v, want %v", got, tc.xidIs)
			}
			if r.answers != tc.values+1 || r.newest != now {
				t.Errorf("%d values, the newest of %d; want %d, %d", r.answers, r.newest, tc.values, now)
			}
		})
	}
}

// TestSwitchesDoNotRenew shows that values of switches do not make old values of GPUs look
// new, and that they become stale as well.
func TestSwitchesDoNotRenew(t *testing.T) {
	const now = int64(1_000_000_000)
	inv := &model.Inventory{Entities: []model.Entity{
		{Kind: gpu, Parent: model.Unknown}, {Kind: nvswitch, Parent: model.Unknown, Selected: true}}}
	inv.Columns[gpu], inv.Columns[nvswitch] = []model.FieldID{150}, allFamilies().SwitchFields()
	all, err := model.ParseSelector("f")
	if err != nil {
		t.Fatal(err)
	}
	r := newReading(&native.Library{}, newPlan(inv, selectors{gpus: all, switches: all}, nil), make([]int64, 2), time.Second, 2*time.Minute)
	places := r.positions()
	set := func(row int, field uint16, ts int64) {
		r.cells[places[fieldOf{row, field}]] = native.Cell{Time: ts, Type: 'i', Bits: 40}
	}
	set(0, 150, now)
	set(1, 858, now+60_000_000)
	set(1, 864, now-150_000_000)
	r.fill()
	if r.newest != now {
		t.Errorf("newest time %d, want %d", r.newest, now)
	}
	if row := r.rows[1]; row[0].Status != model.StatusOK || row[1].Status != model.StatusStale {
		t.Errorf("switch: %v, %v", row[0].Status, row[1].Status)
	}
}
