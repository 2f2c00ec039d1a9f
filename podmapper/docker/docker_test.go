// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
)

func newWatcher(t *testing.T, c Config) *Watcher {
	t.Helper()
	c.MIGMinors = "testdata/mig-minors"
	w, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.engine.close)
	return w
}

// run runs w.Run until the end of the test.
func run(t *testing.T, w *Watcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func refresh(t *testing.T, w *Watcher) *Table {
	t.Helper()
	if err := w.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.Table()
}

// holds returns the holds of a table in one line.
func holds(t *Table) string {
	if t == nil {
		return "unknown"
	}
	var all []string
	for _, h := range t.Holds {
		all = append(all, h.Container.Name+"="+h.Devices.String())
	}
	return strings.Join(all, ", ")
}

func gpu(n int) fakeContainer {
	return fakeContainer{inspect: fmt.Sprintf(`"Runtime":"runc","DeviceRequests":[{"Driver":"nvidia","DeviceIDs":["%d"],"Capabilities":[["gpu"]]}]`, n)}
}

func TestNew(t *testing.T) {
	w := newWatcher(t, Config{Socket: filepath.Join(t.TempDir(), "none")})
	if s := w.Status(); w.Table() != nil || s.Up || len(s.Failures) != len(hints()) {
		t.Errorf("before the first refresh: %v, %+v", w.Table(), s)
	}
	for _, c := range []Config{
		{Socket: "tcp://127.0.0.1:2375"}, {Socket: "unix://"}, {Socket: "/" + strings.Repeat("x", 200)},
		{Interval: -1}, {Timeout: -1}, {Interval: time.Hour, MaxAge: time.Minute},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("New(%+v) succeeded", c)
		}
	}
}

func TestRefresh(t *testing.T) {
	e := startEngine(t)
	train := gpu(1)
	train.labels = map[string]string{"com.docker.compose.project": "ml", "com.docker.compose.service": "train", "team": "vision", "secret": "x"}
	e.set("train", train)
	e.set("all", fakeContainer{inspect: `"Runtime":"nvidia"`, env: []string{"NVIDIA_VISIBLE_DEVICES=all"}})
	e.set("odd", fakeContainer{inspect: `"Runtime":"nvidia"`, env: []string{"NVIDIA_VISIBLE_DEVICES=first"}})
	e.set("web", fakeContainer{labels: map[string]string{"team": "web"}})
	paused, stopped := gpu(2), gpu(3)
	paused.state, stopped.state = "paused", "exited"
	e.set("paused", paused)
	e.set("stopped", stopped)
	e.set("self", fakeContainer{inspect: `"DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]}]`})
	pod := gpu(0)
	pod.labels = map[string]string{"io.kubernetes.pod.uid": "1", "io.kubernetes.pod.name": "p"}
	e.set("k8s_main_p", pod)

	log := &sourcetest.Log{}
	w := newWatcher(t, Config{Socket: "unix://" + e.socket, Self: idOf("self"), Logger: log.Logger(),
		KeepLabel: func(key string) bool { return key == "team" }})
	table := refresh(t, w)
	if got, want := holds(table), "all=all, paused=2, train=1"; got != want {
		t.Errorf("holds %s, want %s", got, want)
	}
	if c, want := table.Holds[2].Container, (Container{ID: idOf("train"), Name: "train", Image: "image/train", ComposeProject: "ml", ComposeService: "train",
		Labels: []KeyValue{{"team", "vision"}}}); fmt.Sprint(c) != fmt.Sprint(want) {
		t.Errorf("container %+v, want %+v", c, want)
	}
	for _, name := range []string{"web", "self"} {
		if w.known[idOf(name)] == nil {
			t.Errorf("container %s is missing", name)
		}
	}
	for _, name := range []string{"stopped", "k8s_main_p"} {
		if c := w.known[idOf(name)]; c != nil {
			t.Errorf("unexpected container %+v", c)
		}
	}
	if u := table.Unresolved; len(u) != 1 || u[0].Name != "odd" || u[0].ID != idOf("odd") || u[0].Request != "first" || u[0].Reason == "" || u[0].Hint == "" {
		t.Errorf("unresolved: %+v", u)
	}
	s := w.Status()
	if !s.Up || s.LastSuccess.IsZero() || s.Duration <= 0 || s.Refreshes != 1 || s.Err != nil || s.Engine != "Docker Engine - Community 29.0.1" ||
		s.Containers != 6 || s.Holds != 3 || s.Watching {
		t.Errorf("status %+v", s)
	}
	<-w.Changed()

	// A refresh without a change keeps the table and inspects nothing.
	if again := refresh(t, w); again != table {
		t.Errorf("a new table without a change: %s", holds(again))
	}
	for _, name := range []string{"train", "odd", "web"} {
		if n := e.inspections(name); n != 1 {
			t.Errorf("%s was inspected %d times", name, n)
		}
	}
	for _, name := range []string{"self", "k8s_main_p", "stopped"} {
		if n := e.inspections(name); n != 0 {
			t.Errorf("%s was inspected %d times", name, n)
		}
	}
	if n := log.Lines("level=WARN", "Device request of a container is not resolved"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, log)
	}
	select {
	case <-w.Changed():
		t.Error("Changed without a change")
	default:
	}

	// A rename makes a new table and does not modify the former one.
	e.remove("odd")
	e.set("renamed-odd", fakeContainer{})
	next := refresh(t, w)
	if next == table || next.Unresolved[0].Name != "renamed-odd" || table.Unresolved[0].Name != "odd" {
		t.Errorf("after a rename: %+v; before: %+v", next.Unresolved, table.Unresolved)
	}
}

