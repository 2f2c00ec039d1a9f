// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"log/slog"
	"maps"
	"testing"
	"time"

	"gpu_exporter/collector/internal/fixture"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// The node of the tests.
var (
	epoch         = fixture.Epoch
	testInventory = fixture.Inventory
	testSample    = fixture.Sample
)

// newTestNode returns a node with the fixture, received at epoch, and its clock.
func newTestNode(t *testing.T) (*Node, *time.Time) {
	t.Helper()
	clock := epoch
	node := NewNode(slog.New(slog.DiscardHandler), fixture.XIDs(t))
	node.Clock = func() time.Time { return clock }
	inv := testInventory(t)
	for _, f := range []wire.Frame{
		{Inventory: inv},
		{Sample: testSample(inv)},
		{Events: &model.Events{Generation: 1, List: []model.Event{
			{Kind: model.EventXID, Entity: 1, Time: epoch, Code: 79},
			{Kind: model.EventXID, Entity: 5, Time: epoch, Code: 31},
			{Kind: model.EventXID, Entity: 5, Time: epoch.Add(-time.Second), Code: 31},
		}}},
	} {
		if err := node.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
	return node, &clock
}

// A step of the wall clock does not change the age of a sample: only the monotonic clock
// counts after arrival.
func TestAgeCountsFromTheSampleTime(t *testing.T) {
	node := NewNode(slog.New(slog.DiscardHandler), fixture.XIDs(t))
	inv := testInventory(t)
	s := testSample(inv)
	node.Clock = func() time.Time { return epoch.Add(20 * time.Second) }
	if err := errors.Join(node.Deliver(wire.Frame{Inventory: inv}), node.Deliver(wire.Frame{Sample: s})); err != nil {
		t.Fatal(err)
	}
	if _, fresh := node.Freshness(19 * time.Second); fresh {
		t.Errorf("a sample that is 20 s old on arrival is fresh")
	}
	if words := node.Staleness(); words != "the newest sample is 20s old" {
		t.Errorf("staleness %q", words)
	}
	if left, fresh := node.Freshness(21 * time.Second); !fresh || left != time.Second {
		t.Errorf("fresh %v for another %v, want 1 s", fresh, left)
	}
}

// An XID is not later than its report: a damaged time would be the newest for ever.
func TestXIDOfTheFuture(t *testing.T) {
	node, clock := newTestNode(t)
	for i, ahead := range []time.Duration{200 * 365 * 24 * time.Hour, 0} {
		*clock = clock.Add(time.Second)
		e := model.Event{Kind: model.EventXID, Entity: 1, Time: clock.Add(ahead), Code: 79}
		if err := node.Deliver(wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{e}}}); err != nil {
			t.Fatal(err)
		}
		found := 0
		for k, c := range node.View().XIDs {
			if k.Code == 79 {
				found++
				if !c.Last.Equal(*clock) || c.Total != uint64(i)+2 {
					t.Errorf("after %d: %+v at %v", i, c, *clock)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d counts", found)
		}
	}
}

func TestNodeRejects(t *testing.T) {
	ahead := func(d time.Duration) func(*model.Inventory, *model.Sample) wire.Frame {
		return func(_ *model.Inventory, s *model.Sample) wire.Frame {
			s.Time = s.Time.Add(d)
			return wire.Frame{Sample: s}
		}
	}
	for name, tc := range map[string]struct {
		frame  func(*model.Inventory, *model.Sample) wire.Frame
		reason string
	}{
		"sample from the future": {ahead(2 * time.Second), model.RejectFuture},
		"clock jitter":           {ahead(500 * time.Millisecond), ""},
		"different generation":   {func(_ *model.Inventory, s *model.Sample) wire.Frame { s.Generation = 9; return wire.Frame{Sample: s} }, model.RejectInventory},
		"too few rows": {func(_ *model.Inventory, s *model.Sample) wire.Frame {
			s.Rows = s.Rows[1:]
			return wire.Frame{Sample: s}
		}, model.RejectInvalid},
		"too few cells": {func(_ *model.Inventory, s *model.Sample) wire.Frame {
			s.Rows[0] = s.Rows[0][1:]
			return wire.Frame{Sample: s}
		}, model.RejectInvalid},
		"string out of range": {func(_ *model.Inventory, s *model.Sample) wire.Frame { s.Strings = nil; return wire.Frame{Sample: s} }, model.RejectInvalid},
		"parent after child": {func(inv *model.Inventory, _ *model.Sample) wire.Frame {
			inv.Entities[3].Parent = 4
			return wire.Frame{Inventory: inv}
		}, model.RejectInvalid},
		"event of an unknown entity": {func(*model.Inventory, *model.Sample) wire.Frame {
			return wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Entity: 6}}}}
		}, model.RejectInvalid},
		"one invalid event of two": {func(*model.Inventory, *model.Sample) wire.Frame {
			return wire.Frame{Events: &model.Events{Generation: 1, List: []model.Event{{Kind: model.EventXID, Code: 13}, {Kind: model.EventXID, Entity: 6}}}}
		}, model.RejectInvalid},
		"event of another inventory": {func(*model.Inventory, *model.Sample) wire.Frame {
			return wire.Frame{Events: &model.Events{Generation: 2, List: []model.Event{{Kind: model.EventXID}}}}
		}, model.RejectInventory},
	} {
		t.Run(name, func(t *testing.T) {
			node, _ := newTestNode(t)
			inv := testInventory(t)
			before := node.View().XIDs
			err := node.Deliver(tc.frame(inv, testSample(inv)))
			if after := node.View().XIDs; !maps.Equal(after, before) {
				t.Errorf("counted XIDs: %v", after)
			}
			var reject *model.RejectError
			if tc.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else if !errors.As(err, &reject) || reject.Reason != tc.reason {
				t.Fatalf("got %v, want reason %s", err, tc.reason)
			}
		})
	}
	t.Run("sample before any inventory", func(t *testing.T) {
		var reject *model.RejectError
		if err := NewNode(slog.New(slog.DiscardHandler), fixture.XIDs(t)).Deliver(wire.Frame{Sample: testSample(testInventory(t))}); !errors.As(err, &reject) || reject.Reason != model.RejectInventory {
			t.Fatalf("got %v", err)
		}
	})
}

func deliver(t *testing.T, n *Node, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		if err := n.Deliver(f); err != nil {
			t.Fatal(err)
		}
	}
}

// The time in which the machine was suspended counts, though its monotonic clock stands
// still.
func TestSuspensionCountsAsAge(t *testing.T) {
	node := NewNode(slog.New(slog.DiscardHandler), nil)
	now := time.Now()
	node.sample, node.received = &model.Sample{Time: now}, received(now)
	node.health.set(&model.Health{Time: now}, nil, now)
	node.peers = PeersState{dated[model.Peers]{&model.Peers{}, nil}, received(now)}
	if left, fresh := node.Freshness(time.Minute); !fresh || left > time.Minute {
		t.Fatalf("a new sample is fresh for %v: %v", left, fresh)
	}
	for _, of := range []*receipt{&node.received, &node.health.received, &node.peers.received} {
		of.suspended -= 2 * time.Minute // as if the machine had been suspended meanwhile
	}
	if left, fresh := node.Freshness(time.Minute); fresh {
		t.Errorf("a sample of before a suspension is fresh for %v", left)
	}
	v := node.View()
	if health, peers := v.Health.Age(time.Now()), v.Peers.Age(time.Now()); health < 2*time.Minute || peers < 2*time.Minute {
		t.Errorf("a health check has the age %v, the topology %v", health, peers)
	}
}
