// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
	"gpu_exporter/collector/dcgmsim"
)

// patience is how long a test waits for a condition. On a busy machine, gaps between scrapes start
// the wait of an alert again.
const patience = 20 * time.Minute

func eventually(t *testing.T, condition string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", condition)
		}
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fetch decodes a JSON answer.
func fetch(ctx context.Context, address string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
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
		return fmt.Errorf("%s: %s: %s", address, resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

// notified is an alert that a receiver got, or that Alertmanager has.
type notified struct {
	Labels, Annotations map[string]string
	Receiver            string            // of a notification
	Group               map[string]string // the labels of its group
	Resolved            bool
}

// monitoring is Prometheus, Alertmanager, and what they sent.
type monitoring struct {
	prometheus, alertmanager *exportertest.Server
	targets                  string // directory of target files

	mu        sync.Mutex
	received  []notified
	inhibited []notified
}

// startMonitoring starts both servers without targets.
func startMonitoring(t *testing.T) *monitoring {
	t.Helper()
	dir := t.TempDir()
	m := &monitoring{targets: filepath.Join(dir, "targets")}
	if err := os.Mkdir(m.targets, 0o700); err != nil {
		t.Fatal(err)
	}
	webhook := httptest.NewServer(http.HandlerFunc(m.receive))
	t.Cleanup(webhook.Close)
	m.alertmanager = exportertest.Start(t, nil, exportertest.Built(t, "tools", "alertmanager"), "--cluster.listen-address=", "--web.listen-address=127.0.0.1:0",
		"--storage.path="+filepath.Join(dir, "alertmanager"),
		"--config.file="+write(t, filepath.Join(dir, "alertmanager.yaml"), fastAlertmanager(t, webhook.URL, *factor)))
	rules, err := yaml.Marshal(fastRules(t, *factor))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: {scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 1s} # a busy machine needs 1 s for a scrape
rule_files: [%q]
alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}
scrape_configs:
  - job_name: gpu_exporter
    honor_labels: true # as in examples/prometheus.yaml
    file_sd_configs: [{files: [%q], refresh_interval: 1s}]
`, write(t, filepath.Join(dir, "alerts.yaml"), string(rules)), m.alertmanager.Address, filepath.Join(m.targets, "*.json"))
	// The look-back is longer than 5 min divided by the factor, because a busy machine scrapes late.
	m.prometheus = exportertest.Start(t, nil, exportertest.Built(t, "tools", "prometheus"), "--config.file="+write(t, filepath.Join(dir, "prometheus.yaml"), config),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0", "--query.lookback-delta=15s",
		"--rules.alert.resend-delay=5s", "--scrape.discovery-reload-interval=1s")
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.watch(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-watched
	})
	return m
}

// receive serves the webhook.
func (m *monitoring) receive(w http.ResponseWriter, r *http.Request) {
	var n struct {
		Receiver    string
		GroupLabels map[string]string
		Alerts      []struct {
			Status              string
			Labels, Annotations map[string]string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range n.Alerts {
		m.received = append(m.received, notified{a.Labels, a.Annotations, n.Receiver, n.GroupLabels, a.Status == "resolved"})
	}
}

// watch collects the alerts that Alertmanager inhibits.
func (m *monitoring) watch(ctx context.Context) {
	for ctx.Err() == nil {
		var alerts []struct {
			Labels, Annotations map[string]string
			Status              struct{ InhibitedBy []string }
		}
		if fetch(ctx, "http://"+m.alertmanager.Address+"/api/v2/alerts", &alerts) == nil {
			m.mu.Lock()
			for _, a := range alerts {
				if len(a.Status.InhibitedBy) > 0 {
					m.inhibited = append(m.inhibited, notified{Labels: a.Labels, Annotations: a.Annotations})
				}
			}
			m.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// find returns the first notification, or inhibited alert, with the labels.
func (m *monitoring) find(labels map[string]string, inhibited, resolved bool) *notified {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.received
	if inhibited {
		all = m.inhibited
	}
	for _, n := range all {
		if n.Resolved == resolved && has(n.Labels, labels) {
			return &n
		}
	}
	return nil
}

func has(labels, want map[string]string) bool {
	for name, value := range want {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// target lets Prometheus scrape an address under the labels, until the test ends.
func (m *monitoring) target(t *testing.T, name, address string, labels map[string]string) {
	t.Helper()
	content, err := json.Marshal([]any{map[string]any{"targets": []string{address}, "labels": labels}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.targets, name+".json")
	t.Cleanup(func() { m.untarget(name) })
	// Prometheus must not read half a file.
	if err := os.Rename(write(t, path+".new", string(content)), path); err != nil {
		t.Fatal(err)
	}
}

// untarget ends the scrapes of a target.
func (m *monitoring) untarget(name string) { _ = os.Remove(filepath.Join(m.targets, name+".json")) }

// series returns the label sets of the result of a query.
func (m *monitoring) series(t *testing.T, query string) []map[string]string {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if err := fetch(t.Context(), "http://"+m.prometheus.Address+"/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
		t.Logf("query: %v", err)
		return nil
	}
	var all []map[string]string
	for _, r := range answer.Data.Result {
		all = append(all, r.Metric)
	}
	return all
}

// eventually waits until a query has a result.
func (m *monitoring) eventually(t *testing.T, query string) {
	t.Helper()
	eventually(t, query, func() bool { return len(m.series(t, query)) > 0 })
}

// value returns the value of the first series of a query, or 0 without one.
func (m *monitoring) value(t *testing.T, query string) float64 {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := fetch(t.Context(), "http://"+m.prometheus.Address+"/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil || len(answer.Data.Result) == 0 {
		return 0
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	v, _ := strconv.ParseFloat(text, 64)
	return v
}

// alerts returns the names of alerts that fire in a cluster, or that have fired there.
func (m *monitoring) alerts(t *testing.T, cluster string, ever bool) []string {
	t.Helper()
	query := fmt.Sprintf(`ALERTS{alertstate="firing", cluster=%q}`, cluster)
	if ever {
		query = "count_over_time(" + query + "[1h])"
	}
	var names []string
	for _, labels := range m.series(t, "group by (alertname) ("+query+")") {
		names = append(names, labels["alertname"])
	}
	slices.Sort(names)
	return names
}

// node is an exporter on a simulated node whose libraries can disappear.
type node struct {
	*exportertest.Node
	hostname string
}

// startNode starts an exporter on a simulated node, which has a directory of libraries of its
// own.
func startNode(t *testing.T, hostname, scenario string, args ...string) *node {
	t.Helper()
	dir := t.TempDir()
	libraries := filepath.Join(dir, "lib")
	if err := os.Mkdir(libraries, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(exportertest.Built(t, "sim"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Symlink(file, filepath.Join(libraries, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{hostname: hostname, Node: &exportertest.Node{
		Sim:  dcgmsim.NewNode(libraries, dir, write(t, filepath.Join(dir, "scenario"), scenario)),
		Args: append([]string{"--hostname=" + hostname, "--sample.interval=1s"}, args...),
	}}
	n.run(t, "127.0.0.1:0")
	return n
}

func (n *node) run(t *testing.T, address string) {
	t.Helper()
	n.Server = exportertest.Start(t, n.Sim.Environ(), exportertest.Built(t, "gpu_exporter"), append([]string{"--web.listen-address=" + address}, n.Args...)...)
}

// uuid returns the UUID of a GPU.
func (n *node) uuid(t *testing.T, gpu int) string {
	t.Helper()
	truth, err := n.Sim.Truth(t.Context(), gpu)
	if err != nil {
		t.Fatal(err)
	}
	return truth.UUID
}

// format returns labels in the form of PromQL.
func format(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, " %s=%q", name, labels[name])
	}
	return "{" + strings.TrimSpace(b.String()) + "}"
}
