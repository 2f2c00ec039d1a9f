// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpu_exporter/podmapper/kubelettest"
)

// settled returns the sizes of an exporter whose sources have all started.
func (n *node) settled(t *testing.T) [2]float64 {
	t.Helper()
	n.settledVitals(t) // until then, the process's own metrics may be those of its start
	return sizes(n.scrape(t))
}

// sizes returns what must not grow through a fault.
func sizes(body string) (all [2]float64) {
	all[0], _ = sumOf(body, "go_goroutines")
	all[1], _ = sumOf(body, "process_open_fds")
	return all
}

// noLeak waits until the exporter has at most as many goroutines and descriptors as before.
func (n *node) noLeak(t *testing.T, before [2]float64) {
	t.Helper()
	var after [2]float64
	defer func() { t.Logf("goroutines and descriptors: %v before, %v after", before, after) }()
	n.eventually(t, fmt.Sprintf("at most 3 more goroutines and descriptors than %v", before), func() bool {
		after = sizes(n.scrape(t))
		return after[0] <= before[0]+3 && after[1] <= before[1]+3
	})
}

// TestFaultKubeletRestartWithoutAPIServer: a kubelet that restarts while the API server is away
// lists static pods only. The pods still run, so they keep their GPUs, and no GPU is free.
func TestFaultKubeletRestartWithoutAPIServer(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket, "--kubernetes.node-name=node-1")...)
	static := kubelettest.Pod("kube-system", "monitor-node-1", "main", "nvidia.com/gpu", n.uuid(t, "0"))
	train := kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", n.uuid(t, "2"))
	agent := kubelettest.Pod("ml", "agent", "main", "")
	kubelet.SetPods(static, train, agent)
	n.has(t, 1, "gpu_owners", `gpu="2"`)
	n.has(t, 0, "gpu_owners", `gpu="5"`)
	before := n.settled(t)

	kubelet.Stop()
	kubelet.SetPods(static)
	restarted := time.Now()
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	held := func() string {
		t.Helper()
		body := n.scrape(t)
		if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `pod="train"`); count != 1 {
			t.Fatalf("%s after the restart the pod has lost its GPU", time.Since(restarted))
		}
		return body
	}
	n.eventually(t, "GPUs without an owner are unknown", func() bool {
		_, count := sumOf(held(), "gpu_owners", `gpu="5"`)
		return count == 0
	})
	t.Logf("unknown after %s", time.Since(restarted))
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // longer than a confirmation takes
		if owners, count := sumOf(held(), "gpu_owners"); owners != float64(count) {
			t.Fatal("a GPU counts as free")
		}
	}
	kubelet.SetPods(static, agent) // the API server is back, and the pod has ended
	back := time.Now()
	n.has(t, 0, "gpu_owners", `gpu="2"`)
	n.has(t, 1, "gpu_owners", `gpu="0"`)
	t.Logf("recovered after %s", time.Since(back))
	n.noLeak(t, before)
}

