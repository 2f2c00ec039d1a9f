// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// TestLostGPU shows that a lost GPU keeps its identity, that its last XID is reported,
// that other GPUs are not affected, and that the GPU can return.
func TestLostGPU(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	p.has(gpu, 2, 150, model.StatusOK)
	before := p.inv.Entities[2]

	n.command("xid 79 gpu 2")
	n.command("lose gpu 2")
	events, _ := p.events("XID 79", 1)
	if events[0].Code != 79 || events[0].Entity != 2 {
		t.Errorf("event %+v", events[0])
	}
	for p.inv.Entities[2].State != model.EntityLost {
		p.inventory("the GPU to be lost")
	}
	lost := p.inv.Entities[2]
	before.State = model.EntityLost
	if lost != before {
		t.Errorf("the lost GPU is\n%+v, want\n%+v", lost, before)
	}
	s := p.sample("a sample", func(*model.Sample) error { return nil })
	for _, field := range p.inv.Columns[gpu] {
		if c := p.cell(s, gpu, 2, field); c.Status != model.StatusEntityLost {
			t.Errorf("field %d of the lost GPU is %v", field, c.Status)
		}
	}
	for _, id := range []uint32{0, 1, 3, 7} {
		if c := p.cell(s, gpu, id, 150); c.Status != model.StatusOK {
			t.Errorf("GPU %d's temperature is %v while another GPU is lost", id, c.Status)
		}
	}

	// An XID after the loss is reported as well.
	n.command("xid 154 gpu 2")
	if events, _ := p.events("XID 154", 1); events[0].Code != 154 || events[0].Entity != 2 {
		t.Errorf("event %+v", events[0])
	}

	n.command("return gpu 2")
	for p.inv.Entities[2].State != model.EntityUp {
		p.inventory("the GPU to be back")
	}
	before.State = model.EntityUp
	if back := p.inv.Entities[2]; back != before {
		t.Errorf("the returned GPU is\n%+v, want\n%+v", back, before)
	}
	p.has(gpu, 2, 150, model.StatusOK)
	p.has(gpu, 2, 1001, model.StatusOK)
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
		want.State = model.EntityLost
		if e != want {
			t.Errorf("lost:\n%+v, want\n%+v", e, want)
		}
	}
	p.has(inst, 3, 150, model.StatusEntityLost)
	n.command("return gpu 0")
	p.inventory("the GPU to be back")
	p.has(inst, 3, 150, model.StatusOK)
}

// TestDetachedGPU shows a GPU that is unbound from the driver, and bound again.
func TestDetachedGPU(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(defaultConfig())
	before := p.inventory("the inventory").Entities[5]
	n.command("detach gpu 5")
	before.State = model.EntityDetached
	if got := p.inventory("the GPU to be detached").Entities[5]; got != before {
		t.Errorf("detached:\n%+v, want\n%+v", got, before)
	}
	p.has(gpu, 5, 150, model.StatusEntityLost)
	p.has(gpu, 4, 150, model.StatusOK)
	n.command("attach gpu 5")
	before.State = model.EntityUp
	got := p.inventory("the GPU to be attached").Entities[5]
	for got.State != before.State { // the event detaches all GPUs for a moment
		got = p.inventory("the GPU to be attached").Entities[5]
	}
	if got != before {
		t.Errorf("attached:\n%+v, want\n%+v", got, before)
	}
	p.has(gpu, 5, 150, model.StatusOK)
}

// TestRepartition shows that an instance with a reused ID is a new instance, and that
// repeated changes do not exhaust the engine's 64 groups.
func TestRepartition(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	cfg := defaultConfig()
	cfg.Interval = 20 * time.Millisecond
	p := n.start(cfg)
	p.has(inst, 0, 252, model.StatusOK)
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
		var instances []model.Entity
		for _, e := range inv.Entities {
			if e.Kind == inst {
				instances = append(instances, e)
			}
		}
		if len(instances) != l.instances || instances[0].ID != 0 || instances[0].Profile != l.first {
			t.Fatalf("round %d: %s: instances %+v", round, l.layout, instances)
		}
		p.has(inst, 0, 252, model.StatusOK)
		p.has(inst, uint32(l.instances-1), 150, model.StatusOK)
	}

	// Without instances, only the MIG mode of the GPU itself shows MIG mode on and off.
	n.command("mig gpu 0 none")
	p.sample("the GPU itself to be read", func(s *model.Sample) error {
		if len(p.inv.Entities) != 1 || len(s.Rows[0]) == 0 || !p.inv.Entities[0].MIGMode {
			return fmt.Errorf("%d entities", len(p.inv.Entities))
		}
		return nil
	})
	n.command("mig gpu 0 off")
	p.sample("MIG mode to be off", func(s *model.Sample) error {
		if p.inv.Entities[0].MIGMode {
			return errors.New("it is on")
		}
		return nil
	})
}

