// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

var (
	kubeconform = flag.String("kubeconform", "", "kubeconform, to validate objects with the schemas of -kubernetes and -operator")
	kubernetes  = flag.String("kubernetes", "v1.37.2", "version of Kubernetes whose schemas objects must match")
	operator    = flag.String("operator", "v0.85.0", "version of the Prometheus Operator whose schemas monitors and rules must match")
)

// everything is values that create each object and each field of the chart, except for what
// excludes the rest.
const everything = `
image: {registry: registry.example.com, digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}
imagePullSecrets: [{name: pull}]
commonLabels: {team: gpu}
source: {type: hostengine, hostengine: /run/nvidia/he.sock, libraryPath: /usr/lib64, profilingFields: false}
config: {sample: {interval: 10s}}
customMetrics: |
  DCGM_FI_DEV_GPU_TEMP, gauge, Temperature.
  DCGM_FI_PROF_DRAM_ACTIVE, gauge, Activity of the memory.
arguments: [--log.level=debug]
extraEnv: [{name: A, value: b}]
kubernetes: {enablePodLabels: true, podLabelAllowlistRegex: ["^app$"], enablePodUID: true, workload: true}
kubernetesDRA: {enabled: true}
privileges: {kernelLog: true, devicePlugins: true}
hostPID: true
hostNetwork: true
runtimeClassName: nvidia
serviceAccount: {annotations: {a: b}}
podAnnotations: {a: b}
podLabels: {a: b}
resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 1Gi}}
nodeSelector: {gpu: "true"}
affinity: {nodeAffinity: {}}
initContainers: [{name: wait, image: busybox}]
extraHostVolumes: [{name: host, hostPath: /opt}]
extraConfigMapVolumes: [{name: more, configMap: {name: more}}]
extraVolumeMounts: [{name: host, mountPath: /opt}, {name: more, mountPath: /more}]
service: {annotations: {a: b}, clusterIP: None}
tlsServerConfig: {enabled: true, existingSecret: tls}
serviceMonitor:
  enabled: true
  additionalLabels: {release: prometheus}
  limits: {sampleLimit: 20000, targetLimit: 1000, labelLimit: 64, labelNameLengthLimit: 256, labelValueLengthLimit: 2048, keepDroppedTargets: 10, bodySizeLimit: 32MB}
  endpoint: {proxyUrl: "http://proxy:3128"}
  relabelings: [{sourceLabels: [__meta_kubernetes_node_label_rack], targetLabel: rack}]
  metricRelabelings: [{sourceLabels: [__name__], regex: DCGM_.*, action: drop}]
  spec: {jobLabel: app.kubernetes.io/name, attachMetadata: {node: true}}
prometheusRule: {enabled: true, runbookBase: "https://runbooks.example.com", additionalLabels: {a: b}, rules: {GPUHeldIdle: {threshold: 0.05, for: 2h, severity: warning}}}
dashboards: {enabled: true, names: dcgm-4.9, annotations: {folder: GPUs}, namespace: grafana}
networkPolicy: {enabled: true, from: [{namespaceSelector: {}}]}
extraManifests: ["{apiVersion: v1, kind: ConfigMap, metadata: {name: more, namespace: '{{ .Release.Namespace }}'}}"]
`

// podMonitor is values with what everything excludes.
const podMonitor = `
podMonitor: {enabled: true, limits: {sampleLimit: 20000}, endpoint: {basicAuth: {username: {name: x, key: u}, password: {name: x, key: p}}}}
basicAuth: {users: {prometheus: "$2y$10$x"}}
privileges: {profiling: true}
updateStrategy: OnDelete
`

