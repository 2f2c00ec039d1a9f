// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/model"
)

// TestXIDsOfSeveralWatches shows that each XID is emitted once although several watches
// are queried one after the other.
func TestXIDsOfSeveralWatches(t *testing.T) {
	a, b := native.Watch{Group: 1, Fields: 1}, native.Watch{Group: 2, Fields: 2}
	on := map[native.Watch]native.Pair{a: native.PairOf(gpu, 0), b: native.PairOf(gpu, 1)}
	now := int64(1000)
	samples := map[native.Watch][]native.Event{a: {{Entity: on[a], Time: 500, Code: 31}}, b: {{Entity: on[b], Time: 600, Code: 31}}}
	x := xids{eventsSince: func(w native.Watch, since int64) ([]native.Event, int64, native.Code) {
		now += 10
		var out []native.Event
		for _, e := range samples[w] {
			if e.Time >= since && e.Time <= now {
				out = append(out, e)
			}
		}
		return out, now + 1, native.OK
	}}
	inv := &model.Inventory{Entities: []model.Entity{{Kind: gpu, ID: 0, Selected: true}, {Kind: gpu, ID: 1, Selected: true}}}
	units := []*watch.Unit{{Target: watch.Target{Events: true}, Watches: []native.Watch{a, b}}}
	if c := x.watch(units, inv); c != native.OK {
		t.Fatal(c)
	}
	var emitted []string
	collect := func() {
		t.Helper()
		if c := x.poll(&reading{}); c != native.OK {
			t.Fatal(c)
		}
		for _, e := range x.emit(true) {
			emitted = append(emitted, fmt.Sprint(e.Code))
		}
	}
	collect()
	for code := range int64(20) { // each falls between the two queries of a round, whatever their order
		at := now + 1 + code
		samples[a] = append(samples[a], native.Event{Entity: on[a], Time: at, Code: 100 + code})
		samples[b] = append(samples[b], native.Event{Entity: on[b], Time: at, Code: 200 + code})
		collect()
	}
	collect()
	collect()
	slices.Sort(emitted)
	var want []string
	for code := range 20 {
		want = append(want, fmt.Sprint(100+code))
	}
	for code := range 20 {
		want = append(want, fmt.Sprint(200+code))
	}
	if !slices.Equal(emitted, want) {
		t.Errorf("emitted %v, want %v", emitted, want)
	}
	// A new watch continues where the replaced watches ended.
	c := native.Watch{Group: 3, Fields: 3}
	samples[c] = append(slices.Clone(samples[a]), samples[b]...)
	emitted = nil
	if code := x.watch([]*watch.Unit{{Target: watch.Target{Events: true}, Watches: []native.Watch{c}}}, inv); code != native.OK {
		t.Fatal(code)
	}
	samples[c] = append(samples[c], native.Event{Entity: on[a], Time: now, Code: 48})
	collect()
	if !slices.Equal(emitted, []string{"48"}) {
		t.Errorf("a new watch emits %v, want 48", emitted)
	}
}

// TestXIDOfReusedID shows an XID between a repartition and its inventory. It may be of
// either instance with the ID, so it is an event of the GPU, unless only one inventory
// has the ID.
func TestXIDOfReusedID(t *testing.T) {
	n := newNode(t, "h100x8-mig")
	cfg := defaultConfig()
	cfg.Interval = 3 * time.Second // XIDs are polled in between
	p := n.start(cfg)
	p.sample("a first sample", func(*model.Sample) error { return nil })
	before := p.inv
	n.command("mig gpu 1 1g.10gb*7") // it had two
	n.command("xid 68 gpu 1 gi 0")
	n.command("xid 69 gpu 2")
	n.command("xid 70 gpu 1 gi 6")
	want := map[int64]func(model.Entity) bool{
		68: func(e model.Entity) bool { return e.Kind == gpu && e.ID == 1 },
		69: func(e model.Entity) bool { return e.Kind == gpu && e.ID == 2 },
		70: func(e model.Entity) bool { return e.Kind == inst && e.Profile == "1g.10gb" },
	}
	for count := 0; count < len(want); {
		events := p.frame("an XID").Events
		if events == nil {
			continue
		}
		for _, event := range events.List {
			count++
			e := p.inv.Entities[event.Entity]
			if of := want[event.Code]; of == nil || !of(e) {
				t.Errorf("XID %d is an event of %v %d, %s of entity %d, generation %d", event.Code, e.Kind, e.ID, e.Profile, e.Parent, p.inv.Generation)
			}
		}
	}
	if p.inv == before {
		t.Error("there is no new inventory")
	}
	// After the new inventory the ID is unambiguous.
	n.command("xid 72 gpu 1 gi 0")
	events, inv := p.events("another XID", 1)
	if e := inv.Entities[events[0].Entity]; e.Kind != inst || e.Profile != "1g.10gb" {
		t.Errorf("XID 72 is an event of %v %d, %s", e.Kind, e.ID, e.Profile)
	}
}

