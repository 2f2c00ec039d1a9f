// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector"
)

// TestXIDsOfSeveralWatches shows that each XID is told once where the events
// need several watches, which are asked one after the other.
func TestXIDsOfSeveralWatches(t *testing.T) {
	a, b := watch{1, 1}, watch{2, 2}
	on := map[watch]pair{a: pairOf(gpu, 0), b: pairOf(gpu, 1)}
	now := int64(1000)
	samples := map[watch][]event{a: {{on[a], 500, 31}}, b: {{on[b], 600, 31}}}
	x := xids{valuesSince: func(w watch, since int64) ([]event, int64, code) {
		now += 10
		var out []event
		for _, e := range samples[w] {
			if e.ts >= since && e.ts <= now {
				out = append(out, e)
			}
		}
		return out, now + 1, codeOK
	}}
	inv := &collector.Inventory{Entities: []collector.Entity{{Kind: gpu, ID: 0, Selected: true}, {Kind: gpu, ID: 1, Selected: true}}}
	units := []*unit{{target: target{events: true}, watches: []watch{a, b}}}
	if c := x.listen(units, inv); c != codeOK {
		t.Fatal(c)
	}
	var told []string
	collect := func() {
		t.Helper()
		if c := x.hear(&reading{}); c != codeOK {
			t.Fatal(c)
		}
		for _, e := range x.tell(true) {
			told = append(told, fmt.Sprint(e.Code))
		}
	}
	collect()
	for code := range int64(20) { // each falls between the two questions of some round, whatever their order
		at := now + 1 + code
		samples[a] = append(samples[a], event{on[a], at, 100 + code})
		samples[b] = append(samples[b], event{on[b], at, 200 + code})
		collect()
	}
	collect()
	collect()
	slices.Sort(told)
	var want []string
	for code := range 20 {
		want = append(want, fmt.Sprint(100+code))
	}
	for code := range 20 {
		want = append(want, fmt.Sprint(200+code))
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	// A watch that takes the place of the old ones goes on where they ended.
	c := watch{3, 3}
	samples[c] = append(slices.Clone(samples[a]), samples[b]...)
	told = nil
	if code := x.listen([]*unit{{target: target{events: true}, watches: []watch{c}}}, inv); code != codeOK {
		t.Fatal(code)
	}
	samples[c] = append(samples[c], event{on[a], now, 48})
	collect()
	if !slices.Equal(told, []string{"48"}) {
		t.Errorf("a new watch tells %v, want 48", told)
	}
}

// TestXIDOfReusedID: an XID that is heard between a re-split and the inventory that
// shows it may be of either instance that had the id, and is told of the GPU. One of an
// id that only one of them had is told of that instance.
func TestXIDOfReusedID(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	cfg := defaultConfig()
	cfg.Interval = 3 * time.Second // XIDs are asked for in between
	p := n.start(cfg)
	p.sample("a first sample", func(*collector.Sample) error { return nil })
	before := p.inv
	n.command("mig gpu 1 1g.10gb*7") // it had two
	n.command("xid 68 gpu 1 gi 0")
	n.command("xid 69 gpu 2")
	n.command("xid 70 gpu 1 gi 6")
	want := map[int64]func(collector.Entity) bool{
		68: func(e collector.Entity) bool { return e.Kind == gpu && e.ID == 1 },
		69: func(e collector.Entity) bool { return e.Kind == gpu && e.ID == 2 },
		70: func(e collector.Entity) bool { return e.Kind == inst && e.Profile == "1g.10gb" },
	}
	for told := 0; told < len(want); {
		events := p.frame("an XID").Events
		if events == nil {
			continue
		}
		for _, event := range events.List {
			told++
			e := p.inv.Entities[event.Entity]
			if of := want[event.Code]; of == nil || !of(e) {
				t.Errorf("XID %d is told of %v %d, %s of entity %d, generation %d", event.Code, e.Kind, e.ID, e.Profile, e.Parent, p.inv.Generation)
			}
		}
	}
	if p.inv == before {
		t.Error("there is no new inventory")
	}
	// From then on it is known whose the id is.
	n.command("xid 72 gpu 1 gi 0")
	events, inv := p.events("another XID", 1)
	if e := inv.Entities[events[0].Entity]; e.Kind != inst || e.Profile != "1g.10gb" {
		t.Errorf("XID 72 is told of %v %d, %s", e.Kind, e.ID, e.Profile)
	}
}

// TestXIDWhileInstancesCannotBeListed: nobody knows whose the id is.
func TestXIDWhileInstancesCannotBeListed(t *testing.T) {
	for name, listedAgain := range map[string]bool{"listed again": true, "never listed again": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "h100x8-mig")
			cfg := defaultConfig()
			cfg.Interval = 200 * time.Millisecond
			p := n.start(cfg)
			p.sample("a first sample", func(*collector.Sample) error { return nil })
			n.command("fail dcgmGetGpuInstanceHierarchy -3")
			n.command("mig gpu 5 3g.40gb*2")
			n.command("xid 68 gpu 5 gi 0")
			p.sample("a sample meanwhile", func(*collector.Sample) error { return nil })
			if listedAgain {
				time.Sleep(500 * time.Millisecond) // some samples
				n.command("clear dcgmGetGpuInstanceHierarchy")
			} else {
				p.stdin.Close()
				<-p.exited
			}
			for f := range p.frames {
				if f.Inventory != nil {
					p.inv = f.Inventory
				}
				if f.Events == nil {
					continue
				}
				if e := p.inv.Entities[f.Events.List[0].Entity]; len(f.Events.List) != 1 || e.Kind != gpu || e.ID != 5 {
					t.Errorf("%d XIDs, the first of %v %d, %s", len(f.Events.List), e.Kind, e.ID, e.Profile)
				}
				return
			}
			t.Error("the XID is not told")
		})
	}
}
