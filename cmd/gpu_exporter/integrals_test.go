// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"math"
	"testing"
	"time"

	"gpu_exporter/collector/dcgmsim"
)

var integralsFor = flag.Duration("integrals", 15*time.Second, "how long TestIntegrals compares; the 1 % is demanded from two minutes on")

var integralsInterval = flag.Duration("integrals-interval", time.Second, "interval of the samples in TestIntegrals")

// What is integrated is what the GPUs did, with a load of bursts of 300 ms and a
// sampler that is killed half-way. Whoever has the gauge alone, every 5 s, is told
// beside it what he gets.
func TestIntegrals(t *testing.T) {
	t.Parallel()
	limit := 0.05 // both ends may be off by a burst
	if *integralsFor >= 2*time.Minute {
		limit = 0.01
	}
	n := startNode(t, "h100x8", "--collect-interval="+integralsInterval.String())
	n.command(t, "load gpu all bursts")
	families := []struct {
		name   string
		labels []string
		truth  func(dcgmsim.Truth) float64
	}{
		{"gpu_busy_seconds_total", nil, func(g dcgmsim.Truth) float64 { return g.BusySeconds }},
		{"gpu_energy_joules_total", nil, func(g dcgmsim.Truth) float64 { return g.EnergyMillijoules / 1e3 }},
		{"gpu_nvlink_bytes_total", []string{`"transmit"`}, func(g dcgmsim.Truth) float64 { return g.NVLinkTxBytes }},
		{"gpu_pcie_bytes_total", []string{`"receive"`}, func(g dcgmsim.Truth) float64 { return g.PCIeRxBytes }},
	}
	type reading struct {
		at, gap      float64
		shown, truth map[string]float64
	}
	read := func() reading {
		t.Helper()
		last, _ := sumOf(n.scrape(t), "gpu_exporter_last_sample_timestamp_seconds")
		var body string
		n.eventually(t, "a sample has just come", func() bool {
			body = n.scrape(t)
			at, _ := sumOf(body, "gpu_exporter_last_sample_timestamp_seconds")
			return at > last && float64(time.Now().UnixMilli())/1e3-at < 0.3
		})
		r := reading{shown: map[string]float64{}, truth: map[string]float64{}}
		r.at, _ = sumOf(body, "gpu_exporter_last_sample_timestamp_seconds")
		r.gap, _ = sumOf(body, "gpu_exporter_integrated_gap_seconds_total", `"gpu_busy_seconds_total"`)
		for gpu := range 8 {
			g, err := n.sim.Truth(t.Context(), gpu)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				shown, count := sumOf(body, f.name, append(f.labels, fmt.Sprintf(`gpu="%d"`, gpu))...)
				if count != 1 {
					t.Fatalf("%s of GPU %d: %d series", f.name, gpu, count)
				}
				r.shown[f.name] += shown
				r.truth[f.name] += f.truth(g)
			}
		}
		return r
	}
	n.eventually(t, "everything is integrated", func() bool {
		busy, count := sumOf(n.scrape(t), "gpu_busy_seconds_total")
		return count == 8 && busy > 0
	})
	before := read()
	var gauges, truths [8]float64 // of each GPU: by that gauge, and in truth
	busyOf := func(gpu int) float64 {
		g, err := n.sim.Truth(t.Context(), gpu)
		if err != nil {
			t.Fatal(err)
		}
		return g.BusySeconds
	}
	for gpu := range truths {
		truths[gpu] = -busyOf(gpu)
	}
	var gauge float64 // GPU seconds, of who has 5 s samples of the gauge
	killed := false
	const every = 5 * time.Second
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for start := time.Now(); time.Since(start) < *integralsFor; {
		<-ticker.C
		body := n.scrape(t)
		if util, count := sumOf(body, "DCGM_FI_DEV_GPU_UTIL"); count == 8 {
			gauge += util / 100 * every.Seconds()
			for gpu := range gauges {
				one, _ := sumOf(body, "DCGM_FI_DEV_GPU_UTIL", fmt.Sprintf(`gpu="%d"`, gpu))
				gauges[gpu] += one / 100 * every.Seconds()
			}
		}
		if !killed && time.Since(start) > *integralsFor/3 {
			killed = true
			kill(t, n)
		}
	}
	after := read()
	bridged := (after.gap - before.gap) / 8 / (after.at - before.at)
	t.Logf("%.1f %% of the time was bridged", 100*bridged)
	limit += bridged // on a slow machine, what is bridged is an estimate
	for _, f := range families {
		shown, truth := after.shown[f.name]-before.shown[f.name], after.truth[f.name]-before.truth[f.name]
		off := (shown - truth) / truth
		t.Logf("%s: %.6g, in truth %.6g: %+.2f %%", f.name, shown, truth, 100*off)
		if math.Abs(off) > limit || math.IsNaN(off) {
			t.Errorf("%s is off by %.2f %%, at most %.0f %% are allowed", f.name, 100*off, 100*limit)
		}
	}
	worst := 0.0
	for gpu := range truths {
		truths[gpu] += busyOf(gpu)
		if off := (gauges[gpu] - truths[gpu]) / truths[gpu]; math.Abs(off) > math.Abs(worst) {
			worst = off
		}
	}
	truth := after.truth["gpu_busy_seconds_total"] - before.truth["gpu_busy_seconds_total"]
	t.Logf("busy seconds from DCGM_FI_DEV_GPU_UTIL every %v: %.6g, in truth %.6g: %+.2f %%; of the worst GPU alone %+.2f %%", every, gauge, truth, 100*(gauge-truth)/truth, 100*worst)
}
