// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"gpu_exporter/collector/metrics/definition"
)

// slow is the end of the name of a group whose alerts belong to another group, but wait so long
// that fewer evaluations delay them little.
const slow = "-slow"

// AlertGroups returns all alerts. Each has the label group, by which they can be routed.
func AlertGroups() []AlertGroup {
	groups := []AlertGroup{actNow(), plan(), planSlow(), waste(), exporterAlerts(), exporterSlow()}
	for _, g := range groups {
		for _, a := range g.Alerts {
			a.Labels = maps.Clone(a.Labels)
			if a.Labels == nil {
				a.Labels = map[string]string{}
			}
			a.Labels["group"] = strings.TrimSuffix(strings.TrimPrefix(g.Name, "gpu-"), slow)
		}
	}
	return groups
}

// The labels to which expressions reduce series. Those of the scrape target are not among
// them, so that two Prometheus servers, or a new pod of the exporter, do not repeat an alert.
const (
	gpuLabels      = "cluster, hostname, gpu, UUID, modelName"
	deviceLabels   = gpuLabels + ", GPU_I_ID, GPU_I_PROFILE"
	deviceKey      = "cluster, hostname, UUID, GPU_I_ID"
	gpuKey         = "cluster, hostname, UUID"
	exporterLabels = "cluster, instance"
	// targetKey matches series of one scrape with each other.
	targetKey = "cluster, job, instance"
)

// Metrics without a definition: those of Prometheus, of its client library and of
// kube-state-metrics, and one of the exporter's reloads.
const (
	targetUp         = "up"
	processStart     = "process_start_time_seconds"
	reloadSuccessful = "gpu_exporter_config_last_reload_successful"
	podUnschedulable = "kube_pod_status_unschedulable"
	podRequests      = "kube_pod_container_resource_requests"
)

// worst reduces an expression to labels by its maximum.
func worst(labels string, expr ...any) string {
	return fmt.Sprintf("max by (%s) (%s)", labels, fmt.Sprint(expr...))
}

func ofGPU(expr ...any) string    { return worst(gpuLabels, expr...) }
func ofDevice(expr ...any) string { return worst(deviceLabels, expr...) }

// ofExporter reduces a gpu_exporter_* expression to one series per exporter and the
// additional labels, and adds the label hostname: the instance without its port. These
// families have no hostname. Alertmanager needs the label to suppress the node's GPUs.
func ofExporter(more string, expr ...any) string {
	return withHostname(worst(exporterLabels+more, expr...))
}

func withHostname(expr string) string {
	return fmt.Sprintf(`label_replace(%s, "hostname", "$1", "instance", "(.+?)(:[0-9]+)?")`, expr)
}

// seconds returns a duration as a number in an expression.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// span returns a duration as the range of a selector.
func span(d time.Duration) string { return "[" + duration(d) + "]" }

func duration(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d%unit.length == 0 {
			return fmt.Sprintf("%d%s", d/unit.length, unit.name)
		}
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// whileSampling removes the series of exporters whose sampler is down: GPUSamplerDown
// reports them, and the values of all their devices are unknown.
func whileSampling(family *definition.Family) string {
	return fmt.Sprint(family, " unless on (", targetKey, ") (", &definition.SamplerUp, " == 0)")
}

// afterStart removes the series of exporters that started less than linkQuiet ago.
func afterStart(selector string) string {
	return fmt.Sprint(selector, " unless on (", targetKey, ") (time() - ", processStart, " < ", seconds(linkQuiet), ")")
}

// withPod adds the labels namespace and pod to series of devices if one pod holds the device.
// The series of free and shared devices remain without them. The family has a series of each
// device of the expression: without it, the expression would be evaluated twice.
func withPod(expr string, devices *definition.Family) string {
	pods := fmt.Sprint("max by (", deviceKey, ", namespace, pod) (", &definition.GPUPodInfo, ")")
	single := fmt.Sprint(pods, " unless on (", deviceKey, ") (count by (", deviceKey, ") (", pods, ") > 1)")
	return fmt.Sprint("(", expr, ") * on (", deviceKey, ") group_left (namespace, pod) (", single,
		" or on (", deviceKey, ") group by (", deviceKey, ") (", devices, "))")
}

// Parts of summaries.
const (
	onGPU      = `GPU {{ $labels.gpu }} ({{ $labels.modelName }}, {{ $labels.UUID }}) on node {{ $labels.hostname }}`
	onDevice   = `GPU {{ $labels.gpu }}{{ with $labels.GPU_I_ID }} instance {{ . }}{{ end }} ({{ $labels.modelName }}, {{ $labels.UUID }}) on node {{ $labels.hostname }}`
	onExporter = `The exporter of node {{ $labels.hostname }} ({{ $labels.instance }})`
	percent    = `{{ $value | humanizePercentage }}`
)

// heldBy is the end of a summary: up to five pods and jobs that held the GPU, or one of its
// instances, in the last 15 minutes. A template queries them, because labels would start an
// alert again whenever an owner changes, and a pod often ends with the fault of its GPU.
func heldBy() string { return ownersOf("UUID=%[1]q", "$labels.UUID") }

// deviceHeldBy is the same for a GPU instance, or for a GPU without instances.
func deviceHeldBy() string {
	return ownersOf("UUID=%[1]q, GPU_I_ID=%[2]q", "$labels.UUID $labels.GPU_I_ID")
}

func ownersOf(matchers, arguments string) string {
	held := func(labels string, family *definition.Family) string {
		return fmt.Sprintf("max by (%s) (last_over_time(%s{%s}[15m]))", labels, family, matchers)
	}
	query := held("namespace, pod", &definition.GPUPodInfo) + " or " + held("job_id", &definition.GPUJobInfo)
	return "{{ with printf `" + query + "` " + arguments + ` | query | sortByLabel "pod" }}; held by` +
		"{{ range $i, $o := . }}{{ if lt $i 5 }} {{ if $o.Labels.pod }}{{ $o.Labels.namespace }}/{{ $o.Labels.pod }}{{ else }}job {{ $o.Labels.job_id }}{{ end }}{{ end }}{{ end }}{{ end }}."
}

// action is a remedy as a sentence of an alert.
func action(r definition.Remedy) string { return r.For("{{ $labels.UUID }}") + "." }

// chosen is a template that chooses a remedy by the labels of the alert.
func chosen(remedies definition.Remedies) string {
	var b strings.Builder
	for i, c := range remedies {
		switch {
		case c.Label == "":
			b.WriteString("{{ else }}")
		case i == 0:
			fmt.Fprintf(&b, "{{ if eq $labels.%s", c.Label)
		default:
			fmt.Fprintf(&b, "{{ else if eq $labels.%s", c.Label)
		}
		for _, v := range c.Values {
			fmt.Fprintf(&b, " %q", v)
		}
		if c.Label != "" {
			b.WriteString(" }}")
		}
		b.WriteString(action(c.Remedy))
	}
	return b.String() + "{{ end }}"
}
