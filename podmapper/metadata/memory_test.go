// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Figures to reach: what the metadata of so many pods with manifests of so many
// bytes may add to the heap.
const (
	manyPods     = 250
	manifestSize = 64 << 10
	maxKept      = 4 << 20
)

// bigPods makes pods as a node may have them: with the labels, environment and
// statuses that are common, and a large manifest.
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
		const one = 1 << 10 // environment variables, of which a decoded pod has an object each
		for i := 0; i+one <= len(text); i += one {
			p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("E%d", i), Value: text[i : i+one]})
		}
	}},
	{"annotation", func(p *corev1.Pod, text string) {
		p.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: text}
	}},
}

// heap gives the bytes that are reachable.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // pools let go of what they have in two steps
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// sampleHeap gives the most that the heap had while it was looked at.
func sampleHeap() (stop func() uint64) {
	var most atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(200 * time.Microsecond)
		defer ticker.Stop()
		var m runtime.MemStats
		for {
			select {
			case <-ticker.C:
				runtime.ReadMemStats(&m)
				most.Store(max(most.Load(), m.HeapAlloc))
			case <-done:
				return
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return most.Load()
	}
}

// TestMemory: what the metadata of many large pods adds. The server is in the
// same process: its part is there before, so it does not count in what is kept,
// but it does in the most that there was.
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
			r := newRig(t, func(conf *Config) { conf.Source, conf.REST = SourceAPIServer, c.config })
			measure(t, r)
			runtime.KeepAlive(c)
		})
	}
}

func measure(t *testing.T, r *rig) {
	t.Helper()
	before := heap()
	stop := sampleHeap()
	r.run()
	eventually(t, "all pods", func() bool { return len(r.Pods().All()) == manyPods })
	most := stop()
	for _, p := range r.Pods().All() {
		if len(p.Labels) != 7 || len(p.Annotations) != 0 {
			t.Fatalf("%d labels and %d annotations of %s", len(p.Labels), len(p.Annotations), p.Name)
		}
	}
	after := heap()
	kept := max(after, before) - before
	t.Logf("%d pods of %d KiB: %d KiB kept; at most %d KiB more than before, with the server and garbage",
		manyPods, manifestSize>>10, kept>>10, (most-before)>>10)
	if kept > maxKept {
		t.Errorf("%d KiB are kept, more than %d", kept>>10, maxKept>>10)
	}
	runtime.KeepAlive(r)
}

// Decoding one large pod costs what is kept of it, and not the manifest.
func BenchmarkDecode(b *testing.B) {
	for _, m := range manifests {
		b.Run(m.name, func(b *testing.B) {
			pod := marshal(b, bigPods(b, m.fill)[0])
			d := newDecoder(all, nil, nil)
			b.SetBytes(int64(len(pod)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.pod(pod); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
