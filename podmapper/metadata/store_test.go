// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"gpu_exporter/podmapper/kubelettest"
)

// patience is for what must happen, but not at a certain time.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not after %s: %s", patience, what)
		}
	}
}

// rig is a Store with all its sources in reach.
type rig struct {
	*Store
	t       *testing.T
	kubelet *kubelettest.PodsAPI // not started yet
	logs    string               // with the directories pods and containers
	log     *syncBuffer
	stop    func()
}

// newRig makes a Store that is not patient with the sources. The function may
// change its configuration.
func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, kubelet: kubelettest.NewPodsAPI(filepath.Join(dir, "pods-api.sock")), logs: filepath.Join(dir, "log"), log: &syncBuffer{}}
	t.Cleanup(r.kubelet.Stop)
	for _, d := range []string{"pods", "containers"} {
		if err := os.MkdirAll(filepath.Join(r.logs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := Config{
		Node: testNode, PodsSocket: filepath.Join(dir, "pods-api.sock"),
		LogDir: filepath.Join(r.logs, "pods"), ContainerLogDir: filepath.Join(r.logs, "containers"),
		Want:   Want{Labels: all, Workload: true, UID: true},
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.apiDelay, s.changeOver, s.logInterval = 10*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond
	r.Store = s
	return r
}

// run starts the Store, and ends it with the test or by stop.
func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
}

func (r *rig) startKubelet() {
	r.t.Helper()
	if err := r.kubelet.Start(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) logPod(name string) {
	r.t.Helper()
	if err := os.Mkdir(filepath.Join(r.logs, "pods", name), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) logContainer(pod, namespace, container, id string) {
	r.t.Helper()
	link := filepath.Join(r.logs, "containers", fmt.Sprintf("%s_%s_%s-%s.log", pod, namespace, container, id))
	if err := os.Symlink("/nowhere", link); err != nil {
		r.t.Fatal(err)
	}
}

// wait waits until all pods are those that are described so: see describe.
func (r *rig) wait(what string, want ...string) {
	r.t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if got = describe(r.Pods()); slices.Equal(got, want) {
			return
		}
	}
	r.t.Fatalf("%s: got\n%s\nwant\n%s\n%+v", what, strings.Join(got, "\n"), strings.Join(want, "\n"), r.Status())
}

// waitFor waits for the status of a source.
func (r *rig) waitFor(s Source, what string, ok func(SourceStatus) bool) {
	r.t.Helper()
	eventually(r.t, what, func() bool { return ok(r.Status()[s]) })
}

// describe gives a line for each pod.
func describe(p *Pods) []string {
	var lines []string
	for _, pod := range p.All() {
		line := fmt.Sprintf("%s/%s %s", pod.Namespace, pod.Name, pod.UID)
		if pod.CgroupUID != pod.UID {
			line += " cgroup=" + pod.CgroupUID
		}
		for _, kv := range slices.Concat(pod.Labels, pod.Annotations) {
			line += " " + kv.Key + "=" + kv.Value
		}
		if pod.Workload != (Workload{}) {
			line += " " + pod.Workload.Kind + "/" + pod.Workload.Name
		}
		for _, c := range pod.Containers {
			line += " " + c.Name + "@" + c.ID[:2]
		}
		lines = append(lines, line)
	}
	return lines
}

// syncBuffer takes the log of a running Store.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), s)
}

func id(b byte) string { return strings.Repeat(string(b), 64) }

func pod(namespace, name, uid string, labels map[string]string, owners ...metav1.OwnerReference) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(uid), Labels: labels, OwnerReferences: owners,
	}}
}

func with(p *corev1.Pod, containers ...corev1.ContainerStatus) *corev1.Pod {
	p = p.DeepCopy()
	p.Status.ContainerStatuses = containers
	return p
}

func meta(p *corev1.Pod) metav1.PartialObjectMetadata {
	return metav1.PartialObjectMetadata{ObjectMeta: p.ObjectMeta}
}

// noAPIServer is for tests in which it must not be asked.
func noAPIServer(t *testing.T) func() (*rest.Config, error) {
	return func() (*rest.Config, error) {
		t.Error("the API server is asked")
		return nil, errors.New("not in this test")
	}
}

