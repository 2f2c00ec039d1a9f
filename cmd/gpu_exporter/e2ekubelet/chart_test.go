// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet && e2echart

package e2ekubelet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	helmsFlag    = flag.String("helm", "", "Helm programs, separated by commas")
	imageFlag    = flag.String("image", "", "archive of the image with the stand-ins, with the name "+chartImage+":"+chartTag+"; default: an image of -exporter")
	operatorFlag = flag.String("operator", "v0.85.0", "version of the Prometheus Operator whose CustomResourceDefinitions are installed")
)

const (
	release    = "gpu-exporter"
	chartImage = "localhost/gpu_exporter"
	chartTag   = "e2e"
	chartLabel = "app.kubernetes.io/name=gpu-exporter"
	simulated  = 8 // GPUs of h100x8
)

// helm runs a Helm program in the cluster.
func (c *cluster) helm(program string, args ...string) (string, error) {
	home := filepath.Join(c.m.dir, "helm")
	return c.m.run("env", append([]string{"KUBECONFIG=" + c.kubeconfig, "HELM_CACHE_HOME=" + home, "HELM_CONFIG_HOME=" + home, "HELM_DATA_HOME=" + home, program}, args...)...)
}

// exporterPod returns the only pod of the exporter in a namespace, if it is ready.
func (c *cluster) exporterPod(ctx context.Context, namespace string) (*corev1.Pod, error) {
	pods, err := c.pods(ctx, namespace, chartLabel)
	if err != nil {
		return nil, err
	}
	if len(pods) != 1 {
		return nil, fmt.Errorf("%d pods of the exporter", len(pods))
	}
	for _, condition := range pods[0].Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return &pods[0], nil
		}
	}
	return nil, fmt.Errorf("the pod of the exporter is not ready: %v", pods[0].Status.ContainerStatuses)
}

// exporterOf waits for the pod of the exporter and returns a client of it.
func (c *cluster) exporterOf(t *testing.T, namespace string) (*exporter, *corev1.Pod) {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, "the exporter is ready", func() (err error) {
		pod, err = c.exporterPod(t.Context(), namespace)
		return err
	})
	return &exporter{url: "http://" + pod.Status.PodIP + ":9400", client: c.m.httpClient()}, pod
}

// gpusOf returns an error unless the page has the simulated GPUs.
func gpusOf(x exposition) error {
	if n := len(x.find("gpu_up", nil)); n != simulated {
		return fmt.Errorf("%d GPUs", n)
	}
	return nil
}

// TestChart installs, upgrades and removes the chart on a cluster.
func TestChart(t *testing.T) {
	if *helmsFlag == "" {
		t.Fatal("-helm is missing: run make e2e-chart")
	}
	for helm := range strings.SplitSeq(*helmsFlag, ",") {
		helm, err := filepath.Abs(helm)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(helm), func(t *testing.T) { testChart(t, helm) })
	}
}

