// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

// TestRealPrometheus: a real Prometheus scrapes two simulated nodes, while an XID hits one
// GPU and another GPU is lost.
func TestRealPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for a minute: omit -short")
	}
	whole := startNode(t, "h100x8", "--families=full", "--sample.interval=1s")
	mig := startNode(t, "h100x8-mig", "--sample.interval=1s")
	// The interval is the longest possible scrape timeout.
	api := startPrometheus(t, fmt.Sprintf(`
global: {scrape_interval: 3s, scrape_timeout: 3s}
scrape_configs:
  - job_name: gpu
    static_configs:
      - {targets: [%q], labels: {node: whole}}
      - {targets: [%q], labels: {node: mig}}
`, whole.address, mig.address))
	scrapes := func(n float64) {
		t.Helper()
		have, _ := api.query(`min(count_over_time(up[1h]))`)
		api.eventually(`min(count_over_time(up[1h]))`, func(v float64) bool { return v >= have+n })
	}
	scrapes(5)
	api.expect(`count(DCGM_FI_DEV_GPU_TEMP{node="whole"})`, 8)
	api.expect(`sum(gpu_up{node="whole"})`, 8)
	whole.command(t, "xid 79 gpu 3")
	api.eventually(`gpu_xid_errors_total{node="whole",gpu="3",severity="critical"}`, func(v float64) bool { return v == 1 })
	whole.command(t, "lose gpu 5")
	api.eventually(`gpu_up{node="whole",gpu="5"}`, func(v float64) bool { return v == 0 })
	scrapes(10)

	t.Run("both targets are up and healthy", func(t *testing.T) {
		for _, target := range api.targets() {
			if target.Health != "up" || target.LastError != "" {
				t.Errorf("%s: %s %s", target.ScrapeURL, target.Health, target.LastError)
			}
		}
		api.expect(`count(up == 1)`, 2)
	})
	t.Run("no scrape failed", func(t *testing.T) {
		api.expect(`sum(count_over_time(up[1h])) - sum(sum_over_time(up[1h]))`, 0)
		if strictDurations {
			api.between(`min(count_over_time(up[30s]))`, 9, 11)
		}
	})
	t.Run("no series were dropped or duplicated", func(t *testing.T) {
		for _, name := range []string{
			"prometheus_target_scrapes_sample_duplicate_timestamp_total",
			"prometheus_target_scrapes_sample_out_of_order_total",
			"prometheus_target_scrapes_sample_out_of_bounds_total",
			"prometheus_target_scrapes_exceeded_sample_limit_total",
		} {
			if got := scrapeValue(t, api.base+"/metrics", name); got != 0 {
				t.Errorf("%s is %v", name, got)
			}
		}
	})
	t.Run("the numbers of series are right", func(t *testing.T) {
		api.expect(`count(DCGM_FI_DEV_GPU_TEMP{node="whole"})`, 7)
		api.expect(`count(DCGM_FI_DEV_FB_USED{node="mig",GPU_I_ID!=""})`, float64(migInstances))
		api.expect(`count(count by (UUID, GPU_I_ID) (DCGM_FI_DEV_FB_USED{node="mig",GPU_I_ID!=""}))`, float64(migInstances))
		api.expect(`min(scrape_samples_post_metric_relabeling - scrape_samples_scraped)`, 0)
		api.between(`scrape_samples_scraped{node="whole"}`, 8*25, 2000)
	})
	t.Run("XID 79 increased the counter by 1", func(t *testing.T) {
		api.expect(`max_over_time(gpu_xid_errors_total{node="whole",gpu="3",severity="critical"}[1h]) - min_over_time(gpu_xid_errors_total{node="whole",gpu="3",severity="critical"}[1h])`, 1)
		api.expect(`sum(gpu_xid_errors_total)`, 1)
		api.expect(`gpu_xid_code_errors_total{node="whole",gpu="3",xid="79",severity="critical"}`, 1)
		api.expect(`time() - gpu_xid_code_last_timestamp_seconds{node="whole",gpu="3",xid="79"} < bool 600`, 1)
		api.expect(`DCGM_FI_DEV_XID_ERRORS{node="whole",gpu="3"}`, 79)
	})
	t.Run("the lost GPU is down and the values of the others change", func(t *testing.T) {
		api.expect(`gpu_up{node="whole",gpu="5"}`, 0)
		api.expect(`max_over_time(gpu_up{node="whole",gpu="5"}[1h])`, 1)
		api.expect(`sum(gpu_up{node="whole"})`, 7)
		api.expect(`count(gpu_up{node="whole",UUID!="",modelName="NVIDIA H100 80GB HBM3"})`, 8)
		api.expect(`min(changes(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{node="whole",gpu!="5"}[1h])) >= bool 10`, 1)
	})
	t.Run("counters keep their type", func(t *testing.T) {
		api.expect(`gpu_exporter_sampler_up{node="whole"}`, 1)
		for _, counter := range []string{"gpu_xid_errors_total", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"} {
			if kind := api.metadata(counter); kind != "counter" {
				t.Errorf("%s has the type %q", counter, kind)
			}
		}
	})
	api.expectNoComplaint()
}

