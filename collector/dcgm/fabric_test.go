// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

const (
	nvswitch = model.KindSwitch
	nvlinks  = model.KindLink
	cpus     = model.KindCPU
	cores    = model.KindCPUCore
)

// fabricConfig has fields of every kind of device.
func fabricConfig() wire.SamplerConfig {
	cfg := defaultConfig()
	cfg.Fields[nvswitch] = []model.FieldID{858}
	cfg.Fields[nvlinks] = []model.FieldID{780, 1527, 1530, 1532}
	cfg.Fields[cpus] = []model.FieldID{1100, 1110}
	cfg.Fields[cores] = []model.FieldID{1100}
	return cfg
}

// linksOf returns the number of links of an entity, and the ports of those that are down.
func linksOf(inv *model.Inventory, s *model.Sample, kind model.EntityKind, id uint32) (count int, down []int) {
	for i, e := range inv.Entities {
		if e.Kind != nvlinks {
			continue
		}
		if parent := inv.Entities[e.Parent]; parent.Kind == kind && parent.ID == id {
			count++
			if e.LinkDown != slices.Contains(s.LinksChanged, i) {
				down = append(down, e.Port)
			}
		}
	}
	return count, down
}

// links waits until an entity has count links, of which the ports in down are down.
func (p *process) links(kind model.EntityKind, id uint32, count int, down ...int) {
	p.t.Helper()
	p.sample(fmt.Sprintf("%v %d to have %d links, %v down", kind, id, count, down), func(s *model.Sample) error {
		if n, ports := linksOf(p.inv, s, kind, id); n != count || !slices.Equal(ports, down) {
			return fmt.Errorf("%d links, %v down", n, ports)
		}
		return nil
	})
}

// TestFabric shows changes of the switches and links of a DGX H100.
func TestFabric(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := n.start(fabricConfig())
	p.has(nvswitch, 3, 858, model.StatusOK)
	for gpuID := range uint32(8) {
		p.links(gpu, gpuID, 18)
	}
	for id, trunks := range []int{20, 16, 16, 20} {
		p.links(nvswitch, uint32(id), trunks)
	}
	first := native.LinkID(native.PairOf(gpu, 0), 0)
	s := p.has(nvlinks, first, 1530, model.StatusOK)
	if c := p.cell(s, nvlinks, first, 780); c.Status != model.StatusNotSupported {
		t.Errorf("a switch's field on a GPU's link: %v", c.Status)
	}
	p.has(nvlinks, native.LinkID(native.PairOf(nvswitch, 0), 40), 780, model.StatusOK)

	n.command("link gpu 3 port 17 down")
	p.links(gpu, 3, 18, 17)
	n.command("link switch 1 port 33 down")
	p.links(nvswitch, 1, 16, 33)
	n.command("link gpu 3 port 17 up")
	p.links(gpu, 3, 18)

	// A lost GPU keeps its links, although DCGM lists none.
	n.command("lose gpu 2")
	p.has(nvlinks, native.LinkID(native.PairOf(gpu, 2), 5), 1530, model.StatusEntityLost)
	p.links(gpu, 2, 18)
	n.command("return gpu 2")
	p.sample("the links of the returned GPU", func(s *model.Sample) error {
		if n, _ := linksOf(p.inv, s, gpu, 2); n != 18 { // until they are listed again
			return fmt.Errorf("%d links", n)
		}
		if c := p.cell(s, nvlinks, native.LinkID(native.PairOf(gpu, 2), 5), 1530); c.Status != model.StatusOK {
			return fmt.Errorf("field 1530 is %v", c.Status)
		}
		return nil
	})

	// A MIG GPU has no links; other GPUs keep theirs.
	n.command("mig gpu 1 3g.40gb*2")
	p.links(gpu, 1, 0)
	p.links(gpu, 0, 18)

	n.command("switch 2 lost")
	p.has(nvswitch, 2, 858, model.StatusBlank)
	p.has(nvswitch, 1, 858, model.StatusOK)
}