// TestXIDWhileInstancesCannotBeListed shows that an XID of an ambiguous ID is an event of
// the GPU.
func TestXIDWhileInstancesCannotBeListed(t *testing.T) {
	for name, listedAgain := range map[string]bool{"listed again": true, "never listed again": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "h100x8-mig")
			cfg := defaultConfig()
			cfg.Interval = 200 * time.Millisecond
			p := n.start(cfg)
			p.sample("a first sample", func(*model.Sample) error { return nil })
			n.command("fail dcgmGetGpuInstanceHierarchy -3")
			n.command("mig gpu 5 3g.40gb*2")
			n.command("xid 68 gpu 5 gi 0")
			after := time.Now()
			p.sample("a sample meanwhile", func(s *model.Sample) error {
				if begin := s.Time.Add(-s.Duration); begin.Before(after) {
					return fmt.Errorf("it began at %v, before the XID at %v", begin, after)
				}
				return nil
			})
			if listedAgain {
				for range 3 {
					p.sample("more samples", func(*model.Sample) error { return nil })
				}
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
			t.Error("the XID is not reported")
		})
	}
}

// TestXIDAfterAllGPUsReturned shows that an XID is emitted once although all watches ended
// and new watches begin within the time that queries overlap.
func TestXIDAfterAllGPUsReturned(t *testing.T) {
	for scenario, gpus := range map[string]int{"t4x1": 1, "h100x8": 8} {
		t.Run(scenario, func(t *testing.T) {
			n := newNode(t, scenario)
			p := n.start(defaultConfig())
			p.has(gpu, 0, 150, model.StatusOK)
			n.command("xid 31 gpu 0")
			p.events("the XID", 1)
			change := func(command string, state model.EntityState) {
				for i := range gpus {
					n.command(fmt.Sprintf("%s gpu %d", command, i))
				}
				for inv := p.inv; slices.ContainsFunc(inv.Entities, func(e model.Entity) bool { return e.Kind == gpu && e.State != state }); {
					inv = p.inventory(command)
				}
			}
			for range 2 {
				change("detach", model.EntityDetached)
				for range 5 { // the sampler polls without watches
					p.sample("a sample without GPUs", func(*model.Sample) error { return nil })
				}
				change("attach", model.EntityUp)
				p.has(gpu, 0, 150, model.StatusOK)
			}
			n.command("xid 43 gpu 0") // follows every repetition
			p.events("the next XID", 1)
			if !slices.Equal(p.xids, []int64{31, 43}) {
				t.Errorf("XIDs %v, want 31 and 43 once", p.xids)
			}
		})
	}
}

// TestXIDsWithEqualTimes shows that each of several XIDs with the same time is emitted once.
func TestXIDsWithEqualTimes(t *testing.T) {
	n := newNode(t, "t4x1")
	n.command("xid pace 0")
	p := n.start(defaultConfig())
	p.has(gpu, 0, 150, model.StatusOK)
	n.command("xid 31 gpu 0 count 3")
	events, _ := p.events("the XIDs", 3)
	n.command("xid 43 gpu 0") // follows every repetition
	p.events("the next XID", 1)
	if !events[0].Time.Equal(events[2].Time) || !slices.Equal(p.xids, []int64{31, 31, 31, 43}) {
		t.Errorf("XIDs %v at %v and %v, want 31 three times at one time, and 43", p.xids, events[0].Time, events[2].Time)
	}
}