func testChart(t *testing.T, helm string) {
	const image = chartImage + ":" + chartTag
	var archive []byte
	if *imageFlag == "" {
		archive = exporterImage(t, image)
	} else {
		var err error
		if archive, err = os.ReadFile(*imageFlag); err != nil {
			t.Fatal(err)
		}
	}
	c := startCluster(t, archive)
	if _, err := c.kubectl("label", "node", nodeName, "nvidia.com/gpu.present=true"); err != nil {
		t.Fatal(err)
	}
	const namespace = "gpus"
	common := []string{release, c.chart, "-n", namespace, "--set", "image.repository=" + chartImage + ",image.tag=" + chartTag + ",image.pullPolicy=Never", "--set", "simulate=h100x8"}
	upgrade := func(args ...string) (string, error) {
		return c.helm(helm, append([]string{"upgrade", release, c.chart, "-n", namespace, "--reuse-values"}, args...)...)
	}

	step(t, "install", func(t *testing.T) {
		out, err := c.helm(helm, append([]string{"install", "--create-namespace", "--set", "config.sample.interval=2s"}, common...)...)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "kubectl -n "+namespace+" get pods") {
			t.Errorf("the notes do not show the next steps:\n%s", out)
		}
		var first time.Time
		e := &exporter{client: c.m.httpClient()}
		eventually(t, "the first scrape with all GPUs", func() error {
			pods, err := c.pods(t.Context(), namespace, chartLabel)
			if err != nil {
				return err
			}
			if len(pods) == 0 {
				return errors.New("no pod with an address")
			}
			e.url = "http://" + pods[0].Status.PodIP + ":9400"
			x, err := e.scrape(t.Context())
			first = time.Now()
			if err == nil {
				err = gpusOf(x)
			}
			return err
		})
		_, pod := c.exporterOf(t, namespace)
		t.Logf("from the start of the container to the first scrape with %d GPUs: %s", simulated, first.Sub(c.started(t, pod)).Round(10*time.Millisecond))
	})
	step(t, "the owners of GPUs", func(t *testing.T) {
		e, _ := c.exporterOf(t, namespace)
		x, err := e.scrape(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var uuids []string
		for _, s := range x.find("gpu_up", nil) {
			uuids = append(uuids, s.labels["UUID"])
		}
		startPlugin(t, c.kubelet, wholeGPUs, uuids...)
		c.api.create(t, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podNamespace}})
		eventually(t, "a pod with a GPU can be created", func() error {
			return c.api.do(t.Context(), http.MethodPost, podsPath, newPod("train", wholeGPUs, 1), nil)
		})
		e.eventually(t, "the pod on its GPU", func(x exposition) error {
			found := x.find("DCGM_FI_DEV_GPU_TEMP", map[string]string{"pod": "train", "namespace": podNamespace, "container": "main"})
			if len(found) != 1 {
				return fmt.Errorf("%d series of the pod", len(found))
			}
			return nil
		})
	})
	t.Run("memory", func(t *testing.T) {
		// The limit is half as much again as the memory in use, without an embedded DCGM.
		const limit = 128 << 20
		used := c.memory(t, namespace)
		t.Logf("working set with %d simulated GPUs: %d MiB of %d MiB", simulated, used>>20, limit>>20)
		if used*3/2 > limit {
			t.Errorf("the limit is less than 1.5 times the working set")
		}
	})
	step(t, "helm test", func(t *testing.T) {
		out, err := c.helm(helm, "test", release, "-n", namespace, "--logs")
		if err != nil || !strings.Contains(out, "is ready") {
			t.Fatalf("%v\n%s", err, out)
		}
	})
	step(t, "a changed ConfigMap is applied without a restart", func(t *testing.T) {
		e, before := c.exporterOf(t, namespace)
		if _, err := upgrade("--set", "config.families=lean"); err != nil {
			t.Fatal(err)
		}
		e.eventually(t, "the families of the new configuration", func(x exposition) error {
			if n := len(x.find("gpu_power_limit_watts", nil)); n != 0 {
				return fmt.Errorf("%d power limits", n)
			}
			return gpusOf(x)
		})
		_, after := c.exporterOf(t, namespace)
		if after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Error("the pod restarted")
		}
	})
	step(t, "labels of pods", func(t *testing.T) {
		// Without a proxy of Services, pods reach the API server at the node's address.
		if _, err := upgrade("--set", "kubernetes.enablePodLabels=true,kubernetes.metadataSource=api-server",
			"--set", "extraEnv[0].name=KUBERNETES_SERVICE_HOST,extraEnv[0].value="+nodeIP, "--set", "extraEnv[1].name=KUBERNETES_SERVICE_PORT", "--set-string", "extraEnv[1].value=6443",
			"--wait"); err != nil {
			t.Fatal(err)
		}
		e, _ := c.exporterOf(t, namespace)
		e.eventually(t, "the label of the pod", func(x exposition) error {
			found := x.find("DCGM_FI_DEV_GPU_TEMP", map[string]string{"pod": "train", teamLabel: "vision"})
			if len(found) != 1 {
				return fmt.Errorf("%d series with the label", len(found))
			}
			return nil
		})
	})
	step(t, "an image that cannot be pulled", func(t *testing.T) {
		if _, err := upgrade("--set", "image.tag=missing"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the pod reports its image", func() error {
			out, err := c.kubectl("-n", namespace, "get", "pods", "-l", chartLabel, "-o", "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}")
			if err == nil && !strings.Contains(out, "ErrImageNeverPull") {
				err = errors.New(out)
			}
			return err
		})
		if _, err := c.helm(helm, "rollback", release, "-n", namespace, "--wait"); err != nil {
			t.Fatal(err)
		}
		e, _ := c.exporterOf(t, namespace)
		e.eventually(t, "all GPUs", gpusOf)
	})
	step(t, "a drained node keeps its exporter", func(t *testing.T) {
		e, before := c.exporterOf(t, namespace)
		if _, err := c.kubectl("drain", nodeName, "--ignore-daemonsets", "--force", "--timeout=3m"); err != nil {
			t.Fatal(err)
		}
		e.eventually(t, "no owner", func(x exposition) error {
			if n := len(x.find("gpu_pod_info", nil)); n != 0 {
				return fmt.Errorf("%d owners", n)
			}
			return gpusOf(x)
		})
		if _, after := c.exporterOf(t, namespace); after.UID != before.UID {
			t.Error("the pod of the exporter was replaced")
		}
		if _, err := c.kubectl("uncordon", nodeName); err != nil {
			t.Fatal(err)
		}
	})
	step(t, "helm test explains why no GPU answers", func(t *testing.T) {
		if _, err := upgrade("--set", "simulate=none"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the exporter of a node without GPUs runs", func() error {
			out, err := c.helm(helm, "test", release, "-n", namespace, "--logs")
			if err == nil {
				return errors.New("the test succeeds")
			}
			if !strings.Contains(err.Error(), "no GPU was found") {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
	})
	step(t, "uninstall", func(t *testing.T) {
		if _, err := c.helm(helm, "uninstall", release, "-n", namespace, "--wait"); err != nil {
			t.Fatal(err)
		}
		out, err := c.kubectl("get", "daemonsets,services,serviceaccounts,configmaps,secrets,clusterroles,clusterrolebindings", "-A", "-l", chartLabel, "-o", "name")
		if err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("objects remain (%v): %s", err, out)
		}
	})
	t.Run("Pod Security", func(t *testing.T) { testPodSecurity(t, c, helm, common) })
	t.Run("the Prometheus Operator", func(t *testing.T) { testOperator(t, c, helm, common) })
	t.Run("plain manifests", func(t *testing.T) { testManifests(t, c, image) })
}