// TestFaultKubeletAnswers: a kubelet that fails or hangs ends no owner, and is reported.
func TestFaultKubeletAnswers(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8", append(fast, "-k", "--kubernetes.pod-resources-socket="+socket)...)
	train := kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", n.uuid(t, "2"))
	kubelet.SetPods(train)
	n.has(t, 1, "gpu_owners", `gpu="2"`)
	before := n.settled(t)
	worst := time.Duration(0)
	for name, fault := range map[string]struct{ begin, end func() }{
		"fails": {func() { kubelet.SetError(status.Error(codes.Internal, "broken")) }, func() { kubelet.SetError(nil) }},
		"hangs": {func() { kubelet.SetDelay(time.Hour) }, func() { kubelet.SetDelay(0) }},
	} {
		fault.begin()
		begin := time.Now()
		n.eventually(t, "a kubelet that "+name+" is reported", func() bool {
			at := time.Now()
			body := n.scrape(t)
			worst = max(worst, time.Since(at))
			if _, count := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="2"`, `pod="train"`); count != 1 {
				t.Fatalf("the kubelet %s: the pod has lost its GPU", name)
			}
			up, count := sumOf(body, "gpu_exporter_owner_source_up", `source="pod_resources"`)
			return count == 1 && up == 0
		})
		t.Logf("the kubelet %s: reported after %s", name, time.Since(begin))
		fault.end()
		begin = time.Now()
		n.has(t, 1, "gpu_exporter_owner_source_up", `source="pod_resources"`)
		t.Logf("the kubelet %s: recovered after %s", name, time.Since(begin))
	}
	t.Logf("the slowest scrape took %s", worst)
	n.noLeak(t, before)
}

// TestFaultOnePodOnAllGPUs: one pod with many labels, annotations and pseudo devices does not
// exceed the bound of the page, another pod keeps its mapping, and the cut is counted.
func TestFaultOnePodOnAllGPUs(t *testing.T) {
	t.Parallel()
	kubelet, socket := startKubelet(t)
	podsSocket := filepath.Join(t.TempDir(), "pods.sock")
	api := kubelettest.NewPodsAPI(podsSocket)
	if err := api.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Stop)
	greedy := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "greedy", UID: uidA, Labels: map[string]string{}, Annotations: map[string]string{}}}
	for i := range 256 {
		greedy.Labels[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", 1024)
		greedy.Annotations[fmt.Sprintf("annotation-%d", i)] = strings.Repeat("x", 1024)
	}
	modest := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "modest", UID: uidB, Labels: map[string]string{"team": "vision"}}}
	api.SetPods(modest)
	n := startNode(t, "h100x8", append([]string{"-k", "--kubernetes.pod-resources-socket=" + socket, "--kubernetes.pods-socket=" + podsSocket,
		"--kubernetes.pod-labels", "--kubernetes.pod-annotation-allowlist=annotation"}, fast...)...)
	var gpus, memory []string
	for gpu := range 7 {
		gpus = append(gpus, n.uuid(t, fmt.Sprint(gpu)))
	}
	for i := range 65536 {
		memory = append(memory, fmt.Sprint("mem-", i))
	}
	mine := kubelettest.Pod("ml", "modest", "main", "nvidia.com/gpu", n.uuid(t, "7"))
	kubelet.SetPods(mine)
	n.eventually(t, "the labels of the modest pod", func() bool {
		_, count := sumOf(n.scrape(t), "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, `pod="modest"`, `team="vision"`)
		return count == 1
	})
	small := len(n.scrape(t))
	if err := api.Put(greedy); err != nil {
		t.Fatal(err)
	}
	all := kubelettest.Pod("ml", "greedy", "main", "nvidia.com/gpu", gpus...)
	all.Containers[0].Devices = append(all.Containers[0].Devices, kubelettest.Pod("", "", "", "nvidia.com/gpumem", memory...).Containers[0].Devices...)
	kubelet.SetPods(all, mine)
	n.eventually(t, "both pods have their GPUs", func() bool {
		body := n.scrape(t)
		_, theirs := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `pod="greedy"`, "label_0=")
		_, ours := sumOf(body, "DCGM_FI_DEV_GPU_TEMP", `gpu="7"`, `pod="modest"`, `team="vision"`)
		return theirs == 7 && ours == 1
	})
	// 4 KiB for each series of seven GPUs, which have some 60 in the default page.
	if size := len(n.scrape(t)); size > small+7*100*5000 {
		t.Errorf("the page has %d bytes, %d without the pod", size, small)
	} else {
		t.Logf("the page has %d bytes, %d without the pod", size, small)
	}
	n.eventually(t, "the cut is counted", func() bool {
		count, _ := sumOf(n.scrape(t), "gpu_exporter_owner_source_failures_by_reason_total", `source="pods_api"`, `reason="too_large"`)
		return count >= 1
	})
}

// TestFaultDockerEngineStops: an engine that stops right after an event is not dialled in a
// loop, its containers keep their GPUs, and it is used again when it is back.
func TestFaultDockerEngineStops(t *testing.T) {
	t.Parallel()
	const inspect = `"Name":"/notebook","State":{"Status":"running","Running":true},"Config":{"Image":"jupyter:1","Env":[],"Labels":{}},
		"HostConfig":{"Runtime":"runc","DeviceRequests":[{"Driver":"nvidia","Count":0,"DeviceIDs":["1"],"Capabilities":[["gpu"]]}]}}`
	inner := dockerEngine(t, `{"Id":"`+strings.Repeat("c", 64)+`",`+inspect)
	proxy := newSocketProxy(t, inner)
	n := startNode(t, "h100x8", append(fast, "--docker.socket="+proxy.socket)...)
	n.has(t, 1, "gpu_container_info", `gpu="1"`, `container_name="notebook"`)
	before := n.settled(t)
	cpu := func() float64 { seconds, _ := sumOf(n.scrape(t), "process_cpu_seconds_total"); return seconds }
	used, dials := cpu(), proxy.dials.Load()
	begin := time.Now()
	proxy.broken.Store(true)
	proxy.cut()
	n.has(t, 0, "gpu_exporter_owner_source_up", `source="docker"`)
	t.Logf("reported after %s", time.Since(begin))
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, count := sumOf(n.scrape(t), "gpu_container_info", `gpu="1"`); count != 1 {
			t.Fatal("the container has lost its GPU")
		}
	}
	if n, limit := proxy.dials.Load()-dials, 4*(int64(time.Since(begin).Seconds())+2); n > limit {
		t.Errorf("%d dials in %s, want at most %d", n, time.Since(begin), limit)
	}
	t.Logf("%.2f s of CPU in %s", cpu()-used, time.Since(begin))
	proxy.broken.Store(false)
	begin = time.Now()
	n.has(t, 1, "gpu_exporter_owner_source_up", `source="docker"`)
	t.Logf("recovered after %s", time.Since(begin))
	n.noLeak(t, before)
}

// socketProxy passes on the connections to a socket, or accepts and closes them.
type socketProxy struct {
	socket string
	broken atomic.Bool
	dials  atomic.Int64
	mu     sync.Mutex
	open   []net.Conn
}

// pass copies both directions of a connection until one ends.
func (p *socketProxy) pass(c net.Conn, inner string) {
	to, err := net.Dial("unix", inner)
	if err != nil {
		_ = c.Close()
		return
	}
	p.mu.Lock()
	p.open = append(p.open, c, to)
	p.mu.Unlock()
	for _, pair := range [][2]net.Conn{{c, to}, {to, c}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // ends with either connection
			_, _ = pair[0].Close(), pair[1].Close()
		}()
	}
}

// cut closes all connections.
func (p *socketProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

func newSocketProxy(t *testing.T, inner string) *socketProxy {
	t.Helper()
	p := &socketProxy{socket: filepath.Join(t.TempDir(), "proxy.sock")}
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.dials.Add(1)
			if p.broken.Load() {
				_ = c.Close()
				continue
			}
			p.pass(c, inner)
		}
	}()
	return p
}
