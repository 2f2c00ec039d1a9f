// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/kubelettest"
)

const (
	uidA = "0a1b2c3d-0000-4000-8000-00000000000a"
	uidB = "0a1b2c3d-0000-4000-8000-00000000000b"
)

// logDirectory creates the kubelet's directory of pod logs, whose names contain the UIDs of
// pods.
func logDirectory(t *testing.T, pods ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, pod := range pods {
		if err := os.Mkdir(filepath.Join(dir, pod), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// podCgroup returns the control group of a container. Its ID repeats one hex digit.
func podCgroup(uid, container string) string {
	return "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") +
		".slice/cri-containerd-" + strings.Repeat(container, 64) + ".scope"
}

// startKubelet starts a simulated kubelet.
func startKubelet(t *testing.T) (kubelet *kubelettest.Kubelet, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet = kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	return kubelet, socket
}

// firstMIGDevice is on GPU 0 of scenario h100x8-mig; see collector/nvml/testdata.
const firstMIGDevice = "MIG-bebc783d-a031-524e-9ca3-055daed0bee5"

// TestPods: pods hold a whole GPU, shares of a GPU and a MIG device. The owners remain
// while the kubelet is down, and a metric reports that it is down.
func TestPods(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8-mig", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket)...)
	kubelet.SetPods(
		kubelettest.Pod("ml", "whole", "main", "nvidia.com/gpu", n.uuid(t, "6")),
		kubelettest.Pod("ml", "shared-a", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::0"),
		kubelettest.Pod("ml", "shared-b", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::1"),
		kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", firstMIGDevice),
		kubelettest.Pod("ml", "unmatched", "main", "nvidia.com/gpu", "GPU-00000000-0000-0000-0000-000000000000"),
	)
	n.eventually(t, "the pods are on their devices", func() bool {
		body := n.scrape(t)
		_, whole := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="6"`, `container="main",namespace="ml",pod="whole"`)
		_, slice := sumOf(body, "DCGM_FI_DEV_FB_USED", `GPU_I_ID=`, `pod="slice"`)
		return whole == 1 && slice == 1
	})
	body := n.scrape(t)
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`); count != 1 {
		t.Errorf("%d series of the shared GPU, want one", count)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, "pod="); count != 0 {
		t.Error("a series of a shared GPU has the label pod")
	}
	if _, count := sumOf(body, "gpu_pod_info", `gpu="7"`); count != 2 {
		t.Errorf("%d owners of the shared GPU, want 2", count)
	}
	if v, _ := sumOf(body, "gpu_exporter_owner_source_unmatched_devices", `source="pod_resources"`); v != 1 {
		t.Errorf("%v unmatched devices, want 1", v)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_FB_USED", `pod="slice"`); count != 1 {
		t.Errorf("the MIG pod is on %d series, want only its instance's", count)
	}
	begin := float64(time.Now().Add(-patience).Unix())
	if v, count := sumOf(body, "gpu_exporter_owner_source_last_success_timestamp_seconds", `source="pod_resources"`); count != 1 || v < begin || v > float64(time.Now().Unix()+1) {
		t.Errorf("the last refresh was at %v in %d series", v, count)
	}
	kubelet.Stop()
	n.eventually(t, "the mapping is down", func() bool {
		v, count := sumOf(n.scrape(t), "gpu_exporter_owner_source_up", `source="pod_resources"`)
		return count == 1 && v == 0
	})
	body = n.scrape(t)
	failures, _ := sumOf(body, "gpu_exporter_owner_source_failures_by_reason_total", `source="pod_resources"`)
	if all, _ := sumOf(body, "gpu_exporter_owner_source_failures_total", `source="pod_resources"`); failures < 1 || all != failures {
		t.Errorf("%v failures, %v by reason", all, failures)
	}
	if _, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `pod="whole"`); count != 1 {
		t.Error("the owners disappeared with the kubelet")
	}
}

// TestPodMetadata: the kubelet's Pods API provides a pod's labels, UID and workload for the
// series of its device. They remain while the Pods API is down.
func TestPodMetadata(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	podsSocket := filepath.Join(t.TempDir(), "pods.sock")
	api := kubelettest.NewPodsAPI(podsSocket)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	yes := true
	api.SetPods(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ml", Name: "train-5d4f-x", UID: uidA,
		Labels:          map[string]string{"app.kubernetes.io/name": "llm", "device": "mine", "pod-template-hash": "5d4f", "secret": "x"},
		Annotations:     map[string]string{"example.com/cost": "42", "other": "y"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "train-5d4f", UID: "rs", Controller: &yes}},
	}})
	n := startNode(t, "h100x8", append([]string{"-k", "--kubernetes.pod-resources-socket=" + socket, "--kubernetes.pods-socket=" + podsSocket, "--path.pod-logs=" + t.TempDir(),
		"--kubernetes.pod-labels", "--kubernetes.pod-label-allowlist=^app,^device$", "--kubernetes.pod-annotation-allowlist=cost",
		"--kubernetes.pod-uid", "--kubernetes.workload"}, fast...)...)
	kubelet.SetPods(kubelettest.Pod("ml", "train-5d4f-x", "main", "nvidia.com/gpu", n.uuid(t, "2")))
	n.eventually(t, "the labels are on the series", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `app_kubernetes_io_name="llm"`, `pod_label_device="mine"`,
			`annotation_example_com_cost="42"`, `pod_uid="`+uidA+`"`, `workload="train",workload_kind="Deployment"`)
		return count == 1
	})
	if body := n.scrape(t); strings.Contains(body, "secret") || strings.Contains(body, "other=") {
		t.Error("a label or annotation that no expression matches is exposed")
	}
	n.has(t, 1, "gpu_exporter_owner_source_up", `source="pods_api"`)
	api.Stop()
	// Without the socket, the API server is the source. It has no configuration here.
	n.eventually(t, "the API server is the source, and is down", func() bool {
		body := n.scrape(t)
		up, count := sumOf(body, "gpu_exporter_owner_source_up", `source="api_server"`)
		_, former := sumOf(body, "gpu_exporter_owner_source_up", `source="pods_api"`)
		return up == 0 && count == 1 && former == 0
	})
	if _, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `app_kubernetes_io_name="llm"`, `pod="train-5d4f-x"`); count != 1 {
		t.Error("the labels disappeared with their source")
	}
}

