// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2ekubelet

package e2ekubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	podsapi "k8s.io/kubelet/pkg/apis/pods/v1alpha1"
)

// kubelet is a real kubelet in a machine with containerd.
type kubelet struct {
	m          *machine
	kubeconfig string // empty: without an API server
	cmd        *exec.Cmd
	wait       func()
	resources  podresources.PodResourcesListerClient
}

// startKubelet starts a kubelet and waits until it is healthy.
func startKubelet(t *testing.T, m *machine, kubeconfig string) *kubelet {
	t.Helper()
	k := &kubelet{m: m, kubeconfig: kubeconfig}
	if err := os.Mkdir(k.manifests(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "kubelet.json"), marshal(t, k.config()), 0o644); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+k.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	k.resources = podresources.NewPodResourcesListerClient(conn)
	k.start(t)
	return k
}

func (k *kubelet) manifests() string { return filepath.Join(k.m.dir, "manifests") }

// socket returns the path of the pod-resources socket.
func (k *kubelet) socket() string {
	return filepath.Join(k.m.kubeletDir(), "pod-resources", "kubelet.sock")
}

func (k *kubelet) podsSocket() string {
	return filepath.Join(k.m.kubeletDir(), "pods-api", "pods-api.sock")
}

func (k *kubelet) config() map[string]any {
	return map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  nodeIP,
		"authentication":           map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":            map[string]any{"mode": "AlwaysAllow"},
		"cgroupDriver":             "cgroupfs",
		"clusterDNS":               []string{nodeIP}, // of pods with a network of their own
		"clusterDomain":            "cluster.local",
		"cgroupRoot":               "/" + k.m.cgroup,
		"containerRuntimeEndpoint": "unix://" + containerdSocket(k.m),
		"enforceNodeAllocatable":   []string{"pods"},
		"evictionHard":             map[string]string{"memory.available": "50Mi"}, // instead of the defaults, which depend on the disk
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"healthzBindAddress":       "127.0.0.1",
		"makeIPTablesUtilChains":   false,
		"staticPodPath":            k.manifests(),
		"volumePluginDir":          filepath.Join(k.m.dir, "volume-plugins"),
		// A full disk must not remove images.
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
	}
}

func (k *kubelet) start(t *testing.T) {
	t.Helper()
	args := []string{"--config=" + filepath.Join(k.m.dir, "kubelet.json"), "--hostname-override=" + nodeName, "--node-ip=" + nodeIP, "-v=2"}
	if k.kubeconfig != "" {
		args = append(args, "--kubeconfig="+k.kubeconfig)
	}
	program, err := filepath.Abs(filepath.Join(*kubernetesFlag, "kubelet"))
	if err != nil {
		t.Fatal(err)
	}
	k.cmd = exec.Command(program, args...)
	if k.wait, err = k.m.start("kubelet", k.cmd); err != nil {
		t.Fatal(err)
	}
	client := k.m.httpClient()
	eventually(t, "the kubelet is healthy", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := get(ctx, client, "http://127.0.0.1:10248/healthz")
		return err
	})
}

// stop stops the kubelet. Its containers continue.
func (k *kubelet) stop(t *testing.T) {
	t.Helper()
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	k.wait()
}

