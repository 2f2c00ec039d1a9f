// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"testing"
	"time"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
)

// TestOldValuesWithGoodStatus shows that a GPU is not up and has no values while DCGM
// repeats its last values with status 0, and that its other GPUs are not affected.
func TestOldValuesWithGoodStatus(t *testing.T) {
	for name, columns := range map[string][]model.FieldID{
		"read in bulk and one by one": {150, 156, 203, 393},
		"only read in bulk":           {156, 393},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "h100x8")
			cfg := defaultConfig()
			cfg.MaxAge = 10 * time.Minute // values are withheld long before
			cfg.Fields = map[model.EntityKind][]model.FieldID{gpu: columns}
			cfg.Derived = []model.FieldID{394}
			p := n.start(cfg)
			p.has(gpu, 3, 156, model.StatusOK)
			n.command("mute gpu 3")
			start := time.Now()
			s := p.has(gpu, 3, 156, model.StatusStale)
			t.Logf("withheld after %v", time.Since(start).Round(10*time.Millisecond))
			v := state.View{Inventory: p.inv, Sample: s}
			if at := p.entity(gpu, 3); state.Answers(v, at) || p.inv.Entities[at].State != model.EntityUp {
				t.Errorf("the GPU answers or is marked as lost: %v", p.inv.Entities[at].State)
			}
			for i, c := range append(s.Rows[p.entity(gpu, 3)], s.Derived[p.entity(gpu, 3)]...) {
				if c.Status == model.StatusOK {
					t.Errorf("cell %d has the value %v", i, c.Float64())
				}
			}
			for _, id := range []uint32{2, 4} {
				if !state.Answers(v, p.entity(gpu, id)) {
					t.Errorf("GPU %d does not answer", id)
				}
			}
			n.command("return gpu 3")
			p.sample("the GPU to answer again", func(s *model.Sample) error {
				if !state.Answers(state.View{Inventory: p.inv, Sample: s}, p.entity(gpu, 3)) {
					return fmt.Errorf("no values")
				}
				return nil
			})
		})
	}
}