// TestRepartitionKeepsProfiling shows that repartitioning a GPU leaves no sample without
// the profiling values of other GPUs and instances, and that new instances get values.
func TestRepartitionKeepsProfiling(t *testing.T) {
	n := newNode(t, scenario(t, "gpu h100 count 3"))
	n.command("mig gpu 0 1g.10gb*7")
	n.command("mig gpu 1 3g.40gb+2g.20gb")
	n.command("load gpu all util 90")
	p := n.start(defaultConfig())
	others := func(s *model.Sample) error {
		for _, e := range []native.Pair{native.PairOf(inst, 7), native.PairOf(inst, 8), native.PairOf(gpu, 2)} {
			if c := p.cell(s, model.EntityKind(e.Kind), e.ID, 1001); c.Status != model.StatusOK {
				return fmt.Errorf("%v %d: %v", model.EntityKind(e.Kind), e.ID, c.Status)
			}
		}
		return nil
	}
	p.sample("values of all", others)
	changes := []struct {
		command string
		first   model.EntityKind // of the GPU or instance with ID 0
		want    model.Status
	}{
		{"mig gpu 0 3g.40gb*2", inst, model.StatusOK},
		{"mig gpu 0 3g.40gb+2g.20gb", inst, model.StatusOK},
		{"lose gpu 0", inst, model.StatusEntityLost},
		{"return gpu 0", inst, model.StatusOK},
		{"mig gpu 0 off", gpu, model.StatusOK},
		{"mig gpu 0 7g.80gb", inst, model.StatusOK},
		{"mig gpu 0 1g.10gb*7", inst, model.StatusOK},
	}
	for i := range 3 * len(changes) {
		change := changes[i%len(changes)]
		n.command(change.command)
		generation := p.inv.Generation
		p.sample("values after "+change.command, func(s *model.Sample) error {
			if err := others(s); err != nil {
				t.Fatalf("%s (%d): %v", change.command, i, err)
			}
			if p.inv.Generation == generation {
				return errors.New("no new inventory")
			}
			if !slices.ContainsFunc(p.inv.Entities, func(e model.Entity) bool { return e.Kind == change.first && e.ID == 0 }) {
				return errors.New("only a part of the change is in the inventory")
			}
			if c := p.cell(s, change.first, 0, 1001); c.Status != change.want {
				return fmt.Errorf("%v", c.Status)
			}
			return nil
		})
	}
	// The values are updated.
	n.command("load gpu all util 40")
	p.sample("the new load", func(s *model.Sample) error {
		if err := others(s); err != nil {
			t.Fatal(err)
		}
		if v := p.cell(s, gpu, 2, 1001).Float64(); v > 0.45 {
			return fmt.Errorf("GPU 2 has %v", v)
		}
		return nil
	})
	if p.rewatches != 0 {
		t.Errorf("%d re-watches", p.rewatches)
	}
}

// TestReusedID shows that an instance with a reused ID has neither the XID nor the
// values of the earlier instance.
func TestReusedID(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	cfg := defaultConfig()
	cfg.Interval = 300 * time.Millisecond
	p := n.start(cfg)
	p.has(inst, 0, 250, model.StatusOK)
	n.command("xid 31 gpu 0 gi 0")
	p.has(inst, 0, 230, model.StatusOK)
	was := p.cell(p.has(inst, 0, 250, model.StatusOK), inst, 0, 250).Int64()
	// The engine may take one more sample before the sampler finds the change.
	n.command("mig gpu 0 7g.40gb")
	p.inventory("the new instance")
	for fresh := 0; fresh < 5; {
		s := p.sample("a sample", func(*model.Sample) error { return nil })
		c := p.cell(s, inst, 0, 250)
		if c.Status == model.StatusOK {
			fresh++
		}
		if c.Status == model.StatusOK && c.Int64() == was {
			t.Errorf("the new instance has the old instance's %d MiB", was)
		}
		if c := p.cell(s, inst, 0, 230); c.Status != model.StatusNoData {
			t.Errorf("the new instance's XID is %d, %v", c.Int64(), c.Status)
		}
	}
	// The new instance's own XID is reported.
	n.command("xid 45 gpu 0 gi 0")
	if events, _ := p.events("XID 45", 1); events[0].Code != 45 {
		t.Errorf("events %+v", events)
	}
	p.has(inst, 0, 230, model.StatusOK)

	// Repartitioning another GPU does not affect the instance.
	n = newNode(t, "h100x8-mig")
	p = n.start(cfg)
	p.has(inst, 0, 250, model.StatusOK)
	n.command("xid 31 gpu 0 gi 0")
	p.has(inst, 0, 230, model.StatusOK)
	n.command("mig gpu 5 7g.80gb")
	p.inventory("another partitioning")
	s := p.sample("a sample", func(*model.Sample) error { return nil })
	for _, field := range []model.FieldID{230, 250} {
		if c := p.cell(s, inst, 0, field); c.Status != model.StatusOK {
			t.Errorf("field %d of an unchanged instance: %v", field, c.Status)
		}
	}
}

