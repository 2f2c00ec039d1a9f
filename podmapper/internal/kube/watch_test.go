// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"gpu_exporter/podmapper/internal/poll"
)

// apiServer has one resource, example.com things. The test sets its answers.
type apiServer struct {
	*httptest.Server
	mu      sync.Mutex
	asked   []string                    // requests
	version string                      // the one that is served
	token   string                      // the one that is accepted
	items   []map[string]any            // of the next list
	watch   func(w http.ResponseWriter) // writes events; returning ends the watch
	refuse  int                         // status of every answer
	events  chan map[string]any
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{version: "v2", token: "good", events: make(chan map[string]any)}
	s.Server = httptest.NewTLSServer(s) // client-go sends tokens over TLS only
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s
}

func (s *apiServer) set(f func()) { s.mu.Lock(); defer s.mu.Unlock(); f() }

func thing(name, uid string, labels map[string]any) map[string]any {
	return map[string]any{
		"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
		"metadata": map[string]any{"name": name, "namespace": "ml", "uid": uid, "resourceVersion": "8", "labels": labels},
	}
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.RequestURI())
	version, token, items, watch, refuse := s.version, s.token, s.items, s.watch, s.refuse
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	status := func(code int) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"message":"no %d"}`, code, code)
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token:
		status(http.StatusUnauthorized)
	case refuse != 0:
		status(refuse)
	case !strings.HasPrefix(r.URL.Path, "/apis/example.com/"+version+"/things"):
		status(http.StatusNotFound)
	case r.URL.Query().Get("watch") != "true":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
			"metadata": map[string]any{"resourceVersion": "7"}, "items": items,
		})
	case watch != nil:
		watch(w)
	default:
		w.(http.Flusher).Flush()
		for {
			select {
			case e := <-s.events:
				_ = json.NewEncoder(w).Encode(e)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
}

// kubeconfig writes a kubeconfig for the server.
func (s *apiServer) kubeconfig(t *testing.T, path, token string) {
	t.Helper()
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":%q,"certificate-authority-data":%q}}],"users":[{"name":"u","user":{"token":%q}}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`, s.URL, ca, token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// record is what a Watch reported.
type record struct {
	t       *testing.T
	mu      sync.Mutex
	version string
	objects map[string]string
	errs    []error
	clients int
	news    chan struct{}
}

func (r *record) set(f func()) {
	r.mu.Lock()
	f()
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// until waits for a state.
func (r *record) until(what string, ok func() bool) {
	r.t.Helper()
	giveUp := time.After(time.Minute)
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.news:
		case <-giveUp:
			r.t.Fatalf("never %s: version %q, objects %v, %d errors, the last %v", what, r.version, r.objects, len(r.errs), r.errs[max(0, len(r.errs)-1):])
		}
	}
}

func (r *record) failed(reason poll.Reason) func() bool {
	return func() bool {
		return slices.ContainsFunc(r.errs, func(err error) bool { return poll.ReasonOf(err) == reason })
	}
}

func start(t *testing.T, access Access, pause ...time.Duration) *record {
	r := &record{t: t, news: make(chan struct{}, 1)}
	group := func(version string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: "example.com", Version: version, Resource: "things"}
	}
	w := &Watch[string]{
		Access: access, Resources: []schema.GroupVersionResource{group("v3"), group("v2"), group("v1")},
		FieldSelector: "spec.nodeName=" + access.Node, Metadata: true,
		Trim: func(o metav1.Object) (string, bool) { return o.GetName() + o.GetLabels()["x"], o.GetName() != "bad" },
		Update: func(version string, objects map[string]string) {
			r.set(func() { r.version, r.objects = version, maps.Clone(objects) })
		},
		Fail:      func(err error) { r.set(func() { r.errs = append(r.errs, err) }) },
		Connected: func(*Client) { r.set(func() { r.clients++ }) },
		Retry:     [2]time.Duration{time.Millisecond, 20 * time.Millisecond},
	}
	if len(pause) > 0 {
		w.Retry[0] = pause[0]
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func TestWatch(t *testing.T) {
	s := newAPIServer(t)
	s.items = []map[string]any{thing("a", "1", nil), thing("bad", "2", nil)}
	file := filepath.Join(t.TempDir(), "config")
	s.kubeconfig(t, file, "good")
	r := start(t, Access{Kubeconfig: file, Node: "n"})
	has := func(want map[string]string) func() bool { return func() bool { return maps.Equal(r.objects, want) } }
	r.until("listed", has(map[string]string{"1": "a"}))
	s.events <- map[string]any{"type": "ADDED", "object": thing("b", "3", nil)}
	r.until("added", has(map[string]string{"1": "a", "3": "b"}))
	s.events <- map[string]any{"type": "MODIFIED", "object": thing("b", "3", map[string]any{"x": "!"})}
	r.until("modified", has(map[string]string{"1": "a", "3": "b!"}))
	s.events <- map[string]any{"type": "DELETED", "object": thing("a", "1", nil)}
	r.until("deleted", has(map[string]string{"3": "b!"}))
	if r.version != "v2" || len(r.errs) != 0 {
		t.Errorf("version %q, errors %v", r.version, r.errs)
	}
	for _, request := range s.asked {
		if !strings.Contains(request, "fieldSelector=spec.nodeName%3Dn") {
			t.Errorf("request %s", request)
		}
	}

	// An error event is reported, and the objects are listed again.
	s.set(func() { s.items = []map[string]any{thing("c", "4", nil)} })
	s.events <- map[string]any{"type": "ERROR", "object": map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "etcd is lost"}}
	r.until("listed again", has(map[string]string{"4": "c"}))
	r.until("failed", r.failed(poll.Unavailable))

	// The next version is used once the old one does not exist.
	s.set(func() { s.version = "v3" })
	s.events <- map[string]any{"type": "ERROR", "object": map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}}
	r.until("listed in the next version", func() bool { return r.version == "v3" })
	if n := len(r.errs); n != 1 {
		t.Errorf("errors %v", r.errs)
	}
}

