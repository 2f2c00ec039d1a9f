// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/goldentest"

	"gopkg.in/yaml.v3"
)

// value is one entry of values.yaml. An entry with a comment "# --" is documented; a map
// without one has documented entries.
type value struct {
	path  string // such as service.port
	about string
	node  *yaml.Node
	parts []value
}

// values returns the entries of a map.
func values(t *testing.T, path string, m *yaml.Node) (entries []value) {
	t.Helper()
	for pair := range slices.Chunk(m.Content, 2) {
		v := value{path: path + pair[0].Value, node: pair[1]}
		if _, about, ok := strings.Cut(pair[0].HeadComment, "# -- "); ok {
			v.about = strings.ReplaceAll(about, "\n# ", " ")
		} else if v.node.Kind == yaml.MappingNode {
			v.parts = values(t, v.path+".", v.node)
		} else {
			t.Errorf("values.yaml:%d: %s has no comment that begins with # --", pair[0].Line, v.path)
		}
		entries = append(entries, v)
	}
	return entries
}

func chartValues(t *testing.T) []value {
	t.Helper()
	text, err := os.ReadFile("gpu-exporter/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return values(t, "", document.Content[0])
}

// The values that YAML's types do not describe completely.
var constraints = map[string]object{
	"image.digest":                      {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
	"image.pullPolicy":                  enum("Always", "IfNotPresent", "Never"),
	"imagePullSecrets":                  list(object{"type": "object", "additionalProperties": false, "properties": object{"name": text}, "required": []string{"name"}}),
	"commonLabels":                      textMap,
	"source.type":                       enum("embedded", "hostengine"),
	"source.libraryPath":                {"type": "string", "pattern": "^(/.*)?$"},
	"arguments":                         list(text),
	"extraEnv":                          list(named()),
	"kubernetes.metadataSource":         enum("auto", "kubelet", "api-server"),
	"kubernetes.podLabelAllowlistRegex": list(text),
	"kubeletPath":                       {"type": "string", "pattern": "^/"},
	"serviceAccount.name":               {"type": []string{"string", "null"}},
	"serviceAccount.annotations":        textMap,
	"podAnnotations":                    textMap,
	"podLabels":                         textMap,
	"updateStrategy":                    enum("RollingUpdate", "OnDelete"),
	"rollingUpdate":                     strict(object{"maxUnavailable": intOrText, "maxSurge": intOrText}),
	"terminationGracePeriodSeconds":     {"type": "integer", "minimum": 1},
	"resources":                         strict(object{"requests": quantities, "limits": quantities, "claims": list(named())}),
	"nodeSelector":                      {"type": []string{"object", "null"}, "additionalProperties": text},
	"affinity":                          nullable(strict(object{"nodeAffinity": anyObject, "podAffinity": anyObject, "podAntiAffinity": anyObject})),
	"tolerations": list(strict(object{
		"key": text, "operator": enum("Exists", "Equal", "Lt", "Gt"), "value": text, "tolerationSeconds": integer,
		"effect": enum("NoSchedule", "PreferNoSchedule", "NoExecute"),
	})),
	"initContainers":                list(named()),
	"extraHostVolumes":              list(strict(object{"name": text, "hostPath": text}, "name", "hostPath")),
	"extraConfigMapVolumes":         list(named()),
	"extraVolumeMounts":             list(named("mountPath")),
	"livenessProbe":                 probe,
	"readinessProbe":                probe,
	"service.type":                  enum("ClusterIP", "NodePort", "LoadBalancer"),
	"service.internalTrafficPolicy": enum("Cluster", "Local"),
	"service.port":                  {"type": "integer", "minimum": 1, "maximum": 65535},
	"service.annotations":           textMap,
	"tlsServerConfig.clientAuthType": enum("", "NoClientCert", "RequestClientCert", "RequireAnyClientCert", "VerifyClientCertIfGiven",
		"RequireAndVerifyClientCert"),
	"basicAuth.users":                  textMap,
	"serviceMonitor.enabled":           {"type": []string{"boolean", "null"}},
	"serviceMonitor.additionalLabels":  textMap,
	"serviceMonitor.interval":          duration,
	"serviceMonitor.scrapeTimeout":     duration,
	"serviceMonitor.relabelings":       list(anyObject),
	"serviceMonitor.metricRelabelings": list(anyObject),
	"serviceMonitor.limits":            limits,
	"serviceMonitor.endpoint":          endpoint,
	"podMonitor.additionalLabels":      textMap,
	"podMonitor.interval":              duration,
	"podMonitor.scrapeTimeout":         duration,
	"podMonitor.relabelings":           list(anyObject),
	"podMonitor.metricRelabelings":     list(anyObject),
	"podMonitor.limits":                limits,
	"podMonitor.endpoint":              endpoint,
	"prometheusRule.additionalLabels":  textMap,
	"prometheusRule.rules": {"type": "object", "additionalProperties": strict(object{
		"enabled": object{"type": "boolean"}, "for": duration, "severity": text, "threshold": object{"type": "number"},
	})},
	"dashboards.names":       enum("default", "dcgm-4.9"),
	"dashboards.labels":      textMap,
	"dashboards.annotations": textMap,
	"networkPolicy.from":     list(strict(object{"podSelector": anyObject, "namespaceSelector": anyObject, "ipBlock": anyObject})),
	"extraManifests":         list(object{"type": []string{"object", "string"}}),
}

// Schemas of parts of values.
var (
	text       = object{"type": "string"}
	integer    = object{"type": "integer", "minimum": 0}
	intOrText  = object{"type": []string{"integer", "string"}}
	anyObject  = object{"type": "object"}
	textMap    = object{"type": "object", "additionalProperties": text}
	quantities = object{"type": "object", "additionalProperties": object{"type": []string{"string", "number"}}}
	duration   = object{"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}
	probe      = strict(object{"initialDelaySeconds": integer, "periodSeconds": integer, "timeoutSeconds": integer, "failureThreshold": integer, "successThreshold": integer})
	limits     = strict(object{
		"sampleLimit": integer, "targetLimit": integer, "labelLimit": integer, "labelNameLengthLimit": integer,
		"labelValueLengthLimit": integer, "keepDroppedTargets": integer, "bodySizeLimit": text,
	})
	// These settings of an endpoint have values of their own.
	endpoint = object{"type": "object", "propertyNames": object{"not": enum("port", "interval", "scrapeTimeout", "honorLabels", "relabelings", "metricRelabelings")}}
)

func enum(values ...string) object { return object{"enum": values} }

func list(items object) object { return object{"type": "array", "items": items} }

// named is an object with a name and perhaps further required keys.
func named(required ...string) object {
	return object{"type": "object", "properties": object{"name": text}, "required": append([]string{"name"}, required...)}
}

// strict is an object without unknown keys.
func strict(properties object, required ...string) object {
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		o["required"] = required
	}
	return o
}

func nullable(o object) object {
	o["type"] = []string{"object", "null"}
	return o
}

// Values of dcgm-exporter's chart without an equivalent. The chart accepts them with
// dcgm-exporter's default, and otherwise fails with the explanation in templates/check.yaml.
var rejected = map[string]string{
	"debugDump":                     "The exporter writes no dumps; see doctor and --log.level=debug.",
	"tlsServerConfig.autoGenerated": "Use a Secret of cert-manager: a certificate that Helm generates changes with every upgrade.",
	"tlsServerConfig.key":           "Use existingSecret, so that the key is not in the release.",
	"tlsServerConfig.cert":          "Use existingSecret.",
	"tlsServerConfig.ca":            "Use existingSecret.",
	"serviceMonitor.apiVersion":     "Always monitoring.coreos.com/v1.",
}

// schema returns the JSON schema of entries.
func schema(path string, entries []value, unused map[string]object) object {
	properties := object{}
	for _, v := range entries {
		name := v.path[strings.LastIndexByte(v.path, '.')+1:]
		s := object{}
		switch c, ok := constraints[v.path]; {
		case ok:
			for k, x := range c {
				s[k] = x
			}
			delete(unused, v.path)
		case v.parts != nil:
			s = schema(v.path+".", v.parts, unused)
		default:
			s["type"] = map[string]string{"!!bool": "boolean", "!!int": "integer", "!!str": "string", "!!map": "object", "!!seq": "array"}[v.node.Tag]
		}
		if v.about != "" {
			s["description"] = v.about
		}
		properties[name] = s
	}
	for rejected, why := range rejected {
		if name, ok := strings.CutPrefix(rejected, path); ok && !strings.Contains(name, ".") {
			properties[name] = object{"description": "Of dcgm-exporter's chart. " + why}
		}
	}
	return strict(properties)
}

// TestSchema: values.schema.json follows from values.yaml, so each value has a type, and an
// unknown value is an error.
func TestSchema(t *testing.T) {
	unused := map[string]object{}
	for path, c := range constraints {
		unused[path] = c
	}
	s := schema("", chartValues(t), unused)
	s["properties"].(object)["global"] = object{"type": "object", "description": "Values of all charts of a release, such as imageRegistry."}
	s["$schema"] = "https://json-schema.org/draft-07/schema#"
	s["title"] = "Values of gpu-exporter"
	for path := range unused {
		t.Errorf("values.yaml has no %s, which has a constraint", path)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	goldentest.File(t, "gpu-exporter/values.schema.json", b.String(), "chart")
}

// TestReadme: the table in the chart's README follows from values.yaml.
func TestReadme(t *testing.T) {
	var b strings.Builder
	b.WriteString("| value | default | meaning |\n|---|---|---|\n")
	var write func([]value)
	write = func(entries []value) {
		for _, v := range entries {
			if v.parts != nil {
				write(v.parts)
				continue
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.path, shown(t, v.node), strings.ReplaceAll(v.about, "|", `\|`))
		}
	}
	write(chartValues(t))
	goldentest.Section(t, "gpu-exporter/README.md", "<!-- values -->", b.String(), "chart")
}

// shown returns a default in one cell of a table.
func shown(t *testing.T, n *yaml.Node) string {
	t.Helper()
	if n.Kind == yaml.ScalarNode {
		if n.Value == "" {
			return ""
		}
		return "`" + n.Value + "`"
	}
	if len(n.Content) == 0 {
		return ""
	}
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 80 {
		return "see `values.yaml`"
	}
	return "`" + string(text) + "`"
}
