// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var helms = flag.String("helm", "", "Helm programs to test the chart with, separated by commas")

const chart = "gpu-exporter"

// helmed runs a test with each Helm.
func helmed(t *testing.T, test func(t *testing.T, helm string)) {
	if *helms == "" {
		t.Skip("needs Helm: run make test-chart")
	}
	for helm := range strings.SplitSeq(*helms, ",") {
		t.Run(filepath.Base(helm), func(t *testing.T) { test(t, helm) })
	}
}

// run returns the output of Helm.
func run(t *testing.T, helm string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	if args[0] == "template" || args[0] == "lint" {
		args = append(args, "--kube-version", *kubernetes) // that of a Helm from go install is old
	}
	cmd := exec.CommandContext(t.Context(), helm, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	return out.String(), log.String(), err
}

// object is a Kubernetes object, a part of one, or a JSON schema.
type object = map[string]any

// at returns the part of an object below keys; a number selects an element of a list.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(object)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// template returns what the chart renders with values in YAML.
func template(t *testing.T, helm, values string, more ...string) string {
	t.Helper()
	return templateOf(t, helm, chart, "gpu", "monitoring", values, more...)
}

func templateOf(t *testing.T, helm, chart, release, namespace, values string, more ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	out, log, err := run(t, helm, append([]string{"template", release, chart, "-n", namespace, "-f", file}, more...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	return out
}

// render returns the objects of the chart with values in YAML.
func render(t *testing.T, helm, values string, more ...string) []object {
	t.Helper()
	return decode(t, template(t, helm, values, more...))
}

func decode(t *testing.T, text string) (objects []object) {
	t.Helper()
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if o != nil {
			objects = append(objects, o)
		}
	}
}

// of returns the only object of a kind, or nil.
func of(t *testing.T, objects []object, kind string) object {
	t.Helper()
	var found object
	for _, o := range objects {
		if o["kind"] == kind {
			if found != nil {
				t.Errorf("two objects of kind %s", kind)
			}
			found = o
		}
	}
	return found
}

// examples returns values files: presets, those for a purpose, the defaults, and those of
// dcgm-exporter.
func examples(t *testing.T) []string {
	t.Helper()
	presets, err := filepath.Glob(chart + "/presets/*.yaml")
	if err != nil || len(presets) == 0 {
		t.Fatalf("no presets: %v", err)
	}
	purposes, err := filepath.Glob(chart + "/values-*.yaml")
	if err != nil || len(purposes) == 0 {
		t.Fatalf("no values for a purpose: %v", err)
	}
	return slices.Concat(presets, purposes, []string{chart + "/values.yaml", "testdata/dcgm-exporter-values.yaml"})
}

// TestLint: Helm finds nothing to say about the chart with any of its values files.
func TestLint(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		for _, file := range examples(t) {
			if out, log, err := run(t, helm, "lint", "--strict", chart, "-f", file); err != nil {
				t.Errorf("%s: %v\n%s%s", file, err, out, log)
			}
		}
	})
}

// TestKinds: only what is asked for is created.
func TestKinds(t *testing.T) {
	basic := []string{"DaemonSet", "Pod", "Service", "ServiceAccount"}
	boards, err := filepath.Glob(chart + "/dashboards/*.json")
	if err != nil || len(boards) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	tests := []struct {
		name, values string
		api          []string // of the cluster
		more         []string // in addition to basic
		less         []string
	}{
		{name: "default"},
		{name: "the Operator is installed", api: []string{"monitoring.coreos.com/v1/ServiceMonitor"}, more: []string{"ServiceMonitor"}},
		{name: "and a PodMonitor is preferred", values: "podMonitor: {enabled: true}", api: []string{"monitoring.coreos.com/v1/ServiceMonitor"}, more: []string{"PodMonitor"}},
		{name: "and no monitor is wanted", values: "serviceMonitor: {enabled: false}", api: []string{"monitoring.coreos.com/v1/ServiceMonitor"}},
		{name: "values of the Operator's version", values: "serviceMonitor: {enabled: true}", more: []string{"ServiceMonitor"}},
		{name: "configuration", values: "config: {families: lean}", more: []string{"ConfigMap"}},
		{name: "counters", values: "customMetrics: DCGM_FI_DEV_GPU_TEMP, gauge, Temperature.", more: []string{"ConfigMap"}},
		{name: "labels of pods", values: "kubernetes: {enablePodLabels: true}", more: []string{"ClusterRole", "ClusterRoleBinding"}},
		{name: "labels of pods from the kubelet", values: "kubernetes: {enablePodLabels: true, metadataSource: kubelet}"},
		{name: "DRA", values: "kubernetesDRA: {enabled: true}", more: []string{"ClusterRole", "ClusterRoleBinding"}},
		{name: "roles that the chart does not create", values: "kubernetes: {enablePodLabels: true, rbac: {create: false}}"},
		{name: "users", values: "basicAuth: {users: {prometheus: $2y$10$x}}", more: []string{"Secret"}, less: []string{"Pod"}},
		{name: "no Service", values: "service: {enable: false}", api: []string{"monitoring.coreos.com/v1/ServiceMonitor"}, less: []string{"Pod", "Service"}},
		{name: "account that the chart does not create", values: "serviceAccount: {create: false, name: x}", less: []string{"ServiceAccount"}},
		{name: "no profiling fields", values: "source: {profilingFields: false}", more: []string{"ConfigMap"}},
		{name: "TLS", values: "tlsServerConfig: {enabled: true, existingSecret: tls}", more: []string{"Secret"}},
		{name: "network policy", values: "networkPolicy: {enabled: true}", more: []string{"NetworkPolicy"}},
		{name: "OpenShift", values: "openshift: {scc: {create: true}}", more: []string{"SecurityContextConstraints"}},
		{name: "rules", values: "prometheusRule: {enabled: true}", more: []string{"PrometheusRule"}},
		{name: "dashboards", values: "dashboards: {enabled: true}", more: slices.Repeat([]string{"ConfigMap"}, len(boards))},
		{name: "extra", values: "extraManifests: [{apiVersion: v1, kind: Secret, metadata: {name: '{{ .Release.Name }}-x'}}, 'kind: ConfigMap']", more: []string{"ConfigMap", "Secret"}},
	}
	helmed(t, func(t *testing.T, helm string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				var api []string
				for _, a := range tt.api {
					api = append(api, "--api-versions", a)
				}
				var kinds []string
				for _, o := range render(t, helm, tt.values, api...) {
					kinds = append(kinds, o["kind"].(string))
				}
				want := append(slices.Clone(basic), tt.more...)
				want = slices.DeleteFunc(want, func(kind string) bool { return slices.Contains(tt.less, kind) })
				slices.Sort(want)
				if slices.Sort(kinds); !slices.Equal(kinds, want) {
					t.Errorf("kinds %v, want %v", kinds, want)
				}
			})
		}
	})
}

