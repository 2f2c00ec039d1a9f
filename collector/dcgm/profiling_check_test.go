// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"math"
	"testing"
	"time"
)

// TestProfilingCheck shows what counts as broken, and what does not though it
// looks like it. A sample comes each second.
func TestProfilingCheck(t *testing.T) {
	unknown := math.NaN()
	// of returns a sample as a working GPU gives it: new values at each time.
	of := func(i int) glance {
		at := int64(i) * 1e6
		return glance{values: 3, signature: uint64(i), fraction: true, newest: at, engine: at, util: 80, power: 400}
	}
	steady := func(i int) glance { g := of(i); g.signature = 1; return g }
	idle := func(i int) glance {
		g := steady(i)
		g.signature, g.fraction, g.zero, g.util, g.power = 2, false, true, 0, 70
		return g
	}
	zeroBusy := func(i int) glance { g := idle(i); g.util, g.power = 90, 500; return g }
	nothing := func(i int) glance { g := of(i); g.values, g.signature, g.newest = 0, 0, 0; return g }
	with := func(f func(int) glance, change func(i int, g *glance)) func(int) glance {
		return func(i int) glance { g := f(i); change(i, &g); return g }
	}
	type part struct {
		n    int
		of   func(int) glance
		want profilingFault // after the part
	}
	for name, parts := range map[string][]part{
		"it works": {{1000, of, faultNone}},

		"the same values, and nothing else changes":  {{1000, steady, faultNone}},
		"the same values, while utilisation changes": {{100, steady, faultNone}, {1, with(steady, func(_ int, g *glance) { g.util = 60 }), faultSame}},
		"the same values, while utilisation jitters": {{1000, with(steady, func(i int, g *glance) { g.util += float64(i % 5) }), faultNone}},
		"the same values, while power changes":       {{12, with(steady, func(i int, g *glance) { g.power += float64(40 * (i % 2)) }), faultSame}},
		"the same values, while power jitters":       {{1000, with(steady, func(i int, g *glance) { g.power += float64(i % 9) }), faultNone}},
		"much power jitters more":                    {{1000, with(steady, func(i int, g *glance) { g.power = 1200 + float64(50*(i%2)) }), faultNone}},
		"the same for too few samples":               {{9, with(steady, func(i int, g *glance) { g.power += float64(20 * i) }), faultNone}},
		"instances stand still, while power changes": {{12, with(steady, func(i int, g *glance) { g.util = unknown; g.power += float64(100 * (i % 2)) }), faultSame}},
		"instances of which nothing else is known":   {{1000, with(steady, func(_ int, g *glance) { g.util, g.power = unknown, unknown }), faultNone}},
		"all of it is 0 or 1, and stays so":          {{1000, with(steady, func(i int, g *glance) { g.fraction = false; g.power += float64(100 * (i % 2)) }), faultNone}},
		"a frozen GPU that moves again":              {{100, steady, faultNone}, {1, with(steady, func(_ int, g *glance) { g.util = 0 }), faultSame}, {100, idle, faultNone}},
		"a frozen GPU without values for a moment":   {{100, steady, faultNone}, {1, with(steady, func(_ int, g *glance) { g.util = 0 }), faultSame}, {3, nothing, faultSame}, {5, steady, faultSame}, {1, of, faultNone}},
		"a sample twice is no second one":            {{200, with(steady, func(_ int, g *glance) { g.newest = 1; g.engine = 2; g.util = 0 }), faultNone}},
		"zeros of an idle GPU":                       {{1000, idle, faultNone}},
		"zeros of an idle GPU with changing clocks":  {{1000, with(idle, func(i int, g *glance) { g.power += float64(60 * (i % 2)) }), faultNone}},
		"zeros of a busy GPU":                        {{10, zeroBusy, faultNone}, {1, zeroBusy, faultZero}},
		"zeros of a GPU that is busy now and then":   {{1000, with(zeroBusy, func(i int, g *glance) { g.util = float64(90 * (i % 5 / 4)) }), faultNone}},
		"zeros of fields that kernels need not show": {{1000, with(zeroBusy, func(_ int, g *glance) { g.zero = false }), faultNone}},
		"zeros of instances":                         {{1000, with(zeroBusy, func(_ int, g *glance) { g.util = unknown }), faultNone}},
		"zeros, and then values":                     {{11, zeroBusy, faultZero}, {1, of, faultNone}},
		"zeros, and then the GPU is idle":            {{11, zeroBusy, faultZero}, {10, idle, faultZero}, {1, idle, faultNone}},
		"zeros, and the GPU is idle for a moment":    {{11, zeroBusy, faultZero}, {5, idle, faultZero}, {100, zeroBusy, faultZero}},
		"DCGM renews all but profiling":              {{10, of, faultNone}, {20, with(of, func(_ int, g *glance) { g.newest = 9e6 }), faultNone}, {12, with(of, func(_ int, g *glance) { g.newest = 9e6 }), faultStalled}, {1, of, faultNone}},
		"DCGM renews nothing":                        {{10, of, faultNone}, {1000, with(of, func(_ int, g *glance) { g.newest, g.engine = 9e6, 9e6 }), faultNone}},
		"values cease to come":                       {{10, of, faultNone}, {10, nothing, faultNone}, {1, nothing, faultBlank}, {1, of, faultNone}},
		"there never were values":                    {{1000, nothing, faultNone}},
		"nothing of the GPU has values":              {{10, of, faultNone}, {1000, with(nothing, func(_ int, g *glance) { g.util, g.power = unknown, unknown }), faultNone}},
		"the engine's clock is set back by an hour":  {{10, of, faultNone}, {100, with(of, func(_ int, g *glance) { g.newest -= 3600e6; g.engine -= 3600e6 }), faultNone}},
	} {
		t.Run(name, func(t *testing.T) {
			var c profilingCheck
			start, i := time.Now(), 0
			for n, p := range parts {
				for range p.n {
					g := p.of(i)
					c.look(&g, start.Add(time.Duration(i)*time.Second), &defaultProfilingTiming)
					i++
				}
				if c.fault != p.want {
					t.Fatalf("part %d, after %d samples: %v; want: %v", n, i, c.fault, p.want)
				}
			}
		})
	}
}
