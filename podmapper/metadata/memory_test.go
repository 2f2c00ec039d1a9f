// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"gpu_exporter/podmapper/internal/sourcetest"
)

// The metadata of manyPods pods of manifestSize bytes may add maxKept bytes to the heap.
const (
	manyPods     = 250
	manifestSize = 64 << 10
	maxKept      = 4 << 20
)

// bigPods returns pods with common labels and statuses, and a large manifest.
func bigPods(tb testing.TB, fill func(*corev1.Pod, string)) []*corev1.Pod {
	tb.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('a' + random.IntN(26))
		}
		return string(b)
	}
	pods := make([]*corev1.Pod, manyPods)
	for i := range pods {
		p := with(pod("team-"+text(8), "train-"+text(10)+fmt.Sprintf("-%d", i), fmt.Sprintf("%08x-0000-4000-8000-%012x", random.Uint32(), i), map[string]string{
			"app.kubernetes.io/name": text(20), "app.kubernetes.io/instance": text(20), "app.kubernetes.io/version": text(8),
			"app.kubernetes.io/managed-by": "Helm", "team": text(10), "cost-center": text(10), labelTemplateHash: text(10),
		}), running("main", "containerd://"+text(64)), running("side", "containerd://"+text(64)))
		p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")},
		}}, {Name: "side"}}
		fill(p, text(manifestSize-p.Size()))
		if size := p.Size(); size < manifestSize || size > manifestSize*11/10 {
			tb.Fatalf("a manifest of %d bytes", size)
		}
		pods[i] = p
	}
	return pods
}

var manifests = []struct {
	name string
	fill func(*corev1.Pod, string)
}{
	{"spec", func(p *corev1.Pod, text string) {
		const one = 1 << 10 // a decoded pod has an object for each environment variable
		for i := 0; i+one <= len(text); i += one {
			p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("E%d", i), Value: text[i : i+one]})
		}
	}},
	{"annotation", func(p *corev1.Pod, text string) {
		p.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: text}
	}},
}

// heap returns the bytes of reachable objects.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // a sync.Pool releases its content in two steps
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestMemory bounds what the metadata of many large pods adds to the heap. The server
// of the test is in the same process, and its part exists before.
func TestMemory(t *testing.T) {
	for _, m := range manifests {
		t.Run("Pods API/"+m.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.kubelet.SetPods(bigPods(t, m.fill)...)
			r.startKubelet()
			r.watchFor = time.Hour
			measure(t, r)
			runtime.KeepAlive(r.kubelet)
		})
		t.Run("API server/"+m.name, func(t *testing.T) {
			c := newCluster(t)
			for _, p := range bigPods(t, m.fill) {
				c.put(meta(p))
			}
			c.forget()
			r := newRig(t, func(conf *Config) { conf.Source, conf.Kubeconfig = SourceAPIServer, c.kubeconfig })
			measure(t, r)
			runtime.KeepAlive(c)
		})
	}
}

func measure(t *testing.T, r *rig) {
	t.Helper()
	before := heap()
	r.run()
	sourcetest.Eventually(t, "all pods", func() bool { return len(r.Pods().All()) == manyPods })
	for _, p := range r.Pods().All() {
		if len(p.Labels) != 7 || len(p.Annotations) != 0 {
			t.Fatalf("%d labels and %d annotations of %s", len(p.Labels), len(p.Annotations), p.Name)
		}
	}
	// A goroutine can still hold a message for a moment.
	kept := 0
	sourcetest.Eventually(t, fmt.Sprintf("at most %d KiB are kept", maxKept>>10), func() bool {
		kept = heap() - before
		return kept <= maxKept
	})
	t.Logf("%d pods of %d KiB: %d KiB are kept", manyPods, manifestSize>>10, kept>>10)
	runtime.KeepAlive(r)
}

// BenchmarkDecode shows the cost of one large pod.
func BenchmarkDecode(b *testing.B) {
	for _, m := range manifests {
		b.Run(m.name, func(b *testing.B) {
			pod := marshal(b, bigPods(b, m.fill)[0])
			s := reader(b, Want{Labels: all})
			b.SetBytes(int64(len(pod)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.decode(pod); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
