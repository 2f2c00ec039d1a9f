// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
	"maps"
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
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
	"gpu_exporter/podmapper/kubelettest"
)

// rig is a Store with all its sources.
type rig struct {
	*Store
	t       *testing.T
	kubelet *kubelettest.PodsAPI // not started yet
	logs    string               // with the directories pods and containers
	log     *sourcetest.Log
	stop    func()
}

// newRig makes a Store with short intervals. change, if set, changes its
// configuration.
func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, kubelet: kubelettest.NewPodsAPI(filepath.Join(dir, "pods-api.sock")), logs: filepath.Join(dir, "log"), log: &sourcetest.Log{}}
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
		Logger: r.log.Logger(),
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.retry.Duration, s.retry.Cap = 10*time.Millisecond, 100*time.Millisecond
	s.sweep, s.logInterval = 50*time.Millisecond, 10*time.Millisecond
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

// wait waits until describe returns these lines.
func (r *rig) wait(what string, want ...string) {
	r.t.Helper()
	var got []string
	for deadline := time.Now().Add(sourcetest.Patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if got = describe(r.Pods()); slices.Equal(got, want) {
			return
		}
	}
	r.t.Fatalf("%s: got\n%s\nwant\n%s\n%+v", what, strings.Join(got, "\n"), strings.Join(want, "\n"), r.Status())
}

// waitFor waits for the status of a source.
func (r *rig) waitFor(s Source, what string, ok func(SourceStatus) bool) {
	r.t.Helper()
	for deadline := time.Now().Add(sourcetest.Patience); !ok(r.Status()[s]); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within %s: %s: %+v", sourcetest.Patience, what, r.Status()[s])
		}
	}
}

// describe returns a line for each pod.
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

// noAPIServer returns the kubeconfig of an API server that must not receive requests.
func noAPIServer(t *testing.T) string {
	t.Helper()
	c := newCluster(t)
	t.Cleanup(func() {
		if n := len(c.asked("")); n > 0 {
			t.Errorf("the API server has received %d requests", n)
		}
	})
	return c.kubeconfig
}

func TestPodsAPI(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Kubeconfig = noAPIServer(t) })
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
	if first.Source != SourcePodsAPI {
		t.Errorf("source %q", first.Source)
	}

	// A change of the status that does not concern the table is no change.
	restarted := with(train, running("main", "containerd://"+id('a')))
	restarted.Status.PodIP = "10.0.0.1"
	events := r.podsAPI.Status().Refreshes
	put(t, r.kubelet, restarted)
	sourcetest.Eventually(t, "the event", func() bool { return r.podsAPI.Status().Refreshes > events })
	if r.publish(t.Context(), time.Now()); r.Pods() != first {
		t.Error("an event without a change gives a new table")
	}
	put(t, r.kubelet, with(train, running("main", "containerd://"+id('b')))) // a container was restarted
	r.wait("a container's new ID",
		"ml/train u-1 team=vision main@bb",
		"ml/web-77-x u-2 pod-template-hash=77 Deployment/web")
	if got := describe(first); got[0] != "ml/train u-1 team=vision main@aa" {
		t.Errorf("what was published has become %q", got[0])
	}

	// A new pod of the name replaces the old one at once. The old one remains by UID.
	if err := r.kubelet.Remove(train); err != nil {
		t.Fatal(err)
	}
	put(t, r.kubelet, pod("ml", "train", "u-3", map[string]string{"team": "speech"}))
	sourcetest.Eventually(t, "the new pod of the name", func() bool { return r.Pods().ByName("ml", "train").UID == "u-3" })
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

