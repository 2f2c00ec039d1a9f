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

var (
	integralsFor      = flag.Duration("integrals", 30*time.Second, "how long TestIntegrals compares; from 2m on, the tolerance is 1 %")
	integralsInterval = flag.Duration("integrals-interval", time.Second, "interval of the samples in TestIntegrals")
)

// integralFamilies are the families that TestIntegrals compares with the truth of the
// simulated GPUs.
var integralFamilies = []struct {
	name   string
	labels []string
	truth  func(dcgmsim.Truth) float64
}{
	{"gpu_busy_seconds_total", nil, func(g dcgmsim.Truth) float64 { return g.BusySeconds }},
	{"gpu_energy_joules_total", nil, func(g dcgmsim.Truth) float64 { return g.EnergyMillijoules / 1e3 }},
	{"gpu_nvlink_bytes_total", []string{`"transmit"`}, func(g dcgmsim.Truth) float64 { return g.NVLinkTxBytes }},
	{"gpu_pcie_bytes_total", []string{`"receive"`}, func(g dcgmsim.Truth) float64 { return g.PCIeRxBytes }},
}

// integralReading has sums over all GPUs by family.
type integralReading struct {
	at, gap      float64 // of the sample
	lag          float64 // seconds from the sample to the end of reading the truth
	shown, truth map[string]float64
}

// readIntegrals reads a page soon after its sample, and then the truth.
func (n *node) readIntegrals(t *testing.T) integralReading {
	t.Helper()
	n.nextSample(t)
	body := n.scrape(t)
	r := integralReading{shown: map[string]float64{}, truth: map[string]float64{}}
	r.at, _ = sumOf(body, "gpu_exporter_last_sample_timestamp_seconds")
	r.gap, _ = sumOf(body, "gpu_exporter_integrated_gap_seconds_total", `"gpu_busy_seconds_total"`)
	for gpu := range 8 {
		g, err := n.sim.Truth(t.Context(), gpu)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range integralFamilies {
			shown, count := sumOf(body, f.name, append(f.labels, fmt.Sprintf(`gpu="%d"`, gpu))...)
			if count != 1 {
				t.Fatalf("%s of GPU %d: %d series", f.name, gpu, count)
			}
			r.shown[f.name] += shown
			r.truth[f.name] += f.truth(g)
		}
	}
	r.lag = float64(time.Now().UnixMilli())/1e3 - r.at
	return r
}

// TestIntegrals compares the integrals with the truth, under a load of bursts of 300 ms
// and with a sampler that is killed after a third of the time. For comparison it logs the
// busy seconds that the gauge gives if it is scraped every 5 s.
func TestIntegrals(t *testing.T) {
	t.Parallel()
	limit := 0.05 // two bursts at each end of 30 s
	if *integralsFor >= 2*time.Minute {
		limit = 0.01
	}
	n := startNode(t, "h100x8", "--families=default,exporter-detail", "--sample.interval="+integralsInterval.String())
	n.command(t, "load gpu all bursts")
	n.eventually(t, "the integrals exist", func() bool {
		busy, count := sumOf(n.scrape(t), "gpu_busy_seconds_total")
		return count == 8 && busy > 0
	})
	before := n.readIntegrals(t)
	const every = 5 * time.Second
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	gauge, killed := 0.0, false // GPU seconds by the gauge
	for start := time.Now(); time.Since(start) < *integralsFor; {
		<-ticker.C
		if util, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_UTIL"); count == 8 {
			gauge += util / 100 * every.Seconds()
		}
		if !killed && time.Since(start) > *integralsFor/3 {
			killed = true
			n.killSampler(t)
		}
	}
	n.has(t, 1, "gpu_exporter_sampler_restarts_by_reason_total", `"killed"`)
	after := n.readIntegrals(t)
	duration := after.at - before.at
	bridged := (after.gap - before.gap) / 8 / duration
	// On a busy machine, bridged time is an estimate, and the truth is read later than the
	// sample. The load is up to 1/0.28 of its mean.
	lag := (max(0, before.lag-0.3) + max(0, after.lag-0.3)) / duration / 0.28
	t.Logf("%.1f %% of the time was bridged; late readings add a tolerance of %.1f %%", 100*bridged, 100*lag)
	limit += bridged
	if !strictDurations {
		limit += lag
	}
	for _, f := range integralFamilies {
		shown, truth := after.shown[f.name]-before.shown[f.name], after.truth[f.name]-before.truth[f.name]
		deviation := (shown - truth) / truth
		t.Logf("%s: %.6g, truth %.6g: %+.2f %%", f.name, shown, truth, 100*deviation)
		if math.Abs(deviation) > limit || math.IsNaN(deviation) {
			t.Errorf("%s deviates by %.2f %%, the limit is %.1f %%", f.name, 100*deviation, 100*limit)
		}
	}
	truth := after.truth["gpu_busy_seconds_total"] - before.truth["gpu_busy_seconds_total"]
	t.Logf("busy seconds from DCGM_FI_DEV_GPU_UTIL every %v: %.6g, truth %.6g: %+.2f %%", every, gauge, truth, 100*(gauge-truth)/truth)
}
