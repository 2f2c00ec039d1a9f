// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
)

// TestSlowProfiling shows that profiling values are not withheld while the ordinary values
// of the GPU are as rarely updated.
func TestSlowProfiling(t *testing.T) {
	for name, tc := range map[string]struct {
		every time.Duration // between updates of profiling, while the others are updated every 40 s
		want  model.Status
	}{"a slow driver": {40 * time.Second, model.StatusOK}, "no update of profiling": {time.Hour, model.StatusStale}} {
		t.Run(name, func(t *testing.T) {
			inv := &model.Inventory{Entities: []model.Entity{{Kind: gpu, Parent: model.Unknown}}}
			inv.Columns[gpu] = []model.FieldID{150, 1001}
			selector, err := model.ParseSelector("f")
			if err != nil {
				t.Fatal(err)
			}
			plan := newPlan(inv, selectors{gpus: selector}, map[uint32]capability{0: {fields: map[uint16]bool{1001: true}}})
			r := newReading(&native.Library{}, plan, []int64{0}, time.Second, 10*time.Minute)
			g := &gpuProfiling{cells: []profilingCell{{r.positions()[fieldOf{0, 1001}], 0, 1}}}
			p := &profiler{timing: defaultProfilingTiming, log: slog.New(slog.DiscardHandler), gpus: []*gpuProfiling{g}}
			for second := range int64(300) {
				places := r.positions()
				set := func(field uint16, every time.Duration, bits int64) {
					at := second - second%int64(every.Seconds())
					r.cells[places[fieldOf{0, field}]] = native.Cell{Time: 1e12 + at*1e6, Type: 'i', Bits: bits}
				}
				set(150, 40*time.Second, 40)
				set(1001, tc.every, 1)
				// Profiling is updated just before the others.
				r.cells[places[fieldOf{0, 1001}]].Time -= 1e6
				r.fill()
				p.check(r, time.Now())
				if got := r.rows[0][1].Status; tc.want == model.StatusOK && got != model.StatusOK || second == 299 && got != tc.want {
					t.Fatalf("after %d s: profiling is %v, want %v", second, got, tc.want)
				}
			}
		})
	}
}

// TestSlowCallIsLoggedOnce shows that calls that are slow now and then cause one record.
func TestSlowCallIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	b := newBackground("listing", slog.New(slog.NewTextHandler(&log, nil)))
	ready := make(chan struct{})
	for i := range 50 {
		if !b.start(func() func() error { <-ready; return func() error { return nil } }) {
			t.Fatal("not started")
		}
		if i%5 == 0 {
			b.start(nil)
		}
		ready <- struct{}{}
		if err := b.finish(<-b.results); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 { // that it is slow, and that it has finished
		t.Errorf("%d records:\n%s", n, log.String())
	}
}
