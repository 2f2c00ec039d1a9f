// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/poll"
)

const node = "node-a"

// journal keeps the log, and signals each line.
type journal struct {
	mu    sync.Mutex
	lines []string
	added chan struct{}
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	j.mu.Lock()
	j.lines = append(j.lines, line)
	j.mu.Unlock()
	select {
	case j.added <- struct{}{}:
	default:
	}
	return nil
}

// at returns the lines of a level and above.
func (j *journal) at(level slog.Level) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.lines), func(l string) bool {
		var of slog.Level
		word, _, _ := strings.Cut(l, " ")
		return of.UnmarshalText([]byte(word)) != nil || of < level
	})
}

// watcher is one under test, which runs until stop.
type watcher struct {
	*Watcher
	t       *testing.T
	cluster *cluster
	log     *journal
	stop    func()
}

func newWatcher(t *testing.T, c *cluster, adjust ...func(*Config, *Watcher)) *watcher {
	t.Helper()
	w := &watcher{t: t, cluster: c, log: &journal{added: make(chan struct{}, 1)}}
	config := Config{Kubeconfig: c.kubeconfig(), Node: node, Logger: slog.New(w.log)}
	for _, f := range adjust {
		f(&config, &Watcher{})
	}
	var err error
	if w.Watcher, err = New(config); err != nil {
		t.Fatal(err)
	}
	w.watch.Retry = [2]time.Duration{time.Millisecond, 20 * time.Millisecond}
	for _, f := range adjust {
		f(&config, w.Watcher)
	}
	return w
}

func (w *watcher) run() *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		// A canceled request may take a moment to end.
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			var stacks strings.Builder
			pprof.Lookup("goroutine").WriteTo(&stacks, 2)
			leaked := slices.ContainsFunc([]string{"dra.(*Watcher)", "kube.(*", "cache.(*Reflector)"}, func(name string) bool {
				return strings.Contains(stacks.String(), name)
			})
			if !leaked {
				return
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("goroutines are still running:\n%s", stacks.String())
			}
		}
	})
	w.t.Cleanup(w.stop)
	return w
}

// until waits for a state.
func (w *watcher) until(what string, ok func() bool) {
	w.t.Helper()
	giveUp := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-w.Changed():
		case <-w.log.added:
		case <-w.cluster.asked:
		case <-time.After(20 * time.Millisecond):
		case <-giveUp:
			w.t.Fatalf("never %s: published %v, status %+v, log:\n%s", what, w.devices(), w.Status(), strings.Join(w.log.at(slog.LevelInfo), "\n"))
		}
	}
}

// devices returns the published devices as pool/name=uuid.
func (w *watcher) devices() string {
	p := w.Published()
	if p == nil {
		return "unknown"
	}
	var all []string
	for name, d := range p.Devices {
		all = append(all, fmt.Sprintf("%s/%s=%s", name.Pool, name.Device, d.UUID))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (w *watcher) untilDevices(want string) {
	w.t.Helper()
	w.until("published "+want, func() bool { return w.devices() == want })
}

func (w *watcher) untilFailed(reason poll.Reason) {
	w.t.Helper()
	w.until("failed: "+string(reason), func() bool { s := w.Status(); return s.Failures[reason] > 0 && s.Reason == reason })
}

func TestEachVersion(t *testing.T) {
	for _, version := range versions() {
		t.Run(version, func(t *testing.T) {
			c := newCluster(t, version)
			c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a", "gpu-1=GPU-b"))
			c.apply("s2", "node-b", gpus("node-b", 1, 1, "gpu-0=GPU-z"))
			w := newWatcher(t, c).run()

			w.untilDevices("node-a/gpu-0=GPU-a node-a/gpu-1=GPU-b")
			w.until("up", func() bool { return w.Status().Up })
			first := w.Published()
			if first.Version != 1 {
				t.Errorf("version %d of the first devices", first.Version)
			}
			d := first.Devices[device.PublishedName{Driver: "gpu.nvidia.com", Pool: node, Device: "gpu-0"}]
			want := device.PublishedDevice{
				Type: "gpu", UUID: "GPU-a",
				PlacementStart: device.Unknown, Index: device.Unknown, Minor: device.Unknown,
			}
			if d != want {
				t.Errorf("device %+v, want %+v", d, want)
			}

			c.apply("s1", node, gpus(node, 2, 1, "gpu-0=GPU-a"))
			w.untilDevices("node-a/gpu-0=GPU-a")
			if v := w.Published().Version; v != 2 {
				t.Errorf("version %d after a change", v)
			}
			c.apply("s3", node, gpus("other", 1, 1, "x=GPU-x"))
			w.untilDevices("node-a/gpu-0=GPU-a other/x=GPU-x")
			// A kubelet that starts deletes all slices of its node, while containers go
			// on to hold the devices.
			c.delete("s3")
			c.delete("s1")
			for deadline := time.Now().Add(20 * time.Second); w.Status().Slices != 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the deletions were never heard")
				}
			}
			if got := w.devices(); got != "node-a/gpu-0=GPU-a other/x=GPU-x" {
				t.Errorf("after the slices were deleted: %s", got)
			}
			c.apply("s4", node, gpus(node, 1, 1, "gpu-2=GPU-c"))
			w.untilDevices("node-a/gpu-2=GPU-c other/x=GPU-x")
			w.stop()

			s := w.Status()
			if !s.Up || s.Err != nil || s.APIVersion != version || s.Slices != 1 || s.Devices != 2 || s.LastSuccess.IsZero() {
				t.Errorf("status %+v", s)
			}
			for _, r := range c.seen(resourceName) {
				if !strings.Contains(r, "fieldSelector=spec.nodeName%3Dnode-a") {
					t.Errorf("request %s", r)
				}
			}
			if n := len(c.seen("watch=true")); n == 0 || n != len(c.seen("/"+version+"/", "watch=true", "allowWatchBookmarks=true", "timeoutSeconds=")) {
				t.Errorf("watches %q", c.seen("watch=true"))
			}
		})
	}
}