func TestPodsAPI(t *testing.T) {
	r := newRig(t, func(c *Config) { c.REST = noAPIServer(t) })
	train := with(pod("ml", "train", "u-1", map[string]string{"team": "vision"}), running("main", "containerd://"+id('a')))
	web := pod("ml", "web-77-x", "u-2", map[string]string{labelTemplateHash: "77"},
		metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-77", UID: "u-r", Controller: yes()})
	r.kubelet.SetPods(train, web)
	r.startKubelet()
	if r.Pods() != nil {
		t.Error("there are pods before the first answer")
	}
	r.run()
	r.wait("the first pods",
		"ml/train u-1 team=vision main@aa",
		"ml/web-77-x u-2 pod-template-hash=77 Deployment/web")
	<-r.Changed()

	first := r.Pods()
	if p := first.ByName("ml", "train"); p == nil || p.UID != "u-1" || first.ByName("ml", "other") != nil {
		t.Errorf("by name: %v", p)
	}
	if p := first.ByCgroupUID("u-2"); p == nil || p.Name != "web-77-x" || first.ByCgroupUID("u-9") != nil {
		t.Errorf("by UID of the cgroup: %v", p)
	}
	if p, name := first.ByContainerID(id('a')); p == nil || p.Name != "train" || name != "main" {
		t.Errorf("by ID of the container: %v, %q", p, name)
	}
	if p, name := first.ByContainerID(id('b')); p != nil || name != "" {
		t.Errorf("by an unknown ID: %v, %q", p, name)
	}
	if first.Source != SourcePodsAPI || first.Version != 1 || first.Time.IsZero() {
		t.Errorf("source %q, version %d, time %s", first.Source, first.Version, first.Time)
	}

	// A change of the status that changes nothing for us is no change.
	restarted := with(train, running("main", "containerd://"+id('a')))
	restarted.Status.PodIP = "10.0.0.1"
	put(t, r.kubelet, restarted)
	put(t, r.kubelet, with(train, running("main", "containerd://"+id('b')))) // a container was restarted
	r.wait("a container's new ID",
		"ml/train u-1 team=vision main@bb",
		"ml/web-77-x u-2 pod-template-hash=77 Deployment/web")
	if v := r.Pods().Version; v != 2 {
		t.Errorf("version %d after one change", v)
	}
	if got := describe(first); got[0] != "ml/train u-1 team=vision main@aa" {
		t.Errorf("what was published has become %q", got[0])
	}

	// A pod of the same name takes over at once, and the one that ended is still
	// found by its UID.
	if err := r.kubelet.Remove(train); err != nil {
		t.Fatal(err)
	}
	put(t, r.kubelet, pod("ml", "train", "u-3", map[string]string{"team": "speech"}))
	eventually(t, "the new pod of the name", func() bool { return r.Pods().ByName("ml", "train").UID == "u-3" })
	if p := r.Pods().ByCgroupUID("u-1"); p == nil || p.Labels[0].Value != "vision" {
		t.Errorf("the pod that ended is %v", p)
	}
}

func put(t *testing.T, k *kubelettest.PodsAPI, p *corev1.Pod) {
	t.Helper()
	if err := k.Put(p); err != nil {
		t.Fatal(err)
	}
}

// The kubelet does not tell when labels change and the status of the pod does
// not: the next watch tells.
func TestPodsAPIRenewal(t *testing.T) {
	r := newRig(t, nil)
	r.watchFor = 20 * time.Millisecond
	r.kubelet.SetPods(pod("ml", "a", "u-1", map[string]string{"team": "x"}), pod("ml", "b", "u-2", nil))
	r.startKubelet()
	r.run()
	r.wait("both pods", "ml/a u-1 team=x", "ml/b u-2")
	r.kubelet.SetPods(pod("ml", "a", "u-1", map[string]string{"team": "y"}))
	r.wait("another label, and a pod that ended lately", "ml/a u-1 team=y", "ml/b u-2")
	if s := r.Status()[SourcePodsAPI]; !s.Up || total(s.Failures) != 0 {
		t.Errorf("status %+v", s)
	}
}

func total(failures map[Reason]uint64) (n uint64) {
	for _, f := range failures {
		n += f
	}
	return n
}

func TestPodsAPIFailures(t *testing.T) {
	a := pod("ml", "a", "u-1", nil)
	for _, tc := range []struct {
		name   string
		fail   func(r *rig)
		mend   func(r *rig)
		reason Reason
	}{
		{"kubelet gone", func(r *rig) { r.kubelet.Stop() }, (*rig).startKubelet, ReasonNoSocket},
		{"kubelet starting", func(r *rig) {
			r.kubelet.SetError(status.Error(codes.FailedPrecondition, "Kubelet is initializing"))
			r.kubelet.Drop()
		}, func(r *rig) { r.kubelet.SetError(nil) }, ReasonUnavailable},
		{"feature gate off", func(r *rig) {
			r.kubelet.SetError(status.Error(codes.Unimplemented, "unknown service"))
			r.kubelet.Drop()
		}, func(r *rig) { r.kubelet.SetError(nil) }, ReasonUnsupported},
		{"watch ended as we were slow", func(r *rig) { r.kubelet.Drop() }, func(*rig) {}, ReasonDropped},
		{"kubelet hangs", func(r *rig) {
			r.kubelet.SetSilent(true)
			r.kubelet.Drop()
		}, func(r *rig) { r.kubelet.SetSilent(false) }, ReasonTimeout},
		{"a pod too large", func(r *rig) {
			r.kubelet.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_ADDED, Pod: make([]byte, maxObject+1)})
		}, func(*rig) {}, ReasonTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Timeout = 200 * time.Millisecond })
			r.changeOver = time.Hour
			r.kubelet.SetPods(a)
			r.startKubelet()
			r.run()
			r.wait("the pod", "ml/a u-1")

			tc.fail(r)
			r.waitFor(SourcePodsAPI, "a failure", func(s SourceStatus) bool { return s.Failures[tc.reason] > 0 })
			if got := describe(r.Pods()); !slices.Equal(got, []string{"ml/a u-1"}) {
				t.Errorf("the last good pods are %q", got)
			}
			tc.mend(r)
			b := pod("ml", "b", "u-2", nil)
			r.kubelet.SetPods(a, b)
			r.waitFor(SourcePodsAPI, "recovery", func(s SourceStatus) bool { return s.Up && s.Err == nil })
			if n := r.log.count("level=WARN"); n > 2 {
				t.Errorf("%d warnings of one outage", n)
			}
		})
	}
}

