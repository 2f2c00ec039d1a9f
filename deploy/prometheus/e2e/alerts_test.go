// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gpu_exporter/deploy/prometheus/rules"
	"gpu_exporter/podmapper/kubelettest"
)

var (
	enabled = flag.Bool("e2e", false, "run the tests with Prometheus and Alertmanager, which take minutes")
	factor  = flag.Int("factor", 15, "divisor of the durations of the rules; those of a day or more are divided by 24 times as much")
)

// wanted is an alert that a case must cause.
type wanted struct {
	alert  string
	labels map[string]string // in addition to those of the node, severity and group
	// summary is a regular expression, and action is a part of the description.
	summary, action string
	// inhibited: a different alert of the case suppresses it.
	inhibited bool
}

// faultCase is a fault of one node, which has a cluster of its own.
type faultCase struct {
	name string
	// node is statements of the scenario; the default is two GPUs. A seed and a steady load
	// are added.
	node string
	args []string
	// target is additional labels of the scrape target.
	target map[string]string
	// inject causes the fault, and end ends it. Without end, the alert resolves by itself.
	inject, end func(*testing.T, *env)
	want        []wanted
	// may is an alert that the fault can cause only here, where the exporter's own waits are not
	// divided.
	may string
}

// env is what a case can change.
type env struct {
	*node
	m         *monitoring
	kubelet   *kubelettest.Kubelet
	kernelLog string
	config    string // configuration file
	cluster   string
	labels    map[string]string // of the scrape target
	other     *node             // a second node of the cluster
	release   func()            // ends the trace of the sampler
}

// commands returns a function that runs commands of the stand-in.
func commands(lines ...string) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		t.Helper()
		e.Command(t, lines...)
	}
}

// xid causes an XID on GPU 0 and waits until Prometheus has its time. Prometheus counts XIDs
// between two scrapes once.
func (e *env) xid(t *testing.T, xid string) {
	t.Helper()
	last := fmt.Sprintf(`gpu_xid_code_last_timestamp_seconds{cluster=%q, gpu="0", xid=%q}`, e.cluster, xid)
	before := e.m.value(t, last)
	e.Command(t, "xid "+xid+" gpu 0")
	eventually(t, "the XID is scraped", func() bool { return e.m.value(t, last) > before })
}

// xidWithHealth causes an XID that fails DCGM's health check, and again when the check fails,
// because the time between the two is not divided.
func (e *env) xidWithHealth(t *testing.T, xid string) {
	t.Helper()
	e.xid(t, xid)
	e.m.eventually(t, fmt.Sprintf(`ALERTS{alertname="GPUHealthCheckFailed", cluster=%q}`, e.cluster))
	e.xid(t, xid)
}

// restart restarts the exporter, after a change. The node is scraped again when the exporter has
// samples: the start takes seconds, which a fast copy of a rule may count as a fault.
func (e *env) restart(t *testing.T, change func()) {
	t.Helper()
	e.m.untarget(e.cluster)
	e.Stop(t)
	change()
	e.run(t, e.Address)
	e.Ready(t)
	e.m.target(t, e.cluster, e.Address, e.labels)
}

// replace restarts the exporter on new hardware: the scenario with a change.
func (e *env) replace(t *testing.T, before, after string) {
	t.Helper()
	scenario, err := os.ReadFile(e.Sim.Scenario)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(scenario), before) {
		t.Fatalf("the scenario has no %q:\n%s", before, scenario)
	}
	e.restart(t, func() {
		write(t, e.Sim.Scenario, strings.Replace(string(scenario), before, after, 1))
		if err := os.Remove(e.Sim.State); err != nil {
			t.Fatal(err)
		}
	})
}

// restartEngine returns a function that runs commands while the exporter is stopped, and with it
// DCGM's engine: health incidents of XIDs end only with the engine. It waits for a check without
// incidents.
func restartEngine(lines ...string) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		t.Helper()
		e.restart(t, func() { commands(lines...)(t, e) })
		e.m.eventually(t, fmt.Sprintf(`gpu_exporter_health_check_up{cluster=%[1]q} == 1 unless on (cluster) gpu_health_incident_info{cluster=%[1]q, severity="fail"}`, e.cluster))
	}
}

// TestAlerts: each fault of the stand-in causes the right alerts and no others, in Prometheus
// and in Alertmanager, and they end after the fault.
func TestAlerts(t *testing.T) {
	if !*enabled {
		t.Skip("takes minutes and needs Prometheus and Alertmanager: run make test-alerts")
	}
	m := startMonitoring(t)
	// Before the first target, no exporter exists.
	t.Run("no exporter", func(t *testing.T) {
		w := wanted{alert: "GPUExporterAbsent", summary: `^Prometheus has no metrics of any gpu_exporter\.$`}
		m.eventually(t, `ALERTS{alertname="GPUExporterAbsent", alertstate="firing"}`)
		m.check(t, w, map[string]string{}, nil)
	})
	t.Run("faults", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				m.run(t, c)
			})
		}
	})
	others := m.series(t, `group by (alertname) (count_over_time(ALERTS{alertstate="firing", cluster=""}[1h]))`)
	if slices.ContainsFunc(others, func(labels map[string]string) bool { return labels["alertname"] != "GPUExporterAbsent" }) {
		t.Errorf("alerts without a cluster: %v, want only GPUExporterAbsent", others)
	}
}

