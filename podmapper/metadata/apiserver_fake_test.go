// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// cluster is an API server: it lists and watches the metadata of pods, in
// protobuf over HTTP/2 with TLS, and serves owners. It answers as a kube-apiserver
// 1.37 does, and fails a test that asks for more than metadata of its own node.
type cluster struct {
	t      *testing.T
	server *httptest.Server
	token  string // file with the token that clients send

	mu       sync.Mutex
	accepted string // token
	version  int
	oldest   int // the version from which changes are remembered
	pods     map[string]metav1.PartialObjectMetadata
	history  []happening
	news     chan struct{}     // closed at each change
	objects  map[string]served // by path
	requests []string          // paths and queries, without the order of parameters
	fail     func(*http.Request) (code int, body string)
	adjust   func(*rest.Config) error
	ends     chan struct{} // closed to end all watches
	paged    bool          // answer in pages also from the cache
}

type happening struct {
	version int
	frame   []byte
}

type served struct {
	meta metav1.ObjectMeta
	json bool // as some extension servers do
	code int  // instead of it, if not 0
}

const testNode = "node-1"

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		t: t, accepted: "token", version: 100, token: filepath.Join(t.TempDir(), "token"),
		pods: make(map[string]metav1.PartialObjectMetadata), objects: make(map[string]served), news: make(chan struct{}), ends: make(chan struct{}),
	}
	c.renewToken()
	c.server = httptest.NewUnstartedServer(c)
	c.server.EnableHTTP2 = true
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.server.StartTLS()
	t.Cleanup(func() {
		c.server.CloseClientConnections()
		c.server.Close()
	})
	return c
}