// TestEvents has an interval of an hour, so only events cause refreshes.
func TestEvents(t *testing.T) {
	e := startEngine(t)
	e.set("first", gpu(0))
	w := newWatcher(t, Config{Socket: e.socket, Interval: time.Hour, MaxAge: 2 * time.Hour})
	run(t, w)
	sourcetest.Eventually(t, "the stream of events", func() bool { return w.Status().Watching })
	e.set("second", gpu(1))
	e.report("start")
	sourcetest.Eventually(t, "the container of a start event", func() bool { return holds(w.Table()) == "first=0, second=1" })
	e.remove("first")
	e.report("die")
	sourcetest.Eventually(t, "the removal after a die event", func() bool { return holds(w.Table()) == "second=1" })
	e.set("third", gpu(2))
	e.report("exec_start") // by a health check; the filter excludes it
	e.report("died")       // the name of Podman 4.3
	sourcetest.Eventually(t, "the container of a died event", func() bool { return holds(w.Table()) == "second=1, third=2" })
	e.remove("third")
	e.remove("second")
	e.set("renamed-second", gpu(1))
	e.report("rename")
	sourcetest.Eventually(t, "the new name", func() bool { return holds(w.Table()) == "renamed-second=1" })

	// An engine may report an event before its list shows it.
	before := e.requests("/v1.44/containers/json")
	e.report("die")
	sourcetest.Eventually(t, "an immediate refresh", func() bool { return e.requests("/v1.44/containers/json") > before })
	e.remove("renamed-second")
	sourcetest.Eventually(t, "a delayed refresh", func() bool { return holds(w.Table()) == "" })
}

// TestEventsInBursts checks that many events cause few refreshes.
func TestEventsInBursts(t *testing.T) {
	e := startEngine(t)
	w := newWatcher(t, Config{Socket: e.socket, Interval: time.Hour, MaxAge: 2 * time.Hour})
	run(t, w)
	sourcetest.Eventually(t, "the stream of events", func() bool { return w.Status().Watching })
	start, before := time.Now(), w.Status().Refreshes
	for range 2000 {
		e.report("start")
	}
	sourcetest.Eventually(t, "a refresh", func() bool { return w.Status().Refreshes > before })
	if n, most := w.Status().Refreshes-before, uint64(time.Since(start)/minPause)+2; n > most {
		t.Errorf("%d refreshes in %s", n, time.Since(start))
	}
}

