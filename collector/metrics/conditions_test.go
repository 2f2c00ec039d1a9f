// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/goldentest"
	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/wire"
)

// conditionsConfig selects all families of health checks and clock events.
func conditionsConfig(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t)
	counters, err := field.ParseCounters(strings.NewReader(fixture.Counters+`
DCGM_EXP_CLOCK_EVENTS_COUNT, counter, Clock events in the window.
DCGM_EXP_CLOCK_EVENTS_TOTAL, counter, Clock events.
DCGM_EXP_GPU_HEALTH_STATUS, gauge, Health.
DCGM_EXP_P2P_STATUS, gauge, P2P.
`), "test.csv")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Counters, cfg.ClockEventsWindow, cfg.HealthInterval = counters.List, time.Minute, 10*time.Second
	return cfg
}

// testHealth is a check of the fixture. DCGM has watched the first GPU for an hour and
// the second for a second.
func testHealth() *model.Health {
	return &model.Health{
		Generation: 1, Time: epoch, Duration: 3 * time.Millisecond,
		Checked: []model.CheckedEntity{{Entity: 0, Since: epoch.Add(-time.Hour)}, {Entity: 1, Since: epoch.Add(-time.Second)}},
		Incidents: []model.HealthIncident{
			{Entity: 0, System: 4, Result: model.HealthWarn, Code: 6}, {Entity: 0, System: 4, Result: model.HealthFail, Code: 4}, {Entity: 0, System: 4, Result: model.HealthFail, Code: 4}, // memory, the same twice
			{Entity: 1, System: model.HealthThermal, Result: model.HealthWarn, Code: 10},
			{Entity: 0, System: model.HealthDevice, Result: model.HealthFail, Code: 4000},
			{Entity: model.Unknown, System: 13, Result: model.HealthFail, Code: 122}, // the node's IMEX domain
		},
	}
}

func testPeers() *model.Peers {
	return &model.Peers{Generation: 1, Time: epoch, Pairs: []model.Peer{
		{Entity: 0, Peer: 1, P2P: 0, NVLinks: 18, Path: 6}, {Entity: 1, Peer: 0, P2P: 9, NVLinks: model.Unknown},
	}}
}

// newConditions returns families of the fixture after a check, with two samples of
// clock events.
func newConditions(t *testing.T) (*Families, *state.Node, *time.Time) {
	t.Helper()
	f, node, clock := newTestFamilies(t, conditionsConfig(t))
	inv, s := fixture.DerivedSample(t, derivedFields(t), map[model.FieldID]int64{112: 0x1})
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	_, s = fixture.DerivedSample(t, derivedFields(t), map[model.FieldID]int64{112: 0x9})
	s.Time = epoch.Add(time.Second)
	*clock = s.Time
	deliver(t, node, wire.Frame{Sample: s}, wire.Frame{Health: testHealth()}, wire.Frame{Peers: testPeers()})
	return f, node, clock
}

func TestHealthGolden(t *testing.T) {
	f, _, _ := newConditions(t)
	var text strings.Builder
	for line := range strings.Lines(string(encode(t, f, expfmt.TypeTextPlain))) {
		for _, prefix := range []string{"gpu_health_", "gpu_exporter_health_", "gpu_p2p_", "gpu_peer_", "gpu_topology_", "DCGM_EXP_"} {
			if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), prefix) {
				text.WriteString(line)
			}
		}
	}
	golden(t, "health.prom", []byte(text.String()))
}