func TestBestVersionIsUsed(t *testing.T) {
	c := newCluster(t, "v1beta1", "v1", "v1beta2")
	w := newWatcher(t, c).run()
	w.until("up", func() bool { return w.Status().Up })
	if v := w.Status().APIVersion; v != "v1" {
		t.Errorf("read in %s", v)
	}
}

// After an upgrade of the cluster a different version is served, and the devices
// remain.
func TestVersionChanges(t *testing.T) {
	c := newCluster(t, "v1beta1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c).run()
	w.until("up", func() bool { return w.Status().Up })
	before := w.Published()

	for _, versions := range [][]string{{"v1beta2"}, {"v1", "v1beta1"}, {"v1beta2", "v1beta1"}} {
		c.change(func() { c.versions = versions })
		c.bookmark()
		best := versions[0]
		w.until("watched in "+best, func() bool {
			return len(c.seen("/"+best+"/", "watch=true", "resourceVersion="+c.newest())) > 0
		})
	}
	w.stop()
	if w.Published() != before {
		t.Errorf("published again: %+v and %+v", before, w.Published())
	}
	if n := failures(w); n != 0 {
		t.Errorf("an upgrade counts as %d failures: %+v", n, w.Status())
	}
}

func failures(w *watcher) (n uint64) {
	for _, of := range w.Status().Failures {
		n += of
	}
	return n
}

// A watch reports that a version no longer exists. Slices that appear meanwhile are
// in the list of the next version.
func TestWatchNotFound(t *testing.T) {
	c := newCluster(t, "v1beta1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c).run()
	w.until("up", func() bool { return w.Status().Up })
	c.change(func() { c.versions = nil })
	c.bookmark()
	w.untilFailed(reasonNotServed)
	c.change(func() { c.versions = []string{"v1"} })
	c.apply("s1", node, gpus(node, 2, 1, "gpu-0=GPU-a", "gpu-1=GPU-b"))
	w.untilDevices("node-a/gpu-0=GPU-a node-a/gpu-1=GPU-b")
	if v := w.Status().APIVersion; v != "v1" {
		t.Errorf("read in %s", v)
	}
}

// What goes wrong keeps the devices, is counted by reason, and is logged once
// with what to do, and once when it is over.
func TestTrouble(t *testing.T) {
	answer := func(code int, body string, only ...string) func(*cluster) {
		return func(c *cluster) {
			c.answer = func(r *http.Request) (int, string) {
				for _, text := range only {
					if !strings.Contains(r.URL.RequestURI(), text) {
						return 0, ""
					}
				}
				return code, body
			}
		}
	}
	for _, tc := range []struct {
		name   string
		begin  func(*cluster)
		end    func(*cluster)
		reason poll.Reason
		logs   string
	}{
		{"forbidden", answer(403, statusBody(403, metav1.StatusReasonForbidden, `resourceslices.resource.k8s.io is forbidden: User "system:serviceaccount:gpu:exporter" cannot list`), resourceName), nil, poll.Forbidden, "ClusterRole"},
		{"only watch is forbidden", answer(403, statusBody(403, metav1.StatusReasonForbidden, "cannot watch"), resourceName, "watch=true"), nil, poll.Forbidden, "cannot watch"},
		{"forbidden by a proxy", answer(403, "<html>no</html>", resourceName), nil, poll.Forbidden, "ClusterRole"},
		{"token expired", func(c *cluster) { c.token = "new" }, func(c *cluster) { c.token = "good" }, poll.Unauthorized, "token"},
		{"DRA switched off", func(c *cluster) { c.versions = nil }, func(c *cluster) { c.versions = []string{"v1"} }, reasonNotServed, "dynamic resource allocation"},
		{"only unknown versions", func(c *cluster) { c.versions = []string{"v2"} }, func(c *cluster) { c.versions = []string{"v1"} }, reasonNotServed, "serves none of resource.k8s.io [v1 v1beta2 v1beta1]"},
		{"overloaded", answer(429, statusBody(429, metav1.StatusReasonTooManyRequests, "too many requests")), nil, poll.RateLimited, "flow schemas"},
		{"internal error", answer(500, statusBody(500, metav1.StatusReasonInternalError, "etcd has no leader")), nil, poll.Unavailable, "etcd has no leader"},
		{"gateway timeout", answer(504, "upstream"), nil, poll.Timeout, "overloaded"},
		{"another server", answer(200, "<html>welcome</html>"), nil, poll.Malformed, "Kubernetes API server"},
		{"a list of something else", answer(200, "{}", resourceName), nil, poll.Malformed, "Kubernetes API server"},
		{"an event of nothing", answer(200, `{"type":"ADDED"}`, "watch=true"), nil, poll.Malformed, "unable to decode an event"},
		{"a watch of something else", answer(200, "[]", "watch=true"), nil, poll.Malformed, "unable to decode an event"},
		{"a watch that fails", answer(200, `{"type":"ERROR","object":`+statusBody(500, metav1.StatusReasonInternalError, "etcd is lost")+`}`, "watch=true"), nil, poll.Unavailable, "etcd is lost"},
		{"a teapot", answer(418, ""), nil, poll.Other, "the API server's log"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, "v1")
			c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
			w := newWatcher(t, c).run()
			w.until("up", func() bool { return w.Status().Up })
			before := w.Published()

			c.change(func() { tc.begin(c) })
			c.bookmark()
			w.untilFailed(tc.reason)
			w.until("failed again", func() bool { return w.Status().Failures[tc.reason] >= 3 })
			s := w.Status()
			if s.Up || s.Reason != tc.reason || s.Err == nil {
				t.Errorf("status %+v", s)
			}
			if n := failures(w) - s.Failures[tc.reason]; n > 1 { // one may still be on its way
				t.Errorf("other failures: %v", s.Failures)
			}
			if w.Published() != before {
				t.Errorf("published %v", w.devices())
			}
			warnings := w.log.at(slog.LevelWarn)
			if len(warnings) != 1 || !strings.Contains(warnings[0], tc.logs) || !strings.Contains(warnings[0], "reason="+string(tc.reason)) {
				t.Errorf("warnings:\n%s", strings.Join(warnings, "\n"))
			}

			c.change(func() {
				c.answer = nil
				if tc.end != nil {
					tc.end(c)
				}
			})
			c.apply("s1", node, gpus(node, 2, 1, "gpu-0=GPU-b"))
			w.untilDevices("node-a/gpu-0=GPU-b")
			w.until("logged as up again", func() bool {
				return w.Status().Up && strings.Count(strings.Join(w.log.at(slog.LevelInfo), "\n"), "Owner source is up") >= 2
			})
			if s := w.Status(); !s.Up || s.Err != nil || s.Reason != "" {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// With list but without watch allowed, the slices are at least polled.
func TestPollsWhereWatchIsForbidden(t *testing.T) {
	c := newCluster(t, "v1")
	c.answer = func(r *http.Request) (int, string) {
		if strings.Contains(r.URL.RawQuery, "watch=true") {
			return 403, statusBody(403, metav1.StatusReasonForbidden, "cannot watch")
		}
		return 0, ""
	}
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c).run()
	w.untilDevices("node-a/gpu-0=GPU-a")
	c.apply("s1", node, gpus(node, 2, 1, "gpu-0=GPU-b"))
	w.untilDevices("node-a/gpu-0=GPU-b")
	w.stop()
	if w.Status().Up || len(w.log.at(slog.LevelInfo)) != 1 { // the failure
		t.Errorf("status %+v, log %q", w.Status(), w.log.at(slog.LevelInfo))
	}
}

func TestTokenExpiredAtStart(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	c.token = "another"
	w := newWatcher(t, c).run()
	w.untilFailed(poll.Unauthorized)
	if w.Published() != nil {
		t.Error("devices from nowhere")
	}
	c.change(func() { c.token = "good" })
	w.untilDevices("node-a/gpu-0=GPU-a")
}

func TestServerDownAtStart(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	c.stop()
	w := newWatcher(t, c).run()
	w.untilFailed(poll.Unavailable)
	if p := w.Published(); p != nil || !w.Status().LastSuccess.IsZero() {
		t.Errorf("devices from nowhere: %+v", p)
	}
	c.start(nil)
	w.untilDevices("node-a/gpu-0=GPU-a")
}

// New does not even connect, and Published waits for nothing.
func TestSlowServer(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	hang := make(chan struct{})
	c.hang = hang
	w := newWatcher(t, c, func(c *Config, _ *Watcher) { c.Timeout = 50 * time.Millisecond })
	if n := len(c.seen()); n != 0 {
		t.Errorf("New made %d requests", n)
	}
	w.run()
	w.untilFailed(poll.Timeout)
	if w.Published() != nil {
		t.Error("devices from nowhere")
	}
	c.change(func() { c.hang = nil })
	close(hang)
	w.untilDevices("node-a/gpu-0=GPU-a")
}

func TestMaxAge(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c, func(c *Config, _ *Watcher) { c.MaxAge = time.Nanosecond }).run()
	// While the watch is up, nothing expires, however long it is silent.
	w.until("up", func() bool { return w.Status().Up })
	before := w.Published()
	if before == nil {
		t.Fatal("too old while the watch is up")
	}
	expired := func() int {
		return len(slices.DeleteFunc(w.log.at(slog.LevelWarn), func(l string) bool { return !strings.Contains(l, "has expired") }))
	}
	early := expired() // between the list and the watch it is one nanosecond old
	c.stop()
	w.untilFailed(poll.Unavailable)
	w.until("logged as expired", func() bool { return expired() > early })
	if w.Published() != nil || w.Status().Devices != 1 {
		t.Errorf("published %s, status %+v", w.devices(), w.Status())
	}
	w.until("failed more often", func() bool { return w.Status().Failures[poll.Unavailable] >= 3 })
	if lines := w.log.at(slog.LevelWarn); len(lines) != expired()+1 || expired() > 2 {
		t.Errorf("log:\n%s", strings.Join(lines, "\n"))
	}

	c.start(nil)
	w.until("up again", func() bool { return w.Status().Up })
	if w.Published() != before {
		t.Errorf("the same devices are published again: %+v and %+v", before, w.Published())
	}
}

// The next list omits a slice that is deleted while nothing is watched, whether the
// server rejects the old resource version in the stream or in its answer.
func TestGap(t *testing.T) {
	gone := statusBody(410, metav1.StatusReasonExpired, "too old resource version")
	for _, tc := range []struct {
		name    string
		refused bool
	}{{"rejected in the stream", false}, {"rejected in the answer", true}} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, "v1")
			c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
			c.apply("s2", node, gpus("other", 1, 1, "x=GPU-x"))
			w := newWatcher(t, c).run()
			w.untilDevices("node-a/gpu-0=GPU-a other/x=GPU-x")
			w.until("up", func() bool { return w.Status().Up })
			old := c.bookmark()
			w.until("watched from there", func() bool { return len(c.seen("watch=true", "resourceVersion="+old)) > 0 })
			c.change(func() {
				c.epoch++
				c.revision += 10
				delete(c.objects, "s2")
				c.changes, c.compacted = nil, c.revision
				if tc.refused {
					c.answer = func(r *http.Request) (int, string) {
						if v := r.URL.Query(); v.Get("watch") == "true" && v.Get("resourceVersion") <= old {
							return 410, gone
						}
						return 0, ""
					}
				}
			})
			w.until("listed again", func() bool { return w.Status().Slices == 1 })
			if n := failures(w); n != 0 {
				t.Errorf("a gap counts as %d failures: %+v", n, w.Status())
			}
			if len(w.log.at(slog.LevelWarn)) != 0 {
				t.Errorf("log: %q", w.log.at(slog.LevelWarn))
			}
		})
	}
}