// One pod that cannot be read costs only itself.
func TestPodsAPIOddPod(t *testing.T) {
	r := newRig(t, nil)
	r.kubelet.SetPods(pod("ml", "a", "u-1", nil))
	r.startKubelet()
	r.run()
	r.wait("the pod", "ml/a u-1")
	r.kubelet.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_ADDED, Pod: []byte("rubbish")})
	r.kubelet.Send(&podsv1alpha1.WatchPodsEvent{Type: 99})
	put(t, r.kubelet, pod("ml", "b", "u-2", nil))
	r.wait("the other pods", "ml/a u-1", "ml/b u-2")
	if s := r.Status()[SourcePodsAPI]; !s.Up || s.Failures[ReasonMalformed] != 1 {
		t.Errorf("status %+v", s)
	}
}

// Where the kubelet has no Pods API the API server is asked, and once it has
// one, no longer.
func TestAuto(t *testing.T) {
	c := newCluster(t)
	r := newRig(t, func(conf *Config) { conf.REST = c.config })
	a := pod("ml", "a", "u-1", map[string]string{"team": "x"})
	c.put(meta(a))
	r.logPod("ml_a_u-1")
	r.logContainer("a", "ml", "main", id('c'))
	r.run()
	// The API server gives no containers, and the directories no labels.
	r.wait("pods of the API server with their containers", "ml/a u-1 team=x main@cc")
	if r.Pods().Source != SourceAPIServer {
		t.Errorf("the source is %q", r.Pods().Source)
	}
	s := r.Status()
	if s[SourcePodsAPI].InUse || s[SourcePodsAPI].Reason != ReasonNoSocket || !s[SourceAPIServer].InUse || !s[SourceAPIServer].Up || !s[SourceLogDir].Up {
		t.Errorf("status %+v", s)
	}
	if n := r.log.count("level=WARN"); n != 0 {
		t.Errorf("%d warnings that the kubelet has no Pods API, which most have not", n)
	}

	r.kubelet.SetPods(with(a, running("main", "containerd://"+id('d'))))
	r.startKubelet()
	r.wait("pods of the kubelet", "ml/a u-1 team=x main@dd")
	eventually(t, "the change of the source", func() bool { return r.Pods().Source == SourcePodsAPI })
	c.put(meta(pod("ml", "late", "u-9", nil))) // a watch would tell
	r.waitFor(SourceAPIServer, "an API server that is left alone", func(s SourceStatus) bool { return !s.InUse && !s.Up })
	if s := r.Status()[SourcePodsAPI]; !s.Up || !s.InUse {
		t.Errorf("status %+v", s)
	}

	// A kubelet that stays away is one without the API.
	r.kubelet.Stop()
	r.wait("pods of the API server again", "ml/a u-1 team=x main@cc", "ml/late u-9")
}