// TestFabricSelection shows --devices.switches and --devices.cpus.
func TestFabricSelection(t *testing.T) {
	cfg := fabricConfig()
	cfg.Switches, cfg.CPUs = "g:1", "i:3,4"
	p := newNode(t, "dgx-h100").start(cfg)
	s := p.has(nvswitch, 1, 858, model.StatusOK)
	for i, e := range p.inv.Entities {
		read := len(s.Rows[i]) > 0
		switch {
		case e.Kind == nvswitch && read != (e.ID == 1):
			t.Errorf("switch %d: read %v", e.ID, read)
		case e.Kind == nvlinks && read != (p.inv.Entities[e.Parent].Kind == gpu):
			t.Errorf("port %d of %v: read %v", e.Port, p.inv.Entities[e.Parent].Kind, read)
		}
	}
	p = newNode(t, "gb200").start(cfg)
	s = p.has(cores, 3, 1100, model.StatusOK)
	for i, e := range p.inv.Entities {
		if read := len(s.Rows[i]) > 0; e.Kind == cpus && read || e.Kind == cores && read != (e.ID == 3 || e.ID == 4) {
			t.Errorf("%v %d: read %v", e.Kind, e.ID, read)
		}
	}
}

// TestCPUs shows the Grace CPUs of a GB200 tray. Their values do not count as answers of
// the GPUs: after XID 119 every field of every GPU is blank.
func TestCPUs(t *testing.T) {
	n := newNode(t, "gb200")
	p := n.start(fabricConfig())
	p.has(cpus, 1, 1110, model.StatusOK)
	p.has(cores, 143, 1100, model.StatusOK)
	if i := p.entity(cores, 100); p.inv.Entities[p.inv.Entities[i].Parent].ID != 1 {
		t.Errorf("core 100 is of CPU %d", p.inv.Entities[p.inv.Entities[i].Parent].ID)
	}
	n.command("xid 119 gpu 0")
	if f := p.failure(); f.Reason != model.FailureEngineBlank {
		t.Errorf("failure %+v", f)
	}
}

// TestLinksHang shows that samples continue while reading the link states hangs.
func TestLinksHang(t *testing.T) {
	n := newNode(t, "h100x8")
	p := n.start(fabricConfig())
	p.links(gpu, 0, 18)
	n.command("hang dcgmGetNvLinkLinkStatus")
	first := p.has(gpu, 0, 150, model.StatusOK).Time
	last := first
	for range 30 {
		s := p.has(gpu, 0, 150, model.StatusOK)
		// Without a newer value the time stays the same, up to the difference of two clocks.
		if s.Time.Before(last.Add(-time.Millisecond)) {
			t.Fatalf("a sample of %v after one of %v", s.Time, last)
		}
		last = s.Time
	}
	if went := last.Sub(first); went < 15*p.cfg.Interval {
		t.Errorf("30 samples are of %v", went)
	}
}

// TestLinksReadTime shows that samples have the time of the last read of the links, and
// that it does not advance while reading fails.
func TestLinksReadTime(t *testing.T) {
	for _, fault := range []string{"fail dcgmGetNvLinkLinkStatus -3", "hang dcgmGetNvLinkLinkStatus"} {
		t.Run(fault, func(t *testing.T) {
			n := newNode(t, "h100x8")
			p := n.start(fabricConfig())
			fresh := func(s *model.Sample) error {
				if age := s.Time.Sub(s.LinksRead); age > 1500*time.Millisecond {
					return fmt.Errorf("the links were read %v before", age)
				}
				return nil
			}
			p.sample("links that were just read", fresh)
			n.command(fault)
			n.command("link gpu 0 port 3 down")
			var read time.Time
			p.sample("links that were read long ago", func(s *model.Sample) error {
				if s.Time.Sub(s.LinksRead) < 3*time.Second {
					return fmt.Errorf("the links were read at %v", s.LinksRead)
				}
				read = s.LinksRead
				return nil
			})
			s := p.has(gpu, 0, 150, model.StatusOK)
			if off := s.LinksRead.Sub(read).Abs(); off > 100*time.Millisecond {
				t.Errorf("unreadable links were read at %v, and then at %v", read, s.LinksRead)
			}
			n.command("clear")
			p.sample("links that were just read", fresh)
		})
	}
	t.Run("never", func(t *testing.T) {
		n := newNode(t, "h100x8")
		n.command("fail dcgmGetNvLinkLinkStatus -3")
		p := n.start(fabricConfig())
		if s := p.has(gpu, 0, 150, model.StatusOK); !s.LinksRead.IsZero() {
			t.Errorf("the links were read at %v", s.LinksRead)
		}
	})
}

