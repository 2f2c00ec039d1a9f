// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
	"gpu_exporter/deploy/prometheus/rules"
)

// scaling is the configurations of SCALING.md, and their regular expressions.
type scaling struct {
	shard, agent string
	forwarded    *regexp.Regexp // names that the servers with rules forward
	dropped      *regexp.Regexp // names that the agent drops
}

func readScaling(t *testing.T) scaling {
	t.Helper()
	page, err := os.ReadFile("../SCALING.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 2 {
		t.Fatalf("SCALING.md has %d configurations, want one of a server and one of an agent", len(blocks))
	}
	type relabelling []struct{ Regex, Action string }
	var server struct {
		Write []struct {
			Relabel relabelling `yaml:"write_relabel_configs"`
		} `yaml:"remote_write"`
	}
	var agent struct {
		Scrape []struct {
			Relabel relabelling `yaml:"metric_relabel_configs"`
		} `yaml:"scrape_configs"`
	}
	s := scaling{shard: blocks[0][1], agent: blocks[1][1]}
	for text, into := range map[string]any{s.shard: &server, s.agent: &agent} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if len(server.Write) != 1 || len(server.Write[0].Relabel) != 1 || len(agent.Scrape) != 1 || len(agent.Scrape[0].Relabel) != 1 {
		t.Fatal("SCALING.md does not have one rule about what is forwarded and one about what is dropped")
	}
	s.forwarded = regexp.MustCompile("^(?:" + server.Write[0].Relabel[0].Regex + ")$")
	s.dropped = regexp.MustCompile("^(?:" + agent.Scrape[0].Relabel[0].Regex + ")$")
	return s
}

// TestScalingNames: the servers forward each record but those of GPUs, which are many. No rule and
// no dashboard uses what the agent drops.
func TestScalingNames(t *testing.T) {
	s := readScaling(t)
	used := func(where, expr string) {
		uses, err := rules.Examine(expr)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		for _, f := range uses.Families {
			if s.dropped.MatchString(f.Name) {
				t.Errorf("%s uses %s, which SCALING.md drops", where, f.Name)
			}
		}
	}
	for _, g := range rules.RecordGroups() {
		for _, r := range g.Records {
			used(r.Name, r.Expr)
			if want := !strings.HasPrefix(r.Name, "gpu:") || r.Name == "gpu:state:code"; s.forwarded.MatchString(r.Name) != want {
				t.Errorf("%s: forwarded: %t, want %t", r, !want, want)
			}
		}
	}
	for _, g := range rules.AlertGroups() {
		for _, a := range g.Alerts {
			used(a.Name, a.Expr)
		}
	}
	dashboards, err := filepath.Glob("../../../grafana/dashboards/*.json")
	if err != nil || len(dashboards) == 0 {
		t.Fatalf("%d dashboards: %v", len(dashboards), err)
	}
	for _, path := range dashboards {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`[A-Za-z_:][A-Za-z0-9_:]*`).FindAllString(string(content), -1) {
			if s.dropped.MatchString(name) {
				t.Errorf("%s uses %s, which SCALING.md drops", filepath.Base(path), name)
			}
		}
	}
}

// TestScaling runs the configurations of SCALING.md with a Prometheus as the storage: three servers
// with rules, and an agent. What they forward arrives, and the rest does not.
func TestScaling(t *testing.T) {
	t.Parallel()
	s := readScaling(t)
	dir := t.TempDir()
	m := &monitoring{prometheus: exportertest.Start(t, nil, exportertest.Built(t, "tools", "prometheus"), "--config.file="+write(t, filepath.Join(dir, "storage.yaml"), "{}\n"),
		"--storage.tsdb.path="+filepath.Join(dir, "storage"), "--web.listen-address=127.0.0.1:0", "--web.enable-remote-write-receiver")}
	n := startNode(t, "node-1", "gpu h100 count 2\nload gpu all steady\nat 1s lose gpu 1\n")
	n.Ready(t)
	ruleFiles := filepath.Join(dir, "rules")
	if err := os.Mkdir(ruleFiles, 0o700); err != nil {
		t.Fatal(err)
	}
	interval := regexp.MustCompile(`(?m)^( +interval): \w+$`)
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		content, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(ruleFiles, name), interval.ReplaceAllString(string(content), "$1: 1s"))
	}
	here := strings.NewReplacer(
		"/etc/prometheus/gpu-rules", ruleFiles,
		"/etc/prometheus/gpu-nodes/*.json", write(t, filepath.Join(dir, "node.json"), fmt.Sprintf(`[{"targets": [%q]}]`, n.Address)),
		"http://mimir.example/api/v1/push", "http://"+m.prometheus.Address+"/api/v1/write",
		"scrape_interval: 30s", "scrape_interval: 1s",
	)
	run := func(name, config string, args ...string) {
		file := write(t, filepath.Join(dir, name+".yaml"), here.Replace(config))
		exportertest.Start(t, nil, exportertest.Built(t, "tools", "prometheus"), append(args, "--config.file="+file, "--web.listen-address=127.0.0.1:0")...)
	}
	for shard := range 3 {
		name := fmt.Sprintf("shard-%d", shard)
		run(name, strings.ReplaceAll(s.shard, `"0"`, fmt.Sprintf("%q", fmt.Sprint(shard))), "--storage.tsdb.path="+filepath.Join(dir, name))
	}
	run("agent", s.agent, "--agent", "--storage.agent.path="+filepath.Join(dir, "agent"))

	for _, query := range []string{
		`cluster:gpus:count{cluster="a"}`, `node:gpus:count{cluster="a"}`, `gpu:state:code{cluster="a"} == 2`, `ALERTS{cluster="a", alertname="GPUDown"}`,
		`gpu_up{cluster="b"} == 0`, `DCGM_FI_DEV_GPU_UTIL{cluster="b"}`, `process_start_time_seconds{cluster="b"}`,
	} {
		m.eventually(t, query)
	}
	forwarded, scraped := m.series(t, `{cluster="a"}`), m.series(t, `{cluster="b"}`)
	if len(forwarded) == 0 || len(scraped) == 0 {
		t.Fatalf("the storage has %d series of the servers and %d of the agent", len(forwarded), len(scraped))
	}
	for _, series := range forwarded {
		if name := series["__name__"]; !s.forwarded.MatchString(name) {
			t.Errorf("a server with rules forwarded %s", name)
		}
	}
	for _, series := range scraped {
		if name := series["__name__"]; s.dropped.MatchString(name) {
			t.Errorf("the agent forwarded %s", name)
		}
	}
	if shards := m.series(t, `group by (shard) (node:gpus:count{cluster="a"})`); len(shards) != 1 {
		t.Errorf("the servers %v have the node, want one", shards)
	}
	// Each part of the regular expression drops something of the page.
	resp, err := http.Get("http://" + n.Address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	dropped := 0
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(string(page), -1) {
		if s.dropped.MatchString(m[1]) {
			dropped++
		}
	}
	if dropped < 10 {
		t.Errorf("the agent drops only %d families of the page", dropped)
	}
}
