// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

// switchNode has the NVSwitches 0 and 1; the cells are those of the second, in the
// order of SwitchFields and then its last SXid.
func switchNode(t *testing.T, cells ...Cell) (*Families, *Node, *time.Time) {
	t.Helper()
	f, node, clock := newTestFamilies(t, testConfig(t))
	inv := &Inventory{Generation: 2, Entities: []Entity{
		{Kind: KindSwitch, ID: 0, Selected: true, Parent: Unknown, UUID: "SWX-0", PCIBusID: "00000000:05:00.0"},
		{Kind: KindSwitch, ID: 1, Selected: true, Parent: Unknown, UUID: "SWX-1", PCIBusID: "00000000:06:00.0"},
	}}
	inv.Columns[KindSwitch] = append(SwitchFields(), 856)
	deliver(t, node, Frame{Inventory: inv})
	if cells != nil {
		deliver(t, node, Frame{Sample: &Sample{Generation: 2, Time: epoch, Rows: [][]Cell{
			{Int64Cell(40), Int64Cell(0), Int64Cell(0)}, append(cells, Int64Cell(12028))}}})
	}
	return f, node, clock
}

// A switch is up by what DCGM reads of it now; what cannot be read on a switch that
// is well says nothing.
func TestNVSwitchUp(t *testing.T) {
	const (
		up     = "gpu_nvswitch_up{nvswitch=\"nvswitch1\",hostname=\"node1\"} 1\n"
		down   = "gpu_nvswitch_up{nvswitch=\"nvswitch1\",hostname=\"node1\"} 0\n"
		first  = "gpu_nvswitch_up{nvswitch=\"nvswitch0\",hostname=\"node1\"} 1\n"
		silent = "gpu_nvswitch_up{nvswitch=\"nvswitch0\",hostname=\"node1\"} 0\n"
	)
	for name, tc := range map[string]struct {
		temperature, reset Cell
		age                time.Duration
		want               string
	}{
		"it answers":             {Int64Cell(40), Int64Cell(0), 0, first + up},
		"in part":                {NoValue(StatusBlank), Int64Cell(1), 0, first + up},
		"all is blank":           {NoValue(StatusBlank), NoValue(StatusBlank), 0, first + down},
		"nothing is renewed":     {NoValue(StatusStale), NoValue(StatusNotSupported), 0, first + down},
		"the fields are not had": {NoValue(StatusNotSupported), NoValue(StatusNotWatched), 0, first},
		"no value yet":           {NoValue(StatusNoData), NoValue(StatusNoData), 0, first},
		"no fresh sample":        {Int64Cell(40), Int64Cell(0), time.Minute, silent + down},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, clock := switchNode(t, tc.temperature, tc.reset)
			*clock = clock.Add(tc.age)
			body := encode(t, f, expfmt.TypeTextPlain)
			if got := series(body, "gpu_nvswitch_up"); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// A switch that a new engine does not find is down, and one of which it finds no
// more than the number keeps its labels.
func TestNVSwitchAfterRestart(t *testing.T) {
	f, node, _ := switchNode(t, Int64Cell(40), Int64Cell(0))
	inv := &Inventory{Generation: 1, Entities: []Entity{{Kind: KindSwitch, ID: 0, Selected: true, Parent: Unknown}}}
	inv.Columns[KindSwitch] = SwitchFields()
	blank := NoValue(StatusBlank)
	deliver(t, node, Frame{Inventory: inv})
	deliver(t, node, Frame{Sample: &Sample{Generation: 1, Time: epoch, LinksRead: epoch, SwitchesListed: true, Rows: [][]Cell{{blank, blank}}}})
	body := encode(t, f, expfmt.TypeTextPlain)
	const want = `gpu_nvswitch_info{nvswitch="nvswitch0",hostname="node1",pci_bus_id="00000000:05:00.0",uuid="SWX-0"} 1
gpu_nvswitch_up{nvswitch="nvswitch0",hostname="node1"} 0
gpu_nvswitch_up{nvswitch="nvswitch1",hostname="node1"} 0
`
	if got := series(body, "gpu_nvswitch_info") + series(body, "gpu_nvswitch_up"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	inv = &Inventory{Generation: 2, Entities: []Entity{{Kind: KindSwitch, ID: 1, Selected: true, Parent: Unknown}}}
	inv.Columns[KindSwitch] = SwitchFields()
	deliver(t, node, Frame{Inventory: inv})
	deliver(t, node, Frame{Sample: &Sample{Generation: 2, Time: epoch, LinksRead: epoch, SwitchesListed: true, Rows: [][]Cell{{Int64Cell(40), Int64Cell(0)}}}})
	const back = `gpu_nvswitch_up{nvswitch="nvswitch1",hostname="node1"} 1
gpu_nvswitch_up{nvswitch="nvswitch0",hostname="node1"} 0
`
	if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_nvswitch_up"); got != back {
		t.Errorf("got\n%swant\n%s", got, back)
	}
}

// Which links are up is withheld when that is too old, and nothing else is.
func TestNVLinkUpAges(t *testing.T) {
	const (
		links = "gpu_nvlink_up{nvlink=\"0\",nvswitch=\"nvswitch0\",hostname=\"node1\"} 1\n" +
			"gpu_nvlink_up{nvlink=\"1\",nvswitch=\"nvswitch0\",hostname=\"node1\"} 0\n"
		known = "gpu_exporter_nvlink_read_up 1\n"
		not   = "gpu_exporter_nvlink_read_up 0\n"
	)
	for name, tc := range map[string]struct {
		maxAge    time.Duration
		sinceRead time.Duration // when the sample was read
		later     time.Duration // is the scrape
		want      string
	}{
		"fresh":                      {30 * time.Second, time.Second, 0, links + known},
		"as old as it may be":        {30 * time.Second, 25 * time.Second, 8 * time.Second, links + known},
		"too old":                    {30 * time.Second, 25 * time.Second, 9 * time.Second, not},
		"never read":                 {30 * time.Second, 0, 0, not},
		"samples older than that":    {30 * time.Second, time.Second, 31 * time.Second, not},
		"looked at once a second":    {time.Second, 3900 * time.Millisecond, 0, links + known},
		"not looked at for a while":  {time.Second, 4100 * time.Millisecond, 0, not},
		"read after a stuck reading": {30 * time.Second, -5 * time.Second, 0, links + known},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.MaxAge = tc.maxAge
			f, node, clock := newTestFamilies(t, cfg)
			inv := &Inventory{Generation: 2, Entities: []Entity{
				{Kind: KindSwitch, Selected: true, Parent: Unknown},
				{Kind: KindLink, ID: 0x003, Selected: true, Port: 0},
				{Kind: KindLink, ID: 0x103, Selected: true, Port: 1, LinkDown: true},
			}}
			inv.Columns[KindSwitch] = SwitchFields()
			sample := &Sample{Generation: 2, Time: epoch, Rows: [][]Cell{{Int64Cell(40), Int64Cell(0)}, nil, nil}}
			if tc.sinceRead != 0 {
				sample.LinksRead = epoch.Add(-tc.sinceRead)
			}
			deliver(t, node, Frame{Inventory: inv})
			deliver(t, node, Frame{Sample: sample})
			*clock = clock.Add(tc.later)
			body := encode(t, f, expfmt.TypeTextPlain)
			if got := series(body, "gpu_nvlink_up") + series(body, "gpu_exporter_nvlink_read_up"); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
			if tc.later <= tc.maxAge && series(body, "gpu_nvswitch_up") == "" {
				t.Error("the switch has no series")
			}
		})
	}
}

