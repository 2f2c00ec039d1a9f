// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/model"
)

const (
	defaultPause = 10 * time.Minute
	minPause     = time.Second
	maxPause     = 24 * time.Hour

	// confirmTimeout bounds how long an answer waits for the sampler.
	confirmTimeout = 5 * time.Second
	confirmPoll    = 20 * time.Millisecond
)

// Profiling lets an operator pause profiling, so that tools that need the same
// hardware counters (Nsight, CUPTI) can work.
type Profiling struct {
	Pause  func(time.Duration) (until time.Time) // 0 resumes
	Status func() model.SamplerStatus
	// GPUs returns the state of each GPU, or nil before the sampler has reported it.
	GPUs   func() (*model.Profiling, *model.Inventory)
	Logger *slog.Logger
}

// addTo adds the endpoints.
func (p *Profiling) addTo(mux *http.ServeMux, sameOrigin *http.CrossOriginProtection) {
	mux.HandleFunc("GET /-/profiling", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, http.StatusOK) })
	mux.Handle("POST /-/profiling/pause", sameOrigin.Handler(http.HandlerFunc(p.pause)))
	mux.Handle("POST /-/profiling/resume", sameOrigin.Handler(http.HandlerFunc(p.resume)))
}

func (p *Profiling) pause(w http.ResponseWriter, r *http.Request) {
	d := defaultPause
	if text := r.URL.Query().Get("for"); text != "" {
		var err error
		if d, err = config.ParseDuration(text, minPause, maxPause); err != nil {
			http.Error(w, fmt.Sprintf("for: %v.", err), http.StatusBadRequest)
			return
		}
	}
	until := p.Pause(d)
	p.Logger.Info("Pausing profiling", "until", until, "client", r.RemoteAddr)
	p.answer(w, p.confirm(r.Context(), true))
}

func (p *Profiling) resume(w http.ResponseWriter, r *http.Request) {
	p.Pause(0)
	p.Logger.Info("Resuming profiling", "client", r.RemoteAddr)
	p.answer(w, p.confirm(r.Context(), false))
}

// confirm waits until the sampler has paused or resumed, so that the caller can
// use the hardware. It returns the status of the answer: accepted after a timeout.
func (p *Profiling) confirm(ctx context.Context, paused bool) int {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	poll := time.NewTicker(confirmPoll)
	defer poll.Stop()
	for !p.done(paused) {
		select {
		case <-ctx.Done():
			return http.StatusAccepted
		case <-poll.C:
		}
	}
	return http.StatusOK
}

// done reports whether profiling is paused on all GPUs that have it or, without
// paused, on none. A sampler that samples and has reported nothing has no such GPU.
func (p *Profiling) done(paused bool) bool {
	status := p.Status()
	profiling, _ := p.GPUs()
	if profiling == nil || !status.Running {
		return status.Sampling
	}
	for _, g := range profiling.GPUs {
		switch g.State {
		case model.ProfilingPaused:
			if !paused {
				return false
			}
		case model.ProfilingActive, model.ProfilingFrozen, model.ProfilingLocked:
			if paused {
				return false
			}
		}
	}
	return true
}

// profilingAnswer is the body of all answers.
type profilingAnswer struct {
	Paused bool           `json:"paused"` // requested, whether or not it is done yet
	Until  *time.Time     `json:"until,omitempty"`
	GPUs   []profilingGPU `json:"gpus"` // those with profiling fields
}

type profilingGPU struct {
	GPU   string `json:"gpu"` // as in the label
	UUID  string `json:"uuid"`
	State string `json:"state"` // as in gpu_profiling_state
}

func (p *Profiling) answer(w http.ResponseWriter, status int) {
	a := profilingAnswer{GPUs: []profilingGPU{}}
	if until := p.Status().ProfilingPausedUntil; !until.IsZero() {
		a.Paused, a.Until = true, &until
	}
	if profiling, inv := p.GPUs(); profiling != nil {
		for _, g := range profiling.GPUs {
			e := &inv.Entities[g.Entity]
			a.GPUs = append(a.GPUs, profilingGPU{strconv.FormatUint(uint64(e.ID), 10), e.UUID, g.State.String()})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a) // fails only if the client is gone
}