// The kubelet sends no event if only labels change. The next watch finds them.
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
		{"kubelet gone", func(r *rig) { r.kubelet.Stop() }, (*rig).startKubelet, poll.NoSocket},
		{"kubelet starting", func(r *rig) {
			r.kubelet.SetError(status.Error(codes.FailedPrecondition, "Kubelet is initializing"))
			r.kubelet.Drop()
		}, func(r *rig) { r.kubelet.SetError(nil) }, poll.Unavailable},
		{"feature gate off", func(r *rig) {
			r.kubelet.SetError(status.Error(codes.Unimplemented, "unknown service"))
			r.kubelet.Drop()
		}, func(r *rig) { r.kubelet.SetError(nil) }, poll.Unsupported},
		{"watch ended as we were slow", func(r *rig) { r.kubelet.Drop() }, func(*rig) {}, reasonDropped},
		{"kubelet hangs", func(r *rig) {
			r.kubelet.SetSilent(true)
			r.kubelet.Drop()
		}, func(r *rig) { r.kubelet.SetSilent(false) }, poll.Timeout},
		{"a pod too large", func(r *rig) {
			r.kubelet.Send(&podsv1alpha1.WatchPodsEvent{Type: podsv1alpha1.EventType_ADDED, Pod: make([]byte, maxMessage+1)})
		}, func(*rig) {}, poll.TooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *Config) {
				c.Source = SourcePodsAPI
				if tc.reason == poll.Timeout {
					c.Timeout = time.Second
				}
			})
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
			if n := r.log.Lines("level=WARN"); n > 2 {
				t.Errorf("%d warnings of one outage", n)
			}
		})
	}
}

// A malformed pod does not affect the other pods.
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
	if s := r.Status()[SourcePodsAPI]; !s.Up || s.Failures[poll.Malformed] != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestChoose(t *testing.T) {
	labels := Want{Labels: all}
	for _, tc := range []struct {
		name   string
		source Source
		want   Want
		socket bool
		logs   bool
		choice Source
	}{
		{"auto with a socket", SourceAuto, labels, true, true, SourcePodsAPI},
		{"auto without a socket", SourceAuto, labels, false, true, SourceAPIServer},
		{"auto for identities with a socket", SourceAuto, Want{}, true, true, SourcePodsAPI},
		{"auto for identities without a socket", SourceAuto, Want{}, false, true, ""},
		{"auto for identities without any source", SourceAuto, Want{}, false, false, SourcePodsAPI},
		{"Pods API without a socket", SourcePodsAPI, labels, false, true, SourcePodsAPI},
		{"API server with a socket", SourceAPIServer, labels, true, true, SourceAPIServer},
		{"API server for identities", SourceAPIServer, Want{}, true, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) {
				c.Source, c.Want = tc.source, tc.want
				if !tc.logs {
					c.LogDir, c.ContainerLogDir = "", ""
				}
				if tc.socket { // a kubelet that restarts leaves such a file
					if err := os.WriteFile(c.PodsSocket, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			})
			got, err := r.choose()
			if got != tc.choice {
				t.Errorf("chose %q, want %q", got, tc.choice)
			}
			if absent := tc.source == SourceAuto && tc.choice != SourcePodsAPI; absent != (err != nil) || absent && poll.ReasonOf(err) != poll.NoSocket {
				t.Errorf("error %v", err)
			}
			inUse := map[Source]bool{}
			for source, status := range r.Status() {
				inUse[source] = status.InUse
			}
			want := map[Source]bool{}
			if tc.source == SourceAuto {
				want[SourcePodsAPI] = tc.choice == SourcePodsAPI
			}
			if tc.source == SourcePodsAPI {
				want[SourcePodsAPI] = true
			}
			if tc.source != SourcePodsAPI && tc.want.any() {
				want[SourceAPIServer] = tc.choice == SourceAPIServer
			}
			if tc.logs {
				want[SourceLogDir] = tc.choice != SourcePodsAPI
			}
			if !maps.Equal(inUse, want) {
				t.Errorf("in use are %v, want %v", inUse, want)
			}
		})
	}
}

