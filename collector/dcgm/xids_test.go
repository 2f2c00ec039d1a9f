// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"slices"
	"testing"

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
		events, c := x.collect(&reading{})
		if c != codeOK {
			t.Fatal(c)
		}
		for _, e := range events {
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
