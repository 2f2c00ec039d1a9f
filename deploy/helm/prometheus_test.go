// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestMonitors: owners of GPUs remain, and a scrape works with TLS and authentication.
func TestMonitors(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for kind, test := range map[string]struct{ value, endpoints string }{
			"ServiceMonitor": {"serviceMonitor", "endpoints"},
			"PodMonitor":     {"podMonitor", "podMetricsEndpoints"},
		} {
			monitor := func(values, more string) (spec, endpoint any) {
				spec = at(of(t, render(t, helm, test.value+": {enabled: true, "+values+"}\n"+more), kind), "spec")
				return spec, at(spec, test.endpoints, 0)
			}
			spec, endpoint := monitor("limits: {sampleLimit: 5}, spec: {jobLabel: x}, relabelings: [{targetLabel: a, replacement: b}]", "")
			if at(spec, "sampleLimit") != 5 || at(spec, "jobLabel") != "x" {
				t.Errorf("%s: %v", kind, spec)
			}
			if at(endpoint, "honorLabels") != true || at(endpoint, "scheme") != nil || at(endpoint, "tlsConfig") != nil {
				t.Errorf("%s: %v", kind, endpoint)
			}
			want := []any{
				object{"sourceLabels": []any{"__meta_kubernetes_pod_node_name"}, "targetLabel": "instance"},
				object{"targetLabel": "a", "replacement": "b"},
				object{"regex": "pod|namespace|container", "action": "labeldrop"},
			}
			if got := at(endpoint, "relabelings"); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: relabellings %v, want %v", kind, got, want)
			}
			const tls = "tlsServerConfig: {enabled: true, existingSecret: tls}"
			_, endpoint = monitor("", tls)
			if at(endpoint, "scheme") != "https" || at(endpoint, "tlsConfig", "ca", "secret", "name") != "tls" || at(endpoint, "tlsConfig", "serverName") != "gpu-gpu-exporter.monitoring.svc" {
				t.Errorf("%s with TLS: %v", kind, endpoint)
			}
			_, endpoint = monitor("endpoint: {tlsConfig: {insecureSkipVerify: true}}", tls)
			if got := at(endpoint, "tlsConfig"); !reflect.DeepEqual(got, object{"insecureSkipVerify": true}) {
				t.Errorf("%s with a TLS configuration: %v", kind, got)
			}
			_, endpoint = monitor("endpoint: {basicAuth: {username: {name: x, key: u}, password: {name: x, key: p}}}", "basicAuth: {users: {a: $2y$10$x}}")
			if at(endpoint, "basicAuth", "password", "key") != "p" {
				t.Errorf("%s with a password: %v", kind, endpoint)
			}
		}
	})
}

// TestAlongside: while dcgm-exporter runs too, Prometheus drops the names that both have.
func TestAlongside(t *testing.T) {
	values, err := os.ReadFile(chart + "/values-alongside-dcgm-exporter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	helmed(t, func(t *testing.T, helm string) {
		for kind, enable := range map[string]string{"ServiceMonitor": "serviceMonitor.enabled", "PodMonitor": "podMonitor.enabled"} {
			spec := at(of(t, render(t, helm, string(values), "--set", enable+"=true"), kind), "spec")
			endpoints, _ := at(spec, "endpoints").([]any)
			if endpoints == nil {
				endpoints, _ = at(spec, "podMetricsEndpoints").([]any)
			}
			want := []any{object{"sourceLabels": []any{"__name__"}, "regex": "DCGM_.*", "action": "drop"}}
			if got := at(endpoints[0], "metricRelabelings"); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v, want %v", kind, got, want)
			}
		}
	})
}

// rulesOf returns the alerts by name.
func rulesOf(t *testing.T, helm, values string) map[string]object {
	t.Helper()
	byName := map[string]object{}
	groups, _ := at(of(t, render(t, helm, "prometheusRule: {enabled: true, "+values+"}"), "PrometheusRule"), "spec", "groups").([]any)
	for _, g := range groups {
		for _, r := range at(g, "rules").([]any) {
			if name, ok := at(r, "alert").(string); ok {
				byName[name] = r.(object)
			}
		}
	}
	return byName
}

// TestRules: the rules can be changed one by one, and all thresholds.
func TestRules(t *testing.T) {
	text, err := os.ReadFile(chart + "/rules/thresholds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var thresholds map[string]string
	if err := yaml.Unmarshal(text, &thresholds); err != nil {
		t.Fatal(err)
	}
	helmed(t, func(t *testing.T, helm string) {
		before := rulesOf(t, helm, "")
		after := rulesOf(t, helm, "runbookBase: https://example.com/r/, rules: {GPUDown: {enabled: false}, GPUHeldIdle: {for: 3h, severity: warning, threshold: 0.25}}")
		if before["GPUDown"] == nil || after["GPUDown"] != nil || len(after) != len(before)-1 {
			t.Errorf("%d alerts before and %d after GPUDown was disabled", len(before), len(after))
		}
		idle := after["GPUHeldIdle"]
		if idle["for"] != "3h" || at(idle, "labels", "severity") != "warning" || at(idle, "labels", "group") != "waste" {
			t.Errorf("GPUHeldIdle is %v", idle)
		}
		if url := at(idle, "annotations", "runbook_url"); url != "https://example.com/r/GPUHeldIdle.md" {
			t.Errorf("runbook at %v", url)
		}
		var changes []string
		for name := range thresholds {
			changes = append(changes, name+": {threshold: 0.125}")
		}
		changed := rulesOf(t, helm, "rules: {"+strings.Join(changes, ", ")+"}")
		for name, threshold := range thresholds {
			operator, number, _ := strings.Cut(threshold, " ")
			old := regexp.MustCompile(`(` + operator + `\s+)` + regexp.QuoteMeta(number) + `([^0-9.]|$)`)
			expr, _ := before[name]["expr"].(string)
			want := old.ReplaceAllString(expr, "${1}0.125${2}")
			if got := changed[name]["expr"]; want == expr || got != want {
				t.Errorf("%s with a threshold of 0.125 is\n%v\nwant\n%v", name, got, want)
			}
		}
	})
}

// TestDashboards: each ConfigMap has the dashboard as it is.
func TestDashboards(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for names, dir := range map[string]string{"default": "dashboards", "dcgm-4.9": "dashboards-dcgm-4.9"} {
			count := 0
			for _, o := range render(t, helm, "dashboards: {enabled: true, namespace: grafana, names: "+names+"}") {
				if o["kind"] != "ConfigMap" {
					continue
				}
				count++
				if at(o, "metadata", "namespace") != "grafana" || at(o, "metadata", "labels", "grafana_dashboard") != "1" {
					t.Errorf("metadata %v", o["metadata"])
				}
				for name, got := range o["data"].(object) {
					want, err := os.ReadFile(filepath.Join(chart, dir, strings.TrimPrefix(name, "gpu-")))
					if err != nil || got != string(want) {
						t.Errorf("%s differs from the file (%v)", name, err)
					}
				}
			}
			if files, _ := filepath.Glob(filepath.Join(chart, dir, "*.json")); count == 0 || count != len(files) {
				t.Errorf("%d ConfigMaps of %d dashboards", count, len(files))
			}
		}
	})
}