// With SourceAuto the API server is used if the kubelet has no Pods API. The source
// changes only after a failure.
func TestAuto(t *testing.T) {
	c := newCluster(t)
	r := newRig(t, func(conf *Config) { conf.Kubeconfig = c.kubeconfig })
	a := pod("ml", "a", "u-1", map[string]string{"team": "x"})
	c.put(meta(a))
	r.logPod("ml_a_u-1")
	r.logContainer("a", "ml", "main", id('c'))
	r.run()
	// The API server does not report containers, and the directories no labels.
	r.wait("pods of the API server with their containers", "ml/a u-1 team=x main@cc")
	if r.Pods().Source != SourceAPIServer {
		t.Errorf("the source is %q", r.Pods().Source)
	}
	s := r.Status()
	if s[SourcePodsAPI].InUse || s[SourcePodsAPI].Reason != poll.NoSocket || !s[SourceAPIServer].InUse || !s[SourceAPIServer].Up || !s[SourceLogDir].InUse {
		t.Errorf("status %+v", s)
	}
	if n := r.log.Lines("level=WARN"); n != 0 {
		t.Errorf("%d warnings about the missing Pods API, which is normal", n)
	}

	r.kubelet.SetPods(with(a, running("main", "containerd://"+id('d'))))
	r.startKubelet()
	c.put(meta(pod("ml", "late", "u-9", nil)))
	r.wait("another pod of the API server", "ml/a u-1 team=x main@cc", "ml/late u-9")
	if n := r.kubelet.Connections(); n != 0 {
		t.Errorf("%d connections to the kubelet while the API server works", n)
	}

	c.failWith(func(*http.Request) (int, string) { return http.StatusForbidden, "" })
	c.endWatches()
	r.wait("pods of the kubelet", "ml/a u-1 team=x main@dd")
	if r.Pods().Source != SourcePodsAPI {
		t.Errorf("the source is %q", r.Pods().Source)
	}
	sourcetest.Eventually(t, "unused log directories", func() bool { return !r.Status()[SourceLogDir].InUse })
	if s := r.Status(); !s[SourcePodsAPI].Up || !s[SourcePodsAPI].InUse || s[SourceAPIServer].InUse || s[SourceAPIServer].Up {
		t.Errorf("status %+v", s)
	}

	c.failWith(nil)
	requests := len(c.asked(""))
	b := pod("ml", "b", "u-2", nil)
	put(t, r.kubelet, b)
	r.wait("another pod of the kubelet", "ml/a u-1 team=x main@dd", "ml/b u-2")
	if n := len(c.asked("")); n != requests {
		t.Errorf("%d requests to the API server while the Pods API works", n-requests)
	}
	r.kubelet.Stop()
	r.wait("pods of the API server again", "ml/a u-1 team=x main@cc", "ml/late u-9")
}

// The last pods remain during a restart of the kubelet.
func TestKubeletRestart(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Source, c.Kubeconfig = SourcePodsAPI, noAPIServer(t) })
	r.logPod("ml_other_u-9")
	r.kubelet.SetPods(pod("ml", "a", "u-1", nil))
	r.startKubelet()
	r.run()
	r.wait("the pod", "ml/a u-1")
	r.kubelet.Stop()
	r.waitFor(SourcePodsAPI, "the loss", func(s SourceStatus) bool { return !s.Up && s.Reason == poll.NoSocket })
	if got := describe(r.Pods()); !slices.Equal(got, []string{"ml/a u-1"}) {
		t.Errorf("without a kubelet: %q", got)
	}
	r.kubelet.SetPods(pod("ml", "a", "u-1", map[string]string{"team": "x"}))
	r.startKubelet()
	r.wait("pods of the new kubelet", "ml/a u-1 team=x")
}

// The log directories are used if the Pods API is down for longer than a restart.
func TestLogDirStandsIn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Source = SourcePodsAPI })
	now := time.Now()
	if r.needsLogDir(now) || !r.needsLogDir(now.Add(standInTime+time.Second)) {
		t.Error("at the start the log directories are not needed for a minute, and then they are")
	}
	r.kubelet.SetPods(pod("ml", "a", "u-1", nil))
	r.startKubelet()
	r.run()
	r.wait("the pod", "ml/a u-1")
	if r.needsLogDir(now.Add(time.Hour)) {
		t.Error("the log directories are needed while the Pods API is up")
	}
	r.kubelet.Stop()
	r.waitFor(SourcePodsAPI, "the loss", func(s SourceStatus) bool { return !s.Up })
	if now = time.Now(); r.needsLogDir(now) || !r.needsLogDir(now.Add(standInTime+time.Second)) {
		t.Error("after the loss the log directories are not needed for a minute, and then they are")
	}
}

