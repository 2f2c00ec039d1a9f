// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gpu_exporter/collector"
)

// TestLostGPU shows that a lost GPU keeps its identity, that its last XID is
// heard, that the others go on, and that it can come back.
func TestLostGPU(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 2, 150, collector.StatusOK)
	before := p.inv.Entities[2]

	n.command("xid 79 gpu 2")
	n.command("lose gpu 2")
	events, _ := p.events("XID 79", 1)
	if events[0].Code != 79 || events[0].Entity != 2 {
		t.Errorf("event %+v", events[0])
	}
	for p.inv.Entities[2].State != collector.EntityLost {
		p.inventory("the GPU to be lost")
	}
	lost := p.inv.Entities[2]
	before.State = collector.EntityLost
	if lost != before {
		t.Errorf("the lost GPU is\n%+v, want\n%+v", lost, before)
	}
	s := p.sample("a sample", func(*collector.Sample) error { return nil })
	for _, field := range p.inv.Columns[gpu] {
		if c := p.cell(s, gpu, 2, field); c.Status != collector.StatusEntityLost {
			t.Errorf("field %d of the lost GPU is %v", field, c.Status)
		}
	}
	for _, id := range []uint32{0, 1, 3, 7} {
		if c := p.cell(s, gpu, id, 150); c.Status != collector.StatusOK {
			t.Errorf("GPU %d's temperature is %v while another GPU is lost", id, c.Status)
		}
	}

	// An XID that comes after the loss is heard as well.
	n.command("xid 154 gpu 2")
	if events, _ := p.events("XID 154", 1); events[0].Code != 154 || events[0].Entity != 2 {
		t.Errorf("event %+v", events[0])
	}

	n.command("return gpu 2")
	for p.inv.Entities[2].State != collector.EntityUp {
		p.inventory("the GPU to be back")
	}
	before.State = collector.EntityUp
	if back := p.inv.Entities[2]; back != before {
		t.Errorf("the GPU that came back is\n%+v, want\n%+v", back, before)
	}
	p.has(gpu, 2, 150, collector.StatusOK)
	p.has(gpu, 2, 1001, collector.StatusOK)
}

// TestLostMIGGPU shows that a GPU's instances are lost with it, and keep their identity.
func TestLostMIGGPU(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	p := n.start(defaultConfig())
	before := p.inventory("the inventory")
	n.command("lose gpu 0")
	after := p.inventory("the GPU to be lost")
	if len(after.Entities) != len(before.Entities) {
		t.Fatalf("%d entities, before %d", len(after.Entities), len(before.Entities))
	}
	for i, e := range after.Entities {
		want := before.Entities[i]
		want.State = collector.EntityLost
		if e != want {
			t.Errorf("lost:\n%+v, want\n%+v", e, want)
		}
	}
	p.has(inst, 3, 150, collector.StatusEntityLost)
	n.command("return gpu 0")
	p.inventory("the GPU to be back")
	p.has(inst, 3, 150, collector.StatusOK)
}

// TestDetachedGPU shows a GPU that is unbound from the driver, and bound again.
func TestDetachedGPU(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	before := p.inventory("the inventory").Entities[5]
	n.command("detach gpu 5")
	before.State = collector.EntityDetached
	if got := p.inventory("the GPU to be detached").Entities[5]; got != before {
		t.Errorf("detached:\n%+v, want\n%+v", got, before)
	}
	p.has(gpu, 5, 150, collector.StatusEntityLost)
	p.has(gpu, 4, 150, collector.StatusOK)
	n.command("attach gpu 5")
	before.State = collector.EntityUp
	if got := p.inventory("the GPU to be attached").Entities[5]; got != before {
		t.Errorf("attached:\n%+v, want\n%+v", got, before)
	}
	p.has(gpu, 5, 150, collector.StatusOK)
}

// TestResplit shows that an instance with a reused id is another instance, and
// that changes without end do not use up the engine's 64 groups.
func TestResplit(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	cfg := defaultConfig()
	cfg.Interval = 20 * time.Millisecond
	p := n.start(cfg)
	p.has(inst, 0, 252, collector.StatusOK)
	layouts := []struct {
		layout, first string
		instances     int
	}{
		{"3g.20gb+2g.10gb*2", "3g.20gb", 3},
		{"7g.40gb", "7g.40gb", 1},
		{"1g.5gb*7", "1g.5gb", 7},
	}
	for round := range 72 {
		l := layouts[round%len(layouts)]
		n.command("mig gpu 0 " + l.layout)
		inv := p.inventory(l.layout)
		var instances []collector.Entity
		for _, e := range inv.Entities {
			if e.Kind == inst {
				instances = append(instances, e)
			}
		}
		if len(instances) != l.instances || instances[0].ID != 0 || instances[0].Profile != l.first {
			t.Fatalf("round %d: %s gives %+v", round, l.layout, instances)
		}
		p.has(inst, 0, 252, collector.StatusOK)
		p.has(inst, uint32(l.instances-1), 150, collector.StatusOK)
	}

	// MIG mode on without instances, and off: no instance says so.
	n.command("mig gpu 0 none")
	p.sample("the GPU itself to be read", func(s *collector.Sample) error {
		if len(p.inv.Entities) != 1 || len(s.Rows[0]) == 0 || !p.inv.Entities[0].MIGMode {
			return fmt.Errorf("%d entities", len(p.inv.Entities))
		}
		return nil
	})
	n.command("mig gpu 0 off")
	p.sample("MIG mode to be off", func(s *collector.Sample) error {
		if p.inv.Entities[0].MIGMode {
			return errors.New("it is on")
		}
		return nil
	})
}