func TestWithoutEvents(t *testing.T) {
	for name, events := range map[string]answer{
		"forbidden": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"message":"denied by policy"}`, http.StatusForbidden)
		},
		"garbage":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "<html>") },
		"too long": func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte("x"), maxEventBytes+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			e := startEngine(t)
			e.serve("/events", events)
			log := &sourcetest.Log{}
			w := newWatcher(t, Config{Socket: e.socket, Interval: 20 * time.Millisecond, Logger: log.Logger()})
			run(t, w)
			e.set("train", gpu(0))
			sourcetest.Eventually(t, "a refresh without events", func() bool { return holds(w.Table()) == "train=0" })
			sourcetest.Eventually(t, "a second request for events", func() bool { return e.requests("/v1.44/events") >= 2 })
			e.remove("train")
			sourcetest.Eventually(t, "the removal without events", func() bool { return holds(w.Table()) == "" })
			if n := log.Lines("level=WARN", "does not report events"); n != 1 || !w.Status().Up {
				t.Errorf("%d warnings:\n%s", n, log)
			}
		})
	}
}

// TestEventsNeverStart checks that a hanging request for events does not block
// refreshes.
func TestEventsNeverStart(t *testing.T) {
	e := startEngine(t)
	e.serve("/events", e.hang)
	log := &sourcetest.Log{}
	w := newWatcher(t, Config{Socket: e.socket, Interval: 20 * time.Millisecond, Timeout: 300 * time.Millisecond, Logger: log.Logger()})
	run(t, w)
	e.set("train", gpu(0))
	sourcetest.Eventually(t, "a refresh without events", func() bool { return holds(w.Table()) == "train=0" })
	sourcetest.Eventually(t, "the timeout of the stream", func() bool { return log.Lines("level=WARN", "reason=timeout") == 1 })
}

// TestRestart checks that the table remains while the engine is down, and that its
// restart is detected long before the next regular refresh.
func TestRestart(t *testing.T) {
	e := startEngine(t)
	e.set("train", gpu(0))
	log := &sourcetest.Log{}
	w := newWatcher(t, Config{Socket: e.socket, Interval: time.Hour, MaxAge: 2 * time.Hour, Logger: log.Logger()})
	run(t, w)
	sourcetest.Eventually(t, "the stream of events", func() bool { return w.Status().Watching })
	table := w.Table()
	e.stop()
	sourcetest.Eventually(t, "the failure", func() bool { s := w.Status(); return !s.Up && s.Failures[poll.NoSocket] > 0 })
	if s := w.Status(); w.Table() != table || s.Watching || s.Err == nil || s.Reason != poll.NoSocket {
		t.Errorf("while the engine is down: %s, %+v", holds(w.Table()), s)
	}
	e.set("next", gpu(1))
	e.start()
	sourcetest.Eventually(t, "the recovery", func() bool { return holds(w.Table()) == "next=1, train=0" && w.Status().Watching })
	e.remove("train")
	e.report("die")
	sourcetest.Eventually(t, "an event after the recovery", func() bool { return holds(w.Table()) == "next=1" })
	if n := log.Lines("level=WARN", "reason=no_socket"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, log)
	}
}

func TestMaxAge(t *testing.T) {
	e := startEngine(t)
	e.set("train", gpu(0))
	log := &sourcetest.Log{}
	w := newWatcher(t, Config{Socket: e.socket, Interval: 10 * time.Millisecond, MaxAge: time.Second, Logger: log.Logger()})
	table := refresh(t, w)
	run(t, w)
	e.stop()
	sourcetest.Eventually(t, "the expiry", func() bool { return w.Table() == nil && log.Lines("level=WARN", "has expired") > 0 })
	expiries, refreshes := log.Lines("level=WARN", "has expired"), w.Status().Refreshes
	sourcetest.Eventually(t, "more failures", func() bool { return w.Status().Refreshes > refreshes+3 })
	if s := w.Status(); s.Holds != 0 || log.Lines("level=WARN", "has expired") != expiries || log.Lines("level=WARN", `msg="Owner source failed" source=docker reason=no_socket`) != 1 {
		t.Errorf("status %+v\n%s", s, log)
	}
	e.start()
	sourcetest.Eventually(t, "the table", func() bool { return w.Table() == table })
}

func TestFailures(t *testing.T) {
	const list = "/containers/json"
	text := func(s string) answer { return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) } }
	status := func(code int, body string) answer {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, code) }
	}
	kilobyte := bytes.Repeat([]byte("x"), 1<<10)
	flood := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"Id":"`)
		for range 2 << 10 {
			if _, err := w.Write(kilobyte); err != nil {
				return
			}
		}
	}
	many := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "[")
		for i := range maxContainers + 1 {
			fmt.Fprintf(w, `{"Id":"%064x"},`, i)
		}
		fmt.Fprintf(w, `{"Id":"%064x"}]`, 1<<20)
	}
	for _, tc := range []struct {
		name   string
		path   string
		answer answer
		reason poll.Reason
		err    string
	}{
		{"internal error", list, status(500, `{"message":"database is locked"}`), reasonEngine, "database is locked"},
		{"internal error without JSON", list, status(503, strings.Repeat("x", 1<<20)), reasonEngine, "503"},
		{"denied", list, status(403, `{"message":"denied by policy"}`), poll.Forbidden, "denied by policy"},
		{"different program", list, status(404, "404 page not found"), poll.Unsupported, "404"},
		{"old API", list, status(400, `{"message":"client version 1.44 is too new. Maximum supported API version is 1.30"}`), poll.Unsupported, "too new"},
		{"redirect", list, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://example.invalid/", http.StatusFound)
		}, poll.Other, "302"},
		{"HTML page", list, text("<html></html>"), poll.Malformed, "invalid character"},
		{"object", list, text(`{"containers":[]}`), poll.Malformed, "not a list"},
		{"wrong type", list, text(`[{"Id":5}]`), poll.Malformed, "number"},
		{"path instead of an ID", list, text(`[{"Id":"../../images"}]`), poll.Malformed, "not a container ID"},
		{"truncated response", list, text(`[{"Id":"` + idOf("x") + `","Na`), poll.Unavailable, "unexpected EOF"},
		{"empty response", list, text(``), poll.Unavailable, "EOF"},
		{"2 MiB", list, flood, poll.TooLarge, "1 MiB"},
		{"2 MiB with Content-Length", list, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(2<<20))
			flood(w, r)
		}, poll.TooLarge, "1 MiB"},
		{"too many containers", list, many, poll.TooLarge, "4096 containers"},
		{"closed connection", list, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, poll.Unavailable, "EOF"},
		{"not HTTP", list, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprint(c, "SSH-2.0-OpenSSH_9.6\r\n")
				c.Close()
			}
		}, poll.Malformed, "malformed HTTP"},
		{"no response", list, nil, poll.Timeout, "deadline"},
		{"malformed version", "/version", text("5"), poll.Malformed, "version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := startEngine(t)
			e.set("train", gpu(0))
			log := &sourcetest.Log{}
			w := newWatcher(t, Config{Socket: e.socket, Timeout: time.Minute, Logger: log.Logger()})
			table := refresh(t, w)
			w.engine.maxList = 1 << 20
			w.api.Store(nil) // as after a restart
			if tc.answer == nil {
				tc.answer = e.hang
				w.engine.timeout = 50 * time.Millisecond
			}
			e.serve(tc.path, tc.answer)
			for range 2 {
				err := w.Refresh(t.Context())
				if err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), e.socket) {
					t.Errorf("error %v", err)
				}
			}
			if s := w.Status(); s.Up || s.Reason != tc.reason || s.Failures[tc.reason] != 2 || s.Refreshes != 3 {
				t.Errorf("status %+v", s)
			}
			if w.Table() != table {
				t.Errorf("table after failures: %s", holds(w.Table()))
			}
			if n := log.Lines("level=WARN", "hint="); n != 1 {
				t.Errorf("%d warnings:\n%s", n, log)
			}
			e.serve(tc.path, nil)
			w.engine.timeout = time.Minute
			if refresh(t, w) != table {
				t.Errorf("table after the recovery: %s", holds(w.Table()))
			}
		})
	}
}