// A restored backup is older than what was seen.
func TestOlderServer(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c).run()
	w.until("up", func() bool { return w.Status().Up })
	c.change(func() {
		c.revision = 7
		c.changes = nil
		c.objects = map[string]object{"s1": {node: node, spec: gpus(node, 1, 1, "gpu-0=GPU-old"), rev: 5}}
		c.answer = func(r *http.Request) (int, string) {
			if v := r.URL.Query().Get("resourceVersion"); len(v) == 3 {
				b := statusBody(504, metav1.StatusReasonTimeout, "")
				b = strings.Replace(b, `"code"`, `"details":{"causes":[{"reason":"ResourceVersionTooLarge"}]},"code"`, 1)
				return 504, b
			}
			return 0, ""
		}
		c.epoch++
	})
	w.untilDevices("node-a/gpu-0=GPU-old")
}

// A watch continues from the last bookmark, without a list.
func TestBookmark(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c).run()
	w.until("up", func() bool { return w.Status().Up })
	c.apply("s9", "node-b", gpus("node-b", 1, 1, "gpu-0=GPU-z")) // not for us
	at := c.bookmark()
	w.until("watched from the bookmark", func() bool { return len(c.seen("watch=true", "resourceVersion="+at)) > 0 })
	c.apply("s1", node, gpus(node, 2, 1, "gpu-0=GPU-b"))
	w.untilDevices("node-a/gpu-0=GPU-b")
	if lists := len(c.seen(resourceName)) - len(c.seen("watch=true")); lists != 1 {
		t.Errorf("%d lists in %q", lists, c.seen())
	}
}