// A kubelet that restarts is waited for.
func TestAutoKubeletRestart(t *testing.T) {
	r := newRig(t, func(c *Config) { c.REST = noAPIServer(t) })
	r.changeOver = time.Hour
	r.kubelet.SetPods(pod("ml", "a", "u-1", nil))
	r.startKubelet()
	r.run()
	r.wait("the pod", "ml/a u-1")
	r.kubelet.Stop()
	r.waitFor(SourcePodsAPI, "the loss", func(s SourceStatus) bool { return !s.Up && s.Reason == ReasonNoSocket })
	if got := describe(r.Pods()); len(got) != 1 {
		t.Errorf("without a kubelet: %q", got)
	}
	r.kubelet.SetPods(pod("ml", "a", "u-1", map[string]string{"team": "x"}))
	r.startKubelet()
	r.wait("the new kubelet's pods", "ml/a u-1 team=x")
}

// For identities alone the API server is never asked.
func TestIdentityOnly(t *testing.T) {
	for _, source := range []Source{SourceAuto, SourceAPIServer} {
		t.Run(string(source), func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Source, c.Want, c.REST = source, Want{}, noAPIServer(t) })
			r.logPod("ml_a_u-1")
			r.logContainer("a", "ml", "main", id('a'))
			r.run()
			r.wait("identities", "ml/a u-1 main@aa")
			if r.Pods().Source != "" {
				t.Errorf("labels are from %q", r.Pods().Source)
			}
			if p, name := r.Pods().ByContainerID(id('a')); p == nil || p.Name != "a" || name != "main" {
				t.Errorf("by ID: %v, %q", p, name)
			}
			r.logPod("ml_b_u-2")
			r.wait("another pod", "ml/a u-1 main@aa", "ml/b u-2")
			if err := os.RemoveAll(filepath.Join(r.logs, "pods")); err != nil {
				t.Fatal(err)
			}
			r.wait("containers without directories of pods", "ml/a  main@aa")
		})
	}
}