// Results that are too old are withheld; the state of the checks is not.
func TestStaleHealth(t *testing.T) {
	f, node, clock := newConditions(t)
	shown := func() (up, health, peers bool) {
		body := encode(t, f, expfmt.TypeTextPlain)
		return strings.Contains(string(body), "gpu_exporter_health_check_up 1"),
			series(body, definition.GPUHealthStatus.Name)+series(body, definition.GPUHealthSystemStatus.Name)+series(body, definition.GPUHealthIncidentInfo.Name) != "", series(body, definition.GPUP2PStatus.Name) != ""
	}
	if up, health, peers := shown(); !up || !health || !peers {
		t.Fatalf("up %v, health %v, peers %v", up, health, peers)
	}
	*clock = epoch.Add(31 * time.Second)
	if up, health, peers := shown(); up || health || !peers {
		t.Errorf("after 31 s: up %v, health %v, peers %v", up, health, peers)
	}
	*clock = epoch.Add(time.Hour)
	if up, health, peers := shown(); up || health || peers {
		t.Errorf("after an hour: up %v, health %v, peers %v", up, health, peers)
	}

	*clock = epoch.Add(2 * time.Second)
	deliver(t, node, wire.Frame{Health: &model.Health{Failure: "checking the health: no such module (-33)"}})
	body := string(encode(t, f, expfmt.TypeTextPlain))
	for _, want := range []string{"gpu_exporter_health_check_up 0\n", "gpu_exporter_health_check_failures_total 1\n", "gpu_health_status{", "gpu_health_system_status{"} {
		if !strings.Contains(body, want) {
			t.Errorf("after a failed check %q is missing", want)
		}
	}
	deliver(t, node, wire.Frame{Health: testHealth()})
	if up, health, _ := shown(); !up || !health {
		t.Errorf("after a good check again: up %v, health %v", up, health)
	}
}

// A new inventory keeps the results of the last check for the entities in both,
// because the next check follows the sample.
func TestHealthAcrossInventories(t *testing.T) {
	f, node, _ := newConditions(t)
	lines := func(labels string) (found []string) {
		for line := range strings.Lines(string(encode(t, f, expfmt.TypeTextPlain))) {
			for _, family := range []*definition.Family{&definition.GPUHealthStatus, &definition.GPUHealthSystemStatus, &definition.GPUHealthIncidentInfo, &definition.GPUP2PStatus, &definition.GPUPeerNVLinks} {
				if strings.HasPrefix(line, family.Name+"{") && strings.Contains(line, labels) {
					found = append(found, line)
				}
			}
		}
		return found
	}
	const first, second, imex = `gpu="0"`, `gpu="1"`, `code="122"`
	before := lines(first)
	if len(before) == 0 || len(lines(second)) == 0 || len(lines(imex)) != 1 {
		t.Fatalf("before: %q, %q and %q", before, lines(second), lines(imex))
	}
	inv := testInventory(t)
	inv.Generation = 2
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: testSample(inv)})
	if after := lines(first); !slices.Equal(after, before) {
		t.Errorf("GPU in both inventories\n%q\nwant\n%q", after, before)
	}

	inv = testInventory(t)
	inv.Generation, inv.Entities[1].State = 3, model.EntityLost
	s := testSample(inv)
	s.Rows[1] = nil
	deliver(t, node, wire.Frame{Inventory: inv}, wire.Frame{Sample: s})
	if after := lines(second); len(after) != 0 {
		t.Errorf("lost GPU, as itself or as a peer: %q", after)
	}
	if after := lines(first); len(after) == 0 || len(lines(imex)) != 1 {
		t.Errorf("second GPU %q, node %q", after, lines(imex))
	}
}

// Without health checks, their families are absent.
func TestNoHealthFamilies(t *testing.T) {
	cfg := testConfig(t)
	f, node, _ := newTestFamilies(t, cfg)
	deliver(t, node, wire.Frame{Health: testHealth()})
	if body := string(encode(t, f, expfmt.TypeTextPlain)); strings.Contains(body, "gpu_health_") || strings.Contains(body, "gpu_exporter_health_") {
		t.Errorf("health families without health checks:\n%s", body)
	}
}