// A proxy that ends each watch at once must not look like a quiet cluster.
func TestWatchIsCutShort(t *testing.T) {
	c := newCluster(t, "v1")
	c.curt = true
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c, func(_ *Config, w *Watcher) { w.watch.Retry = [2]time.Duration{time.Millisecond, 20 * time.Millisecond} }).run()
	w.untilFailed(poll.Unavailable)
	c.change(func() {
		c.revision++
		c.objects["s1"] = object{node: node, spec: gpus(node, 2, 1, "gpu-0=GPU-b"), rev: c.revision}
	})
	w.untilDevices("node-a/gpu-0=GPU-b")
}

// A pool whose slices are replaced one after the other never looks smaller than
// it is.
func TestPoolInTheMiddleOfAChange(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 2, "gpu-0=GPU-a"))
	c.apply("s2", node, gpus(node, 1, 2, "gpu-1=GPU-b"))
	w := newWatcher(t, c, func(_ *Config, w *Watcher) { w.settle = time.Hour }).run()
	w.untilDevices("node-a/gpu-0=GPU-a node-a/gpu-1=GPU-b")
	w.until("up", func() bool { return w.Status().Up })

	c.apply("s1", node, gpus(node, 2, 2, "gpu-0=GPU-a"))
	c.apply("s2", node, gpus(node, 2, 2, "gpu-1=GPU-c"))
	w.untilDevices("node-a/gpu-0=GPU-a node-a/gpu-1=GPU-c")
	if v := w.Published().Version; v != 2 {
		t.Errorf("version %d: the state between was published", v)
	}
}