// TestHierarchyFails shows that instances stay while DCGM temporarily cannot list them.
func TestHierarchyFails(t *testing.T) {
	for _, call := range []string{"dcgmGetGpuInstanceHierarchy", "dcgmGetEntityGroupEntities"} {
		t.Run(call, func(t *testing.T) {
			n := newNode(t, "h100x8-mig")
			p := n.start(defaultConfig())
			p.has(inst, 0, 252, model.StatusOK)
			n.command("fail " + call + " -3")
			// Several samples without a new inventory.
			until := time.Now().Add(time.Second)
			for time.Now().Before(until) {
				if f := p.frame("a sample"); f.Inventory != nil {
					t.Fatalf("an inventory of %d entities", len(f.Inventory.Entities))
				}
			}
			p.has(inst, 0, 252, model.StatusOK)
			if call == "dcgmGetGpuInstanceHierarchy" { // other changes are found
				n.command("lose gpu 7")
				if inv := p.inventory("the GPU to be lost"); inv.Entities[7].State != model.EntityLost || len(inDevices(inv)) != 43 {
					t.Errorf("GPU 7 is %v, %d entities", inv.Entities[7].State, len(inv.Entities))
				}
			}
			n.command("clear " + call)
			n.command("mig gpu 4 none")
			p.sample("the new partitioning", func(*model.Sample) error {
				if len(inDevices(p.inv)) != 41 {
					return fmt.Errorf("%d entities", len(p.inv.Entities))
				}
				return nil
			})
		})
	}
}

// TestInstancesUnknown shows that instances which cannot be listed are omitted after a
// while, or from the start, and that their GPU does not replace them.
func TestInstancesUnknown(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	unknown := func(p *process) {
		t.Helper()
		s := p.sample("an inventory without the instances", func(*model.Sample) error {
			if !p.inv.InstancesUnknown {
				return errors.New("the instances are listed")
			}
			return nil
		})
		migs := 0
		for i, e := range p.inv.Entities {
			switch {
			case e.Kind == inst || e.Kind == compute:
				t.Errorf("unexpected %+v", e)
			case e.Kind != gpu:
			case !e.Selected:
				t.Errorf("GPU %d is not selected", e.ID)
			case e.MIGMode != (len(s.Rows[i]) == 0):
				t.Errorf("GPU %d, MIG mode %v, has %d values", e.ID, e.MIGMode, len(s.Rows[i]))
			case len(s.Derived[i]) != 1 || s.Derived[i][0].Status != model.StatusOK:
				t.Errorf("GPU %d has the derived values %v", e.ID, s.Derived[i])
			case e.MIGMode:
				migs++
			}
		}
		if migs != 6 {
			t.Errorf("%d GPUs in MIG mode", migs)
		}
	}
	cfg := defaultConfig()
	cfg.Derived = []model.FieldID{112}
	p := n.start(cfg)
	p.has(inst, 38, 252, model.StatusOK)
	n.command("fail dcgmGetGpuInstanceHierarchy -3")
	n.command("mig gpu 5 3g.40gb*2")
	unknown(p)
	next := n.start(cfg)
	unknown(next)
	n.command("clear")
	for _, p := range []*process{p, next} {
		p.sample("the instances to be listed", func(*model.Sample) error {
			if p.inv.InstancesUnknown {
				return errors.New("they are not listed")
			}
			return nil
		})
		p.has(inst, 36, 252, model.StatusOK)
		if e := p.inv.Entities[p.entity(inst, 36)]; e.Profile != "3g.40gb" {
			t.Errorf("instance 36 is %+v", e)
		}
	}
}

