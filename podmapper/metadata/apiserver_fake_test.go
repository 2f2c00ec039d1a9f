// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/base64"
	"encoding/binary"
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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

const (
	protobuf = "application/vnd.kubernetes.protobuf"
	testNode = "node-1"
)

// Events of a watch.
const (
	eventAdded    = "ADDED"
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
	eventBookmark = "BOOKMARK"
	eventError    = "ERROR"
)

// cluster is an API server like kube-apiserver 1.37: it lists and watches the metadata
// of pods, in protobuf over HTTP/2 with TLS, and serves owners. A request for more than
// the metadata of the pods of its node fails the test.
type cluster struct {
	t          *testing.T
	server     *httptest.Server
	token      string // file with the token of the clients
	kubeconfig string // file

	mu       sync.Mutex
	accepted string // token
	version  int
	oldest   int // version since which changes are known
	pods     map[string]metav1.PartialObjectMetadata
	history  []happening
	news     chan struct{}     // closed by each change
	objects  map[string]served // by path
	requests []string          // path and sorted query
	fail     func(*http.Request) (code int, body string)
	ends     chan struct{} // closed to end all watches
	paged    bool          // lists from the cache have pages, too
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

func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{
		t: t, accepted: "token", version: 100, token: filepath.Join(dir, "token"), kubeconfig: filepath.Join(dir, "kubeconfig"),
		pods: make(map[string]metav1.PartialObjectMetadata), objects: make(map[string]served), news: make(chan struct{}), ends: make(chan struct{}),
	}
	c.renewToken()
	c.server = httptest.NewUnstartedServer(c)
	c.server.EnableHTTP2 = true
	c.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.server.StartTLS()
	t.Cleanup(func() {
		c.endWatches()
		c.server.CloseClientConnections()
		c.server.Close()
	})
	c.configure(c.server.URL, c.certificate())
	return c
}

// certificate returns that of the server, in base64.
func (c *cluster) certificate() string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw}))
}

// configure writes a kubeconfig for the clients. Without a certificate they trust only
// public authorities.
func (c *cluster) configure(address, certificate string) {
	c.t.Helper()
	content := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "x",
"clusters": [{"name": "x", "cluster": {"server": %q, "certificate-authority-data": %q}}],
"users": [{"name": "x", "user": {"tokenFile": %q}}],
"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}`, address, certificate, c.token)
	if err := os.WriteFile(c.kubeconfig, []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// expireToken makes the server reject the token of the clients.
func (c *cluster) expireToken() { c.change(func() { c.accepted += "+" }) }

// renewToken writes an accepted token into the file.
func (c *cluster) renewToken() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.WriteFile(c.token, []byte(c.accepted), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// failWith makes requests fail for which f returns a code; 200 is a page of a proxy. Nil
// ends the failures.
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

// forget makes the server forget all changes so far. Watches end, and cannot continue
// from an old version.
func (c *cluster) forget() {
	c.change(func() {
		c.version++
		c.oldest, c.history = c.version, nil
		c.wake()
	})
}

// endWatches ends the current watches.
func (c *cluster) endWatches() {
	c.change(func() {
		close(c.ends)
		c.ends = make(chan struct{})
	})
}

// asked returns the requests so far that contain a text.
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
	// A later endWatches ends this request if it passes.
	fail, accepted, ends := c.fail, c.accepted, c.ends
	o, known := c.objects[r.URL.Path]
	c.mu.Unlock()

	if fail != nil {
		switch code, body := fail(r); code {
		case 0:
		case http.StatusOK:
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, body)
			return
		default:
			c.status(w, r, code, body)
			return
		}
	}
	if r.Header.Get("Authorization") != "Bearer "+accepted {
		c.status(w, r, http.StatusUnauthorized, "Unauthorized")
		return
	}
	switch {
	case r.URL.Path == "/api/v1/pods" && query.Get("watch") == "true":
		c.watch(w, r, ends)
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

// status answers with a Status, in the form that the client prefers. It has no
// Retry-After header, with which client-go would repeat the request itself.
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

// ofNode checks that a request is for the metadata of the pods of the node.
func (c *cluster) ofNode(r *http.Request, accept string) {
	if got := r.URL.Query().Get("fieldSelector"); got != "spec.nodeName="+testNode {
		c.t.Errorf("%s asks for the pods of %q", r.URL, got)
	}
	if got := r.Header.Get("Accept"); !strings.HasPrefix(got, accept+",") {
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
	if (c.paged || query.Get("resourceVersion") != "0") && limit > 0 && len(uids) > limit {
		list.Continue = uids[limit]
		uids = uids[:limit]
	}
	for _, uid := range uids {
		list.Items = append(list.Items, c.pods[uid])
	}
	w.Header().Set("Content-Type", protobuf)
	w.Write(envelope(c.t, kindList, &list))
}

func (c *cluster) watch(w http.ResponseWriter, r *http.Request, ends <-chan struct{}) {
	c.ofNode(r, "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil || r.URL.Query().Get("allowWatchBookmarks") != "true" || r.URL.Query().Get("timeoutSeconds") == "" {
		c.t.Errorf("a watch of %s", r.URL)
	}
	w.Header().Set("Content-Type", protobuf+";stream=watch")
	w.WriteHeader(http.StatusOK)
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
			w.Write(frame(c.t, eventError, kindStatus, &metav1.Status{Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"}))
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
	if accept := r.Header.Get("Accept"); !strings.HasPrefix(accept, protobuf+";as=PartialObjectMetadata;g=meta.k8s.io;v=v1,") {
		c.t.Errorf("%s accepts %q", r.URL, accept)
	}
	meta := metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: kindObject}, ObjectMeta: o.meta,
	}
	if o.json {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(meta)
		return
	}
	w.Header().Set("Content-Type", protobuf)
	w.Write(envelope(c.t, kindObject, &meta))
}

// own adds an owner and returns the reference to it.
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

const (
	kindList   = "PartialObjectMetadataList"
	kindObject = "PartialObjectMetadata"
	kindStatus = "Status"
)

// marshaler is an object with a protobuf form.
type marshaler interface{ Marshal() ([]byte, error) }

func marshal(t testing.TB, m marshaler) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// envelope returns an object in the form of the API server.
func envelope(t testing.TB, kind string, m marshaler) []byte {
	t.Helper()
	version := "meta.k8s.io/v1"
	if kind == kindStatus {
		version = "v1"
	}
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: version, Kind: kind}, Raw: marshal(t, m)}
	return append([]byte("k8s\x00"), marshal(t, &u)...)
}

// frame returns an event of a watch in the form of the API server.
func frame(t testing.TB, event, kind string, m marshaler) []byte {
	t.Helper()
	b := marshal(t, &metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: envelope(t, kind, m)}})
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}