func TestAPIServer(t *testing.T) {
	c := newCluster(t)
	r := newRig(t, func(conf *Config) {
		conf.Source, conf.REST = SourceAPIServer, c.config
		conf.Want.Annotations = func(key string) bool { return key == "owner" }
	})
	a := pod("ml", "a", "u-1", map[string]string{"team": "x"})
	a.Annotations = map[string]string{"owner": "ana", corev1.LastAppliedConfigAnnotation: strings.Repeat("x", 64<<10)}
	static := pod("kube-system", "monitor-n", "u-m", nil, metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u-n", Controller: yes()})
	static.Annotations = map[string]string{annotationMirror: "0123456789abcdef"}
	c.put(meta(a), meta(static))
	r.run()
	r.wait("the first pods", "kube-system/monitor-n u-m cgroup=0123456789abcdef", "ml/a u-1 team=x owner=ana")
	if p := r.Pods().ByCgroupUID("0123456789abcdef"); p == nil || p.Name != "monitor-n" {
		t.Errorf("the static pod is %v", p)
	}

	c.put(meta(pod("ml", "b", "u-2", nil)))
	a.Labels["team"] = "y"
	c.put(meta(a))
	r.wait("changes", "kube-system/monitor-n u-m cgroup=0123456789abcdef", "ml/a u-1 team=y owner=ana", "ml/b u-2")
	c.remove(meta(a))
	c.put(meta(pod("ml", "a", "u-3", nil)))
	eventually(t, "the new pod of the name", func() bool { return r.Pods().ByName("ml", "a").UID == "u-3" })
	if n := len(c.asked("/api/v1/pods?")); n != 2 {
		t.Errorf("%d requests for one list and one watch: %q", n, c.asked("/api/v1/pods?"))
	}

	// The server forgets what has been: routine.
	c.forget()
	eventually(t, "another list, of the newest state", func() bool {
		return len(c.asked("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&limit=100")) == 2
	})
	c.put(meta(pod("ml", "c", "u-4", nil)))
	eventually(t, "a pod after that", func() bool { return r.Pods().ByName("ml", "c") != nil })
	if s := r.Status()[SourceAPIServer]; !s.Up || total(s.Failures) != 0 {
		t.Errorf("status %+v", s)
	}
}

// A server that sends pages is asked for all of them.
func TestAPIServerPages(t *testing.T) {
	c := newCluster(t)
	c.paged = true
	const many = 2*pageSize + 50
	for i := range many {
		c.put(meta(pod("ml", fmt.Sprintf("p%03d", i), fmt.Sprintf("u-%03d", i), nil)))
	}
	r := newRig(t, func(conf *Config) { conf.Source, conf.REST = SourceAPIServer, c.config })
	r.run()
	eventually(t, "all pods", func() bool { return len(r.Pods().All()) == many })
	if n := len(c.asked("continue=")); n != 2 {
		t.Errorf("%d pages were asked for after the first", n)
	}
}

func TestAPIServerFailures(t *testing.T) {
	always := func(code int) func(*cluster) {
		return func(c *cluster) {
			c.failWith(func(*http.Request) (int, string) { return code, `{"message":"because"}` })
		}
	}
	works := func(c *cluster) { c.failWith(nil) }
	reached := func(c *cluster) { c.adjustConfig(nil) }
	for _, tc := range []struct {
		name       string
		fail, heal func(*cluster)
		reason     Reason
		text       string // in the error
	}{
		{"token expired", (*cluster).expireToken, (*cluster).renewToken, ReasonUnauthorized, "401 Unauthorized"},
		{"forbidden", always(http.StatusForbidden), works, ReasonForbidden, "403 Forbidden: because"},
		{"wrong version", always(http.StatusNotFound), works, ReasonUnsupported, "404 Not Found"},
		{"cannot give metadata", always(http.StatusNotAcceptable), works, ReasonUnsupported, "406"},
		{"in trouble", always(http.StatusInternalServerError), works, ReasonUnavailable, "500"},
		{"overloaded", always(http.StatusTooManyRequests), works, ReasonRateLimited, "429"},
		{"a proxy's page", func(c *cluster) {
			c.failWith(func(*http.Request) (int, string) { return http.StatusOK, "<html>Sign in</html>" })
		}, works, ReasonUnsupported, "text/plain"},
		{"slow", func(c *cluster) {
			c.failWith(func(r *http.Request) (int, string) {
				<-r.Context().Done()
				return http.StatusServiceUnavailable, ""
			})
		}, works, ReasonTimeout, "no answer in time"},
		{"connection refused", func(c *cluster) {
			c.adjustConfig(func(config *rest.Config) error { config.Host = "https://127.0.0.1:1"; return nil })
		}, reached, ReasonUnavailable, "connection refused"},
		{"certificate of somebody else", func(c *cluster) {
			c.adjustConfig(func(config *rest.Config) error { config.CAData = nil; return nil })
		}, reached, ReasonOther, "certificate"},
		{"no kubeconfig", func(c *cluster) {
			c.adjustConfig(func(*rest.Config) error { return errors.New("no such file") })
		}, reached, ReasonNoConfig, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t)
			c.put(meta(pod("ml", "a", "u-1", nil)))
			r := newRig(t, func(conf *Config) {
				conf.Source, conf.REST, conf.Timeout = SourceAPIServer, c.config, 300*time.Millisecond
			})
			// From the start.
			tc.fail(c)
			r.run()
			failing := func(s SourceStatus) bool {
				return !s.Up && s.InUse && s.Reason == tc.reason && strings.Contains(s.Err.Error(), tc.text)
			}
			r.waitFor(SourceAPIServer, "the failure", failing)
			if len(r.Pods().All()) > 0 {
				t.Errorf("there are pods: %q", describe(r.Pods()))
			}
			tc.heal(c)
			r.wait("the pod", "ml/a u-1")
			good := r.Pods()

			// And later, when there are pods to keep.
			tc.fail(c)
			c.endWatches()
			r.waitFor(SourceAPIServer, "the failure", failing)
			if r.Pods() != good {
				t.Errorf("while it fails: %q", describe(r.Pods()))
			}
			c.put(meta(pod("ml", "b", "u-2", nil)))
			tc.heal(c)
			r.wait("the other pod", "ml/a u-1", "ml/b u-2")
			r.waitFor(SourceAPIServer, "recovery", func(s SourceStatus) bool { return s.Up && s.Err == nil && s.Failures[tc.reason] > 1 })
			if n := r.log.count("level=WARN"); n > 2 {
				t.Errorf("%d warnings of two outages", n)
			}
		})
	}
}