// TestValid: the objects have only fields that Kubernetes and the Prometheus Operator know.
func TestValid(t *testing.T) {
	if *kubeconform == "" {
		t.Skip("needs kubeconform: run make test-chart")
	}
	schemas := t.TempDir()
	writeSchemas(t, schemas)
	validate := func(t *testing.T, objects string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), *kubeconform, "-strict", "-summary", "-schema-location", schemas+"/{{.ResourceKind}}.json",
			"-skip", "SecurityContextConstraints", "-") // of OpenShift, which publishes no schema as a module
		cmd.Stdin = strings.NewReader(objects)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "Valid: 0,") {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Run("a wrong field is found", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), *kubeconform, "-strict", "-schema-location", schemas+"/{{.ResourceKind}}.json", "-")
		cmd.Stdin = strings.NewReader("{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {prots: []}}")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "prots") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	helmed(t, func(t *testing.T, helm string) {
		for _, file := range examples(t) {
			t.Run(filepath.Base(file), func(t *testing.T) {
				values, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				validate(t, template(t, helm, string(values)))
			})
		}
		t.Run("everything", func(t *testing.T) { validate(t, template(t, helm, everything)) })
		t.Run("the rest", func(t *testing.T) { validate(t, template(t, helm, podMonitor)) })
	})
}

// module returns the directory of a module, which the go command downloads if necessary.
func module(t *testing.T, path, version string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", path+"@"+version).Output()
	if err != nil {
		t.Fatalf("downloading %s %s: %v\n%s", path, version, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}

// writeSchemas writes a JSON schema for each kind of object: those of Kubernetes from its
// OpenAPI description, those of the Prometheus Operator from its CustomResourceDefinitions.
func writeSchemas(t *testing.T, dir string) {
	t.Helper()
	write := func(kind string, schema object) {
		text, err := json.Marshal(schema)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ToLower(kind)+".json"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(module(t, "k8s.io/kubernetes", *kubernetes), "api/openapi-spec/swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var api struct{ Definitions map[string]object }
	if err := json.Unmarshal(text, &api); err != nil {
		t.Fatal(err)
	}
	for name, definition := range api.Definitions {
		closed(definition)
		// Kubernetes accepts a number as quantity.
		if strings.HasSuffix(name, ".resource.Quantity") {
			definition["type"] = []string{"string", "number"}
		}
	}
	// One schema per kind, with the definitions that it refers to.
	for name, definition := range api.Definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 {
			continue
		}
		used := map[string]object{name: definition}
		collect(definition, api.Definitions, used)
		write(at(kinds[0], "kind").(string), object{"$ref": "#/definitions/" + name, "definitions": used})
	}
	crds, err := filepath.Glob(filepath.Join(module(t, "github.com/prometheus-operator/prometheus-operator", *operator), "example/prometheus-operator-crd/*.yaml"))
	if err != nil || len(crds) == 0 {
		t.Fatalf("no definitions of the Prometheus Operator: %v", err)
	}
	for _, crd := range crds {
		text, err := os.ReadFile(crd)
		if err != nil {
			t.Fatal(err)
		}
		var definition object
		if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&definition); err != nil {
			t.Fatal(err)
		}
		schema, _ := at(definition, "spec", "versions", 0, "schema", "openAPIV3Schema").(object)
		properties, _ := schema["properties"].(object)
		closed(schema)
		properties["metadata"] = object{"type": "object"}
		write(at(definition, "spec", "names", "kind").(string), schema)
	}
}

// closed adds to a schema, and to all schemas in it, that unknown fields are errors.
func closed(v any) {
	switch v := v.(type) {
	case object:
		if _, ok := v["properties"].(object); ok && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		if v["format"] == "int-or-string" || v["x-kubernetes-int-or-string"] == true {
			v["type"] = []string{"integer", "string"}
		}
		for _, part := range v {
			closed(part)
		}
	case []any:
		for _, part := range v {
			closed(part)
		}
	}
}

// collect adds the definitions that a schema refers to, directly or not.
func collect(v any, all, used map[string]object) {
	switch v := v.(type) {
	case object:
		if ref, ok := v["$ref"].(string); ok {
			name := strings.TrimPrefix(ref, "#/definitions/")
			if used[name] == nil {
				used[name] = all[name]
				collect(all[name], all, used)
			}
		}
		for _, part := range v {
			collect(part, all, used)
		}
	case []any:
		for _, part := range v {
			collect(part, all, used)
		}
	}
}
