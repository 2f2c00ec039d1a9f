// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func testStatus() *Status {
	return &Status{
		Page:   func() ([]byte, error) { return []byte("<p>state</p>"), nil },
		JSON:   func() ([]byte, error) { return []byte("{}\n"), nil },
		Policy: "default-src 'none'",
	}
}

// The status page and its JSON replace the links, have a policy, and are for reading only.
func TestStatus(t *testing.T) {
	t.Parallel()
	e := Endpoints{Metrics: http.NotFoundHandler(), Ready: alwaysReady, Status: testStatus()}
	handler, err := e.Handler()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
		headers      map[string]string
	}{
		{"GET", "/", 200, "<p>state</p>", map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store",
			"X-Content-Type-Options": "nosniff", "Content-Length": "12",
		}},
		{"HEAD", "/", 200, "", map[string]string{"Content-Length": "12"}},
		{"GET", "/api/v1/status", 200, "{}\n", map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}},
		{"POST", "/", 405, "Method Not Allowed\n", nil},
		{"DELETE", "/api/v1/status", 405, "Method Not Allowed\n", nil},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.status || w.Body.String() != tt.body {
			t.Errorf("%s %s: %d %q", tt.method, tt.path, w.Code, w.Body)
		}
		for name, want := range tt.headers {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s %s: %s is %q, want %q", tt.method, tt.path, name, got, want)
			}
		}
	}
	e.Status = nil
	if handler, err = e.Handler(); err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{"/": 200, "/api/v1/status": 404} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != status || path == "/" && !strings.Contains(w.Body.String(), `href="/metrics"`) {
			t.Errorf("without the status page, %s answers %d %s", path, w.Code, w.Body)
		}
	}
}

// Further requests than the limit wait, and then get 503. An error and a panic release
// their turn.
func TestStatusLimit(t *testing.T) {
	t.Parallel()
	turns := newTurns(1)
	turns.wait = time.Minute
	request := func(render func() ([]byte, error)) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		defer func() { _ = recover() }()
		turns.answer(w, httptest.NewRequest(http.MethodGet, "/", nil), "text/plain", render)
		return w
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		request(func() ([]byte, error) { close(entered); <-leave; return nil, nil })
	}()
	<-entered
	turns.wait = time.Millisecond
	if w := request(testStatus().Page); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("above the limit: %d %s", w.Code, w.Body)
	}
	close(leave)
	<-done
	turns.wait = time.Minute
	if w := request(func() ([]byte, error) { return nil, errors.New("broken") }); w.Code != http.StatusInternalServerError {
		t.Errorf("an error answers %d", w.Code)
	}
	request(func() ([]byte, error) { panic("broken") })
	if w := request(testStatus().Page); w.Code != http.StatusOK {
		t.Errorf("after an error and a panic: %d %s", w.Code, w.Body)
	}
}