// TestMIGModeStays shows that a GPU keeps its MIG mode while DCGM does not return it.
func TestMIGModeStays(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	p := n.start(defaultConfig())
	p.has(gpu, 3, 150, model.StatusOK)
	n.command("blank field 67 gpu 3")
	n.command("lose gpu 6")
	if inv := p.inventory("the GPU to be lost"); !inv.Entities[3].MIGMode {
		t.Error("GPU 3 has MIG off")
	}
	n.command("unblank field 67 gpu 3")
	n.command("mig gpu 3 off")
	for p.inv.Entities[3].MIGMode {
		p.inventory("GPU 3 to have MIG off")
	}
}

// TestLateMIGUUIDs shows that missing UUIDs are read from NVML again, and that a read
// without a result makes no new inventory.
func TestLateMIGUUIDs(t *testing.T) {
	n := newNode(t, "a100x7-mig")
	list := filepath.Join(t.TempDir(), "mig.json")
	p := n.start(defaultConfig(), migVariable+"=@"+list)
	uuid := p.inventory("the inventory").Entities[0].UUID
	n.command("blank field 54 gpu 0") // from now on DCGM does not return it either
	n.command("mig gpu 0 7g.40gb")
	inv := p.inventory("the new partitioning")
	if e := inv.Entities[2]; e.Kind != compute || e.UUID != "" {
		t.Fatalf("the compute instance is %+v", e)
	}
	device := []model.MIGDevice{{UUID: "MIG-late", ParentUUID: uuid, GPUInstanceID: inv.Entities[1].InstanceID}}
	text, err := json.Marshal(device)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := p.inventory("NVML's UUID").Entities[2]; e.UUID != "MIG-late" {
		t.Errorf("the compute instance is %+v", e)
	}
	// A known UUID stays when NVML no longer returns it.
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	n.command("lose gpu 0")
	n.command("return gpu 0")
	p.has(inst, 0, 150, model.StatusOK)
	if e := p.inv.Entities[2]; e.UUID != "MIG-late" {
		t.Errorf("the compute instance is %+v", e)
	}
}

// TestDamagedIdentities shows that no inventory has the identity of a damaged answer: the
// next good one would make it a lost GPU.
func TestDamagedIdentities(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	cfg := defaultConfig()
	p := n.start(cfg)
	p.has(gpu, 7, 150, model.StatusOK)
	before := make(map[uint32]model.Entity)
	for _, e := range p.inv.Entities {
		if e.Kind == gpu {
			before[e.ID] = e
		}
	}
	damaged := func(inv *model.Inventory, unknown bool) {
		t.Helper()
		for _, e := range inv.Entities {
			switch want := before[e.ID]; {
			case e.Kind == gpu && !unknown && (e.UUID != want.UUID || e.PCIBusID != want.PCIBusID || e.Model != want.Model || e.Serial != want.Serial):
				t.Errorf("GPU %d is\n%+v, want\n%+v", e.ID, e, want)
			case e.Kind == gpu && (e.UUID != "" && e.UUID != want.UUID || e.PCIBusID != "" && e.PCIBusID != want.PCIBusID):
				t.Errorf("a new sampler finds GPU %d as\n%+v, want\n%+v", e.ID, e, want)
			case e.Kind == inst && e.Profile != "" && !strings.HasSuffix(e.Profile, "gb"):
				t.Errorf("an instance has the profile %q", e.Profile)
			}
		}
	}
	n.command("garbage dcgmEntitiesGetLatestValues noise")
	for _, layout := range []string{"3g.40gb*2", "2g.20gb*3", "1g.10gb*7"} {
		n.command("mig gpu 0 " + layout)
		damaged(p.inventory(layout), false)
	}
	damaged(n.start(cfg).inventory("the inventory of a new sampler"), true)
	n.command("clear")
	p.sample("the identities", func(*model.Sample) error {
		damaged(p.inv, false)
		return nil
	})
}

// TestGPULeavesBeforeWatches shows that a GPU which leaves after it was listed, and before it
// is watched, does not end the sampler.
func TestGPULeavesBeforeWatches(t *testing.T) {
	n := newNode(t, "t4x1")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	state := func(command string, want model.EntityState) {
		n.command(command)
		for inv := p.inv; inv.Entities[0].State != want; {
			inv = p.inventory(command)
		}
	}
	state("detach gpu 0", model.EntityDetached)
	n.command("slow dcgmGroupAddEntity 1000")
	state("attach gpu 0", model.EntityUp) // the inventory precedes the watches
	state("detach gpu 0", model.EntityDetached)
	n.command("clear dcgmGroupAddEntity")
	n.command("attach gpu 0")
	p.has(gpu, 0, 150, model.StatusOK)
}