// run injects a fault and checks its alerts.
func (m *monitoring) run(t *testing.T, c faultCase) {
	began := time.Now()
	cluster := strings.ReplaceAll(c.name, " ", "-")
	hostname := "node-" + cluster
	dir := t.TempDir()
	e := &env{m: m, cluster: cluster, kernelLog: write(t, filepath.Join(dir, "kmsg"), ""), config: write(t, filepath.Join(dir, "config.yaml"), "{}\n")}
	socket := filepath.Join(dir, "kubelet.sock")
	e.kubelet = kubelettest.New(socket)
	if err := e.kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kubelet.Stop)
	gpus := c.node
	if gpus == "" {
		gpus = "gpu h100 count 2"
	}
	scenario := fmt.Sprintf("seed %d\n%s\nload gpu all steady\n", crc32.ChecksumIEEE([]byte(c.name)), gpus)
	args := append([]string{"--kubernetes.enabled", "--kubernetes.pod-resources-socket=" + socket, "--config.file=" + e.config,
		"--path.kmsg=" + e.kernelLog, "--xid.kernel-log=off", "--health.interval=1s"}, c.args...)
	e.node = startNode(t, hostname, scenario, args...)
	e.Ready(t) // the start takes seconds, which a fast copy of a rule may count as a fault
	e.kubelet.SetPods(kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", e.uuid(t, 0)))
	labels := map[string]string{"cluster": cluster, "instance": hostname + ":9400"}
	maps.Copy(labels, c.target)
	e.labels = labels
	m.target(t, cluster, e.Address, labels)
	// The rules look for changes, so the healthy node is scraped for some seconds. Links have a
	// quiet time after the start.
	m.eventually(t, fmt.Sprintf(`count_over_time(gpu_pod_info{cluster=%q, pod="train"}[1m]) > 5`, cluster))
	if alerts := m.alerts(t, cluster, true); len(alerts) > 0 && c.target == nil {
		t.Errorf("%v fired before the fault", alerts)
	}
	if c.inject != nil {
		c.inject(t, e)
	}
	injected := time.Now()
	names := map[string]bool{}
	for _, w := range c.want {
		names[w.alert] = true
		m.eventually(t, fmt.Sprintf(`count_over_time(ALERTS{alertstate="firing", alertname=%q, cluster=%q}[1h])`, w.alert, cluster))
	}
	fired := time.Since(injected)
	for _, w := range c.want {
		m.check(t, w, map[string]string{"cluster": cluster}, e)
	}
	if c.end != nil {
		c.end(t, e)
	}
	ended := time.Now()
	eventually(t, "the alerts of "+cluster+" end", func() bool {
		// Two evaluations, because a query may fail.
		return len(m.series(t, fmt.Sprintf(`up{cluster=%q}`, cluster))) > 0 && len(m.alerts(t, cluster, false)) == 0
	})
	for _, w := range c.want {
		if !w.inhibited {
			m.resolved(t, w, cluster)
		}
	}
	got, want := m.alerts(t, cluster, true), slices.Sorted(maps.Keys(names))
	if got = slices.DeleteFunc(got, func(alert string) bool { return alert == c.may }); !slices.Equal(got, want) {
		t.Errorf("fired: %v, want %v", got, want)
	}
	t.Logf("%v: fired %v after the fault, resolved %v after its end, %v in all",
		slices.Sorted(maps.Keys(names)), fired.Round(time.Second), time.Since(ended).Round(time.Second), time.Since(began).Round(time.Second))
}

