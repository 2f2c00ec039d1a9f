// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"encoding/csv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"gopkg.in/yaml.v3"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
)

func allAlerts() (all []*Alert) {
	for _, g := range AlertGroups() {
		all = append(all, g.Alerts...)
	}
	return all
}

// examined returns what an expression uses.
func examined(t *testing.T, expr string) Uses {
	t.Helper()
	uses, err := Examine(expr)
	if err != nil {
		t.Fatal(err)
	}
	return uses
}

// unsuitable are families on which no alert may depend: numbers of states, whose order means
// nothing, and counts since the exporter or the driver started.
var unsuitable = []*definition.Family{
	&definition.GPURecoveryAction, &definition.GPUFabricState, &definition.GPUFabricHealth,
	&definition.GPUHealthStatus, &definition.GPUProfilingState, &definition.GPUXIDErrors, &definition.GPUXIDCodeErrors,
}

// TestAlertForm: each alert has a duration, a severity, a summary that names what it is about,
// and one sentence of remedy.
func TestAlertForm(t *testing.T) {
	seen := map[string]bool{}
	subject := regexp.MustCompile(`\$labels\.(hostname|component|job|namespace|cluster)`)
	for _, a := range allAlerts() {
		if seen[a.Name] {
			t.Errorf("%s exists twice", a)
		}
		seen[a.Name] = true
		if !strings.HasPrefix(a.Name, "GPU") {
			t.Errorf("%s does not begin with GPU, by which the example of Alertmanager matches", a)
		}
		if a.For <= 0 {
			t.Errorf("%s has no duration", a)
		}
		if !slices.Contains([]Severity{Critical, Warning, Info}, a.Severity) || a.Labels["group"] == "" {
			t.Errorf("%s has the severity %q and the group %q", a, a.Severity, a.Labels["group"])
		}
		if !subject.MatchString(a.Summary) && a.Name != "GPUExporterAbsent" {
			t.Errorf("%s does not name a node or another subject: %s", a, a.Summary)
		}
		for _, text := range []string{a.Summary, a.Action} {
			if !strings.HasSuffix(strings.TrimSuffix(text, "{{ end }}"), ".") {
				t.Errorf("%s: not a sentence: %s", a, text)
			}
		}
		for _, f := range examined(t, a.Expr).Families {
			if slices.Contains(unsuitable, f) {
				t.Errorf("%s uses %s, a number of a state or a count since a start", a, f)
			}
		}
		if strings.Contains(a.Expr, "or vector(0)") {
			t.Errorf("%s turns missing data into 0", a)
		}
	}
}

// foreignMetrics are the metrics that the exporter does not define.
var foreignMetrics = []string{targetUp, processStart, reloadSuccessful, podUnschedulable, podRequests}

// checkNames checks that the metrics and labels of an expression exist.
func checkNames(t *testing.T, where, expr string) {
	t.Helper()
	uses, err := Examine(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	// Labels of the target and of devices, those that exposition tests of collector/metrics check.
	known := []string{"cluster", "job", "instance", "hostname", "gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_ID", "GPU_I_PROFILE", "nvswitch", "cpu",
		"component", "version"} // the last two are those of GPUVersionDrift
	for _, f := range uses.Families {
		known = append(known, f.Labels...)
		if f == &definition.GPUPodInfo || f == &definition.GPUUp {
			known = append(known, "exported_pod", "pod") // of a wrong scrape configuration
		}
	}
	for _, r := range uses.Records {
		known = append(known, r.By...)
	}
	for _, name := range uses.Others {
		if !slices.Contains(foreignMetrics, name) {
			t.Errorf("%s: the metric %s does not exist", where, name)
		}
		if name == podRequests {
			known = append(known, "namespace", "pod", "container", "resource")
		}
	}
	for _, label := range uses.Labels {
		if !slices.Contains(known, label) {
			t.Errorf("%s: none of the metrics has the label %s: %s", where, label, expr)
		}
	}
}

func TestAlertNames(t *testing.T) {
	for _, a := range allAlerts() {
		checkNames(t, a.Name, a.Expr)
	}
}

// TestRemedies: the alerts give the remedy that the status page has, for each recovery action of
// the driver and each XID of the catalogue.
func TestRemedies(t *testing.T) {
	check := func(alert string, remedies definition.Remedies, labels map[string]string) {
		t.Helper()
		labels["UUID"] = "GPU-1"
		if got, want := renderedAction(t, alert, labels), remedies.Choose(labels).For("GPU-1")+"."; got != want {
			t.Errorf("%s %v: the remedy is %q, want %q", alert, labels, got, want)
		}
	}
	recovery := definition.RecoveryRemedies()
	other := recovery.Choose(nil)
	check("GPURecoveryActionRequested", recovery, map[string]string{"action": "other"})
	for _, action := range field.RecoveryActions() {
		labels := map[string]string{"action": action}
		check("GPURecoveryActionRequested", recovery, labels)
		if recovery.Choose(labels) == other {
			t.Errorf("the recovery action %s has no remedy of its own", action)
		}
	}
	catalogue := csv.NewReader(strings.NewReader(read(t, "../../../etc/xid-catalogue.csv")))
	catalogue.Comment = '#'
	rows, err := catalogue.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	xids := definition.XIDRemedies()
	other = xids.Choose(map[string]string{"action": "NEWER_THAN_THESE_RULES"})
	for _, row := range rows[1:] {
		labels := map[string]string{"xid": row[0], "action": row[3]}
		if xids.Choose(labels) == other {
			t.Errorf("XID %s: the action %s has no remedy", row[0], row[3])
		}
		switch {
		case row[0] == uncontainedXID:
			check("GPUMemoryErrorUncontained", xids, labels)
		case row[2] == "critical":
			check("GPUXIDCritical", xids, labels)
		case row[2] == "warning" && row[0] != "154":
			check("GPUXIDWarning", xids, labels)
		}
	}
}

// renderedAction returns the action of an alert for a series with the labels, as Prometheus
// renders it.
func renderedAction(t *testing.T, alert string, labels map[string]string) string {
	t.Helper()
	i := slices.IndexFunc(allAlerts(), func(a *Alert) bool { return a.Name == alert })
	parsed, err := template.New(alert).Option("missingkey=zero").Parse("{{ $labels := . }}" + allAlerts()[i].Action)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := parsed.Execute(&b, labels); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := filepath.Abs("../../../build/tools/promtool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make test, which installs it", err)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "../recording.yaml", "../alerts.yaml")
	for _, file := range testFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			promtool(t, "test", "rules", file)
		})
	}
}

func testFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../tests/alerts_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	return files
}

// TestAlertCases: the tests of promtool have a firing and a harmless case of each alert. The
// harmless case has series of the alert, so that it is not silent for lack of data.
func TestAlertCases(t *testing.T) {
	type file struct {
		Tests []struct {
			Name        string
			InputSeries []struct{ Series string } `yaml:"input_series"`
			Rules       []struct {
				Alertname string
				Alerts    []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, path := range testFiles(t) {
		var f file
		if err := yaml.Unmarshal([]byte(read(t, path)), &f); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, test := range f.Tests {
			for _, rule := range test.Rules {
				i := slices.IndexFunc(allAlerts(), func(a *Alert) bool { return a.Name == rule.Alertname })
				if i < 0 {
					t.Errorf("%s: %s: no such alert", path, test.Name)
					continue
				}
				if len(rule.Alerts) > 0 {
					fires[rule.Alertname] = true
					continue
				}
				silent[rule.Alertname] = true
				uses := examined(t, allAlerts()[i].Expr)
				names := uses.Others
				for _, family := range uses.Families {
					names = append(names, family.Name)
				}
				for _, record := range uses.Records {
					names = append(names, record.Name)
				}
				for _, s := range test.InputSeries {
					name, _, _ := strings.Cut(s.Series, "{")
					names = slices.DeleteFunc(names, func(n string) bool { return n == name })
				}
				if len(names) == len(uses.Others)+len(uses.Families)+len(uses.Records) {
					t.Errorf("%s: %s: no series of the alert", path, test.Name)
				}
			}
		}
	}
	for _, a := range allAlerts() {
		if !fires[a.Name] || !silent[a.Name] {
			t.Errorf("%s has a firing case: %t, and a harmless one: %t", a, fires[a.Name], silent[a.Name])
		}
	}
}

// TestAlertmanagerExample: the example names only alerts and labels that exist.
func TestAlertmanagerExample(t *testing.T) {
	var example struct {
		Inhibit []struct {
			Source []string `yaml:"source_matchers"`
			Target []string `yaml:"target_matchers"`
			Equal  []string
		} `yaml:"inhibit_rules"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "../examples/alertmanager.yaml")), &example); err != nil {
		t.Fatal(err)
	}
	if len(example.Inhibit) == 0 {
		t.Fatal("no inhibition")
	}
	matcher := regexp.MustCompile(`^alertname (!?=~?) "?([^"]+)"?$`)
	for _, rule := range example.Inhibit {
		for _, m := range append(rule.Source, rule.Target...) {
			parts := matcher.FindStringSubmatch(m)
			if parts == nil {
				t.Errorf("the matcher %q is not one of alertname", m)
				continue
			}
			for _, name := range strings.Split(parts[2], "|") {
				pattern := regexp.MustCompile("^" + name + "$")
				if name != "KubeNodeNotReady" && !slices.ContainsFunc(allAlerts(), func(a *Alert) bool { return pattern.MatchString(a.Name) }) {
					t.Errorf("no alert is named %s", name)
				}
			}
		}
		if !slices.Contains(rule.Equal, "hostname") {
			t.Errorf("the rule of %v does not compare nodes", rule.Source)
		}
	}
}