// TestNativeHistogramsInPrometheus: Prometheus computes quantiles of the values between
// samples from native histograms.
func TestNativeHistogramsInPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: omit -short")
	}
	t.Parallel()
	n := startNode(t, "h100x8", "--sample.interval=1s", "--sample.resolution=100ms", "--sample.histograms")
	n.command(t, "load gpu all bursts")
	api := startPrometheus(t, fmt.Sprintf(`
global: {scrape_interval: 2s, scrape_timeout: 2s, scrape_native_histograms: true}
scrape_configs:
  - job_name: gpu
    static_configs: [{targets: [%q]}]
`, n.address))
	// Power is near its minimum for 70 % of the time, and near its maximum for 28 %.
	const family = `DCGM_FI_DEV_POWER_USAGE_histogram{gpu="0"}`
	api.eventually(`histogram_count(increase(`+family+`[1h]))`, func(v float64) bool { return v > 200 })
	api.expect(`count(up == 1)`, 1)
	if strictDurations {
		api.between(`histogram_count(rate(`+family+`[20s]))`, 5, 11)
	}
	low, high := api.value(`histogram_quantile(0.5, rate(`+family+`[1h]))`), api.value(`histogram_quantile(0.95, rate(`+family+`[1h]))`)
	if low < 50 || low > 200 || high < 400 {
		t.Errorf("the median of the power is %.0f W, the 95th percentile %.0f W", low, high)
	}
	api.between(`histogram_fraction(300, 1000, rate(`+family+`[1h]))`, 0.2, 0.4)
	api.expect(`count(DCGM_FI_DEV_GPU_UTIL_histogram)`, 8)
	api.expect(`count(DCGM_FI_DEV_GPU_TEMP_histogram)`, 8)
	api.expect(`count(DCGM_FI_PROF_GR_ENGINE_ACTIVE_histogram)`, 8)
	api.expectNoComplaint()
}

// migInstances is the number of GPU instances of scenario h100x8-mig.
const migInstances = 17

// startPrometheus starts a Prometheus server and waits until it is ready. The server stops
// at the end of the test.
func startPrometheus(t *testing.T, config string) promAPI {
	t.Helper()
	dir := t.TempDir()
	configFile := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := exportertest.Start(t, nil, tool(t, "prometheus"), "--config.file="+configFile, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0")
	p.Ready(t)
	return promAPI{t: t, base: "http://" + p.Address, log: p.Log}
}

// promAPI queries a Prometheus server.
type promAPI struct {
	t    *testing.T
	base string
	log  *exportertest.Output
}

func (p promAPI) expectNoComplaint() {
	p.t.Helper()
	if s := p.log.String(); strings.Contains(s, "level=WARN") || strings.Contains(s, "level=ERROR") {
		p.t.Errorf("Prometheus logs warnings:\n%s", s)
	}
}

func (p promAPI) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

type promTarget struct{ ScrapeURL, Health, LastError string }

func (p promAPI) targets() []promTarget {
	p.t.Helper()
	var answer struct {
		Data struct{ ActiveTargets []promTarget }
	}
	if err := p.get("/api/v1/targets", &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer.Data.ActiveTargets
}

func (p promAPI) metadata(metric string) string {
	p.t.Helper()
	var answer struct {
		Data map[string][]struct{ Type string }
	}
	if err := p.get("/api/v1/metadata?metric="+metric, &answer); err != nil {
		p.t.Fatal(err)
	}
	if m := answer.Data[metric]; len(m) > 0 {
		return m[0].Type
	}
	return ""
}

// query evaluates a query. Its result must be one number.
func (p promAPI) query(query string) (float64, error) {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		return 0, err
	}
	if n := len(answer.Data.Result); n != 1 {
		return 0, fmt.Errorf("%s: %d results, want one", query, n)
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// value returns the result of a query.
func (p promAPI) value(query string) float64 {
	p.t.Helper()
	v, err := p.query(query)
	if err != nil {
		p.t.Error(err)
		return -1
	}
	return v
}

// eventually waits until the result of a query satisfies a condition.
func (p promAPI) eventually(query string, holds func(float64) bool) {
	p.t.Helper()
	eventually(p.t, query, func() bool {
		v, err := p.query(query)
		return err == nil && holds(v)
	})
}

func (p promAPI) expect(query string, want float64) {
	p.t.Helper()
	if got := p.value(query); got != want {
		p.t.Errorf("%s is %v, want %v", query, got, want)
	}
}

func (p promAPI) between(query string, low, high float64) {
	p.t.Helper()
	if got := p.value(query); got < low || got > high {
		p.t.Errorf("%s is %v, want %v to %v", query, got, low, high)
	}
}

// scrapeValue returns the sum of a family at a URL.
func scrapeValue(t *testing.T, url, family string) float64 {
	t.Helper()
	n := node{address: strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")}
	v, count := sumOf(n.scrape(t), family)
	if count == 0 {
		t.Errorf("%s has no %s", url, family)
	}
	return v
}