func TestPoolStaysIncomplete(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	w := newWatcher(t, c, func(_ *Config, w *Watcher) { w.settle = time.Millisecond }).run()
	w.until("up", func() bool { return w.Status().Up })
	c.apply("s1", node, gpus(node, 2, 3, "gpu-0=GPU-b"))
	w.untilDevices("node-a/gpu-0=GPU-b")
	w.until("noted", func() bool {
		return slices.ContainsFunc(w.log.at(slog.LevelDebug), func(l string) bool {
			return strings.HasPrefix(l, "DEBUG Pools of devices are incomplete") && strings.Contains(l, "1 of 3 slices")
		})
	})
}

func TestFieldSelectorIsNotTrusted(t *testing.T) {
	c := newCluster(t, "v1")
	c.blind = true
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	c.apply("s2", "node-b", gpus("node-b", 1, 1, "gpu-0=GPU-z"))
	w := newWatcher(t, c).run()
	w.untilDevices("node-a/gpu-0=GPU-a")
	w.until("up", func() bool { return w.Status().Up })
	c.apply("s3", "node-c", gpus("node-c", 1, 1, "gpu-0=GPU-y"))
	c.apply("s1", node, gpus(node, 2, 1, "gpu-0=GPU-b"))
	w.untilDevices("node-a/gpu-0=GPU-b")
}