// For identities alone the API server receives no request.
func TestIdentityOnly(t *testing.T) {
	for _, source := range []Source{SourceAuto, SourceAPIServer} {
		t.Run(string(source), func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Source, c.Want, c.Kubeconfig = source, Want{}, noAPIServer(t) })
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
		conf.Source, conf.Kubeconfig = SourceAPIServer, c.kubeconfig
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
	sourcetest.Eventually(t, "the new pod of the name", func() bool { return r.Pods().ByName("ml", "a").UID == "u-3" })
	if n := len(c.asked("/api/v1/pods?")); n != 2 {
		t.Errorf("%d requests for one list and one watch: %q", n, c.asked("/api/v1/pods?"))
	}

	// An expired resource version is routine.
	c.forget()
	sourcetest.Eventually(t, "another list", func() bool { return len(c.asked("/api/v1/pods?"))-len(c.asked("watch=true")) > 1 })
	c.put(meta(pod("ml", "c", "u-4", nil)))
	sourcetest.Eventually(t, "a pod after that", func() bool { return r.Pods().ByName("ml", "c") != nil })
	if s := r.Status()[SourceAPIServer]; !s.Up || total(s.Failures) != 0 {
		t.Errorf("status %+v", s)
	}
}

// All pages of a list are read.
func TestAPIServerPages(t *testing.T) {
	c := newCluster(t)
	c.paged = true
	const many = 1050 // three pages of client-go
	for i := range many {
		c.put(meta(pod("ml", fmt.Sprintf("p%03d", i), fmt.Sprintf("u-%03d", i), nil)))
	}
	r := newRig(t, func(conf *Config) { conf.Source, conf.Kubeconfig = SourceAPIServer, c.kubeconfig })
	r.run()
	sourcetest.Eventually(t, "all pods", func() bool { return len(r.Pods().All()) == many })
	if n := len(c.asked("continue=")); n != 2 {
		t.Errorf("%d requests for further pages", n)
	}
}

func TestAPIServerFailures(t *testing.T) {
	type action = func(*cluster)
	always := func(code int) action {
		return func(c *cluster) {
			c.failWith(func(*http.Request) (int, string) { return code, "because" })
		}
	}
	works := func(c *cluster) { c.failWith(nil) }
	// Rejected credentials make the Store read the kubeconfig again.
	configured := func(change action) action {
		return func(c *cluster) {
			change(c)
			c.expireToken()
		}
	}
	repaired := func(c *cluster) {
		c.configure(c.server.URL, c.certificate())
		c.renewToken()
	}
	for _, tc := range []struct {
		name       string
		fail, heal action
		reason     Reason
		text       string // in the error
	}{
		{"token expired", (*cluster).expireToken, (*cluster).renewToken, poll.Unauthorized, "Unauthorized"},
		{"forbidden", always(http.StatusForbidden), works, poll.Forbidden, "because"},
		{"wrong version", always(http.StatusNotFound), works, poll.Unsupported, "because"},
		{"metadata not served", always(http.StatusNotAcceptable), works, poll.Unsupported, "because"},
		{"in trouble", always(http.StatusInternalServerError), works, poll.Unavailable, "because"},
		{"overloaded", always(http.StatusTooManyRequests), works, poll.RateLimited, "because"},
		{"page of a proxy", always(http.StatusOK), works, poll.Malformed, "text/html"},
		{"slow", func(c *cluster) {
			c.failWith(func(r *http.Request) (int, string) {
				<-r.Context().Done()
				return http.StatusServiceUnavailable, ""
			})
		}, works, poll.Timeout, ""},
		{"connection refused", configured(func(c *cluster) { c.configure("https://127.0.0.1:1", c.certificate()) }),
			repaired, poll.Unavailable, "connection refused"},
		{"unknown authority", configured(func(c *cluster) { c.configure(c.server.URL, "") }),
			repaired, poll.Other, "certificate"},
		{"no kubeconfig", configured(func(c *cluster) { os.Remove(c.kubeconfig) }),
			repaired, poll.NoConfig, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.put(meta(pod("ml", "a", "u-1", nil)))
			r := newRig(t, func(conf *Config) {
				conf.Source, conf.Kubeconfig = SourceAPIServer, c.kubeconfig
				if tc.reason == poll.Timeout {
					conf.Timeout = time.Second
				}
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
			for reason := range SourceAPIServer.hints() {
				if n := r.log.Lines("level=WARN msg=\"Owner source failed\" source=api_server reason=" + string(reason)); n > 2 {
					t.Errorf("%d warnings about %s in two outages", n, reason)
				}
			}
		})
	}
}

// Old pods expire, and so do pods that have been replaced according to the log
// directories.
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
			r := newRig(t, func(conf *Config) {
				conf.Source, conf.Kubeconfig, conf.MaxAge = SourceAPIServer, c.kubeconfig, tc.maxAge
			})
			r.run()
			r.wait("good pods", "ml/a u-1 team=x", "ml/b u-2 team=x")
			c.failWith(func(*http.Request) (int, string) { return http.StatusForbidden, "" })
			c.endWatches()
			tc.happen(r)
			r.wait("old pods", tc.want...)
			c.failWith(nil)
			sourcetest.Eventually(t, "good pods again", func() bool { return r.Pods().ByCgroupUID("u-1") != nil })
		})
	}
}

