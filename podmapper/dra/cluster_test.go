// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cluster is an API server with ResourceSlices: TLS, list and watch as of the real one,
// and its failures.
type cluster struct {
	t       testing.TB
	server  *httptest.Server
	address string

	mu        sync.Mutex
	wake      chan struct{} // closed and replaced at every change of what follows
	versions  []string      // versions with ResourceSlices
	token     string
	answer    func(*http.Request) (code int, body string) // instead of the default; code 0: the default
	hang      chan struct{}                               // requests wait for it, if set
	blind     bool                                        // does not know field selectors
	curt      bool                                        // ends every watch at once
	revision  int
	compacted int // older revisions cannot be watched from
	objects   map[string]object
	changes   []change
	epoch     int // watches of an older one end
	requests  []string
	asked     chan struct{} // has a value after a request
}

type object struct {
	node string
	spec map[string]any
	rev  int
}

type change struct {
	rev    int
	kind   string
	name   string
	object object
}

func newCluster(t testing.TB, versions ...string) *cluster {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		t: t, address: listener.Addr().String(), wake: make(chan struct{}), versions: versions,
		token: "good", revision: 100, objects: make(map[string]object), asked: make(chan struct{}, 1),
	}
	c.start(listener)
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *cluster) start(listener net.Listener) {
	c.t.Helper()
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", c.address); err != nil {
			c.t.Fatal(err)
		}
	}
	c.server = httptest.NewUnstartedServer(c)
	c.server.Listener.Close()
	c.server.Listener = listener
	c.server.EnableHTTP2 = true
	c.server.StartTLS()
}

func (c *cluster) stop() {
	if c.server == nil {
		return
	}
	c.cut()
	c.server.CloseClientConnections()
	c.server.Close()
	c.server = nil
}