// Links are remembered, whatever a new sampler finds.
func TestLinkMemory(t *testing.T) {
	node, _ := newTestNode(t)
	gpu := func(id uint32, uuid string, state EntityState) Entity {
		return Entity{Kind: KindGPU, ID: id, UUID: uuid, State: state, Selected: true, Parent: Unknown}
	}
	nvswitch := Entity{Kind: KindSwitch, ID: 1, Selected: true, Parent: Unknown}
	link := func(parent, port int) Entity {
		return Entity{Kind: KindLink, Parent: parent, Port: port, LinkDown: port%2 == 1}
	}
	a, b := KnownLinks{GPU: "GPU-a", Ports: []int{0, 1}}, KnownLinks{GPU: "GPU-b", Ports: []int{3}}
	ofSwitch := KnownLinks{Switch: 1, Ports: []int{40}}
	for _, step := range []struct {
		name     string
		entities []Entity
		want     []KnownLinks
	}{
		{"all are there", []Entity{gpu(0, "GPU-a", EntityUp), gpu(1, "GPU-b", EntityUp), nvswitch, link(0, 0), link(0, 1), link(1, 3), link(2, 40)},
			[]KnownLinks{ofSwitch, a, b}},
		{"a new sampler finds neither the switch nor who the lost GPU is", []Entity{gpu(0, "", EntityLost), gpu(1, "GPU-b", EntityUp), link(1, 3)},
			[]KnownLinks{ofSwitch, a, b}},
		{"the lost GPU is back, and the other has MIG on", []Entity{gpu(0, "GPU-a", EntityUp), gpu(1, "GPU-b", EntityUp), link(0, 0)},
			[]KnownLinks{ofSwitch, a, b}},
		{"another GPU in its place", []Entity{gpu(0, "GPU-c", EntityUp), gpu(1, "GPU-b", EntityUp), nvswitch, link(0, 5), link(2, 41)},
			[]KnownLinks{{Switch: 1, Ports: []int{40, 41}}, a, b, {GPU: "GPU-c", Ports: []int{5}}}},
	} {
		deliver(t, node, Frame{Inventory: &Inventory{Generation: 1, Entities: step.entities}})
		if got := node.Links(); !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
}

// The links of a switch that a new engine does not find are down, as the switch is.
func TestLinksOfGoneSwitch(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	links := []Entity{
		{Kind: KindSwitch, ID: 1, Selected: true, Parent: Unknown},
		{Kind: KindLink, ID: 0x01000003, Selected: true, Port: 0},
		{Kind: KindLink, ID: 0x01002803, Selected: true, Port: 40},
		{Kind: KindLink, ID: 0x01002903, Port: 41},
	}
	show := func(entities []Entity, read time.Time) string {
		deliver(t, node, Frame{Inventory: &Inventory{Generation: 1, Entities: entities}})
		deliver(t, node, Frame{Sample: &Sample{Generation: 1, Time: epoch, LinksRead: read, SwitchesListed: !read.IsZero(), Rows: make([][]Cell, len(entities))}})
		body := encode(t, f, expfmt.TypeTextPlain)
		if isDown, known := strings.Contains(string(body), "gpu_nvswitch_up{"), !read.IsZero(); len(entities) == 0 && isDown != known {
			t.Errorf("the switch, of which it is known whether it is there: %v, is told to be down: %v", known, isDown)
		}
		return series(body, "gpu_nvlink_up")
	}
	const up = `gpu_nvlink_up{nvlink="0",nvswitch="nvswitch1",hostname="node1"} 1
gpu_nvlink_up{nvlink="40",nvswitch="nvswitch1",hostname="node1"} 1
`
	down := strings.ReplaceAll(up, "} 1", "} 0")
	for _, step := range []struct {
		name     string
		entities []Entity
		read     time.Time
		want     string
	}{
		{"there", links, epoch, up},
		{"not found yet", nil, time.Time{}, ""},
		{"not found", nil, epoch, down},
		{"back", links, epoch, up},
	} {
		if got := show(step.entities, step.read); got != step.want {
			t.Errorf("%s: got\n%swant\n%s", step.name, got, step.want)
		}
	}

	// That it is gone is known also where the links cannot be read.
	deliver(t, node, Frame{Inventory: &Inventory{Generation: 1}}, Frame{Sample: &Sample{Generation: 1, Time: epoch, SwitchesListed: true}})
	body := encode(t, f, expfmt.TypeTextPlain)
	if got := series(body, "gpu_nvswitch_up") + series(body, "gpu_nvlink_up"); got != "gpu_nvswitch_up{nvswitch=\"nvswitch1\",hostname=\"node1\"} 0\n" {
		t.Errorf("where the links cannot be read:\n%s", got)
	}
}