func TestNewErrors(t *testing.T) {
	for want, c := range map[string]Config{
		"must have 1 to":         {PodsSocket: strings.Repeat("x", 200)},
		`source "etcd" is none`:  {Source: "etcd"},
		"the name of this node":  {Source: SourceAPIServer},
		"must be positive":       {MaxAge: -1},
		"-1ns must be positive":  {Timeout: -1},
		`source "log_directory"`: {Source: SourceLogDir},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// Every reason has a count from the start, and a hint.
func TestStatusHasAllReasons(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Kubeconfig = noAPIServer(t) })
	for source, s := range r.Status() {
		if len(s.Failures) != len(source.hints()) || len(s.Failures) == 0 {
			t.Errorf("%s: %v, want all of %v", source, s.Failures, source.hints())
		}
		for reason, hint := range source.hints() {
			if hint == "" {
				t.Errorf("%s, %s: no hint", source, reason)
			}
		}
	}
	if len(r.Status()) != 3 {
		t.Errorf("%d sources", len(r.Status()))
	}
	if f := r.OwnerFailures(); len(f) != len(ownerHints()) {
		t.Errorf("of owners: %v", f)
	}
}

// Run leaves no goroutine behind, whatever it does when it is stopped.
func TestRunLeavesNothing(t *testing.T) {
	c := newCluster(t)
	owner := c.own("/apis/apps/v1/namespaces/ml/replicasets/web", served{})
	c.put(meta(pod("ml", "web-x", "u-1", nil, owner)))
	kubelet := newRig(t, nil)
	kubelet.startKubelet()
	before := runtime.NumGoroutine()
	for i := range 20 {
		r := newRig(t, func(conf *Config) {
			conf.Kubeconfig = c.kubeconfig
			if i%2 == 0 {
				conf.PodsSocket = kubelet.c.PodsSocket
			}
		})
		r.run()
		sourcetest.Eventually(t, "a source that is up", func() bool {
			return r.Status()[SourcePodsAPI].Up || r.Status()[SourceAPIServer].Up
		})
		r.stop()
	}
	sourcetest.Eventually(t, "goroutines ended", func() bool {
		c.server.CloseClientConnections() // client-go keeps them for 90 s
		return runtime.NumGoroutine() <= before+2
	})
}

// Nothing that a scrape calls waits for a source that hangs.
func TestReadersDoNotWait(t *testing.T) {
	c := newCluster(t)
	c.failWith(func(r *http.Request) (int, string) {
		<-r.Context().Done()
		return http.StatusServiceUnavailable, ""
	})
	for _, source := range []Source{SourcePodsAPI, SourceAPIServer} {
		t.Run(string(source), func(t *testing.T) {
			r := newRig(t, func(conf *Config) { conf.Source, conf.Kubeconfig = source, c.kubeconfig })
			r.kubelet.SetSilent(true)
			r.startKubelet()
			r.run()
			sourcetest.Eventually(t, "a request that hangs", func() bool {
				return source == SourcePodsAPI && r.kubelet.Watches() > 0 || source == SourceAPIServer && len(c.asked("pods")) > 0
			})
			before := runtime.NumGoroutine()
			for range 1000 {
				r.Pods().ByName("ml", "a")
				r.Status()
				r.OwnerFailures()
			}
			if after := runtime.NumGoroutine(); after > before+10 {
				t.Errorf("%d goroutines grew to %d", before, after)
			}
		})
	}
}
