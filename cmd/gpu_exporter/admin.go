// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"gpu_exporter/collector"
)

const (
	defaultPause = 10 * time.Minute
	minPause     = time.Second
	maxPause     = 24 * time.Hour
)

const (
	// confirmTimeout is how long an answer waits for the sampler to have done what
	// was asked for.
	confirmTimeout = 5 * time.Second
	confirmPoll    = 20 * time.Millisecond
)

// profilingControl lets an operator pause profiling, so that tools which need the
// same hardware counters (Nsight, CUPTI) can work.
type profilingControl struct {
	node       *collector.Node
	supervisor *collector.Supervisor
	log        *slog.Logger
}

// adminEndpoints are those of c. They change what a node does for everybody, so
// they are there only if asked for.
func adminEndpoints(enabled bool, c profilingControl) []endpoint {
	if !enabled {
		off := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "The admin API is off: start the exporter with --"+optAdminAPI+".", http.StatusForbidden)
		})
		return []endpoint{{"/-/profiling", off}, {"/-/profiling/", off}}
	}
	// A web page that an operator happens to look at must not pause anything.
	foreign := http.NewCrossOriginProtection()
	return []endpoint{
		{"/-/profiling", getOnly(func(w http.ResponseWriter, _ *http.Request) { c.answer(w, http.StatusOK) })},
		{"/-/profiling/pause", foreign.Handler(postOnly(c.pause))},
		{"/-/profiling/resume", foreign.Handler(postOnly(c.resume))},
	}
}

func (c profilingControl) pause(w http.ResponseWriter, r *http.Request) {
	d := defaultPause
	if text := r.URL.Query().Get("for"); text != "" {
		var err error
		if d, err = anyDuration(text); err != nil {
			http.Error(w, fmt.Sprintf("for=%q is not a duration: write one such as 10m.", text), http.StatusBadRequest)
			return
		}
	}
	if d < minPause || d > maxPause {
		http.Error(w, fmt.Sprintf("for=%v is out of range: give %v to %v.", d, minPause, maxPause), http.StatusBadRequest)
		return
	}
	until := c.supervisor.PauseProfiling(d)
	c.log.Info("Profiling is to be paused", "until", until, "client", r.RemoteAddr)
	c.answer(w, c.confirm(r.Context(), true))
}

func (c profilingControl) resume(w http.ResponseWriter, r *http.Request) {
	c.supervisor.PauseProfiling(0)
	c.log.Info("Profiling is to be resumed", "client", r.RemoteAddr)
	c.answer(w, c.confirm(r.Context(), false))
}

// confirm waits until the sampler has paused or resumed: whoever asked then has
// the hardware. It returns the status, which is accepted if that takes longer.
func (c profilingControl) confirm(ctx context.Context, paused bool) int {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	poll := time.NewTicker(confirmPoll)
	defer poll.Stop()
	for !c.done(paused) {
		select {
		case <-ctx.Done():
			return http.StatusAccepted
		case <-poll.C:
		}
	}
	return http.StatusOK
}

// done says whether profiling is paused on all GPUs that have it or, without
// paused, on none. Of a sampler that samples and has said nothing there are none.
func (c profilingControl) done(paused bool) bool {
	status := c.supervisor.Status()
	profiling, _ := c.node.Profiling()
	if profiling == nil || !status.Running {
		return status.Sampling
	}
	for _, g := range profiling.GPUs {
		switch g.State {
		case collector.ProfilingPaused:
			if !paused {
				return false
			}
		case collector.ProfilingActive, collector.ProfilingFrozen, collector.ProfilingLocked:
			if paused {
				return false
			}
		}
	}
	return true
}

// profilingAnswer is what all endpoints answer with.
type profilingAnswer struct {
	Paused bool                 `json:"paused"` // asked for, whether or not it is so yet
	Until  *time.Time           `json:"until,omitempty"`
	GPUs   []profilingAnswerGPU `json:"gpus"` // those on which profiling fields are asked for
}

type profilingAnswerGPU struct {
	GPU   string `json:"gpu"` // as in the label
	UUID  string `json:"uuid"`
	State string `json:"state"` // as in gpu_profiling_state
}

func (c profilingControl) answer(w http.ResponseWriter, status int) {
	a := profilingAnswer{GPUs: []profilingAnswerGPU{}}
	if until := c.supervisor.Status().ProfilingPausedUntil; !until.IsZero() {
		a.Paused, a.Until = true, &until
	}
	if profiling, inv := c.node.Profiling(); profiling != nil {
		for _, g := range profiling.GPUs {
			e := &inv.Entities[g.Entity]
			a.GPUs = append(a.GPUs, profilingAnswerGPU{strconv.FormatUint(uint64(e.ID), 10), e.UUID, g.State.String()})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a) // an error is the client's, which has gone away
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