// check waits until Alertmanager has sent an alert, or inhibits it, and checks its content.
func (m *monitoring) check(t *testing.T, w wanted, labels map[string]string, e *env) {
	rule, group := ruleOf(t, w.alert)
	labels = maps.Clone(labels)
	maps.Copy(labels, w.labels)
	labels["alertname"] = w.alert
	labels["severity"] = string(rule.Severity)
	labels["group"] = group
	var n *notified
	eventually(t, "Alertmanager has "+format(labels), func() bool {
		n = m.find(labels, w.inhibited, false)
		return n != nil
	})
	summary, description := n.Annotations["summary"], n.Annotations["description"]
	t.Logf("%s: %s %s", w.alert, summary, description)
	if !regexp.MustCompile(w.summary).MatchString(summary) {
		t.Errorf("%s: the summary is %q, want %q", w.alert, summary, w.summary)
	}
	if !strings.Contains(description, w.action) || description == "" {
		t.Errorf("%s: the description is %q, want %q", w.alert, description, w.action)
	}
	for _, text := range []string{summary, description} {
		if strings.Contains(text, "{{") || strings.Contains(text, "<error") || strings.Contains(text, "%!") || strings.Contains(text, "<no value>") {
			t.Errorf("%s: the text is %q", w.alert, text)
		}
	}
	if n.Annotations["runbook_url"] != rules.RunbookBase+w.alert+".md" {
		t.Errorf("%s: the runbook is %q", w.alert, n.Annotations["runbook_url"])
	}
	if _, err := os.Stat(filepath.Join("..", n.Annotations["runbook_url"])); err != nil {
		t.Errorf("%s: %v", w.alert, err)
	}
	if e == nil {
		return
	}
	// An alert with the label names the node, and one about a GPU the GPU and its pod.
	if hostname := n.Labels["hostname"]; hostname != "" && (hostname != e.hostname || !strings.Contains(summary, "node "+hostname)) && !strings.Contains(summary, "Node "+hostname) {
		t.Errorf("%s: hostname is %q, and the summary is %q", w.alert, hostname, summary)
	}
	if uuid := n.Labels["UUID"]; uuid != "" {
		if !strings.Contains(summary, "GPU "+n.Labels["gpu"]) || !strings.Contains(summary, uuid) {
			t.Errorf("%s: the summary does not name GPU %s %s: %q", w.alert, n.Labels["gpu"], uuid, summary)
		}
		if n.Labels["gpu"] == "0" && strings.Contains(rule.Summary, "held by") && !strings.HasSuffix(summary, "; held by ml/train.") {
			t.Errorf("%s: the summary does not name the pod: %q", w.alert, summary)
		}
	}
	if w.inhibited {
		return
	}
	receiver, by := route(rule, group)
	if n.Receiver != receiver {
		t.Errorf("%s was sent to %s, want %s", w.alert, n.Receiver, receiver)
	}
	for _, label := range by {
		if n.Group[label] != n.Labels[label] {
			t.Errorf("%s: the group %v has no %s %q", w.alert, n.Group, label, n.Labels[label])
		}
	}
	for label := range n.Group {
		if !slices.Contains(by, label) {
			t.Errorf("%s is grouped by %s, want only %v", w.alert, label, by)
		}
	}
}

// route returns the receiver of an alert and the labels of its groups in
// examples/alertmanager.yaml.
func route(rule *rules.Alert, group string) (receiver string, by []string) {
	switch {
	case rule.Severity == rules.Critical:
		return "oncall", []string{"cluster", "hostname", "severity"}
	case group == "waste":
		return "owners", []string{"cluster", "namespace"}
	case rule.Severity == rules.Info:
		return "platform", []string{"cluster", "alertname"}
	}
	return "platform", []string{"cluster", "hostname", "severity"}
}

// resolved waits for the notification that an alert has ended.
func (m *monitoring) resolved(t *testing.T, w wanted, cluster string) {
	t.Helper()
	labels := maps.Clone(w.labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels["alertname"], labels["cluster"] = w.alert, cluster
	eventually(t, "Alertmanager has sent the end of "+format(labels), func() bool { return m.find(labels, false, true) != nil })
}

// ruleOf returns an alert by its name, and its label group.
func ruleOf(t *testing.T, name string) (*rules.Alert, string) {
	t.Helper()
	for _, g := range rules.AlertGroups() {
		for _, a := range g.Alerts {
			if a.Name == name {
				return a, a.Labels["group"]
			}
		}
	}
	t.Fatalf("no alert %s", name)
	return nil, ""
}

// notTriggered is the alerts without a case, with the reason. The tests of promtool in ../tests
// cover them.
var notTriggered = map[string]string{
	"GPUNamespaceInefficient": "counts evaluations of recording rules over a day",
}

// TestEveryAlertHasACase: a case waits until the alert is sent, or it is in notTriggered.
func TestEveryAlertHasACase(t *testing.T) {
	sent := map[string]bool{"GPUExporterAbsent": true} // in TestAlerts itself
	for _, c := range cases {
		for _, w := range c.want {
			ruleOf(t, w.alert)
			sent[w.alert] = sent[w.alert] || !w.inhibited
		}
	}
	for _, g := range rules.AlertGroups() {
		for _, a := range g.Alerts {
			reason := notTriggered[a.Name]
			if sent[a.Name] == (reason != "") {
				t.Errorf("%s: a case has it sent: %v, reason for none: %q", a, sent[a.Name], reason)
			}
		}
	}
	t.Logf("alerts without a case: %v", notTriggered)
}
