// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"testing"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// allFamilies selects all families.
func allFamilies() *metrics.Config {
	full, err := definition.ParseSelection(definition.Full.String())
	if err != nil {
		panic(err)
	}
	return &metrics.Config{Selected: full}
}

// derivedConfig has the derived fields, one of which is also a column.
func derivedConfig() wire.SamplerConfig {
	cfg := defaultConfig()
	cfg.Derived = allFamilies().DerivedFields()
	cfg.Fields[gpu] = append(cfg.Fields[gpu], 396)
	return cfg
}

// derived waits until a derived field of a GPU has a value.
func (p *process) derived(id uint32, field model.FieldID, want int64) *model.Sample {
	p.t.Helper()
	return p.sample(fmt.Sprintf("derived field %d of GPU %d to be %d", field, id, want), func(s *model.Sample) error {
		c, err := p.derivedCell(s, id, field)
		if err == nil && (c.Status != model.StatusOK || c.Int64() != want) {
			err = fmt.Errorf("it is %v (%d)", c.Status, c.Int64())
		}
		return err
	})
}

func (p *process) derivedCell(s *model.Sample, id uint32, field model.FieldID) (model.Cell, error) {
	column := slices.Index(p.inv.Derived, field)
	at := p.entity(gpu, id)
	if column < 0 || len(s.Derived) != len(p.inv.Entities) || column >= len(s.Derived[at]) {
		return model.Cell{}, fmt.Errorf("there is no such cell")
	}
	return s.Derived[at][column], nil
}

// TestDerived shows the values of derived fields.
func TestDerived(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := n.start(derivedConfig())
	p.derived(7, 1523, 0)
	for _, c := range []struct {
		command string
		field   model.FieldID
		want    int64
	}{
		{"reason gpu 3 hw_power_brake on", 112, 0x80},
		{"ecc gpu 3 dbe 2 sram", 343, 2},
		{"remap gpu 3 pending 1", 396, 1},
		{"recovery gpu 3 reboot", 1523, 2},
		{"fabric gpu 3 failure -11", 170, 4},
	} {
		n.command(c.command)
		if c.field == 112 {
			p.sample("the power brake", func(s *model.Sample) error {
				if cell, err := p.derivedCell(s, 3, 112); err != nil || cell.Int64()&c.want == 0 {
					return fmt.Errorf("%+v, %w", cell, err)
				}
				return nil
			})
			continue
		}
		p.derived(3, c.field, c.want)
	}
	s := p.derived(3, 171, -11)
	// The column has the same value.
	if c := p.cell(s, gpu, 3, 396); c.Int64() != 1 {
		t.Errorf("the column of field 396 is %v (%d)", c.Status, c.Int64())
	}
	cluster, err := p.derivedCell(s, 3, 172)
	if err != nil || cluster.Status != model.StatusOK || len(s.String(cluster)) != 36 {
		t.Errorf("cluster %q: %+v, %v", s.String(cluster), cluster, err)
	}
	if c, err := p.derivedCell(s, 3, 390); err != nil || c.Status != model.StatusNotSupported {
		t.Errorf("retired pages of an H100: %+v, %v", c, err)
	}
	n.command("lose gpu 3")
	p.sample("no derived values of a lost GPU", func(s *model.Sample) error {
		if c, err := p.derivedCell(s, 3, 1523); err != nil || c.Status != model.StatusEntityLost {
			return fmt.Errorf("%+v, %w", c, err)
		}
		return nil
	})
	p.derived(4, 1523, 0)
}

// TestDerivedOfMIGGPU shows that a MIG GPU has derived values only, also after it is
// repartitioned.
func TestDerivedOfMIGGPU(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	p := n.start(derivedConfig())
	n.command("recovery gpu 0 drain-p2p")
	s := p.derived(0, 1523, 3)
	for i, e := range p.inv.Entities {
		switch e.Kind {
		case gpu:
			if len(s.Rows[i]) != 0 {
				t.Errorf("MIG GPU %d has a row", e.ID)
			}
		case inst:
			if len(s.Rows[i]) == 0 || len(s.Derived[i]) != 0 {
				t.Errorf("instance %d has %d values and %d derived ones", e.ID, len(s.Rows[i]), len(s.Derived[i]))
			}
		}
	}
	n.command("mig gpu 0 off")
	p.inventory("the whole GPU")
	p.derived(0, 1523, 3)
	p.has(gpu, 0, 155, model.StatusOK)
	n.command("remap gpu 0 pending 1")
	p.derived(0, 396, 1)
	n.command("mig gpu 0 3g.20gb*2")
	p.inventory("two instances")
	n.command("recovery gpu 0 reset")
	p.derived(0, 1523, 1)
}

// TestDerivedNotSelected shows that a GPU that is not selected has no derived values.
func TestDerivedNotSelected(t *testing.T) {
	cfg := derivedConfig()
	cfg.Devices = "g:1"
	p := newNode(t, "h100x8").start(cfg)
	s := p.derived(1, 1523, 0)
	if row := s.Derived[p.entity(gpu, 0)]; len(row) != 0 {
		t.Errorf("GPU 0 has %d derived values", len(row))
	}
}

// TestDerivedUnknown shows that a field which the engine does not know does not affect
// other fields.
func TestDerivedUnknown(t *testing.T) {
	cfg := derivedConfig()
	cfg.Derived = append(slices.Clone(cfg.Derived), 7999)
	p := newNode(t, "t4x1").start(cfg)
	s := p.derived(0, 1523, 0)
	if c, err := p.derivedCell(s, 0, 7999); err != nil || c.Status != model.StatusNotFound {
		t.Errorf("%+v, %v", c, err)
	}
}