// started returns the start of the process of a pod.
func (c *cluster) started(t *testing.T, pod *corev1.Pod) time.Time {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.kubelet.process(t, pod.Name)))
	if err != nil {
		t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(text), ") ")
	ticks, err := strconv.ParseInt(strings.Fields(fields)[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	up, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	return time.Now().Add(time.Duration(ticks)*tick - time.Duration(up*float64(time.Second)))
}

// memory returns the working set of the exporter from the kubelet.
func (c *cluster) memory(t *testing.T, namespace string) (bytes int64) {
	t.Helper()
	eventually(t, "the kubelet reports the memory of the exporter", func() error {
		var summary struct {
			Pods []struct {
				PodRef struct{ Namespace string }
				Memory struct{ WorkingSetBytes int64 }
			}
		}
		if err := c.api.do(t.Context(), http.MethodGet, "/api/v1/nodes/"+nodeName+"/proxy/stats/summary", nil, &summary); err != nil {
			return err
		}
		for _, p := range summary.Pods {
			if p.PodRef.Namespace == namespace && p.Memory.WorkingSetBytes > 0 {
				bytes = p.Memory.WorkingSetBytes
				return nil
			}
		}
		return errNone
	})
	return bytes
}

// testPodSecurity: a namespace that enforces "restricted" accepts the restricted values, with
// the preset of simulated nodes, and reports why it rejects others.
func testPodSecurity(t *testing.T, c *cluster, helm string, common []string) {
	const namespace = "restricted"
	c.api.create(t, "/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}})
	install := append([]string{"install", "-f", filepath.Join(c.chart, "presets", "kind.yaml"), "-f", filepath.Join(c.chart, "values-restricted.yaml")}, common...)
	if _, err := c.helm(helm, append(install, "-n", namespace)...); err != nil {
		t.Fatal(err)
	}
	e, pod := c.exporterOf(t, namespace)
	e.eventually(t, "all GPUs", gpusOf)
	if uid := *pod.Spec.SecurityContext.RunAsUser; uid != 65534 {
		t.Errorf("the exporter runs as %d", uid)
	}
	if out, err := c.helm(helm, "test", release, "-n", namespace); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := c.helm(helm, "upgrade", release, c.chart, "-n", namespace, "--reuse-values", "--set", "kubernetes.enabled=true"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reason why pods are rejected", func() error {
		message, err := c.event(t.Context(), namespace, "FailedCreate")
		if err == nil && !strings.Contains(message, "hostPath") {
			err = errors.New(message)
		}
		return err
	})
	if _, err := c.helm(helm, "uninstall", release, "-n", namespace); err != nil {
		t.Error(err)
	}
}

// testOperator: the definitions of the Prometheus Operator accept monitors and rules.
func testOperator(t *testing.T, c *cluster, helm string, common []string) {
	dir := filepath.Join(moduleDir(t, "github.com/prometheus-operator/prometheus-operator@"+*operatorFlag), "example", "prometheus-operator-crd")
	for _, kind := range []string{"servicemonitors", "podmonitors", "prometheusrules"} {
		if _, err := c.kubectl("apply", "--server-side", "-f", filepath.Join(dir, "monitoring.coreos.com_"+kind+".yaml")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.kubectl("wait", "--for=condition=Established", "--timeout=3m", "crd/"+kind+".monitoring.coreos.com"); err != nil {
			t.Fatal(err)
		}
	}
	const namespace = "monitored"
	dryRun := append([]string{"install", "--dry-run=server", "--create-namespace", "--set", "serviceMonitor.enabled=true,serviceMonitor.limits.sampleLimit=1000"}, common...)
	if out, err := c.helm(helm, append(dryRun, "-n", namespace)...); err != nil || !strings.Contains(out, "kind: ServiceMonitor") {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	install := append([]string{"install", "--create-namespace", "--set", "prometheusRule.enabled=true,dashboards.enabled=true"}, common...)
	if _, err := c.helm(helm, append(install, "-n", namespace)...); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]int{"servicemonitors": 1, "podmonitors": 0, "prometheusrules": 1} {
		c.count(t, namespace, kind, want)
	}
	boards, err := filepath.Glob(filepath.Join(c.chart, "dashboards", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	c.count(t, namespace, "configmaps", len(boards), "-l", "grafana_dashboard=1")
	if _, err := c.helm(helm, "upgrade", release, c.chart, "-n", namespace, "--reuse-values", "--set", "podMonitor.enabled=true,podMonitor.limits.sampleLimit=1000"); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]int{"servicemonitors": 0, "podmonitors": 1} {
		c.count(t, namespace, kind, want)
	}
	// The definitions are strict: a wrong setting is an error.
	if _, err := c.helm(helm, "upgrade", release, c.chart, "-n", namespace, "--reuse-values", "--set", "podMonitor.spec.jobLabel.x=1"); err == nil {
		t.Error("the API server accepts a wrong PodMonitor")
	}
	if _, err := c.helm(helm, "uninstall", release, "-n", namespace); err != nil {
		t.Error(err)
	}
}

// count checks the number of objects of a kind.
func (c *cluster) count(t *testing.T, namespace, kind string, want int, args ...string) {
	t.Helper()
	out, err := c.kubectl(append([]string{"-n", namespace, "get", kind, "-o", "jsonpath={.items[*].metadata.name}"}, args...)...)
	if got := len(strings.Fields(out)); err != nil || got != want {
		t.Errorf("%d %s, want %d (%v)", got, kind, want, err)
	}
}

// testManifests: the plain manifests work without Helm.
func testManifests(t *testing.T, c *cluster, image string) {
	for _, dir := range []string{".", "restricted"} {
		overlay := filepath.Join(c.m.dir, "overlay-"+filepath.Base(dir))
		if err := os.CopyFS(filepath.Join(overlay, "base"), os.DirFS(filepath.Join("../../../deploy/kubernetes", dir))); err != nil {
			t.Fatal(err)
		}
		name, tag, _ := strings.Cut(image, ":")
		kustomization := "resources: [base]\nimages: [{name: gpu_exporter, newName: " + name + ", newTag: " + tag + "}]\n" +
			"patches:\n  - target: {kind: DaemonSet}\n    patch: |-\n" +
			"      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --simulate=h100x8}\n"
		if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(kustomization), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := c.kubectl("apply", "-k", overlay); err != nil {
			t.Fatal(err)
		}
		e, _ := c.exporterOf(t, "gpu-exporter")
		e.eventually(t, "all GPUs", gpusOf)
		if _, err := c.kubectl("delete", "-k", overlay, "--timeout=3m"); err != nil {
			t.Fatal(err)
		}
	}
}
