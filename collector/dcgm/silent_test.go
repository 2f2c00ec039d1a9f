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

// TestStepsOfTheEnginesClock shows that the values of all entities continue after the clock
// of the engine was set ahead by an hour, and back again.
func TestStepsOfTheEnginesClock(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	p := n.start(defaultConfig())
	all := func(s *model.Sample) error {
		for i, e := range p.inv.Entities {
			for j, field := range p.inv.Columns[e.Kind] {
				if len(s.Rows[i]) > 0 && (field == 150 || field == 1001) && s.Rows[i][j].Status != model.StatusOK {
					return fmt.Errorf("field %d of %v %d is %v", field, e.Kind, e.ID, s.Rows[i][j].Status)
				}
			}
		}
		return nil
	}
	p.sample("the first values", all)
	for _, ahead := range []string{"3600000", "0"} {
		before := p.sample("a sample", all).EngineTime
		n.command("clock " + ahead)
		start := time.Now()
		p.sample("the step", func(s *model.Sample) error {
			if s.EngineTime.Sub(before).Abs() < 30*time.Minute {
				return fmt.Errorf("from %v to %v", before, s.EngineTime)
			}
			return nil
		})
		p.sample("all values", all)
		t.Logf("all values %v after the step to %s ms", time.Since(start).Round(time.Millisecond), ahead)
		for range 20 { // a value that is withheld later would show here
			p.sample("all values", all)
		}
	}
}
