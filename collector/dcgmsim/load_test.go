// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgmsim

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// The fields that a real dcgm-exporter published on eight H100s have values.
func TestServesTheDefaultFieldsOfAnH100(t *testing.T) {
	p := embedded(t, newNode(t, "h100x8"))
	fields := []int{100, 101, 140, 150, 155, 156, 202, 203, 204, 206, 207, 251, 252, 253, 393, 394, 395, 449, 526, 1001, 1004, 1005, 1009, 1010, 1}
	p.watch("w", 100*time.Millisecond, fields, [2]int{feGPU, 0}, [2]int{feGPU, 7})
	for _, id := range []int{0, 7} {
		eventually(t, "every field has a value", func() bool {
			for _, v := range p.latest(feGPU, id, fields...) {
				if v.status != stOK || v.text == int64Blank || v.text == fp64Blank || v.text == int64NotSupported {
					return false
				}
			}
			return true
		})
	}
}

// The values of a moment agree with each other and with the model.
func TestValuesAreConsistent(t *testing.T) {
	for scenario, limit := range map[string]struct{ power, temp, sm float64 }{"h100x8": {700, 89, 1980}, "t4x1": {70, 93, 1590}} {
		t.Run(scenario, func(t *testing.T) {
			p := embedded(t, newNode(t, scenario))
			fields := []int{250, 251, 252, 253, 155, 150, 100, 203, 204, 156, 160}
			p.watch("w", 100*time.Millisecond, fields, [2]int{feGPU, 0})
			energy := 0.0
			for range 12 {
				v := p.latest(feGPU, 0, fields...)
				f := func(id int) float64 { return v[id].float(t) }
				if f(251)+f(252)+f(253) != f(250) {
					t.Errorf("free %v + used %v + reserved %v is not %v", f(251), f(252), f(253), f(250))
				}
				if f(155) <= 0 || f(155) > limit.power || f(150) > limit.temp || f(100) > limit.sm || f(160) != limit.power {
					t.Errorf("beyond the model: %v", v)
				}
				if f(203) < 0 || f(203) > 100 || f(204) > f(203) {
					t.Errorf("utilisation: %v", v)
				}
				if f(156) < energy {
					t.Errorf("energy went back from %v to %v", energy, f(156))
				}
				energy = f(156)
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
}

func TestEnergyIsTheIntegralOfPower(t *testing.T) {
	n := newNode(t, "h100x8")
	truth := func(gpu int) Truth {
		t.Helper()
		got, err := n.Truth(t.Context(), gpu)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	n.must(t, "load gpu 0 util 50")
	a := truth(0)
	time.Sleep(300 * time.Millisecond)
	b := truth(0)
	if a.Util != 0.5 {
		t.Errorf("utilisation %v, want 0.5", a.Util)
	}
	want := a.PowerWatts * 1e3 * b.At.Sub(a.At).Seconds()
	if got := b.EnergyMillijoules - a.EnergyMillijoules; math.Abs(got-want) > 1 {
		t.Errorf("energy grew by %v mJ at constant power, want %v", got, want)
	}
	// On a varying load, the trapezoid rule over short steps is close.
	for gpu := 1; gpu < 8; gpu++ {
		first := truth(gpu)
		last, sum := first, 0.0
		for range 6 {
			time.Sleep(20 * time.Millisecond)
			x := truth(gpu)
			sum += (last.PowerWatts + x.PowerWatts) / 2 * x.At.Sub(last.At).Seconds() * 1e3
			last = x
		}
		if got := last.EnergyMillijoules - first.EnergyMillijoules; math.Abs(got-sum) > 0.02*sum {
			t.Errorf("GPU %d: %v mJ, the integral of its power is about %v", gpu, got, sum)
		}
	}
	// A change of load keeps the totals.
	before := truth(0).EnergyMillijoules
	n.must(t, "load gpu 0 idle")
	if after := truth(0).EnergyMillijoules; after < before {
		t.Errorf("energy went back from %v to %v", before, after)
	}
}

func TestSameSeedSameNode(t *testing.T) {
	write := func(seed string) string {
		path := filepath.Join(t.TempDir(), "s.scenario")
		if err := os.WriteFile(path, []byte("seed "+seed+"\nbase h100x8\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second, other := newNode(t, write("7")), newNode(t, write("7")), newNode(t, write("8"))
	get := func(n *Node) Truth {
		t.Helper()
		x, err := n.Truth(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	a, b, c := get(first), get(second), get(other)
	if a.UUID != b.UUID || a.UUID == c.UUID {
		t.Errorf("UUIDs %s and %s of one seed, %s of another", a.UUID, b.UUID, c.UUID)
	}
	if !regexp.MustCompile(`^GPU-[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(a.UUID) {
		t.Errorf("UUID %s has the wrong form", a.UUID)
	}
	// The nodes started almost at the same time, and the curves are smooth.
	if math.Abs(a.Util-b.Util) > 0.2 || math.Abs(a.BusySeconds-b.BusySeconds) > 1 {
		t.Errorf("one seed, two loads: %+v and %+v", a, b)
	}
	if a.BusySeconds == c.BusySeconds {
		t.Error("another seed gave the same load")
	}
}

// A profiling value is the mean since the previous sample, so the sum over samples
// is the integral, however short the bursts are.
func TestProfilingIsAMean(t *testing.T) {
	n := newNode(t, scenarioFile(t, "base h100x8\nload gpu all bursts\n"))
	p := embedded(t, n)
	p.watch("w", time.Second, []int{1001}, entities(feGPU, 0)...)
	var first, last int64 // times of samples with a value, in µs
	var integral float64
	var from Truth
	for samples := 0; samples < 6; {
		before := last
		eventually(t, "another sample", func() bool {
			v := p.latest(feGPU, 0, 1001)[1001]
			if v.ts == before || v.status != stOK {
				return false
			}
			last = v.ts
			u, err := strconv.ParseFloat(v.text, 64)
			if err == nil && u <= 1 && before != 0 {
				integral += u * float64(last-before) / 1e6
				samples++
			}
			return true
		})
		if first == 0 {
			var err error
			if from, err = n.Truth(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			first = last
		}
	}
	to, err := n.Truth(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// The truth is read shortly after each of the two samples.
	slack := to.At.Sub(time.UnixMicro(last)).Seconds() + from.At.Sub(time.UnixMicro(first)).Seconds()
	if busy := to.BusySeconds - from.BusySeconds; busy < integral-slack || busy > integral+slack {
		t.Errorf("%.3f s busy by the samples, %.3f s in truth, ± %.3f s", integral, busy, slack)
	}
}