// TestNoKubelet: while the kubelet cannot be reached, no device counts as free.
func TestNoKubelet(t *testing.T) {
	t.Parallel()
	n := startNode(t, "h100x8", append(fast, "-k", "--kubernetes.pod-resources-socket="+filepath.Join(t.TempDir(), "kubelet.sock"))...)
	n.has(t, 0, "gpu_exporter_owner_source_up", `source="pod_resources"`)
	body := n.scrape(t)
	for _, family := range []string{"gpu_owners", "gpu_exporter_owner_source_unmatched_devices"} {
		if _, count := sumOf(body, family); count != 0 {
			t.Errorf("%d series of %s", count, family)
		}
	}
}

// TestUsageOfASharedGPU attributes the processes on a shared GPU to two pods, by their
// cgroups and the names in the kubelet's directory of pod logs, without an API server.
func TestUsageOfASharedGPU(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	proc := newHostProc(t)
	proc.process(t, 1001, podCgroup(uidA, "a"))
	proc.process(t, 1002, podCgroup(uidA, "a"))
	proc.process(t, 2001, "/user.slice/user-1000.slice/session-2.scope")
	logs := logDirectory(t, "ml_a_"+uidA, "ml_b_"+uidB)
	args := append([]string{"-k", "--kubernetes.pod-resources-socket=" + socket, "--path.procfs=" + string(proc), "--path.pod-logs=" + logs}, fast...)
	args = append(args, "--families=default,usage-detail,exporter-detail")
	n := startNode(t, "h100x8", args...)
	gpu := n.uuid(t, "7")
	kubelet.SetPods(
		kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu.shared", gpu+"::0"),
		kubelettest.Pod("ml", "b", "main", "nvidia.com/gpu.shared", gpu+"::1"),
	)
	for _, command := range []string{
		"process none", "load gpu 7 util 80",
		"process gpu 7 pid 1001 memory 2048 share 50", "process gpu 7 pid 1002 memory 1024 share 25 mps yes",
		"process gpu 7 pid 2001 memory 512 share 10",
	} {
		n.command(t, command)
	}
	n.has(t, 3072<<20, "gpu_pod_memory_used_bytes", `pod="a"`)
	n.has(t, 0, "gpu_pod_memory_used_bytes", `pod="b"`)
	n.has(t, 2, "gpu_pod_processes", `pod="a"`)
	n.has(t, 1024<<20, "gpu_pod_process_memory_used_bytes", `pod="a"`, `type="mps"`)
	n.has(t, 1, "gpu_exporter_processes_unattributed", `reason="outside"`)
	n.eventually(t, "the SM utilization is reported", func() bool {
		v, count := sumOf(n.scrape(t), "gpu_pod_sm_utilization_ratio", `pod="a"`)
		return count == 1 && v > 0.55 && v < 0.65 // 75 % of 80 %
	})
	n.has(t, 0, "gpu_pod_sm_utilization_ratio", `pod="b"`)
	if _, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_UTIL", `gpu="7"`); count != 1 {
		t.Errorf("%d series of the shared GPU, want one", count)
	}

	// A process of an unknown pod may belong to either pod.
	proc.process(t, 3001, podCgroup("0a1b2c3d-0000-4000-8000-00000000000c", "c"))
	n.command(t, "process gpu 7 pid 3001 memory 100")
	n.has(t, 1, "gpu_exporter_processes_unattributed", `reason="unknown_pod"`)
	if _, count := sumOf(n.scrape(t), "gpu_pod_memory_used_bytes", gpu); count != 0 {
		t.Errorf("%d pods have a usage that may belong to the unknown pod", count)
	}
}

