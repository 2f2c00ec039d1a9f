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
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A real Prometheus scrapes two simulated nodes for a minute, while an XID hits
// one GPU and another is lost.
func TestRealPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; go test without -short, or make test, runs it")
	}
	whole := startNode(t, "h100x8", "--collect-interval=1s")
	mig := startNode(t, "h100x8-mig", "--collect-interval=1s")

	api := startPrometheus(t, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: gpu
    static_configs:
      - {targets: [%q], labels: {node: whole}}
      - {targets: [%q], labels: {node: mig}}
`, whole.address, mig.address))
	start := time.Now()

	sleepUntil(t, start.Add(20*time.Second))
	whole.command(t, "xid 79 gpu 3")
	sleepUntil(t, start.Add(30*time.Second))
	whole.command(t, "lose gpu 5")
	sleepUntil(t, start.Add(60*time.Second))

	t.Run("both targets are up and healthy", func(t *testing.T) {
		for _, target := range api.targets() {
			if target.Health != "up" || target.LastError != "" {
				t.Errorf("%s: %s %s", target.ScrapeURL, target.Health, target.LastError)
			}
		}
		api.expect(`count(up == 1)`, 2)
	})
	t.Run("no scrape failed", func(t *testing.T) {
		api.expect(`sum(count_over_time(up[50s])) - sum(sum_over_time(up[50s]))`, 0)
		api.between(`min(count_over_time(up[50s]))`, 48, 51)
	})
	t.Run("no series were dropped or doubled", func(t *testing.T) {
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
	t.Run("sample counts are right", func(t *testing.T) {
		api.expect(`count(DCGM_FI_DEV_GPU_TEMP{node="whole"})`, 7)
		api.expect(`count(DCGM_FI_DEV_GPU_TEMP{node="whole"} offset 32s)`, 8)
		api.expect(`count(DCGM_FI_DEV_FB_USED{node="mig",GPU_I_ID!=""})`, float64(migInstances))
		api.expect(`count(count by (UUID, GPU_I_ID) (DCGM_FI_DEV_FB_USED{node="mig",GPU_I_ID!=""}))`, float64(migInstances))
		api.expect(`min(scrape_samples_post_metric_relabeling - scrape_samples_scraped)`, 0)
		api.between(`scrape_samples_scraped{node="whole"}`, 8*25, 2000)
	})
	t.Run("XID 79 raised the counter by one", func(t *testing.T) {
		api.expect(`max_over_time(gpu_xid_errors_total{node="whole",gpu="3",xid="79"}[55s]) - min_over_time(gpu_xid_errors_total{node="whole",gpu="3",xid="79"}[55s])`, 1)
		api.expect(`sum(gpu_xid_errors_total)`, 1)
		api.expect(`DCGM_FI_DEV_XID_ERRORS{node="whole",gpu="3"}`, 79)
	})
	t.Run("the lost GPU is down and the rest flows", func(t *testing.T) {
		api.expect(`gpu_up{node="whole",gpu="5"}`, 0)
		api.expect(`gpu_up{node="whole",gpu="5"} offset 32s`, 1)
		api.expect(`sum(gpu_up{node="whole"})`, 7)
		api.expect(`count(gpu_up{node="whole",UUID!="",modelName="NVIDIA H100 80GB HBM3"})`, 8)
		api.expect(`min(changes(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{node="whole",gpu!="5"}[20s])) >= bool 15`, 1)
	})
	t.Run("the protocol is the best both speak", func(t *testing.T) {
		api.expect(`gpu_exporter_sampler_up{node="whole"}`, 1)
		if body := api.metadata("gpu_xid_errors"); body != "counter" {
			t.Errorf("gpu_xid_errors is a %q: OpenMetrics was not negotiated", body)
		}
	})
	api.expectNoComplaint()
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

// migInstances is the number of GPU instances of scenario h100x8-mig.
const migInstances = 17

func sleepUntil(t *testing.T, at time.Time) {
	t.Helper()
	select {
	case <-t.Context().Done():
		t.Fatal("cut short")
	case <-time.After(time.Until(at)):
	}
}

// startPrometheus starts a Prometheus server, waits until it is ready, and stops it
// with the test.
func startPrometheus(t *testing.T, config string) promAPI {
	t.Helper()
	dir := t.TempDir()
	configFile := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	cmd := exec.Command(tool(t, "prometheus"), "--config.file="+configFile, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	api := promAPI{t: t, base: "http://" + listening(t, log), log: log}
	api.waitReady()
	return api
}

// promAPI asks a Prometheus server.
type promAPI struct {
	t    *testing.T
	base string
	log  *lockedBuffer
}

func (p promAPI) expectNoComplaint() {
	p.t.Helper()
	if s := p.log.String(); strings.Contains(s, "level=WARN") || strings.Contains(s, "level=ERROR") {
		p.t.Errorf("Prometheus complains:\n%s", s)
	}
}

func (p promAPI) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
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

func (p promAPI) waitReady() {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := p.get("/-/ready", nil)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatal(err)
		}
	}
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

// value evaluates a query that gives one number.
func (p promAPI) value(query string) float64 {
	p.t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := p.get("/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		p.t.Fatal(err)
	}
	if n := len(answer.Data.Result); n != 1 {
		p.t.Errorf("%s: %d results, want one", query, n)
		return -1
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
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
