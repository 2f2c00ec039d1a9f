// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

// conditionsConfig asks for all that comes of health checks and clock events.
func conditionsConfig(t *testing.T) FamiliesConfig {
	t.Helper()
	cfg := testConfig(t)
	counters, err := ParseCounters(strings.NewReader(testCounters+`
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

// testHealth is a check of the fixture, of which the first GPU has been watched for an
// hour and the second for a second.
func testHealth() *Health {
	return &Health{
		Generation: 1, Time: epoch, Duration: 3 * time.Millisecond,
		Checked: []CheckedEntity{{0, epoch.Add(-time.Hour)}, {1, epoch.Add(-time.Second)}},
		Incidents: []HealthIncident{
			{0, 4, HealthWarn, 6}, {0, 4, HealthFail, 4}, {0, 4, HealthFail, 4}, // memory, the same twice
			{1, healthThermal, HealthWarn, 10},
			{0, HealthDevice, HealthFail, 4000},
			{Unknown, 13, HealthFail, 122}, // the node's IMEX domain
		},
	}
}

func testPeers() *Peers {
	return &Peers{Generation: 1, Time: epoch, Pairs: []Peer{
		{Entity: 0, Peer: 1, P2P: 0, NVLinks: 18, Path: 6}, {Entity: 1, Peer: 0, P2P: 9, NVLinks: Unknown},
	}}
}

// newConditions returns families of the fixture after a check, with two samples of
// clock events.
func newConditions(t *testing.T) (*Families, *Node, *time.Time) {
	t.Helper()
	f, node, clock := newTestFamilies(t, conditionsConfig(t))
	inv, s := derivedSample(t, map[FieldID]int64{112: 0x1})
	deliverSample(t, node, inv, s)
	_, s = derivedSample(t, map[FieldID]int64{112: 0x9})
	s.Time = epoch.Add(time.Second)
	*clock = s.Time
	for _, frame := range []Frame{{Sample: s}, {Health: testHealth()}, {Peers: testPeers()}} {
		if err := node.Deliver(frame); err != nil {
			t.Fatal(err)
		}
	}
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

// What is too old is not shown; how the checks do is.
func TestStaleHealth(t *testing.T) {
	f, node, clock := newConditions(t)
	shown := func() (up, health, peers bool) {
		body := encode(t, f, expfmt.TypeTextPlain)
		return strings.Contains(string(body), "gpu_exporter_health_check_up 1"),
			series(body, gpuHealthStatus.Name)+series(body, gpuHealthInfo.Name) != "", series(body, gpuP2PStatus.Name) != ""
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
	if err := node.Deliver(Frame{Health: &Health{Failure: "checking the health: no such module (-33)"}}); err != nil {
		t.Fatal(err)
	}
	body := string(encode(t, f, expfmt.TypeTextPlain))
	for _, want := range []string{"gpu_exporter_health_check_up 0\n", "gpu_exporter_health_check_failures_total 1\n", "gpu_health_status{"} {
		if !strings.Contains(body, want) {
			t.Errorf("after a failed check there is no %q", want)
		}
	}
	if err := node.Deliver(Frame{Health: testHealth()}); err != nil {
		t.Fatal(err)
	}
	if up, health, _ := shown(); !up || !health {
		t.Errorf("after a good check again: up %v, health %v", up, health)
	}
}

// A new inventory does not take from what is in both what the last check found: the
// next one comes after the sample.
func TestHealthOfWhatStays(t *testing.T) {
	f, node, _ := newConditions(t)
	lines := func(labels string) (found []string) {
		for line := range strings.Lines(string(encode(t, f, expfmt.TypeTextPlain))) {
			for _, family := range []*definition{&gpuHealthStatus, &gpuHealthInfo, &gpuP2PStatus, &gpuPeerLinks} {
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
	deliverSample(t, node, inv, testSample(inv))
	if after := lines(first); !slices.Equal(after, before) {
		t.Errorf("of a GPU that stays\n%q\nwant\n%q", after, before)
	}

	inv = testInventory(t)
	inv.Generation, inv.Entities[1].State = 3, EntityLost
	s := testSample(inv)
	s.Rows[1] = nil
	deliverSample(t, node, inv, s)
	if after := lines(second); len(after) != 0 {
		t.Errorf("of a lost GPU, as itself or as a peer: %q", after)
	}
	if after := lines(first); len(after) == 0 || len(lines(imex)) != 1 {
		t.Errorf("of the other and of the node %q and %q", after, lines(imex))
	}
}

func TestPositionsInAnotherInventory(t *testing.T) {
	gpu := func(id uint32, uuid string) Entity {
		return Entity{Kind: KindGPU, ID: id, UUID: uuid, Parent: Unknown}
	}
	sw := Entity{Kind: KindSwitch, ID: 0, Parent: Unknown}
	lost := gpu(2, "GPU-c")
	lost.State = EntityLost
	of := &Inventory{Entities: []Entity{gpu(0, "GPU-a"), gpu(1, "GPU-b"), gpu(2, "GPU-c"), gpu(3, "GPU-d"), sw}}
	other := &Inventory{Entities: []Entity{sw, gpu(0, "GPU-b"), gpu(1, "GPU-a"), lost}}
	if got, want := of.positionsIn(other), []int{2, 1, Unknown, Unknown, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Nobody who did not ask for health checks has families about them.
func TestNoHealthFamilies(t *testing.T) {
	cfg := testConfig(t)
	f, node, _ := newTestFamilies(t, cfg)
	if err := node.Deliver(Frame{Health: testHealth()}); err != nil {
		t.Fatal(err)
	}
	if body := string(encode(t, f, expfmt.TypeTextPlain)); strings.Contains(body, "health") {
		t.Errorf("there is health:\n%s", body)
	}
}

// What does not fit the inventory is refused, and what was there stays.
func TestRejectedHealth(t *testing.T) {
	change := func(with func(*Health)) Frame {
		h := testHealth()
		with(h)
		return Frame{Health: h}
	}
	peers := func(with func(*Peers)) Frame {
		p := testPeers()
		with(p)
		return Frame{Peers: p}
	}
	for name, frame := range map[string]Frame{
		"another generation":      change(func(h *Health) { h.Generation = 7 }),
		"the future":              change(func(h *Health) { h.Time = epoch.Add(time.Hour) }),
		"out of order":            change(func(h *Health) { h.Checked[1].Entity = 0 }),
		"no such entity":          change(func(h *Health) { h.Checked[1].Entity = 6 }),
		"incident on no entity":   change(func(h *Health) { h.Incidents[0].Entity = 6 }),
		"incident below nothing":  change(func(h *Health) { h.Incidents[0].Entity = -2 }),
		"no such system":          change(func(h *Health) { h.Incidents[0].System = 15 }),
		"no such result":          change(func(h *Health) { h.Incidents[0].Result = 3 }),
		"peers of another one":    peers(func(p *Peers) { p.Generation = 7 }),
		"peers that are no GPUs":  peers(func(p *Peers) { p.Pairs[0].Peer = 3 }),
		"a peer of its own":       peers(func(p *Peers) { p.Pairs[0].Peer = 0 }),
		"no such path":            peers(func(p *Peers) { p.Pairs[0].Path = 7 }),
		"fewer links than none":   peers(func(p *Peers) { p.Pairs[0].NVLinks = -2 }),
		"peers without a second":  peers(func(p *Peers) { p.Pairs[0].Peer = Unknown }),
		"peers beyond the others": peers(func(p *Peers) { p.Pairs[0].Entity = 6 }),
	} {
		f, node, _ := newConditions(t)
		before := string(encode(t, f, expfmt.TypeTextPlain))
		var rejected *RejectError
		if err := node.Deliver(frame); !errors.As(err, &rejected) {
			t.Errorf("%s: error %v", name, err)
		}
		if after := string(encode(t, f, expfmt.TypeTextPlain)); after != before {
			t.Errorf("%s changes what is shown: %s", name, firstDifference(after, before))
		}
	}
}

// The window of the clock events goes on while the GPU is lost, and long windows are
// kept in parts.
func TestClockEventsWindow(t *testing.T) {
	c := clockEvents{window: time.Minute}
	inv, s := derivedSample(t, map[FieldID]int64{112: 1})
	key := entityKey{uuid: "GPU-aaaa", instance: Unknown}
	add := func(at time.Duration) {
		next := *s
		next.Time = epoch.Add(at)
		c.add(inv, &next)
	}
	for i := range 3000 { // 20 ms apart: a part of the window has five
		add(time.Duration(i) * 20 * time.Millisecond)
	}
	state := c.gpus[key]
	if state.window[0] != 3000 || state.samples[0] != 3000 || len(state.recent) > windowParts+1 {
		t.Errorf("%d in the window, %d in all, %d parts", state.window[0], state.samples[0], len(state.recent))
	}
	add(90 * time.Second)
	if got := state.window[0]; got < 1490 || got > 1505 {
		t.Errorf("%d in the last minute of 90 s, want some 1500", got)
	}
	s.Derived[0][derivedColumn(t, inv, 112)] = NoValue(StatusEntityLost)
	add(5 * time.Minute)
	if state.window[0] != 0 || state.samples[0] != 3001 {
		t.Errorf("%d in the window after minutes without the GPU, %d in all", state.window[0], state.samples[0])
	}
}