// config is what a pod would have from its service account.
func (c *cluster) config() (*rest.Config, error) {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	config := &rest.Config{Host: c.server.URL, BearerTokenFile: c.token, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.adjust != nil {
		return config, c.adjust(config)
	}
	return config, nil
}

// adjustConfig makes clients get another configuration; nil: the right one.
func (c *cluster) adjustConfig(f func(*rest.Config) error) { c.change(func() { c.adjust = f }) }

// expireToken makes the token that clients have a bad one.
func (c *cluster) expireToken() { c.change(func() { c.accepted += "+" }) }

// renewToken puts a good token into the file.
func (c *cluster) renewToken() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.WriteFile(c.token, []byte(c.accepted), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// failWith makes requests fail for which f gives a code; nil makes all work.
func (c *cluster) failWith(f func(*http.Request) (code int, body string)) {
	c.change(func() { c.fail = f })
}

func (c *cluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// put adds or replaces a pod of the node.
func (c *cluster) put(pods ...metav1.PartialObjectMetadata) {
	c.change(func() {
		for _, p := range pods {
			event := eventAdded
			if _, known := c.pods[string(p.UID)]; known {
				event = eventModified
			}
			c.happens(event, p)
		}
	})
}

func (c *cluster) remove(pods ...metav1.PartialObjectMetadata) {
	c.change(func() {
		for _, p := range pods {
			c.happens(eventDeleted, p)
		}
	})
}

func (c *cluster) happens(event string, p metav1.PartialObjectMetadata) {
	c.version++
	p.ResourceVersion = strconv.Itoa(c.version)
	if event == eventDeleted {
		delete(c.pods, string(p.UID))
	} else {
		c.pods[string(p.UID)] = p
	}
	c.history = append(c.history, happening{c.version, frame(c.t, event, kindObject, &p)})
	c.wake()
}

func (c *cluster) wake() {
	close(c.news)
	c.news = make(chan struct{})
}

// forget makes the server forget what has happened so far: watches end, and
// cannot begin from there.
func (c *cluster) forget() {
	c.change(func() {
		c.version++
		c.oldest, c.history = c.version, nil
		c.wake()
	})
}

// endWatches ends the watches that are under way.
func (c *cluster) endWatches() {
	c.change(func() {
		close(c.ends)
		c.ends = make(chan struct{})
	})
}

// asked gives the requests so far that contain a text.
func (c *cluster) asked(text string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []string
	for _, r := range c.requests {
		if strings.Contains(r, text) {
			found = append(found, r)
		}
	}
	return found
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	c.mu.Lock()
	c.requests = append(c.requests, r.URL.Path+"?"+query.Encode())
	fail, accepted := c.fail, c.accepted
	o, known := c.objects[r.URL.Path]
	c.mu.Unlock()

	if fail != nil {
		if code, body := fail(r); code != 0 {
			http.Error(w, body, code)
			return
		}
	}
	if r.Header.Get("Authorization") != "Bearer "+accepted {
		c.status(w, r, http.StatusUnauthorized, "Unauthorized")
		return
	}
	switch {
	case r.URL.Path == "/api/v1/pods" && query.Get("watch") == "true":
		c.watch(w, r)
	case r.URL.Path == "/api/v1/pods":
		c.list(w, r)
	case r.URL.Path == "/apis/apps/v1", r.URL.Path == "/apis/batch/v1", r.URL.Path == "/apis/ray.io/v1":
		c.discover(w, r)
	case !known:
		c.status(w, r, http.StatusNotFound, "not found")
	case o.code != 0:
		c.status(w, r, o.code, http.StatusText(o.code))
	default:
		c.object(w, r, o)
	}
}

// status answers with a Status, in the form that the client prefers.
func (c *cluster) status(w http.ResponseWriter, r *http.Request, code int, message string) {
	s := metav1.Status{Code: int32(code), Message: message, Status: metav1.StatusFailure}
	if strings.HasPrefix(r.Header.Get("Accept"), protobuf) {
		w.Header().Set("Content-Type", protobuf)
		w.WriteHeader(code)
		w.Write(envelope(c.t, kindStatus, &s))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(s)
}

// ofNode checks that no more is asked for than the metadata of one node's pods.
func (c *cluster) ofNode(r *http.Request, accept string) {
	if got := r.URL.Query().Get("fieldSelector"); got != "spec.nodeName="+testNode {
		c.t.Errorf("%s asks for the pods of %q", r.URL, got)
	}
	if got := r.Header.Get("Accept"); got != accept {
		c.t.Errorf("%s accepts %q", r.URL, got)
	}
}

func (c *cluster) list(w http.ResponseWriter, r *http.Request) {
	c.ofNode(r, "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	query := r.URL.Query()
	c.mu.Lock()
	defer c.mu.Unlock()
	list := metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(c.version)}}
	uids := slices.Sorted(maps.Keys(c.pods))
	if next := query.Get("continue"); next != "" {
		if query.Has("resourceVersion") {
			c.t.Errorf("%s has a resource version as well", r.URL)
		}
		at, _ := slices.BinarySearch(uids, next)
		uids = uids[at:]
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	if (c.paged || query.Get("resourceVersion") != "0") && len(uids) > limit {
		list.Continue = uids[limit]
		uids = uids[:limit]
	}
	for _, uid := range uids {
		list.Items = append(list.Items, c.pods[uid])
	}
	w.Header().Set("Content-Type", protobuf)
	w.Write(envelope(c.t, kindList, &list))
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request) {
	c.ofNode(r, "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil || r.URL.Query().Get("allowWatchBookmarks") != "true" || r.URL.Query().Get("timeoutSeconds") == "" {
		c.t.Errorf("a watch of %s", r.URL)
	}
	w.Header().Set("Content-Type", protobuf+";stream=watch")
	w.WriteHeader(http.StatusOK)
	c.mu.Lock()
	ends := c.ends
	c.mu.Unlock()
	for {
		w.(http.Flusher).Flush()
		c.mu.Lock()
		news, expired := c.news, from < c.oldest
		var frames [][]byte
		for _, h := range c.history {
			if h.version > from {
				frames, from = append(frames, h.frame), h.version
			}
		}
		c.mu.Unlock()
		if expired {
			w.Write(frame(c.t, eventError, kindStatus, &metav1.Status{Code: http.StatusGone, Message: "too old resource version"}))
			return
		}
		for _, f := range frames {
			w.Write(f)
		}
		if len(frames) > 0 {
			bookmark := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(from)}}
			w.Write(frame(c.t, eventBookmark, kindObject, &bookmark))
			continue
		}
		select {
		case <-news:
		case <-ends:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (c *cluster) discover(w http.ResponseWriter, r *http.Request) {
	resources := map[string][]metav1.APIResource{
		"/apis/apps/v1": {
			{Name: "deployments", Kind: "Deployment", Namespaced: true}, {Name: "deployments/status", Kind: "Deployment", Namespaced: true},
			{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true}, {Name: "statefulsets", Kind: "StatefulSet", Namespaced: true},
		},
		"/apis/batch/v1":  {{Name: "jobs", Kind: "Job", Namespaced: true}, {Name: "cronjobs", Kind: "CronJob", Namespaced: true}},
		"/apis/ray.io/v1": {{Name: "rayclusters", Kind: "RayCluster", Namespaced: true}, {Name: "rayjobs", Kind: "RayJob", Namespaced: true}},
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(metav1.APIResourceList{APIResources: resources[r.URL.Path]})
}

func (c *cluster) object(w http.ResponseWriter, r *http.Request, o served) {
	if accept := r.Header.Get("Accept"); strings.Contains(accept, "application/json,") || !strings.Contains(accept, "as=PartialObjectMetadata;") {
		c.t.Errorf("%s accepts %q", r.URL, accept)
	}
	meta := metav1.PartialObjectMetadata{ObjectMeta: o.meta}
	if o.json {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(meta)
		return
	}
	w.Header().Set("Content-Type", protobuf)
	w.Write(envelope(c.t, kindObject, &meta))
}

// own adds an owner, and gives the reference to it. The kind of above is zero
// for a topmost one.
func (c *cluster) own(path string, o served, above ...metav1.OwnerReference) metav1.OwnerReference {
	parts := strings.Split(path, "/") // "", apis, group, version, namespaces, ns, resource, name
	o.meta.Name, o.meta.Namespace, o.meta.OwnerReferences = parts[7], parts[5], above
	if o.meta.UID == "" {
		o.meta.UID = types.UID("uid-of-" + parts[7])
	}
	c.change(func() { c.objects[path] = o })
	kinds := map[string]string{
		"replicasets": "ReplicaSet", "deployments": "Deployment", "statefulsets": "StatefulSet", "jobs": "Job", "cronjobs": "CronJob",
		"rayclusters": "RayCluster", "rayjobs": "RayJob",
	}
	kind := kinds[parts[6]]
	if kind == "" {
		kind = "Unknown"
	}
	return metav1.OwnerReference{
		APIVersion: fmt.Sprintf("%s/%s", parts[2], parts[3]), Kind: kind, Name: parts[7], UID: o.meta.UID, Controller: yes(),
	}
}
