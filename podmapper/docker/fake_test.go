// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeEngine serves the part of Docker's API that a Watcher uses on a unix socket.
// Its methods may be called while it serves.
type fakeEngine struct {
	t      *testing.T
	socket string
	closed chan struct{} // ends hanging handlers

	mu         sync.Mutex
	server     *http.Server
	containers map[string]fakeContainer // by name
	followers  map[chan string][]string // open streams and their kinds of events
	inspected  map[string]int           // by name
	paths      map[string]int           // number of requests
	instead    map[string]answer        // handlers by suffix of the path
}

// answer handles a request instead of the engine.
type answer func(w http.ResponseWriter, r *http.Request)

type fakeContainer struct {
	state   string // running if empty
	labels  map[string]string
	inspect string // fields of HostConfig
	env     []string
}

// idOf returns the ID of the container with a name.
func idOf(name string) string {
	return (fmt.Sprintf("%x", name) + strings.Repeat("0", idLength))[:idLength]
}

func startEngine(t *testing.T) *fakeEngine {
	t.Helper()
	e := &fakeEngine{
		t: t, socket: filepath.Join(t.TempDir(), "docker.sock"), closed: make(chan struct{}),
		containers: make(map[string]fakeContainer), followers: make(map[chan string][]string),
		inspected: make(map[string]int), paths: make(map[string]int), instead: make(map[string]answer),
	}
	e.start()
	t.Cleanup(func() {
		close(e.closed)
		e.stop()
	})
	return e
}

func (e *fakeEngine) start() {
	e.t.Helper()
	_ = os.Remove(e.socket) // missing at the first start
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		e.t.Fatal(err)
	}
	server := &http.Server{Handler: e}
	e.mu.Lock()
	e.server = server
	e.mu.Unlock()
	go server.Serve(l)
}

// stop stops the engine: it closes connections and removes the socket.
func (e *fakeEngine) stop() {
	e.mu.Lock()
	server := e.server
	e.mu.Unlock()
	server.Close()
}

// set starts or changes a container without an event.
func (e *fakeEngine) set(name string, c fakeContainer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.containers[name] = c
}

func (e *fakeEngine) remove(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.containers, name)
}

// report sends an event to all streams that request its kind.
func (e *fakeEngine) report(action string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for f, actions := range e.followers {
		if !slices.Contains(actions, action) {
			continue
		}
		f <- fmt.Sprintf(`{"status":%q,"Type":"container","Action":%q,"Actor":{"ID":"x"},"scope":"local","time":1}`, action, action)
	}
}

// serve replaces the handler of paths with this suffix. Nil restores it.
func (e *fakeEngine) serve(path string, a answer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.instead[path] = a
}

func (e *fakeEngine) requests(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.paths[path]
}

func (e *fakeEngine) inspections(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inspected[name]
}

// hang blocks until the end of the request or of the test.
func (e *fakeEngine) hang(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-e.closed:
	}
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.paths[r.URL.Path]++
	var instead answer
	for path, a := range e.instead {
		if strings.HasSuffix(r.URL.Path, path) {
			instead = a
		}
	}
	e.mu.Unlock()
	_, path, versioned := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !versioned || !strings.HasPrefix(r.URL.Path, "/v1.") {
		path = strings.TrimPrefix(r.URL.Path, "/")
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case instead != nil:
		instead(w, r)
	case path == "version":
		fmt.Fprint(w, `{"Platform":{"Name":"Docker Engine - Community"},"Components":[{"Name":"Engine","Version":"29.0.1"}],"Version":"29.0.1","ApiVersion":"1.52","MinAPIVersion":"1.44","Os":"linux"}`)
	case path == "containers/json":
		e.list(w, r)
	case path == "events":
		e.follow(w, r)
	case strings.HasPrefix(path, "containers/"):
		e.inspect(w, strings.TrimSuffix(strings.TrimPrefix(path, "containers/"), "/json"))
	default:
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	}
}

func (e *fakeEngine) list(w http.ResponseWriter, r *http.Request) {
	var filters struct{ Status []string }
	if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters); err != nil {
		http.Error(w, `{"message":"invalid filter"}`, http.StatusBadRequest)
		return
	}
	all := []map[string]any{}
	e.mu.Lock()
	for name, c := range e.containers {
		if c.state == "" {
			c.state = "running"
		}
		if slices.Contains(filters.Status, c.state) {
			// A rename keeps the ID.
			id := idOf(strings.TrimPrefix(name, "renamed-"))
			all = append(all, map[string]any{"Id": id, "Names": []string{"/other/alias", "/" + name}, "Image": "sha256:1",
				"Labels": c.labels, "State": c.state, "Ports": []any{}, "HostConfig": map[string]string{"NetworkMode": "bridge"}})
		}
	}
	e.mu.Unlock()
	json.NewEncoder(w).Encode(all)
}

func (e *fakeEngine) inspect(w http.ResponseWriter, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, c := range e.containers {
		if idOf(strings.TrimPrefix(name, "renamed-")) == id {
			e.inspected[name]++
			env, _ := json.Marshal(c.env)
			fmt.Fprintf(w, `{"Id":%q,"Name":"/%s","Config":{"Image":"image/%s","Env":%s},"HostConfig":{%s}}`, id, name, name, env, c.inspect)
			return
		}
	}
	http.Error(w, `{"message":"No such container: `+id+`"}`, http.StatusNotFound)
}

func (e *fakeEngine) follow(w http.ResponseWriter, r *http.Request) {
	var filters struct{ Type, Event []string }
	if err := json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters); err != nil || !slices.Equal(filters.Type, []string{"container"}) {
		http.Error(w, `{"message":"invalid filter"}`, http.StatusBadRequest)
		return
	}
	events := make(chan string, 16)
	e.mu.Lock()
	e.followers[events] = filters.Event
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.followers, events)
		e.mu.Unlock()
	}()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case event := <-events:
			fmt.Fprintln(w, event)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		case <-e.closed:
			return
		}
	}
}
