// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	defaultPause = 10 * time.Minute
	minPause     = time.Second
	maxPause     = 24 * time.Hour
)

// profilingPauser is what the endpoints need of the supervisor.
type profilingPauser interface {
	PauseProfiling(d time.Duration) (until time.Time)
}

// adminEndpoints let an operator pause profiling, so that tools which need the
// same hardware counters (Nsight, CUPTI) can work. They change what a node does
// for everybody, so they are there only if asked for.
func adminEndpoints(enabled bool, p profilingPauser, pausedUntil func() time.Time) []endpoint {
	if !enabled {
		off := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "The admin API is off: start the exporter with --"+optAdminAPI+".", http.StatusForbidden)
		})
		return []endpoint{{"/-/profiling", off}, {"/-/profiling/", off}}
	}
	pause := func(w http.ResponseWriter, r *http.Request) {
		d := defaultPause
		if text := r.URL.Query().Get("for"); text != "" {
			var err error
			if d, err = parseDuration(text); err != nil {
				http.Error(w, fmt.Sprintf("for=%q is not a duration: write one such as 10m.", text), http.StatusBadRequest)
				return
			}
		}
		if d < minPause || d > maxPause {
			http.Error(w, fmt.Sprintf("for=%v is out of range: give %v to %v.", d, minPause, maxPause), http.StatusBadRequest)
			return
		}
		writeProfilingState(w, p.PauseProfiling(d))
	}
	resume := func(w http.ResponseWriter, _ *http.Request) { writeProfilingState(w, p.PauseProfiling(0)) }
	return []endpoint{
		{"/-/profiling", getOnly(func(w http.ResponseWriter, _ *http.Request) { writeProfilingState(w, pausedUntil()) })},
		{"/-/profiling/pause", postOnly(pause)},
		{"/-/profiling/resume", postOnly(resume)},
	}
}

// writeProfilingState answers with whether, and until when, profiling is paused.
func writeProfilingState(w http.ResponseWriter, until time.Time) {
	state := struct {
		Paused bool       `json:"paused"`
		Until  *time.Time `json:"until,omitempty"`
	}{}
	if !until.IsZero() {
		state.Paused, state.Until = true, &until
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(state) // an error is the client's, which has gone away
}

func postOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			http.Error(w, "Method not allowed: use POST.", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	})
}
