// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// switchNode has two NVSwitches. The cells are those of the second, in the order of
// switchFields; its last SXid follows.
func switchNode(t *testing.T, cells ...model.Cell) (*Families, *state.Node, *time.Time) {
	t.Helper()
	f, node, clock := newTestFamilies(t, testConfig(t))
	inv := &model.Inventory{Generation: 2, Entities: []model.Entity{
		{Kind: model.KindSwitch, ID: 0, Selected: true, Parent: model.Unknown, UUID: "SWX-0", PCIBusID: "00000000:05:00.0"},
		{Kind: model.KindSwitch, ID: 1, Selected: true, Parent: model.Unknown, UUID: "SWX-1", PCIBusID: "00000000:06:00.0"},
	}}
	inv.Columns[model.KindSwitch] = append(slices.Clone(switchFields), 856)
	deliver(t, node, wire.Frame{Inventory: inv})
	if cells != nil {
		deliver(t, node, wire.Frame{Sample: &model.Sample{Generation: 2, Time: epoch, Rows: [][]model.Cell{
			{model.Int64Cell(40), model.Int64Cell(0), model.Int64Cell(0)}, append(cells, model.Int64Cell(12028))}}})
	}
	return f, node, clock
}

// A switch is up if one of its fields has a value now. Fields that a healthy switch
// does not have do not count.
func TestNVSwitchUp(t *testing.T) {
	const (
		up     = "gpu_nvswitch_up{nvswitch=\"nvswitch1\",hostname=\"node1\"} 1\n"
		down   = "gpu_nvswitch_up{nvswitch=\"nvswitch1\",hostname=\"node1\"} 0\n"
		first  = "gpu_nvswitch_up{nvswitch=\"nvswitch0\",hostname=\"node1\"} 1\n"
		silent = "gpu_nvswitch_up{nvswitch=\"nvswitch0\",hostname=\"node1\"} 0\n"
	)
	for name, tc := range map[string]struct {
		temperature, reset model.Cell
		age                time.Duration
		want               string
	}{
		"it answers":              {model.Int64Cell(40), model.Int64Cell(0), 0, first + up},
		"one field answers":       {model.NoValue(model.StatusBlank), model.Int64Cell(1), 0, first + up},
		"all is blank":            {model.NoValue(model.StatusBlank), model.NoValue(model.StatusBlank), 0, first + down},
		"all is stale":            {model.NoValue(model.StatusStale), model.NoValue(model.StatusNotSupported), 0, first + down},
		"the fields do not exist": {model.NoValue(model.StatusNotSupported), model.NoValue(model.StatusNotWatched), 0, first},
		"no value yet":            {model.NoValue(model.StatusNoData), model.NoValue(model.StatusNoData), 0, first},
		"no fresh sample":         {model.Int64Cell(40), model.Int64Cell(0), time.Minute, silent + down},
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

// A switch that a new engine does not list is down. A switch that it lists by number
// only keeps its labels.
func TestNVSwitchAfterRestart(t *testing.T) {
	f, node, _ := switchNode(t, model.Int64Cell(40), model.Int64Cell(0))
	inv := &model.Inventory{Generation: 1, Entities: []model.Entity{{Kind: model.KindSwitch, ID: 0, Selected: true, Parent: model.Unknown}}}
	inv.Columns[model.KindSwitch] = switchFields
	blank := model.NoValue(model.StatusBlank)
	deliver(t, node, wire.Frame{Inventory: inv})
	deliver(t, node, wire.Frame{Sample: &model.Sample{Generation: 1, Time: epoch, LinksRead: epoch, SwitchesListed: true, Rows: [][]model.Cell{{blank, blank}}}})
	body := encode(t, f, expfmt.TypeTextPlain)
	const want = `gpu_nvswitch_info{nvswitch="nvswitch0",hostname="node1",pci_bus_id="00000000:05:00.0",uuid="SWX-0"} 1
gpu_nvswitch_up{nvswitch="nvswitch0",hostname="node1"} 0
gpu_nvswitch_up{nvswitch="nvswitch1",hostname="node1"} 0
`
	if got := series(body, "gpu_nvswitch_info") + series(body, "gpu_nvswitch_up"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	inv = &model.Inventory{Generation: 2, Entities: []model.Entity{{Kind: model.KindSwitch, ID: 1, Selected: true, Parent: model.Unknown}}}
	inv.Columns[model.KindSwitch] = switchFields
	deliver(t, node, wire.Frame{Inventory: inv})
	deliver(t, node, wire.Frame{Sample: &model.Sample{Generation: 2, Time: epoch, LinksRead: epoch, SwitchesListed: true, Rows: [][]model.Cell{{model.Int64Cell(40), model.Int64Cell(0)}}}})
	const back = `gpu_nvswitch_up{nvswitch="nvswitch1",hostname="node1"} 1
gpu_nvswitch_up{nvswitch="nvswitch0",hostname="node1"} 0
`
	if got := series(encode(t, f, expfmt.TypeTextPlain), "gpu_nvswitch_up"); got != back {
		t.Errorf("got\n%swant\n%s", got, back)
	}
}

// Stale link states are withheld, and nothing else.
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
		"short age limit":            {time.Second, 3900 * time.Millisecond, 0, links + known},
		"too old for a short limit":  {time.Second, 4100 * time.Millisecond, 0, not},
		"read after a stuck reading": {30 * time.Second, -5 * time.Second, 0, links + known},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.MaxAge = tc.maxAge
			f, node, clock := newTestFamilies(t, cfg)
			inv := &model.Inventory{Generation: 2, Entities: []model.Entity{
				{Kind: model.KindSwitch, Selected: true, Parent: model.Unknown},
				{Kind: model.KindLink, ID: 0x003, Selected: true, Port: 0},
				{Kind: model.KindLink, ID: 0x103, Selected: true, Port: 1, LinkDown: true},
			}}
			inv.Columns[model.KindSwitch] = switchFields
			sample := &model.Sample{Generation: 2, Time: epoch, Rows: [][]model.Cell{{model.Int64Cell(40), model.Int64Cell(0)}, nil, nil}}
			if tc.sinceRead != 0 {
				sample.LinksRead = epoch.Add(-tc.sinceRead)
			}
			deliver(t, node, wire.Frame{Inventory: inv})
			deliver(t, node, wire.Frame{Sample: sample})
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

// A switch that a new engine does not list is down, and so are its links.
func TestLinksOfGoneSwitch(t *testing.T) {
	f, node, _ := newTestFamilies(t, testConfig(t))
	links := []model.Entity{
		{Kind: model.KindSwitch, ID: 1, Selected: true, Parent: model.Unknown},
		{Kind: model.KindLink, ID: 0x01000003, Selected: true, Port: 0},
		{Kind: model.KindLink, ID: 0x01002803, Selected: true, Port: 40},
		{Kind: model.KindLink, ID: 0x01002903, Port: 41},
	}
	show := func(entities []model.Entity, read time.Time) string {
		deliver(t, node, wire.Frame{Inventory: &model.Inventory{Generation: 1, Entities: entities}})
		deliver(t, node, wire.Frame{Sample: &model.Sample{Generation: 1, Time: epoch, LinksRead: read, SwitchesListed: !read.IsZero(), Rows: make([][]model.Cell, len(entities))}})
		body := encode(t, f, expfmt.TypeTextPlain)
		if isDown, known := strings.Contains(string(body), "gpu_nvswitch_up{"), !read.IsZero(); len(entities) == 0 && isDown != known {
			t.Errorf("switches listed: %v, the switch is down: %v", known, isDown)
		}
		return series(body, "gpu_nvlink_up")
	}
	const up = `gpu_nvlink_up{nvlink="0",nvswitch="nvswitch1",hostname="node1"} 1
gpu_nvlink_up{nvlink="40",nvswitch="nvswitch1",hostname="node1"} 1
`
	down := strings.ReplaceAll(up, "} 1", "} 0")
	for _, step := range []struct {
		name     string
		entities []model.Entity
		read     time.Time
		want     string
	}{
		{"listed", links, epoch, up},
		{"not listed yet", nil, time.Time{}, ""},
		{"not listed", nil, epoch, down},
		{"back", links, epoch, up},
	} {
		if got := show(step.entities, step.read); got != step.want {
			t.Errorf("%s: got\n%swant\n%s", step.name, got, step.want)
		}
	}

	// A gone switch is down even if the links cannot be read.
	deliver(t, node, wire.Frame{Inventory: &model.Inventory{Generation: 1}}, wire.Frame{Sample: &model.Sample{Generation: 1, Time: epoch, SwitchesListed: true}})
	body := encode(t, f, expfmt.TypeTextPlain)
	if got := series(body, "gpu_nvswitch_up") + series(body, "gpu_nvlink_up"); got != "gpu_nvswitch_up{nvswitch=\"nvswitch1\",hostname=\"node1\"} 0\n" {
		t.Errorf("without readable links:\n%s", got)
	}
}

// Links are counted by state. A GPU without readable links has no count.
func TestNVLinksOfAGPU(t *testing.T) {
	link := func(port int, change func(*model.Entity)) model.Entity {
		e := model.Entity{Kind: model.KindLink, ID: uint32(port)<<8 | 1, Selected: true, Parent: 0, Port: port}
		change(&e)
		return e
	}
	up, down := func(*model.Entity) {}, func(e *model.Entity) { e.LinkDown = true }
	lost, unselected := func(e *model.Entity) { e.State = model.EntityLost }, func(e *model.Entity) { e.Selected = false }
	const labels = `gpu="0",UUID="GPU-aaaa",pci_bus_id="00000000:18:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="node1"`
	for name, tc := range map[string]struct {
		links    []func(*model.Entity)
		read     time.Duration // before the sample
		old      bool          // names
		want     string        // counts of down and up
		perLinks string
	}{
		"two up, one down": {[]func(*model.Entity){up, down, up}, 0, false, "1 2", "0 1; 1 0; 2 1"},
		"all up":           {[]func(*model.Entity){up}, 0, false, "0 1", "0 1"},
		"old names":        {[]func(*model.Entity){up}, 0, true, "0 1", "0 1"},
		"a lost GPU":       {[]func(*model.Entity){lost, lost}, 0, false, "", ""},
		"one is unknown":   {[]func(*model.Entity){up, lost}, 0, false, "0 1", "0 1"},
		"not selected":     {[]func(*model.Entity){up, unselected}, 0, false, "0 1", "0 1"},
		"none":             {nil, 0, false, "", ""},
		"stale":            {[]func(*model.Entity){up, down}, time.Minute, false, "", ""},
	} {
		cfg := testConfig(t)
		cfg.OldNames = tc.old
		f, node, _ := newTestFamilies(t, cfg)
		inv := testInventory(t)
		inv.Entities, inv.Generation = inv.Entities[:1], 2
		for port, change := range tc.links {
			inv.Entities = append(inv.Entities, link(port, change))
		}
		s := testSample(inv)
		s.Rows = append(s.Rows[:1], make([][]model.Cell, len(tc.links))...)
		s.LinksRead = epoch.Add(-tc.read)
		deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
		body := encode(t, f, expfmt.TypeTextPlain)
		identity := labels
		if tc.old {
			identity = strings.Replace(labels, "UUID", "uuid", 1)
		}
		var counts, perLink []string
		for line := range strings.Lines(series(body, "gpu_nvlinks")) {
			for _, state := range []string{"down", "up"} {
				if value, ok := strings.CutPrefix(line, "gpu_nvlinks{"+identity+`,state="`+state+`"} `); ok {
					counts = append(counts, strings.TrimSpace(value))
				}
			}
		}
		for line := range strings.Lines(series(body, "gpu_nvlink_up")) {
			if port, value, ok := strings.Cut(strings.TrimSpace(line), `",`+identity+"} "); ok {
				perLink = append(perLink, strings.TrimPrefix(port, `gpu_nvlink_up{nvlink="`)+" "+value)
			}
		}
		if got := strings.Join(counts, " "); got != tc.want {
			t.Errorf("%s: counts %q, want %q", name, got, tc.want)
		}
		if got := strings.Join(perLink, "; "); got != tc.perLinks {
			t.Errorf("%s: per link %q, want %q", name, got, tc.perLinks)
		}
	}
}