// A frame that does not match the inventory is rejected and changes nothing.
func TestRejectedHealth(t *testing.T) {
	change := func(with func(*model.Health)) wire.Frame {
		h := testHealth()
		with(h)
		return wire.Frame{Health: h}
	}
	peers := func(with func(*model.Peers)) wire.Frame {
		p := testPeers()
		with(p)
		return wire.Frame{Peers: p}
	}
	for name, frame := range map[string]wire.Frame{
		"wrong generation":              change(func(h *model.Health) { h.Generation = 7 }),
		"the future":                    change(func(h *model.Health) { h.Time = epoch.Add(time.Hour) }),
		"out of order":                  change(func(h *model.Health) { h.Checked[1].Entity = 0 }),
		"no such entity":                change(func(h *model.Health) { h.Checked[1].Entity = 6 }),
		"incident on no entity":         change(func(h *model.Health) { h.Incidents[0].Entity = 6 }),
		"incident on a negative entity": change(func(h *model.Health) { h.Incidents[0].Entity = -2 }),
		"no such system":                change(func(h *model.Health) { h.Incidents[0].System = 15 }),
		"no such result":                change(func(h *model.Health) { h.Incidents[0].Result = 3 }),
		"peers of a wrong generation":   peers(func(p *model.Peers) { p.Generation = 7 }),
		"a peer that is not a GPU":      peers(func(p *model.Peers) { p.Pairs[0].Peer = 3 }),
		"a GPU that is its own peer":    peers(func(p *model.Peers) { p.Pairs[0].Peer = 0 }),
		"no such path":                  peers(func(p *model.Peers) { p.Pairs[0].Path = 7 }),
		"a negative number of links":    peers(func(p *model.Peers) { p.Pairs[0].NVLinks = -2 }),
		"a pair of one GPU":             peers(func(p *model.Peers) { p.Pairs[0].Peer = model.Unknown }),
		"a pair of no entity":           peers(func(p *model.Peers) { p.Pairs[0].Entity = 6 }),
	} {
		f, node, _ := newConditions(t)
		before := string(encode(t, f, expfmt.TypeTextPlain))
		var rejected *model.RejectError
		if err := node.Deliver(frame); !errors.As(err, &rejected) {
			t.Errorf("%s: error %v", name, err)
		}
		if after := string(encode(t, f, expfmt.TypeTextPlain)); after != before {
			t.Errorf("%s changes the page: %s", name, goldentest.FirstDifference(after, before))
		}
	}
}

// The states need a fresh sample. The counters survive the sampler that counted.
func TestProfilingFamilies(t *testing.T) {
	f, node, clock := newTestFamilies(t, testConfig(t))
	deliver := func(frames ...wire.Frame) {
		t.Helper()
		for _, frame := range frames {
			deliver(t, node, frame)
		}
	}
	shows := func(when string, want ...string) {
		t.Helper()
		body := encode(t, f, expfmt.TypeTextPlain)
		got := profilingLines(body)
		if got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", when, got, strings.Join(want, "\n"))
		}
	}
	shows("before the first frame")
	deliver(wire.Frame{Profiling: &model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 0}, {Entity: 1, State: model.ProfilingFrozen, Rewatches: 2}}}})
	shows("at first", "GPU-aaaa 0 active", "GPU-bbbb 2 frozen")
	deliver(wire.Frame{Profiling: &model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 0, State: model.ProfilingPaused}, {Entity: 1, State: model.ProfilingActive, Rewatches: 1}}}})
	shows("later", "GPU-aaaa 0 paused", "GPU-bbbb 3 active")
	body := encode(t, f, expfmt.TypeTextPlain)
	for family, want := range map[string]string{definition.GPUProfilingState.Name: "3", definition.GPUProfilingStateInfo.Name: `state="paused" 1`} {
		if got := ofH100(body, family); got != want {
			t.Errorf("%s of a paused GPU is %q, want %q", family, got, want)
		}
	}

	inv := testInventory(t)
	deliver(wire.Frame{Inventory: inv}, wire.Frame{Profiling: &model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 0, State: model.ProfilingPaused}, {Entity: 1, Rewatches: 1}}}}, wire.Frame{Sample: testSample(inv)})
	shows("after a restart of the sampler", "GPU-aaaa 0 paused", "GPU-bbbb 4 active")
	next := testInventory(t)
	next.Generation = 2
	profiling := wire.Frame{Profiling: &model.Profiling{Generation: 2, GPUs: []model.GPUProfiling{{Entity: 0}, {Entity: 1}}}}
	deliver(wire.Frame{Inventory: next})
	shows("with only a new inventory", "GPU-aaaa 0 paused", "GPU-bbbb 4 active")
	deliver(profiling)
	shows("before its first sample", "GPU-aaaa 0 active", "GPU-bbbb 4 active")
	sample := testSample(next)
	deliver(wire.Frame{Sample: sample})
	shows("with its first sample", "GPU-aaaa 0 active", "GPU-bbbb 4 active")
	next = testInventory(t)
	next.Generation = 3
	deliver(wire.Frame{Inventory: next})
	shows("before the first sample of a sampler without profiling", "GPU-aaaa 0 active", "GPU-bbbb 4 active")
	deliver(wire.Frame{Sample: testSample(next)})
	shows("after the first sample of a sampler without profiling")
	deliver(wire.Frame{Profiling: &model.Profiling{Generation: 3, GPUs: profiling.Profiling.GPUs}})
	*clock = clock.Add(time.Hour)
	shows("without a fresh sample", "GPU-aaaa 0 ", "GPU-bbbb 4 ")
}