func TestFailuresToConnect(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, tc := range []struct {
		socket string
		reason poll.Reason
	}{
		{filepath.Join(dir, "none"), poll.NoSocket},
		{left, poll.Unavailable},
		{dir, poll.Unavailable},
	} {
		w := newWatcher(t, Config{Socket: tc.socket})
		if err := w.Refresh(t.Context()); err == nil || w.Status().Reason != tc.reason || w.Table() != nil {
			t.Errorf("%s: %v, %+v", tc.socket, err, w.Status())
		}
	}
	// Tests often run as root, which may open every socket.
	if r := poll.ReasonOf(&net.OpError{Op: "dial", Err: syscall.EACCES}); r != poll.Forbidden {
		t.Errorf("reason of EACCES: %s", r)
	}
	for r, hint := range hints() {
		if hint == "" {
			t.Errorf("no hint for %s", r)
		}
	}
}

// TestOneBadContainer checks that a failed inspection does not affect the other
// containers.
func TestOneBadContainer(t *testing.T) {
	e := startEngine(t)
	for name, bad := range map[string]answer{
		"hangs": e.hang,
		"fails": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"message":"RWLayer is nil"}`, http.StatusInternalServerError)
		},
		"is malformed": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Config":3}`) },
		"is large":     func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte(" "), maxInspectBytes+1)) },
		"disconnects":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"is gone":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{}`, http.StatusNotFound) },
	} {
		t.Run(name, func(t *testing.T) {
			e := startEngine(t)
			for i := range 4 {
				e.set(fmt.Sprintf("c%d", i), gpu(i))
			}
			path := "/containers/" + idOf("c1") + "/json"
			e.serve(path, bad)
			log := &sourcetest.Log{}
			w := newWatcher(t, Config{Socket: e.socket, Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond, Logger: log.Logger()})
			run(t, w)
			sourcetest.Eventually(t, "the other containers and the reason", func() bool {
				return holds(w.Table()) == "c0=0, c2=2, c3=3" && w.Status().Up && len(w.Table().Unresolved) == 1 &&
					strings.HasPrefix(w.Table().Unresolved[0].Reason, "the inspection of the container failed")
			})
			if u := w.Table().Unresolved[0]; u.Name != "c1" || u.ID != idOf("c1") || u.Hint == "" {
				t.Errorf("unresolved: %+v", u)
			}
			sourcetest.Eventually(t, "a warning", func() bool { return log.Lines("level=WARN", "Inspection of a container failed") > 0 })
			before := e.requests("/v1.44" + path)
			sourcetest.Eventually(t, "retries", func() bool { return e.requests("/v1.44"+path) >= before+2 })
			if n := log.Lines("level=WARN", "Inspection of a container failed"); n != 1 {
				t.Errorf("%d warnings:\n%s", n, log)
			}
			e.serve(path, nil)
			sourcetest.Eventually(t, "the container after its recovery", func() bool { return holds(w.Table()) == "c0=0, c1=1, c2=2, c3=3" && len(w.Table().Unresolved) == 0 })
		})
	}
}

// TestEngineStopsDuringRefresh checks that a refresh which fails after the list
// keeps the former table, and that the next one continues.
func TestEngineStopsDuringRefresh(t *testing.T) {
	e := startEngine(t)
	e.set("old", gpu(0))
	w := newWatcher(t, Config{Socket: e.socket})
	table := refresh(t, w)
	e.remove("old")
	for _, name := range []string{"a", "b"} {
		e.set(name, gpu(1))
		e.serve("/containers/"+idOf(name)+"/json", func(http.ResponseWriter, *http.Request) {
			e.stop()
			panic(http.ErrAbortHandler)
		})
	}
	if err := w.Refresh(t.Context()); err == nil || w.Table() != table {
		t.Fatalf("%v: %s", err, holds(w.Table()))
	}
	e.start()
	for _, name := range []string{"a", "b"} {
		e.serve("/containers/"+idOf(name)+"/json", nil)
	}
	sourcetest.Eventually(t, "both containers", func() bool {
		for _, k := range w.known {
			k.nextTry = time.Time{}
		}
		return holds(refresh(t, w)) == "a=1, b=1"
	})
}

// TestSlowEngine checks that one refresh is bounded in time and the next continues.
func TestSlowEngine(t *testing.T) {
	e := startEngine(t)
	var names []string
	for i := range 40 {
		name := fmt.Sprintf("c%02d", i)
		names = append(names, name+"=1")
		e.set(name, gpu(1))
		e.serve("/containers/"+idOf(name)+"/json", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(10 * time.Millisecond)
			e.inspect(w, idOf(name))
		})
	}
	w := newWatcher(t, Config{Socket: e.socket, Interval: time.Hour, MaxAge: 2 * time.Hour, Timeout: time.Minute})
	w.inspectTime = 200 * time.Millisecond
	run(t, w)
	sourcetest.Eventually(t, "all containers", func() bool { return holds(w.Table()) == strings.Join(names, ", ") })
	if n := w.Status().Refreshes; n < 2 {
		t.Errorf("%d refreshes", n)
	}
}

func TestNegotiate(t *testing.T) {
	for _, tc := range []struct{ name, version, prefix, engine string }{
		{"Docker", `{"Platform":{"Name":"Docker Engine - Community"},"Components":[{"Name":"Engine"}],"Version":"29.0.1","ApiVersion":"1.52","MinAPIVersion":"1.44"}`, "/v1.44", "Docker Engine - Community 29.0.1"},
		{"Docker from a distribution", `{"Platform":{"Name":""},"Components":[{"Name":"Engine"}],"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}`, "/v1.41", "Docker Engine 20.10.24"},
		{"future Docker", `{"Version":"40.0","ApiVersion":"1.90","MinAPIVersion":"1.60"}`, "/v1.60", "Docker Engine 40.0"},
		{"Podman", `{"Platform":{"Name":"linux/amd64/debian-12"},"Components":[{"Name":"Podman Engine","Version":"4.3.1"}],"Version":"4.3.1","ApiVersion":"1.41","MinAPIVersion":"1.24"}`, "/v1.41", "Podman Engine 4.3.1"},
		{"no version", `{}`, "", "Docker Engine"},
		{"malformed versions", `{"Version":"1\n2","ApiVersion":"v1","MinAPIVersion":"1.24"}`, "", "Docker Engine 1 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := startEngine(t)
			e.serve("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, tc.version) })
			e.set("train", gpu(0))
			w := newWatcher(t, Config{Socket: e.socket})
			if got := holds(refresh(t, w)); got != "train=0" || e.requests(tc.prefix+"/containers/json") != 1 || e.requests(tc.prefix+"/containers/"+idOf("train")+"/json") != 1 {
				t.Errorf("holds %s, requests %v", got, e.paths)
			}
			if got := w.Status().Engine; got != tc.engine {
				t.Errorf("engine %q, want %q", got, tc.engine)
			}
		})
	}
	for _, code := range []int{403, 404} {
		e := startEngine(t)
		e.serve("/version", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", code) })
		refresh(t, newWatcher(t, Config{Socket: e.socket}))
		if e.requests("/containers/json") != 1 {
			t.Errorf("status %d for /version: requests %v", code, e.paths)
		}
	}
}

