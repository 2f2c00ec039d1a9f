// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/model"
)

const (
	gpu     = model.KindGPU
	inst    = model.KindGPUInstance
	compute = model.KindComputeInstance
)

// testInventory has whole GPUs 0 and 5, GPU 1 with two instances, and the lost GPU 4.
func testInventory(columns map[model.EntityKind][]model.FieldID) *model.Inventory {
	none := model.Unknown
	inv := &model.Inventory{Generation: 1, Entities: []model.Entity{
		{Kind: gpu, ID: 0, Parent: none, UUID: "GPU-0"},
		{Kind: gpu, ID: 1, Parent: none, UUID: "GPU-1", MIGMode: true},
		{Kind: gpu, ID: 4, Parent: none, UUID: "GPU-4", State: model.EntityLost},
		{Kind: gpu, ID: 5, Parent: none, UUID: "GPU-5"},
		{Kind: inst, ID: 7, Parent: 1, InstanceID: 1, Profile: "3g.40gb"},
		{Kind: inst, ID: 8, Parent: 1, InstanceID: 2, Profile: "4g.40gb"},
		{Kind: compute, ID: 7, Parent: 4},
		{Kind: compute, ID: 8, Parent: 5},
	}}
	for kind, fields := range columns {
		inv.Columns[kind] = fields
	}
	return inv
}

var (
	testColumns = map[model.EntityKind][]model.FieldID{
		gpu:  {155, 230, 1001, 1002},
		inst: {155, 1001},
	}
	testCapabilities = map[uint32]capability{
		0: {fields: map[uint16]bool{1001: true, 1002: true, 1004: true, 1006: true}},
		1: {fields: map[uint16]bool{1001: true, 1002: true}},
		5: {status: model.StatusModuleMissing},
	}
)

