// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a configuration file asks of a field between samples is served.
func TestStatisticsOfAField(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gpu_exporter.yaml")
	const text = `
fields:
  - {field: DCGM_FI_DEV_POWER_USAGE, name: board_power, type: gauge, help: Power., resolution: 100ms, statistics: true, histogram: true}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, "h100x8", "--collect-interval=1s", "--config.file="+file)
	n.command(t, "load gpu all bursts")
	n.eventually(t, "a burst lies between the lowest and the highest value", func() bool {
		body := n.scrape(t)
		low, lows := sumOf(body, "board_power_min", `gpu="0"`)
		mean, means := sumOf(body, "board_power_mean", `gpu="0"`)
		high, highs := sumOf(body, "board_power_max", `gpu="0"`)
		return lows == 1 && means == 1 && highs == 1 && high > 2*low && low < mean && mean < high
	})
	n.eventually(t, "a second has more values than one", func() bool {
		body := n.scrape(t)
		before, _ := sumOf(body, "board_power_histogram_count", `gpu="0"`)
		return before > 10
	})
	before, _ := sumOf(n.scrape(t), "board_power_histogram_count", `gpu="0"`)
	kill(t, n)
	n.eventually(t, "the histogram goes on with another sampler", func() bool {
		body := n.scrape(t)
		after, _ := sumOf(body, "board_power_histogram_count", `gpu="0"`)
		restarts, _ := sumOf(body, "gpu_exporter_sampler_restarts_total")
		return restarts > 0 && after > before
	})
}

// A real Prometheus that scrapes native histograms can ask for quantiles of what
// was seen between samples.
func TestNativeHistogramsInPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; go test without -short, or make test, runs it")
	}
	t.Parallel()
	n := startNode(t, "h100x8", "--collect-interval=1s", "--sample.resolution=100ms", "--sample.histograms")
	n.command(t, "load gpu all bursts")

	api := startPrometheus(t, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true}
scrape_configs:
  - job_name: gpu
    static_configs: [{targets: [%q]}]
`, n.address))
	sleepUntil(t, time.Now().Add(25*time.Second))

	// Power is near its lowest for 70 % of the time, and near its highest for 28 %.
	const family = `DCGM_FI_DEV_POWER_USAGE_histogram{gpu="0"}`
	api.expect(`count(up == 1)`, 1)
	api.between(`histogram_count(rate(`+family+`[20s]))`, 5, 11)
	low, high := api.value(`histogram_quantile(0.5, rate(`+family+`[20s]))`), api.value(`histogram_quantile(0.95, rate(`+family+`[20s]))`)
	if low < 50 || low > 200 || high < 400 {
		t.Errorf("half of the time power is below %.0f W, for 95 %% below %.0f W", low, high)
	}
	api.between(`histogram_fraction(300, 1000, rate(`+family+`[20s]))`, 0.2, 0.4)
	api.expect(`count(DCGM_FI_DEV_GPU_UTIL_histogram)`, 8)
	api.expect(`count(DCGM_FI_DEV_GPU_TEMP_histogram)`, 8)
	api.expect(`count(DCGM_FI_PROF_GR_ENGINE_ACTIVE_histogram)`, 8)
	api.expectNoComplaint()
}
