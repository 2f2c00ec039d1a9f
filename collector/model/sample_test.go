// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"regexp"
	"strings"
	"testing"
)

func TestCells(t *testing.T) {
	for name, c := range map[string]struct {
		cell   Cell
		status Status
		int    int64
		float  float64
	}{
		"int64":            {Int64Cell(-7), StatusOK, -7, -7},
		"largest int64":    {Int64Cell(math.MaxInt64), StatusOK, math.MaxInt64, math.MaxInt64},
		"double":           {DoubleCell(0.5), StatusOK, int64(math.Float64bits(0.5)), 0.5},
		"infinity":         {DoubleCell(math.Inf(1)), StatusOK, int64(math.Float64bits(math.Inf(1))), math.Inf(1)},
		"NaN is no value":  {DoubleCell(math.NaN()), StatusBlank, 0, 0},
		"no value":         {NoValue(StatusNotSupported), StatusNotSupported, 0, 0},
		"position in list": {StringCell(3), StatusOK, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if c.cell.Status != c.status || c.cell.Int64() != c.int || c.cell.Float64() != c.float {
				t.Errorf("got %v, %d, %v; want %v, %d, %v",
					c.cell.Status, c.cell.Int64(), c.cell.Float64(), c.status, c.int, c.float)
			}
		})
	}
}

func TestSampleString(t *testing.T) {
	s := &Sample{Strings: []string{"P0", "P8"}}
	if got := s.String(StringCell(1)); got != "P8" {
		t.Errorf("got %q", got)
	}
	if got := s.String(StringCell(2)); got != "" {
		t.Errorf("an absent string is %q", got)
	}
	if got := s.String(StringCell(-1)); got != "" {
		t.Errorf("a string at -1 is %q", got)
	}
}

// TestStatusNames: every status has a distinct name, which is valid as a label value.
func TestStatusNames(t *testing.T) {
	seen := map[string]bool{}
	for s := range Status(StatusCount) {
		if name := s.String(); seen[name] || !regexp.MustCompile(`^[a-z0-9_]{1,40}$`).MatchString(name) {
			t.Errorf("status %d is called %q", s, name)
		} else {
			seen[name] = true
		}
	}
	if got := Status(StatusCount).String(); got != "status(14)" {
		t.Errorf("an unknown status is called %q", got)
	}
}

func TestSampleValidate(t *testing.T) {
	inventory := func() *Inventory {
		inv := &Inventory{Generation: 2, Entities: []Entity{
			{Kind: KindGPU, Parent: Unknown}, {Kind: KindGPU, Parent: Unknown}, {Kind: KindCPU, Parent: Unknown}}}
		inv.Columns[KindGPU] = []FieldID{100, 150}
		return inv
	}
	sample := func() *Sample {
		return &Sample{Generation: 2, Strings: []string{"P0"}, Rows: [][]Cell{
			{Int64Cell(1), StringCell(0)}, {NoValue(StatusEntityLost), NoValue(StatusEntityLost)}, nil}}
	}
	for name, c := range map[string]struct {
		change func(*Sample)
		want   string // part of the error; empty: valid
	}{
		"valid":                   {func(*Sample) {}, ""},
		"an entity is not read":   {func(s *Sample) { s.Rows[1] = nil }, ""},
		"a blank string":          {func(s *Sample) { s.Strings = nil; s.Rows[0][1] = NoValue(StatusBlank) }, ""},
		"another inventory":       {func(s *Sample) { s.Generation = 1 }, "sample of inventory 1, current is 2"},
		"a row is missing":        {func(s *Sample) { s.Rows = s.Rows[:2] }, "2 rows for 3 entities"},
		"a cell is missing":       {func(s *Sample) { s.Rows[1] = s.Rows[1][:1] }, "row 1 has 1 cells for 2 columns"},
		"a cell without a column": {func(s *Sample) { s.Rows[2] = []Cell{Int64Cell(1)} }, "row 2 has 1 cells for 0 columns"},
		"a string is missing":     {func(s *Sample) { s.Rows[1][0] = StringCell(1) }, "row 1 refers to string 1 of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sample()
			c.change(s)
			err := s.Validate(inventory())
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestInventoryValidate(t *testing.T) {
	for name, c := range map[string]struct {
		entities []Entity
		valid    bool
	}{
		"empty":                      {nil, true},
		"parent before child":        {[]Entity{{Kind: KindGPU, Parent: Unknown}, {Kind: KindGPUInstance, Parent: 0}}, true},
		"child before parent":        {[]Entity{{Kind: KindGPUInstance, Parent: 1}, {Kind: KindGPU, Parent: Unknown}}, false},
		"its own parent":             {[]Entity{{Kind: KindGPU, Parent: 0}}, false},
		"absent parent":              {[]Entity{{Kind: KindGPU, Parent: -2}}, false},
		"unknown kind":               {[]Entity{{Kind: KindCount, Parent: Unknown}}, false},
		"instance without parent":    {[]Entity{{Kind: KindGPU, Parent: Unknown}, {Kind: KindComputeInstance, Parent: Unknown}}, false},
		"instance in a CPU":          {[]Entity{{Kind: KindCPU, Parent: Unknown}, {Kind: KindGPUInstance, Parent: 0}}, false},
		"link without parent":        {[]Entity{{Kind: KindLink, Parent: Unknown}}, false},
		"link of a CPU":              {[]Entity{{Kind: KindCPU, Parent: Unknown}, {Kind: KindLink, Parent: 0}}, false},
		"link of a switch":           {[]Entity{{Kind: KindSwitch, Parent: Unknown}, {Kind: KindLink, Parent: 0}}, true},
		"core without parent":        {[]Entity{{Kind: KindCPUCore, Parent: Unknown}}, false},
		"core of a CPU":              {[]Entity{{Kind: KindCPU, Parent: Unknown}, {Kind: KindCPUCore, Parent: 0}}, true},
		"compute instance, 3 levels": {[]Entity{{Kind: KindGPU, Parent: Unknown}, {Kind: KindGPUInstance, Parent: 0}, {Kind: KindComputeInstance, Parent: 1}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			inv := Inventory{Entities: c.entities}
			if err := inv.Validate(); (err == nil) != c.valid {
				t.Errorf("got %v, want valid: %v", err, c.valid)
			}
		})
	}
}

func TestInventoryGPU(t *testing.T) {
	inv := Inventory{Entities: []Entity{
		{Kind: KindGPU, Parent: Unknown, ID: 5},
		{Kind: KindGPUInstance, Parent: 0},
		{Kind: KindComputeInstance, Parent: 1},
		{Kind: KindCPU, Parent: Unknown},
	}}
	for i, want := range []bool{true, true, true, false} {
		gpu, ok := inv.GPU(i)
		if ok != want || ok && gpu.ID != 5 {
			t.Errorf("GPU of entity %d: %+v, %v", i, gpu, ok)
		}
	}
	for _, i := range []int{-1, 4} {
		if gpu, ok := inv.GPU(i); ok {
			t.Errorf("the GPU of the absent entity %d is %+v", i, gpu)
		}
	}
}