// TestPlanTargets shows the watches of a plan.
func TestPlanTargets(t *testing.T) {
	for _, tt := range []struct {
		devices string
		want    []string
	}{
		{"f", []string{
			"events [230] on 1/0 1/1 1/5 4/7 4/8 5/7 5/8",
			"[67 155] on 1/0 1/5",
			"[155] on 4/7 4/8",
			"profiling [1001 1002] on 1/0",
			"profiling [1001] on 4/7 4/8",
		}},
		{"g", []string{
			"events [230] on 1/0 1/1 1/5 4/7 4/8 5/7 5/8",
			"[67 155] on 1/0 1/1 1/5",
			"profiling [1001 1002] on 1/0",
			"profiling [1001 1002] on 1/1",
		}},
		{"g:5", []string{
			"events [230] on 1/5",
			"[67 155] on 1/5",
		}},
		{"i:8", []string{
			"events [230] on 1/1 4/8 5/8",
			"[155] on 4/8",
			"profiling [1001] on 4/8",
		}},
		{"g:4", nil}, // lost
	} {
		selector, err := model.ParseSelector(tt.devices)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, target := range newPlan(testInventory(testColumns), selectors{gpus: selector}, testCapabilities).targets() {
			var b strings.Builder
			if target.Events {
				b.WriteString("events ")
			}
			if target.Profiling {
				b.WriteString("profiling ")
			}
			fmt.Fprintf(&b, "%v on", target.Fields)
			for _, e := range target.Entities {
				fmt.Fprintf(&b, " %d/%d", e.Kind, e.ID)
			}
			got = append(got, b.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("--devices.gpus=%s:\n%s\nwant\n%s", tt.devices, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

// TestPlanComputeInstancesAlone shows that compute instances are read although their
// parents have no columns.
func TestPlanComputeInstancesAlone(t *testing.T) {
	inv := testInventory(map[model.EntityKind][]model.FieldID{compute: {252}})
	p := newPlan(inv, selectors{}, nil)
	for i, e := range inv.Entities {
		if want := e.Kind == compute; p.read[i] != want {
			t.Errorf("%v %d is read: %v, want %v", e.Kind, e.ID, p.read[i], want)
		}
	}
}

// TestChangedTargets shows which changes need a new watch: another instance with the
// same ID does, a change of another entity does not.
func TestChangedTargets(t *testing.T) {
	targets := func(change func(*model.Inventory)) map[string]bool {
		inv := testInventory(testColumns)
		change(inv)
		out := make(map[string]bool)
		for _, target := range newPlan(inv, selectors{}, testCapabilities).targets() {
			out[fmt.Sprint(target)] = true
		}
		return out
	}
	before := targets(func(*model.Inventory) {})
	same := func(after map[string]bool) (n int) {
		for k := range after {
			if before[k] {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		name   string
		change func(*model.Inventory)
		stay   int
	}{
		{"nothing", func(*model.Inventory) {}, 5},
		// The fields and the profiling of the GPUs stay; the events and the two
		// targets of the instances change.
		{"another instance with the same id", func(inv *model.Inventory) { inv.Entities[4].InstanceID = 9 }, 2},
		{"another profile", func(inv *model.Inventory) { inv.Entities[4].Profile = "1g.10gb" }, 2},
		// The lost GPU has no profiling.
		{"a lost GPU", func(inv *model.Inventory) { inv.Entities[3].State = model.EntityLost }, 3},
	} {
		if got := same(targets(tt.change)); got != tt.stay {
			t.Errorf("%s: %d of %d watches stay, want %d", tt.name, got, len(before), tt.stay)
		}
	}
}

// TestPlanBlocks shows the requests of a reading, and the cells without one.
func TestPlanBlocks(t *testing.T) {
	inv := testInventory(testColumns)
	p := newPlan(inv, selectors{}, testCapabilities)
	blocks, cells := p.blocks()
	var got []string
	for _, b := range blocks {
		got = append(got, fmt.Sprintf("rows %v fields %v shown %d xid %d mig %d", b.rows, b.Fields, len(b.to), b.xid, b.mig))
	}
	want := []string{
		"rows [0] fields [155 230 1001 1002 67] shown 4 xid 1 mig 4",
		"rows [1 2] fields [230] shown 0 xid 0 mig -1", // partitioned, and lost
		"rows [3] fields [155 230 67] shown 2 xid 1 mig 2",
		"rows [4 5] fields [155 1001 230] shown 2 xid 2 mig -1",
		"rows [6 7] fields [230] shown 0 xid 0 mig -1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("blocks:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := 5 + 2 + 3 + 6 + 2; cells != want {
		t.Errorf("%d cells, want %d", cells, want)
	}
	if got, want := p.fixed[2], slices.Repeat([]model.Status{model.StatusEntityLost}, 4); !slices.Equal(got, want) {
		t.Errorf("the lost GPU's cells are %v, want %v", got, want)
	}
	if got, want := p.fixed[3][2], model.StatusModuleMissing; got != want {
		t.Errorf("the profiling cells of a GPU without the module are %v, want %v", got, want)
	}
}

// TestRefuse shows that a refused watch only affects its own cells.
func TestRefuse(t *testing.T) {
	p := newPlan(testInventory(testColumns), selectors{}, testCapabilities)
	p.refuse([]*watch.Unit{{
		Target: watch.Target{Fields: []uint16{155, 230}},
		Refused: []watch.Refusal{
			{Entity: native.Pair{Kind: 1, ID: 0}, Fields: []uint16{155}, Code: native.UnknownField},
			{Entity: native.Pair{Kind: 4, ID: 8}, Code: native.GPULost}, // not added to the group
			{Entity: native.Pair{Kind: 1, ID: 99}, Code: native.GPULost},
		},
	}})
	ok := model.StatusOK
	for row, want := range map[int][]model.Status{
		0: {model.StatusNotFound, ok, ok, ok},
		4: {ok, ok},
		5: {model.StatusEntityLost, ok},
	} {
		if !slices.Equal(p.fixed[row], want) {
			t.Errorf("row %d: %v, want %v", row, p.fixed[row], want)
		}
	}
}

// TestPlanInstancesUnknown shows that a GPU with unknown instances does not replace them,
// and that it is selected if an instance may be.
func TestPlanInstancesUnknown(t *testing.T) {
	for _, tt := range []struct {
		devices        string
		selected, read []int
	}{
		{"f", []int{0, 1, 2, 3}, []int{0, 2, 3}},
		{"g", []int{0, 1, 2, 3}, []int{0, 1, 2, 3}},
		{"g:1", []int{1}, []int{1}},
		{"g:5", []int{3}, []int{3}},
		{"i:8", []int{1}, nil},
	} {
		inv := testInventory(testColumns)
		inv.Entities, inv.InstancesUnknown = inv.Entities[:4], true
		selector, err := model.ParseSelector(tt.devices)
		if err != nil {
			t.Fatal(err)
		}
		p := newPlan(inv, selectors{gpus: selector}, testCapabilities)
		var selected, read []int
		for i := range inv.Entities {
			if p.selected[i] {
				selected = append(selected, i)
			}
			if p.read[i] {
				read = append(read, i)
			}
		}
		if !slices.Equal(selected, tt.selected) || !slices.Equal(read, tt.read) {
			t.Errorf("%s: selected %v, read %v", tt.devices, selected, read)
		}
	}
}
