// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"net/http"
	"strconv"
)

// maxStatusRequests bounds the status pages that are prepared at the same time. It is
// separate from the limit of scrapes, so that visitors never keep a scraper out.
const maxStatusRequests = 4

// Status renders the state of the node for people and programs.
type Status struct {
	// Page renders HTML, JSON the same as JSON.
	Page, JSON func() ([]byte, error)
	// Policy is the Content-Security-Policy of the page.
	Policy string
}

// StatusPath is the path of the JSON.
const StatusPath = "/api/v1/status"

func (s *Status) addTo(mux *http.ServeMux) {
	turns := newTurns(maxStatusRequests)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", s.Policy)
		w.Header().Set("Referrer-Policy", "no-referrer")
		turns.answer(w, r, "text/html; charset=utf-8", s.Page)
	})
	mux.HandleFunc("GET "+StatusPath, func(w http.ResponseWriter, r *http.Request) {
		turns.answer(w, r, "application/json", s.JSON)
	})
}

// answer sends what render returns. As with scrapes, the limit does not apply to the write.
func (t *turns) answer(w http.ResponseWriter, r *http.Request, contentType string, render func() ([]byte, error)) {
	if !t.begin(r.Context()) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("Limit of concurrent status requests reached (%d), try again later.", cap(t.slots)), http.StatusServiceUnavailable)
		return
	}
	body, err := func() ([]byte, error) {
		defer t.end() // also if render panics
		return render()
	}()
	if err != nil {
		http.Error(w, "Rendering the status failed: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // fails only if the client is gone
	}
}