// kubeconfig writes a kubeconfig for the cluster.
func (c *cluster) kubeconfig() string {
	c.t.Helper()
	server := c.server
	if server == nil { // the certificate is always the same
		server = httptest.NewTLSServer(nil)
		defer server.Close()
	}
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"https://%s","certificate-authority-data":%q}}],
"users":[{"name":"u","user":{"token":"good"}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`, c.address, ca)
	path := filepath.Join(c.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// change calls f under the lock, and wakes all watches.
func (c *cluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.wake)
	c.wake = make(chan struct{})
}

// cut ends all watches after their pending events.
func (c *cluster) cut() { c.change(func() { c.epoch++ }) }

// apply creates or changes a slice of a node.
func (c *cluster) apply(name, node string, spec map[string]any) {
	c.change(func() {
		kind := "MODIFIED"
		if _, known := c.objects[name]; !known {
			kind = "ADDED"
		}
		c.revision++
		o := object{node: node, spec: spec, rev: c.revision}
		c.objects[name] = o
		c.changes = append(c.changes, change{c.revision, kind, name, o})
	})
}

func (c *cluster) delete(name string) {
	c.change(func() {
		c.revision++
		o := c.objects[name]
		o.rev = c.revision
		delete(c.objects, name)
		c.changes = append(c.changes, change{c.revision, "DELETED", name, o})
	})
}

// bookmark sends a bookmark to the watches, and ends them.
func (c *cluster) bookmark() (resourceVersion string) {
	c.change(func() {
		c.revision++
		c.changes = append(c.changes, change{c.revision, "BOOKMARK", "", object{rev: c.revision}})
		c.epoch++
		resourceVersion = strconv.Itoa(c.revision)
	})
	return resourceVersion
}

// newest is the newest resource version.
func (c *cluster) newest() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strconv.Itoa(c.revision)
}

// gpus describes a slice of whole GPUs, each name=uuid.
func gpus(pool string, generation, count int, devices ...string) map[string]any {
	list := []any{}
	for _, d := range devices {
		name, uuid, _ := strings.Cut(d, "=")
		list = append(list, map[string]any{"name": name, "attributes": map[string]any{
			"type": map[string]any{"string": "gpu"}, "uuid": map[string]any{"string": uuid},
		}})
	}
	return map[string]any{
		"driver":  "gpu.nvidia.com",
		"pool":    map[string]any{"name": pool, "generation": generation, "resourceSliceCount": count},
		"devices": list,
	}
}

// render returns a slice in the form of a version.
func (o object) render(version, name string) map[string]any {
	spec := map[string]any{"nodeName": o.node}
	for k, v := range o.spec {
		spec[k] = v
	}
	if list, ok := spec["devices"].([]any); ok && version == "v1beta1" {
		nested := []any{}
		for _, d := range list {
			body := map[string]any{}
			for k, v := range d.(map[string]any) {
				if k != "name" {
					body[k] = v
				}
			}
			nested = append(nested, map[string]any{"name": d.(map[string]any)["name"], "basic": body})
		}
		spec["devices"] = nested
	}
	if o.spec == nil { // a bookmark
		spec = map[string]any{"driver": "", "pool": map[string]any{"name": "", "generation": 0, "resourceSliceCount": 0}, "devices": nil}
	}
	return map[string]any{
		"apiVersion": groupName + "/" + version, "kind": "ResourceSlice",
		"metadata": map[string]any{"name": name, "resourceVersion": strconv.Itoa(o.rev)},
		"spec":     spec,
	}
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests = append(c.requests, r.URL.RequestURI())
	hang, answer, token, versions, epoch := c.hang, c.answer, c.token, c.versions, c.epoch
	c.mu.Unlock()
	select {
	case c.asked <- struct{}{}:
	default:
	}

	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if answer != nil {
		if code, body := answer(r); code != 0 {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
			return
		}
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		refuse(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
		return
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(path) == 4 && path[3] == resourceName && slices.Contains(versions, path[2]):
		node, selected := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "spec.nodeName=")
		all := !selected || c.blind
		if r.URL.Query().Get("watch") == "true" {
			c.watch(w, r, path[2], epoch, func(o object) bool { return all || o.node == node })
			return
		}
		c.list(w, path[2], func(o object) bool { return all || o.node == node })
	default:
		http.Error(w, "404 page not found", http.StatusNotFound) // as the real one: no Status
	}
}

func (c *cluster) list(w http.ResponseWriter, version string, selects func(object) bool) {
	c.mu.Lock()
	items := []any{}
	for name, o := range c.objects {
		if selects(o) {
			items = append(items, o.render(version, name))
		}
	}
	list := map[string]any{
		"apiVersion": groupName + "/" + version, "kind": "ResourceSliceList",
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(c.revision)}, "items": items,
	}
	c.mu.Unlock()
	json.NewEncoder(w).Encode(list)
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request, version string, epoch int, selects func(object) bool) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		c.mu.Lock()
		wake, ended := c.wake, c.epoch != epoch || c.curt
		var lines []any
		if from < c.compacted { // the real one reports it in the stream, too
			lines = append(lines, map[string]any{"type": "ERROR", "object": status(http.StatusGone, metav1.StatusReasonExpired, "too old resource version")})
			ended, from = true, c.revision
		}
		for _, e := range c.changes {
			if e.rev > from {
				from = e.rev
				if e.kind == "BOOKMARK" || selects(e.object) {
					lines = append(lines, map[string]any{"type": e.kind, "object": e.object.render(version, e.name)})
				}
			}
		}
		c.mu.Unlock()
		for _, l := range lines {
			json.NewEncoder(w).Encode(l)
		}
		w.(http.Flusher).Flush()
		if ended {
			return
		}
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		}
	}
}

func status(code int32, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}
}

func statusBody(code int32, reason metav1.StatusReason, message string) string {
	b, _ := json.Marshal(status(code, reason, message))
	return string(b)
}

func refuse(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	w.WriteHeader(int(code))
	fmt.Fprint(w, statusBody(code, reason, message))
}

// seen returns the requests so far that contain all texts.
func (c *cluster) seen(texts ...string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.requests), func(r string) bool {
		for _, text := range texts {
			if !strings.Contains(r, text) {
				return true
			}
		}
		return false
	})
}
