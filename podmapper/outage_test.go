// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package podmapper

import (
	"testing"
	"time"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"gpu_exporter/podmapper/internal/sourcetest"
	"gpu_exporter/podmapper/kubelettest"
)

// TestRestartWithoutAPIServer checks that a kubelet that restarts while the API server is
// away, and therefore lists static pods only, ends no other pod.
func TestRestartWithoutAPIServer(t *testing.T) {
	train, other := kubelettest.Pod("ml", "train", "main", gpuResource, gpuA), kubelettest.Pod("ml", "agent", "main", "")
	static := kubelettest.Pod("kube-system", "monitor-node-1", "main", gpuResource, gpuB)
	proxy := kubelettest.Pod("kube-system", "proxy-node-1", "main", "")
	for _, tc := range []struct {
		name        string
		first, then []*podresources.PodResources
		want        string
		partial     bool
	}{
		{"nothing is listed", []*podresources.PodResources{train, other}, nil, "train", true},
		{"static pods only", []*podresources.PodResources{train, static, proxy}, []*podresources.PodResources{static, proxy}, "monitor-node-1 train", true},
		{"a static pod ended", []*podresources.PodResources{train, static, proxy}, []*podresources.PodResources{proxy}, "train", true},
		{"the pod ended", []*podresources.PodResources{train, other, static}, []*podresources.PodResources{other, static}, "monitor-node-1", false},
		{"the device has a different owner", []*podresources.PodResources{train, proxy},
			[]*podresources.PodResources{kubelettest.Pod("kube-system", "heir-node-1", "main", gpuResource, gpuA)}, "heir-node-1", true},
		{"no API server at all", []*podresources.PodResources{static, proxy}, []*podresources.PodResources{proxy}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kubelet, socket := startKubelet(t, tc.first...)
			m := newMapper(t, Config{Socket: socket, Node: "Node-1"})
			m.confirm = time.Millisecond
			refresh := func() {
				t.Helper()
				sourcetest.Eventually(t, "a refresh", func() bool { return m.Refresh(t.Context()) == nil })
			}
			for range 2 { // the second one trusts the connection
				refresh()
			}
			kubelet.Stop()
			kubelet.SetPods(tc.then...)
			if err := kubelet.Start(); err != nil {
				t.Fatal(err)
			}
			sourcetest.Eventually(t, "the answer is accepted", func() bool {
				refresh()
				return pods(m.Table()) == tc.want && m.Table().Partial == tc.partial
			})
			for range 3 {
				refresh()
				if table := m.Table(); pods(table) != tc.want || table.Partial != tc.partial {
					t.Fatalf("owners %q, partial %v, want %q, %v", pods(table), table.Partial, tc.want, tc.partial)
				}
			}
			// The API server is back: the pods are those of the answer.
			kubelet.SetPods(other, static)
			sourcetest.Eventually(t, "only the listed pods", func() bool {
				refresh()
				return pods(m.Table()) == "monitor-node-1" && !m.Table().Partial
			})
		})
	}
}

// TestKeptOwnersExpire checks that the owners of an outage do not remain for ever, and that
// the table remains partial.
func TestKeptOwnersExpire(t *testing.T) {
	kubelet, socket := startKubelet(t, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA))
	m := newMapper(t, Config{Socket: socket, Node: "node-1"})
	m.confirm = time.Millisecond
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	kubelet.Stop()
	kubelet.SetPods()
	if err := kubelet.Start(); err != nil {
		t.Fatal(err)
	}
	sourcetest.Eventually(t, "the outage", func() bool { return m.Refresh(t.Context()) == nil && m.Table().Partial })
	if got := pods(m.Table()); got != "train" {
		t.Errorf("owners %q", got)
	}
	m.away = time.Now().Add(-2 * keepFor)
	sourcetest.Eventually(t, "no owners", func() bool { return m.Refresh(t.Context()) == nil && pods(m.Table()) == "" })
	if !m.Table().Partial {
		t.Error("without the pods of the API server, the table counts as complete")
	}
}

// TestStartWithoutAPIServer checks that the first answer is partial without the pod in
// which the exporter runs, and that this pod is no owner.
func TestStartWithoutAPIServer(t *testing.T) {
	self := kubelettest.Pod("gpu", "gpu-exporter-x", "main", gpuResource, gpuA, gpuB)
	kubelet, socket := startKubelet(t, kubelettest.Pod("kube-system", "proxy-node-1", "main", ""))
	m := newMapper(t, Config{Socket: socket, Node: "node-1", Self: Pod{"gpu", "gpu-exporter-x"}})
	for _, step := range []struct {
		pods    []*podresources.PodResources
		want    string
		partial bool
	}{
		{nil, "", true},
		{[]*podresources.PodResources{self}, "", false},
		{[]*podresources.PodResources{self, kubelettest.Pod("ml", "train", "main", gpuResource, gpuA)}, "train", false},
		{[]*podresources.PodResources{self, kubelettest.Pod("ml", "gpu-exporter-x", "main", gpuResource, gpuA)}, "gpu-exporter-x", false},
	} {
		kubelet.SetPods(step.pods...)
		if err := m.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if table := m.Table(); pods(table) != step.want || table.Partial != step.partial {
			t.Errorf("owners %q, partial %v, want %+v", pods(table), table.Partial, step)
		}
	}
}

func TestOwnPod(t *testing.T) {
	t.Setenv("POD_NAME", "")
	t.Setenv("POD_NAMESPACE", "gpu")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if p := OwnPod(); p.Name != "" {
		t.Errorf("outside of Kubernetes: %+v", p)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	if p := OwnPod(); p.Name == "" || p.Namespace != "gpu" {
		t.Errorf("in a pod: %+v", p)
	}
	t.Setenv("POD_NAME", "x")
	if p := OwnPod(); p != (Pod{"gpu", "x"}) {
		t.Errorf("with the pod's name: %+v", p)
	}
	if (Pod{}).is("", "") || !(Pod{Name: "x"}).is("any", "x") || (Pod{"gpu", "x"}).is("ml", "x") {
		t.Error("comparison of pods")
	}
}