// profilingLines summarizes the profiling families: UUID, counter and current state. A
// state that works has a number only.
func profilingLines(body []byte) string {
	label := func(line, name string) string {
		_, rest, _ := strings.Cut(line, name+`="`)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	states := map[string]string{}
	for line := range strings.Lines(series(body, definition.GPUProfilingState.Name)) {
		if strings.HasSuffix(line, " 0\n") {
			states[label(line, "UUID")] += "active"
		}
	}
	for line := range strings.Lines(series(body, definition.GPUProfilingStateInfo.Name)) {
		states[label(line, "UUID")] += label(line, "state")
	}
	var lines []string
	for line := range strings.Lines(series(body, definition.GPUProfilingRewatches.Name)) {
		fields := strings.Fields(line)
		uuid := label(line, "UUID")
		lines = append(lines, uuid+" "+fields[len(fields)-1]+" "+states[uuid])
	}
	return strings.Join(lines, "\n")
}

// Each state of profiling has its number, and a name unless it works.
func TestProfilingStates(t *testing.T) {
	for state := range model.ProfilingState(model.ProfilingStateCount) {
		f, node, _ := newTestFamilies(t, testConfig(t))
		deliver(t, node, wire.Frame{Profiling: &model.Profiling{Generation: 1, GPUs: []model.GPUProfiling{{Entity: 0, State: state}}}})
		body := encode(t, f, expfmt.TypeTextPlain)
		name := ""
		if state != model.ProfilingActive {
			name = `state="` + state.String() + `" 1`
		}
		if got := ofH100(body, definition.GPUProfilingState.Name); got != decimal(int(state)) {
			t.Errorf("%s: state %q", state, got)
		}
		if got := ofH100(body, definition.GPUProfilingStateInfo.Name); got != name {
			t.Errorf("%s: info %q, want %q", state, got, name)
		}
	}
	f, _, _ := newTestFamilies(t, testConfig(t))
	if body := encode(t, f, expfmt.TypeTextPlain); series(body, definition.GPUProfilingState.Name) != "" {
		t.Error("a state without profiling fields")
	}
}

// The status of a device is the worst result of its systems.
func TestWorstHealth(t *testing.T) {
	for name, tc := range map[string]struct {
		incidents []model.HealthIncident
		want      string
	}{
		"pass":             {nil, "0"},
		"warning":          {[]model.HealthIncident{{System: 4, Result: model.HealthWarn, Code: 6}}, "1"},
		"warning and fail": {[]model.HealthIncident{{System: 4, Result: model.HealthFail, Code: 4}, {System: 0, Result: model.HealthWarn, Code: 1}}, "2"},
		"of the device":    {[]model.HealthIncident{{System: model.HealthDevice, Result: model.HealthFail, Code: 4000}}, "2"},
		"of another GPU":   {[]model.HealthIncident{{Entity: 1, System: 4, Result: model.HealthFail, Code: 4}}, "0"},
		"of the node":      {[]model.HealthIncident{{Entity: model.Unknown, System: 13, Result: model.HealthFail, Code: 122}}, "0"},
	} {
		cfg := conditionsConfig(t)
		cfg.Selected = selection(t, "default")
		f, node, _ := newTestFamilies(t, cfg)
		health := testHealth()
		health.Incidents = tc.incidents
		deliver(t, node, wire.Frame{Health: health})
		body := encode(t, f, expfmt.TypeTextPlain)
		if got := ofH100(body, definition.GPUHealthStatus.Name); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if got := series(body, definition.GPUHealthSystemStatus.Name); got != "" {
			t.Errorf("%s: results by system are not selected:\n%s", name, got)
		}
	}
}

// The end of a pause is published while profiling is paused.
func TestPauseFamily(t *testing.T) {
	f, _, _ := newTestFamilies(t, testConfig(t))
	if got := series(encode(t, f, expfmt.TypeTextPlain), definition.ProfilingPausedUntil.Name); got != "" {
		t.Errorf("without a pause: %s", got)
	}
	f.supervisor = fixedSupervisor{ProfilingPausedUntil: epoch}
	if got, want := series(encode(t, f, expfmt.TypeTextPlain), definition.ProfilingPausedUntil.Name), definition.ProfilingPausedUntil.Name+" 1.70000000025e+09\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
