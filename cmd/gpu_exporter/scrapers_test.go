// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"testing"

	"gopkg.in/yaml.v3"

	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/deploy/prometheus/rules"
	"gpu_exporter/podmapper/kubelettest"
)

const examples = "../../deploy/prometheus/examples/"

// operatorRelabelling is what the Prometheus Operator puts before the relabelling of a
// PodMonitor or ServiceMonitor (generatePodMonitorConfig and generateServiceMonitorConfig of
// prometheus-operator), as far as it sets labels.
const operatorRelabelling = `
- {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
- {source_labels: [__meta_kubernetes_pod_container_name], target_label: container}
- {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
`

// scrapeJob is the part of a scrape configuration that decides about labels.
type scrapeJob struct {
	JobName       string           `yaml:"job_name"`
	HonorLabels   bool             `yaml:"honor_labels"`
	Relabel       []map[string]any `yaml:"relabel_configs,omitempty"`
	MetricRelabel []map[string]any `yaml:"metric_relabel_configs,omitempty"`
	Static        []map[string]any `yaml:"static_configs"`
	Kubernetes    []map[string]any `yaml:"kubernetes_sd_configs,omitempty"`
	Rest          map[string]any   `yaml:",inline"`
}

// operatorEndpoint is an endpoint of a PodMonitor or ServiceMonitor.
type operatorEndpoint struct {
	Port        string
	Interval    string
	HonorLabels bool `yaml:"honorLabels"`
	Relabelings []struct {
		SourceLabels []string `yaml:"sourceLabels"`
		TargetLabel  string   `yaml:"targetLabel"`
		Regex        string
		Action       string
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// exampleJob returns the job of prometheus.yaml that discovers pods.
func exampleJob(t *testing.T) scrapeJob {
	t.Helper()
	var config struct {
		Jobs []scrapeJob `yaml:"scrape_configs"`
	}
	readYAML(t, examples+"prometheus.yaml", &config)
	i := slices.IndexFunc(config.Jobs, func(j scrapeJob) bool { return j.Kubernetes != nil })
	if i < 0 {
		t.Fatal("prometheus.yaml discovers no pods")
	}
	job := config.Jobs[i]
	job.Kubernetes = nil
	return job
}

// monitorJob returns what the Operator makes of a monitor.
func monitorJob(t *testing.T, name, file string, honor bool) scrapeJob {
	t.Helper()
	var monitor struct {
		Spec struct {
			PodMetricsEndpoints []operatorEndpoint `yaml:"podMetricsEndpoints"`
			Endpoints           []operatorEndpoint
		}
	}
	readYAML(t, examples+file, &monitor)
	endpoints := append(monitor.Spec.Endpoints, monitor.Spec.PodMetricsEndpoints...)
	if len(endpoints) != 1 || !endpoints[0].HonorLabels {
		t.Fatalf("%s: want one endpoint, which honors labels, got %+v", file, endpoints)
	}
	job := scrapeJob{JobName: name, HonorLabels: honor}
	if err := yaml.Unmarshal([]byte(operatorRelabelling), &job.Relabel); err != nil {
		t.Fatal(err)
	}
	for _, r := range endpoints[0].Relabelings {
		rule := map[string]any{}
		for key, value := range map[string]string{"target_label": r.TargetLabel, "regex": r.Regex, "action": r.Action} {
			if value != "" {
				rule[key] = value
			}
		}
		if r.SourceLabels != nil {
			rule["source_labels"] = r.SourceLabels
		}
		job.Relabel = append(job.Relabel, rule)
	}
	return job
}

// TestScrapeConfigurations: a real Prometheus scrapes a node with held, shared and free
// GPUs. Its target has the labels that Kubernetes discovery provides. The shipped
// configurations keep the owners, with honor_labels and without; the usual ones do not, and
// the alert for that finds them.
func TestScrapeConfigurations(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket)...)
	kubelet.SetPods(
		kubelettest.Pod("ml", "whole", "main", "nvidia.com/gpu", n.uuid(t, "6")),
		kubelettest.Pod("ml", "shared-a", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::0"),
		kubelettest.Pod("ml", "shared-b", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::1"),
	)
	n.eventually(t, "the pods are on their devices", func() bool {
		_, rows := sumOf(n.scrape(t), "gpu_pod_info")
		return rows == 3
	})
	operator := func(name string, honor bool) scrapeJob {
		job := scrapeJob{JobName: name, HonorLabels: honor}
		if err := yaml.Unmarshal([]byte(operatorRelabelling), &job.Relabel); err != nil {
			t.Fatal(err)
		}
		return job
	}
	jobs := []scrapeJob{
		operator("wrong", false), operator("wrong-honor", true), exampleJob(t),
		monitorJob(t, "podmonitor", "podmonitor.yaml", true), monitorJob(t, "podmonitor-forced", "podmonitor.yaml", false),
		monitorJob(t, "servicemonitor", "servicemonitor.yaml", true), monitorJob(t, "servicemonitor-forced", "servicemonitor.yaml", false),
	}
	for i := range jobs {
		jobs[i].Rest = nil
		jobs[i].Static = []map[string]any{{"targets": []string{n.address}, "labels": map[string]string{
			"__meta_kubernetes_namespace": "monitoring", "__meta_kubernetes_pod_name": "exporter-x", "__meta_kubernetes_pod_container_name": "exporter",
			"__meta_kubernetes_pod_container_port_name": "metrics", "__meta_kubernetes_pod_node_name": "node1",
		}}}
	}
	config, err := yaml.Marshal(map[string]any{"global": map[string]string{"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs})
	if err != nil {
		t.Fatal(err)
	}
	api := startPrometheus(t, string(config))
	api.eventually(`min(sum by (job) (count_over_time(gpu_pod_info[1h])))`, func(v float64) bool { return v >= 6 })
	api.eventually(`count(count by (job) (gpu_pod_info))`, func(v float64) bool { return v == float64(len(jobs)) })

	for _, job := range jobs[2:] {
		is := `job="` + job.JobName + `"`
		t.Run(job.JobName, func(t *testing.T) {
			api := api
			api.t = t
			api.expect(`count(gpu_pod_info{`+is+`,namespace="ml",pod="whole",container="main",gpu="6"})`, 1)
			api.expect(`count(gpu_pod_info{`+is+`,namespace="ml",pod=~"shared-[ab]",container="main",gpu="7"})`, 2)
			api.expect(`count(DCGM_FI_DEV_GPU_TEMP{`+is+`})`, 8)
			api.expect(`count(DCGM_FI_DEV_GPU_TEMP{`+is+`,pod="",namespace="",container=""})`, 7)
			api.expect(`count(DCGM_FI_DEV_GPU_TEMP{`+is+`,pod="whole",namespace="ml",container="main",gpu="6"})`, 1)
			api.expect(`count(gpu_exporter_sampler_up{`+is+`,pod="",namespace="",container="",instance="node1"})`, 1)
			api.expect(`count({`+is+`,exported_pod!=""}) or vector(0)`, 0)
			api.expect(`count({`+is+`,pod="exporter-x"}) or vector(0)`, 0)
		})
	}
	t.Run("the usual configurations are wrong", func(t *testing.T) {
		api := api
		api.t = t
		api.expect(`count(DCGM_FI_DEV_GPU_TEMP{job="wrong",pod="exporter-x"})`, 8)
		api.expect(`count(gpu_pod_info{job="wrong",pod="exporter-x",exported_pod!=""})`, 3)
		api.expect(`count(DCGM_FI_DEV_GPU_TEMP{job="wrong-honor",pod="exporter-x"})`, 7)
		api.expect(`count(gpu_owners{job="wrong-honor",pod="exporter-x"})`, 8)
	})
	t.Run("the alert finds them", func(t *testing.T) {
		api := api
		api.t = t
		expr := misconfiguredAlert(t)
		api.expect(`count(`+expr+`)`, 2)
		api.expect(`count((`+expr+`) and on (job) {__name__="`+definition.GPUUp.Name+`",job=~"wrong(-honor)?"})`, 2)
	})
	api.expectNoComplaint()
}

// misconfiguredAlert returns the expression of the alert for wrong scrape configurations.
func misconfiguredAlert(t *testing.T) string {
	t.Helper()
	for _, g := range rules.AlertGroups() {
		for _, a := range g.Alerts {
			if a.Name == "GPUScrapeMisconfigured" {
				return a.Expr
			}
		}
	}
	t.Fatal("no alert reports wrong scrape configurations")
	return ""
}