// TestKnownLinks shows that a sampler has the down links that an earlier sampler knew, if
// they are of the same GPU or switch.
func TestKnownLinks(t *testing.T) {
	n := newNode(t, "dgx-h100")
	first := n.start(fabricConfig())
	first.links(gpu, 0, 18)
	uuid := func(gpu int) string { return first.inv.Entities[gpu].UUID }
	for _, id := range []int{0, 1, 5} {
		for port := range 18 {
			n.command(fmt.Sprintf("link gpu %d port %d down", id, port))
		}
	}
	n.command("mig gpu 2 3g.40gb*2")
	n.command("switch 1 lost")
	n.command("lose gpu 5")
	cfg := fabricConfig()
	cfg.Links = []model.KnownLinks{
		{GPU: uuid(0), Ports: []int{3, 17}},
		{GPU: "GPU-another", Ports: []int{4}},
		{GPU: uuid(2), Ports: []int{0}},
		{GPU: uuid(5), Ports: []int{7}},
		{Switch: 1, Ports: []int{32, 47}},
		{Switch: 9, Ports: []int{0}},
	}
	p := n.start(cfg)
	p.links(gpu, 0, 2, 3, 17)
	p.links(gpu, 1, 0)
	p.links(gpu, 2, 0)
	p.links(gpu, 5, 0) // DCGM does not return its UUID
	p.links(nvswitch, 1, 2, 32, 47)
	p.links(nvswitch, 9, 0)
	n.command("return gpu 5")
	p.links(gpu, 5, 1, 7)
	n.command("link gpu 0 port 3 up")
	p.links(gpu, 0, 2, 17)
}

// TestSwitchesNotListed shows that a failed list of the NVSwitches does not count as a list
// without NVSwitches: the exporter would report all that it knows as down.
func TestSwitchesNotListed(t *testing.T) {
	n := newNode(t, "dgx-h100")
	n.command("fail list-switches -33")
	p := n.start(fabricConfig())
	for range 3 {
		p.sample("a sample without a list", func(s *model.Sample) error {
			if s.SwitchesListed {
				t.Error("the switches count as listed")
			}
			return nil
		})
	}
	n.command("clear list-switches")
	p.sample("the switches", func(s *model.Sample) error {
		if !s.SwitchesListed {
			return errors.New("not listed")
		}
		return nil
	})
}

// TestFlappingLink shows that the state of a link changes without a new inventory.
func TestFlappingLink(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := n.start(fabricConfig())
	p.links(gpu, 0, 18)
	before := p.inv
	for range 3 {
		n.command("link gpu 0 port 3 down")
		p.links(gpu, 0, 18, 3)
		n.command("link gpu 0 port 3 up")
		p.links(gpu, 0, 18)
	}
	if p.inv != before {
		t.Errorf("inventory %d follows %d", p.inv.Generation, before.Generation)
	}
}

// TestDamagedLinks shows that damaged answers add no switches or links: these would be missed
// for ever.
func TestDamagedLinks(t *testing.T) {
	n := newNode(t, "dgx-h100")
	p := n.start(fabricConfig())
	p.links(nvswitch, 3, 20)
	before := p.inv
	n.command("garbage dcgmGetNvLinkLinkStatus noise")
	n.command("garbage dcgmGetEntityGroupEntities noise")
	p.sample("lists that are not confirmed", func(s *model.Sample) error {
		if age := s.Time.Sub(s.LinksRead); age < 3*time.Second {
			return fmt.Errorf("the links were listed %v ago", age)
		}
		return nil
	})
	n.command("clear")
	p.sample("the links", func(s *model.Sample) error {
		if age := s.Time.Sub(s.LinksRead); age > 2*time.Second {
			return fmt.Errorf("the links were listed %v ago", age)
		}
		for kind, id := range map[model.EntityKind]uint32{nvswitch: 3, gpu: 7} {
			if count, down := linksOf(p.inv, s, kind, id); len(down) > 0 {
				t.Errorf("%v %d has %d links, %v are down", kind, id, count, down)
			}
		}
		return nil
	})
	count := func(inv *model.Inventory, kind model.EntityKind) (found int) {
		for _, e := range inv.Entities {
			if e.Kind == kind {
				found++
			}
		}
		return found
	}
	for _, kind := range []model.EntityKind{nvswitch, nvlinks} {
		if got, want := count(p.inv, kind), count(before, kind); got != want {
			t.Errorf("%d devices of kind %v, want %d", got, kind, want)
		}
	}
}