// TestUsageOfASimulatedNode: the processes of the stand-in, which do not exist on this
// machine, run in the pods that hold their devices.
func TestUsageOfASimulatedNode(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8-mig", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket)...)
	kubelet.SetPods(
		kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", "nvidia6"),
		kubelettest.Pod("ml", "slice", "main", "nvidia.com/mig-1g.10gb", "MIG-bebc783d-a031-524e-9ca3-055daed0bee5"), // on GPU 0
	)
	n.command(t, "load gpu 6 util 80")
	n.eventually(t, "the pod uses the GPU", func() bool {
		v, count := sumOf(n.scrape(t), "gpu_pod_sm_utilization_ratio", `gpu="6"`, `pod="train"`, `container="main"`)
		return count == 1 && v > 0.75 && v < 0.85
	})
	for _, pod := range []string{"train", "slice"} {
		n.has(t, 1, "gpu_pod_processes", `pod="`+pod+`"`)
		if bytes, count := sumOf(n.scrape(t), "gpu_pod_memory_used_bytes", `pod="`+pod+`"`); count != 1 || bytes < 1<<30 {
			t.Errorf("%s uses %v bytes on %d devices", pod, bytes, count)
		}
	}
}

// TestVirtualGPUs: --kubernetes.repeat-shared selects dcgm-exporter's form of shared GPUs.
// Each pod has a copy of each series. Memory by process is in addition to the device's.
func TestVirtualGPUs(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	proc := newHostProc(t)
	proc.process(t, 1001, podCgroup(uidA, "a"))
	logs := logDirectory(t, "ml_a_"+uidA, "ml_b_"+uidB)
	args := append([]string{"-k", "--kubernetes.repeat-shared", "--kubernetes.pod-resources-socket=" + socket, "--path.procfs=" + string(proc), "--path.pod-logs=" + logs}, fast...)
	n := startNode(t, "h100x8", args...)
	gpu := n.uuid(t, "7")
	kubelet.SetPods(
		kubelettest.Pod("ml", "a", "main", "nvidia.com/gpu.shared", gpu+"::0"),
		kubelettest.Pod("ml", "b", "main", "nvidia.com/gpu.shared", gpu+"::1"),
	)
	n.command(t, "process none")
	n.command(t, "process gpu 7 pid 1001 memory 2048 share 50")
	n.has(t, 2048, "DCGM_FI_DEV_FB_USED", `gpu="7"`, `pod="a"`, `pod_uid="`+uidA+`"`, `vgpu="0"`)
	n.has(t, 0, "DCGM_FI_DEV_FB_USED", `gpu="7"`, `pod="b"`, `pod_uid="`+uidB+`"`, `vgpu="1"`)
	body := n.scrape(t)
	if _, count := sumOf(body, "DCGM_FI_DEV_FB_USED", `gpu="7"`); count != 3 {
		t.Errorf("%d series of memory, want one of the device and two of pods", count)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`); count != 2 {
		t.Errorf("%d series of temperature, want one for each pod", count)
	}
	if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, "pod_uid="); count != 0 {
		t.Error("a series that has no pod_uid in dcgm-exporter has one here")
	}
}

// TestPodsThroughRepartitions repartitions a GPU while pods start and stop. A pod's labels
// are only on the series of its own instance, although instance IDs are reused.
func TestPodsThroughRepartitions(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	checkpoints, socket := filepath.Join(root, "device-plugins"), filepath.Join(root, "pod-resources", "kubelet.sock")
	for _, dir := range []string{checkpoints, filepath.Dir(socket)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kubelet := kubelettest.New(socket)
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	n := startNode(t, "a100x7-mig", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket)...)
	gpu := n.uuid(t, "0")
	const family = "DCGM_FI_DEV_FB_USED"
	held := regexp.MustCompile(`GPU_I_ID="(\d+)".*pod="r\d+-gi(\d+)"`)
	instances := func(body string) (ids []string) {
		for _, m := range regexp.MustCompile(family+`\{gpu="0",.*GPU_I_ID="(\d+)"`).FindAllStringSubmatch(body, -1) {
			ids = append(ids, m[1])
		}
		return ids
	}
	set := func(pods ...*podresources.PodResources) {
		t.Helper()
		kubelet.SetPods(pods...)
		if err := kubelettest.WriteCheckpoint(filepath.Join(checkpoints, "kubelet_internal_checkpoint")); err != nil {
			t.Fatal(err)
		}
	}
	layouts := []struct {
		layout, profile string
		count           int
	}{{"3g.20gb*2", "3g.20gb", 2}, {"1g.5gb*7", "1g.5gb", 7}, {"2g.10gb*3", "2g.10gb", 3}}
	for round := range 9 {
		l := layouts[round%len(layouts)]
		set()
		n.eventually(t, "no series has a pod", func() bool {
			_, count := sumOf(n.scrape(t), family, `gpu="0"`, "pod=")
			return count == 0
		})
		n.command(t, "mig gpu 0 "+l.layout)
		n.eventually(t, "the new instances exist", func() bool {
			body := n.scrape(t)
			_, count := sumOf(body, family, `gpu="0"`, `GPU_I_PROFILE="`+l.profile+`"`)
			return count == l.count && len(instances(body)) == l.count
		})
		var pods []*podresources.PodResources
		for _, gi := range instances(n.scrape(t)) {
			pods = append(pods, kubelettest.Pod("ml", fmt.Sprintf("r%d-gi%s", round, gi), "main", "nvidia.com/mig-"+l.profile, "MIG-"+gpu+"/"+gi+"/0"))
		}
		set(pods...)
		n.eventually(t, "each instance has its pod", func() bool {
			body := n.scrape(t)
			for line := range strings.Lines(body) {
				if m := held.FindStringSubmatch(line); m != nil && (m[1] != m[2] || !strings.Contains(line, fmt.Sprintf(`pod="r%d-`, round))) {
					t.Fatalf("a pod is on the wrong instance: %s", line)
				}
			}
			_, count := sumOf(body, family, `gpu="0"`, fmt.Sprintf(`pod="r%d-gi`, round))
			return count == l.count
		})
	}
}