func TestRunLeavesNoGoroutines(t *testing.T) {
	e := startEngine(t)
	e.set("train", gpu(0))
	before := runtime.NumGoroutine()
	for range 10 {
		w := newWatcher(t, Config{Socket: e.socket})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		sourcetest.Eventually(t, "the stream of events", func() bool { return w.Status().Watching && w.Table() != nil })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s := w.Status(); s.Watching || s.Failures[poll.Unavailable]+s.Failures[poll.Timeout] > 0 {
			t.Errorf("status after Run: %+v", s)
		}
	}
	sourcetest.Eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// TestHangingEngine checks that an engine which accepts connections and never
// responds does not leak goroutines.
func TestHangingEngine(t *testing.T) {
	e := startEngine(t)
	e.serve("/version", e.hang)
	w := newWatcher(t, Config{Socket: e.socket, Interval: time.Millisecond, Timeout: 5 * time.Millisecond})
	run(t, w)
	sourcetest.Eventually(t, "timeouts", func() bool { return w.Status().Failures[poll.Timeout] >= 10 })
	before := runtime.NumGoroutine()
	sourcetest.Eventually(t, "more timeouts", func() bool { return w.Status().Failures[poll.Timeout] >= 100 })
	sourcetest.Eventually(t, "a stable number of goroutines", func() bool { return runtime.NumGoroutine() <= before+5 })
}

// String lists the devices for comparisons.
func (d Devices) String() string {
	if d.All {
		return "all"
	}
	names := make([]string, len(d.IDs))
	for i, id := range d.IDs {
		names[i] = id.String()
	}
	return strings.Join(names, " ")
}