// A device that cannot be read costs only itself, and one line.
func TestBadSlice(t *testing.T) {
	c := newCluster(t, "v1")
	bad := gpus(node, 1, 2, "gpu-0=GPU-a")
	bad["devices"] = append(bad["devices"].([]any), map[string]any{"name": "gpu-1", "attributes": 5})
	c.apply("s1", node, bad)
	c.apply("s2", node, gpus(node, 1, 2, "gpu-2=GPU-c"))
	w := newWatcher(t, c).run()
	want := "node-a/gpu-0=GPU-a node-a/gpu-2=GPU-c"
	w.untilDevices(want)
	w.until("up", func() bool { return w.Status().Up })
	at := c.bookmark()
	w.until("watched from the bookmark", func() bool { return len(c.seen("watch=true", "resourceVersion="+at)) > 0 })
	c.change(func() { // all is listed again
		c.epoch++
		c.revision += 2
		c.changes, c.compacted = nil, c.revision
	})
	c.apply("s3", node, gpus("other", 1, 1, "x=GPU-x"))
	w.untilDevices(want + " other/x=GPU-x")
	if lines := w.log.at(slog.LevelWarn); len(lines) != 1 || !strings.Contains(lines[0], "slice=s1") || !strings.Contains(lines[0], "device 1: cannot restore map from int64") {
		t.Errorf("warnings:\n%s", strings.Join(lines, "\n"))
	}
}

func TestStatusHasEveryReason(t *testing.T) {
	w := newWatcher(t, newCluster(t))
	want := make(map[poll.Reason]uint64)
	for r, hint := range hints() {
		want[r] = 0
		if hint == "" {
			t.Errorf("no hint for %s", r)
		}
	}
	s := w.Status()
	if !maps.Equal(s.Failures, want) {
		t.Errorf("failures %v", s.Failures)
	}
	s.Failures[poll.Other]++ // a copy
	if w.Status().Failures[poll.Other] != 0 {
		t.Error("the status can be changed from outside")
	}
}

// A kubeconfig that appears late is used, and the log contains one warning.
func TestLateKubeconfig(t *testing.T) {
	c := newCluster(t, "v1")
	c.apply("s1", node, gpus(node, 1, 1, "gpu-0=GPU-a"))
	path := c.kubeconfig()
	late := filepath.Join(t.TempDir(), "late")
	w := newWatcher(t, c, func(c *Config, _ *Watcher) { c.Kubeconfig = late }).run()
	w.until("without configuration", func() bool { return w.Status().Failures[poll.NoConfig] >= 3 })
	if err := os.Rename(path, late); err != nil {
		t.Fatal(err)
	}
	w.untilDevices("node-a/gpu-0=GPU-a")
	if lines := w.log.at(slog.LevelWarn); len(lines) != 1 || !strings.Contains(lines[0], "NODE_NAME") {
		t.Errorf("warnings:\n%s", strings.Join(lines, "\n"))
	}
}

func TestNew(t *testing.T) {
	for _, c := range []Config{{MaxAge: -1}, {Timeout: -1}} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "must be positive") {
			t.Errorf("%+v: error %v", c, err)
		}
	}
	w, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); w.Status().Reason != poll.NoConfig; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("without the name of the node: %+v", w.Status())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Devices of a pool that does not return are dropped after the maximum age.
func TestGoneDevicesExpire(t *testing.T) {
	name := device.PublishedName{Driver: "gpu.nvidia.com", Pool: node, Device: "gpu-0"}
	last := &device.Published{Devices: map[device.PublishedName]device.PublishedDevice{name: {UUID: "GPU-a"}}}
	w := &Watcher{maxAge: time.Minute, gone: make(map[device.PublishedName]departed)}
	start := time.Now()
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{{0, "GPU-a"}, {59 * time.Second, "GPU-a"}, {61 * time.Second, ""}} {
		devices := map[device.PublishedName]device.PublishedDevice{}
		if w.recall(last, devices, start.Add(tc.after)); devices[name].UUID != tc.want {
			t.Errorf("after %s: %v", tc.after, devices)
		}
		last = &device.Published{Devices: devices}
	}
	if len(w.gone) != 0 {
		t.Errorf("still known: %v", w.gone)
	}
}