// TestMistakes: a wrong value, and one of dcgm-exporter's chart without an equivalent, ends
// with a message that says what to do.
func TestMistakes(t *testing.T) {
	tests := []struct{ name, values, message string }{
		{"unknown value", "imgae: {tag: x}", "imgae"},
		{"unknown value below", "kubernetes: {podLabels: true}", "podLabels"},
		{"wrong type", "hostNetwork: sometimes", "hostNetwork"},
		{"wrong source", "source: {type: dcgm}", "embedded"},
		{"wrong digest", "image: {digest: latest}", "digest"},
		{"port out of range", "service: {port: 94000}", "port"},
		{"no such alert", "prometheusRule: {enabled: true, rules: {GPUDwon: {enabled: false}}}", "no alert is named GPUDwon"},
		{"unknown change", "prometheusRule: {enabled: true, rules: {GPUDown: {expr: up}}}", "expr"},
		{"alert without a threshold", "prometheusRule: {enabled: true, rules: {GPUDown: {threshold: 3}}}", "GPUDown.threshold: this alert has no threshold"},
		{"local hostengine", "source: {type: hostengine, hostengine: localhost:5555}", "set hostNetwork=true"},
		{"DRA without pods", "kubernetes: {enabled: false}\nkubernetesDRA: {enabled: true}", "needs kubernetes.enabled"},
		{"profiling with a hostengine", "source: {type: hostengine}\nprivileges: {profiling: true}", "nv-hostengine needs the privilege"},
		{"a monitor without a Service", "serviceMonitor: {enabled: true}\nservice: {enable: false}", "use podMonitor"},
		{"a monitor without a password", "podMonitor: {enabled: true}\nbasicAuth: {users: {a: $2y$10$x}}", "podMonitor.endpoint.basicAuth"},
		{"the counters of dcgm-exporter's chart", "extraConfigMapVolumes: [{name: m, configMap: {name: exporter-metrics-config-map}}]", "customMetrics needs none of them"},
		{"an endpoint with relabellings", "serviceMonitor: {endpoint: {relabelings: []}}", "relabelings"},
		{"an unknown limit", "serviceMonitor: {limits: {samples: 3}}", "samples"},
		{"a wrong duration", "serviceMonitor: {interval: 15x}", "interval"},
		{"a volume without a path", "extraHostVolumes: [{name: x}]", "hostPath"},
		{"TLS without a certificate", "tlsServerConfig: {enabled: true}", "needs tlsServerConfig.existingSecret"},
		{"password", "basicAuth: {users: {prometheus: secret}}", "htpasswd -nBC 10 prometheus"},
		{"two monitors", "serviceMonitor: {enabled: true}\npodMonitor: {enabled: true}", "choose one"},
		{"dumps", "debugDump: {enabled: true}", "gpu_exporter doctor"},
		{"generated certificate", "tlsServerConfig: {enabled: true, existingSecret: x, autoGenerated: true}", "cert-manager"},
		{"key in the values", "tlsServerConfig: {key: x}", "tlsServerConfig.existingSecret"},
	}
	helmed(t, func(t *testing.T, helm string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "values.yaml")
				if err := os.WriteFile(file, []byte(tt.values), 0o600); err != nil {
					t.Fatal(err)
				}
				_, log, err := run(t, helm, "template", "gpu", chart, "-f", file)
				if err == nil || !strings.Contains(log, tt.message) {
					t.Errorf("%v, message %q, want one with %q", err, log, tt.message)
				}
			})
		}
	})
}

// TestValuesOfDCGMExporter: the values of dcgm-exporter's chart work.
func TestValuesOfDCGMExporter(t *testing.T) {
	helmed(t, func(t *testing.T, helm string) {
		values, err := os.ReadFile("testdata/dcgm-exporter-values.yaml")
		if err != nil {
			t.Fatal(err)
		}
		objects := render(t, helm, string(values))
		pod := at(of(t, objects, "DaemonSet"), "spec", "template", "spec")
		args, _ := at(pod, "containers", 0, "args").([]any)
		for _, want := range []string{"-f", "/etc/dcgm-exporter/default-counters.csv", "--kubernetes.pod-labels", "--kubernetes.pod-label-allowlist=^app$", "--kubernetes.pod-uid"} {
			if !slices.Contains(args, any(want)) {
				t.Errorf("arguments %v lack %s", args, want)
			}
		}
		if monitor := of(t, objects, "ServiceMonitor"); at(monitor, "metadata", "labels", "release") != "prometheus" {
			t.Errorf("ServiceMonitor %v does not have the label", monitor)
		}
	})
}