// What is too old is not given any more, and neither is a pod that another one
// of its name has replaced, as the directories tell.
func TestTooOld(t *testing.T) {
	for _, tc := range []struct {
		name   string
		maxAge time.Duration
		happen func(*rig)
		want   []string
	}{
		{"all", 20 * time.Millisecond, func(*rig) {}, nil},
		{"replaced pods", time.Hour, func(r *rig) { r.logPod("ml_a_u-3") }, []string{"ml/a u-3", "ml/b u-2 team=x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t)
			label := map[string]string{"team": "x"}
			c.put(meta(pod("ml", "a", "u-1", label)), meta(pod("ml", "b", "u-2", label)))
			r := newRig(t, func(conf *Config) { conf.Source, conf.REST, conf.MaxAge = SourceAPIServer, c.config, tc.maxAge })
			r.changeOver = 10 * time.Millisecond // how often it is looked
			r.run()
			r.wait("good pods", "ml/a u-1 team=x", "ml/b u-2 team=x")
			c.failWith(func(*http.Request) (int, string) { return http.StatusForbidden, "" })
			c.endWatches()
			tc.happen(r)
			r.wait("old pods", tc.want...)
			c.failWith(nil)
			eventually(t, "good pods again", func() bool { return r.Pods().ByCgroupUID("u-1") != nil })
		})
	}
}

func TestNewErrors(t *testing.T) {
	config := func() (*rest.Config, error) { return &rest.Config{}, nil }
	for want, c := range map[string]Config{
		"a path of 1 to":         {PodsSocket: strings.Repeat("x", 200)},
		`source "etcd" is none`:  {Source: "etcd"},
		"how to reach":           {Source: SourceAPIServer, Node: "n"},
		"the name of this node":  {Source: SourceAPIServer, REST: config},
		"must be positive":       {MaxAge: -1},
		"-1ns must be positive":  {Timeout: -1},
		`source "log_directory"`: {Source: SourceLogDir},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// Every reason has its count from the start.
func TestStatusHasAllReasons(t *testing.T) {
	r := newRig(t, func(c *Config) { c.REST = noAPIServer(t) })
	for source, s := range r.Status() {
		if len(s.Failures) != len(source.Reasons()) || len(s.Failures) == 0 {
			t.Errorf("%s: %v, want all of %v", source, s.Failures, source.Reasons())
		}
		for _, reason := range source.Reasons() {
			if source.Hint(reason) == "" {
				t.Errorf("%s, %s: no hint", source, reason)
			}
		}
	}
	if len(r.Status()) != 3 {
		t.Errorf("%d sources", len(r.Status()))
	}
	if f := r.OwnerFailures(); len(f) != len(OwnerReasons()) {
		t.Errorf("of owners: %v", f)
	}
}

// Run leaves no goroutine behind, whatever it was at.
func TestRunLeavesNothing(t *testing.T) {
	c := newCluster(t)
	owner := c.own("/apis/apps/v1/namespaces/ml/replicasets/web", served{})
	c.put(meta(pod("ml", "web-x", "u-1", nil, owner)))
	kubelet := newRig(t, nil)
	kubelet.startKubelet()
	before := runtime.NumGoroutine()
	for i := range 20 {
		r := newRig(t, func(conf *Config) {
			conf.REST = c.config
			if i%2 == 0 {
				conf.PodsSocket = kubelet.c.PodsSocket
			}
		})
		r.run()
		eventually(t, "a source that is up", func() bool {
			return r.Status()[SourcePodsAPI].Up || r.Status()[SourceAPIServer].Up
		})
		r.stop()
	}
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "goroutines ended", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// Nothing that a scrape calls waits for a source that hangs.
func TestReadersDoNotWait(t *testing.T) {
	c := newCluster(t)
	c.failWith(func(r *http.Request) (int, string) {
		<-r.Context().Done()
		return http.StatusServiceUnavailable, ""
	})
	r := newRig(t, func(conf *Config) { conf.REST = c.config })
	r.kubelet.SetSilent(true)
	r.startKubelet()
	r.run()
	eventually(t, "requests that hang", func() bool { return r.kubelet.Watches() > 0 && len(c.asked("pods")) > 0 })
	before := runtime.NumGoroutine()
	for range 1000 {
		r.Pods().ByName("ml", "a")
		r.Status()
		r.OwnerFailures()
	}
	if after := runtime.NumGoroutine(); after > before+10 {
		t.Errorf("%d goroutines grew to %d", before, after)
	}
}