// place writes the manifest of a static pod.
func (k *kubelet) place(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	// The rename is atomic, because the kubelet reads a file as soon as it appears.
	draft := filepath.Join(k.m.dir, pod.Name+".json")
	if err := os.WriteFile(draft, marshal(t, pod), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(draft, k.manifest(pod)); err != nil {
		t.Fatal(err)
	}
}

func (k *kubelet) manifest(pod *corev1.Pod) string {
	return filepath.Join(k.manifests(), pod.Name+".json")
}

// withdraw removes the manifest of a static pod.
func (k *kubelet) withdraw(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if err := os.Remove(k.manifest(pod)); err != nil {
		t.Fatal(err)
	}
}

// run starts a static pod and returns the IDs of its devices.
func (k *kubelet) run(t *testing.T, pod *corev1.Pod) []string {
	t.Helper()
	k.place(t, pod)
	return k.devices(t, staticName(pod), pod)
}

// devices waits until the kubelet lists all devices that a pod requests.
func (k *kubelet) devices(t *testing.T, name string, pod *corev1.Pod) []string {
	t.Helper()
	want := 0
	for _, c := range pod.Spec.Containers {
		for name, n := range c.Resources.Limits {
			if strings.HasPrefix(string(name), "nvidia.com/") {
				want += int(n.Value())
			}
		}
	}
	var ids []string
	eventually(t, "the kubelet lists the devices of "+name, func() error {
		held, err := k.held(t.Context())
		ids = held[name]
		if err == nil && len(ids) != want {
			err = fmt.Errorf("%d of %d devices: %v", len(ids), want, held)
		}
		return err
	})
	return ids
}

// held returns the devices of each pod from the kubelet, by plugin or claim.
func (k *kubelet) held(ctx context.Context) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	list, err := k.resources.List(ctx, &podresources.ListPodResourcesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	held := map[string][]string{}
	for _, p := range list.PodResources {
		for _, c := range p.Containers {
			for _, d := range c.Devices {
				held[p.Name] = append(held[p.Name], d.DeviceIds...)
			}
			for _, claim := range c.DynamicResources {
				for _, d := range claim.ClaimResources {
					held[p.Name] = append(held[p.Name], d.DriverName+"/"+d.PoolName+"/"+d.DeviceName)
				}
			}
		}
	}
	return held, nil
}

// podNamespace is the namespace of all pods.
const podNamespace = "ml"

// newPod returns a pod with one container "main" that requests n devices of a resource.
func newPod(name, resourceName string, n int64) *corev1.Pod {
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: podNamespace, Labels: map[string]string{teamLabel: "vision"}},
		Spec: corev1.PodSpec{
			HostNetwork:                   true,
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers: []corev1.Container{{
				Name: "main", Image: pauseImage, ImagePullPolicy: corev1.PullNever,
			}},
		},
	}
	if n > 0 {
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceName(resourceName): *resource.NewQuantity(n, resource.DecimalSI)}
	}
	return pod
}

// staticName is the name that the kubelet gives a static pod.
func staticName(pod *corev1.Pod) string { return pod.Name + "-" + nodeName }

// httpClient returns a client of servers in the machine.
func (m *machine) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: m.dial}}
}

// get returns the body. The status must be 200.
func get(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// allocatable returns the number of allocatable devices of each resource.
func (k *kubelet) allocatable(ctx context.Context) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	answer, err := k.resources.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	all := map[string]int{}
	for _, d := range answer.Devices {
		all[d.ResourceName] += len(d.DeviceIds)
	}
	return all, nil
}

// pods returns all pods of the kubelet's Pods API by name.
func (k *kubelet) pods(ctx context.Context) (map[string]*corev1.Pod, error) {
	conn, err := grpc.NewClient("unix:"+k.podsSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	list, err := podsapi.NewPodsClient(conn).ListPods(ctx, &podsapi.ListPodsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	all := map[string]*corev1.Pod{}
	for _, wire := range list.Pods {
		var pod corev1.Pod
		if err := pod.Unmarshal(wire); err != nil {
			return nil, err
		}
		all[pod.Name] = &pod
	}
	return all, nil
}

// process returns the host's process ID of a pod's container.
func (k *kubelet) process(t *testing.T, podName string) int {
	t.Helper()
	var pid int
	eventually(t, "the container of "+podName+" runs", func() error {
		pods, err := k.pods(t.Context())
		if err != nil {
			return err
		}
		pod := pods[podName]
		if pod == nil || len(pod.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("the kubelet reports no container yet")
		}
		_, id, ok := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
		if !ok {
			return fmt.Errorf("the container is %v", pod.Status.ContainerStatuses[0].State)
		}
		pid, err = processOf(id)
		return err
	})
	return pid
}

// processOf finds the process in a container's cgroup.
func processOf(container string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), container) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, fmt.Errorf("no process in the cgroup of container %s", container)
}