// TestLateKubeconfig checks that a kubeconfig, a node's API server and credentials
// that appear late are used.
func TestLateKubeconfig(t *testing.T) {
	s := newAPIServer(t)
	s.items = []map[string]any{thing("a", "1", nil)}
	file := filepath.Join(t.TempDir(), "config")
	r := start(t, Access{Kubeconfig: file, Node: "n"})
	r.until("without configuration", r.failed(poll.NoConfig))
	s.kubeconfig(t, file, "bad")
	r.until("rejected", r.failed(poll.Unauthorized))
	s.kubeconfig(t, file, "good")
	r.until("listed", func() bool { return len(r.objects) == 1 })
	if r.clients < 2 {
		t.Errorf("%d clients", r.clients)
	}
}

// TestSpecialKubeconfig checks that a named pipe without a writer blocks no connection.
func TestSpecialKubeconfig(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "config")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir()} {
		a := Access{Kubeconfig: path, Node: "n"}
		_, err := a.Client()
		_, configMap := a.ConfigMap(t.Context(), "ns", "name")
		for _, err := range []error{err, configMap} {
			if err == nil || !strings.Contains(err.Error(), path+": not a regular file") {
				t.Errorf("%s: %v", path, err)
			}
		}
		if poll.ReasonOf(err) != poll.NoConfig {
			t.Errorf("%s: reason %s", path, poll.ReasonOf(err))
		}
	}
}

func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name   string
		begin  func(*apiServer)
		reason poll.Reason
	}{
		{"forbidden", func(s *apiServer) { s.refuse = 403 }, poll.Forbidden},
		{"no such resource", func(s *apiServer) { s.version = "v9" }, poll.NotFound},
		{"server error", func(s *apiServer) { s.refuse = 500 }, poll.Unavailable},
		{"watch cut short", func(s *apiServer) { s.watch = func(http.ResponseWriter) {} }, poll.Unavailable},
		{"malformed event", func(s *apiServer) {
			s.watch = func(w http.ResponseWriter) { fmt.Fprintln(w, "[]") }
		}, poll.Malformed},
		{"no answer to the watch", func(s *apiServer) {
			s.watch = func(http.ResponseWriter) { time.Sleep(200 * time.Millisecond) }
		}, poll.Timeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newAPIServer(t)
			tc.begin(s)
			file := filepath.Join(t.TempDir(), "config")
			s.kubeconfig(t, file, "good")
			r := start(t, Access{Kubeconfig: file, Node: "n", Timeout: 100 * time.Millisecond})
			r.until("failed", r.failed(tc.reason))
		})
	}
	t.Run("no node", func(t *testing.T) {
		r := start(t, Access{Kubeconfig: "/nowhere"})
		r.until("failed", r.failed(poll.NoConfig))
	})
}

// TestWatchCutAfterEvent checks that a server that ends each watch after one event is not
// asked more often than the retries allow.
func TestWatchCutAfterEvent(t *testing.T) {
	s := newAPIServer(t)
	s.items = []map[string]any{thing("a", "1", nil)}
	s.watch = func(w http.ResponseWriter) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": thing("a", "1", nil)})
	}
	file := filepath.Join(t.TempDir(), "config")
	s.kubeconfig(t, file, "good")
	begin := time.Now()
	r := start(t, Access{Kubeconfig: file, Node: "n"}, 100*time.Millisecond)
	watches := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, request := range s.asked {
			if strings.Contains(request, "watch=true") {
				n++
			}
		}
		return n
	}
	r.until("watched five times", func() bool { return watches() >= 5 })
	if n, limit := watches(), int(time.Since(begin)/(100*time.Millisecond))+2; n > limit {
		t.Errorf("%d watches in %s, want at most %d", n, time.Since(begin), limit)
	}
}
