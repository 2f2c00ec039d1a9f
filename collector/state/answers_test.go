// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"testing"

	"gpu_exporter/collector/model"
)

// Without a counter of GPUs, the derived fields decide whether a GPU answers. Those that
// the GPU never has do not count.
func TestAnswersWithoutCounters(t *testing.T) {
	for name, tc := range map[string]struct {
		cells []model.Cell
		want  bool
	}{
		"a value":                     {[]model.Cell{model.NoValue(model.StatusBlank), model.Int64Cell(0)}, true},
		"all blank":                   {[]model.Cell{model.NoValue(model.StatusBlank), model.NoValue(model.StatusStale)}, false},
		"one blank, one unsupported":  {[]model.Cell{model.NoValue(model.StatusBlank), model.NoValue(model.StatusNotSupported)}, false},
		"no support for any of them":  {[]model.Cell{model.NoValue(model.StatusNotSupported), model.NoValue(model.StatusExcluded)}, true},
		"no derived field":            {nil, true},
		"not read yet, or not at all": {[]model.Cell{model.NoValue(model.StatusNoData), model.NoValue(model.StatusModuleMissing)}, false},
	} {
		inv := &model.Inventory{Entities: []model.Entity{{Kind: model.KindGPU, Parent: model.Unknown, UUID: "GPU-aaaa", Selected: true}}}
		v := View{Inventory: inv, Sample: &model.Sample{Rows: make([][]model.Cell, 1), Derived: [][]model.Cell{tc.cells}}}
		if got := Answers(v, 0); got != tc.want {
			t.Errorf("%s: answers %v", name, got)
		}
		if why := Silence(v, 0); (why == "") != tc.want {
			t.Errorf("%s: silence %q", name, why)
		}
	}
}
