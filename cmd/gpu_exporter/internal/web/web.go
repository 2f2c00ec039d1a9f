// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package web serves the exporter's HTTP endpoints: /metrics, the status page, health,
// readiness, reload, the admin API and pprof.
//
// It must not know what the metrics mean, and must not read devices or owners.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/common/version"
	toolkit "github.com/prometheus/exporter-toolkit/web"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

// timeouts bounds how long a slow client can hold a connection.
type timeouts struct {
	readHeader, read, write, idle, shutdown time.Duration
}

// defaultTimeouts: requests have a few hundred bytes, bodies a few megabytes. Idle
// exceeds common scrape intervals, so that Prometheus keeps its connection.
// A shutdown, with the flush of the log, takes at most 3 s.
func defaultTimeouts() timeouts {
	return timeouts{
		readHeader: 5 * time.Second,
		read:       config.HTTPReadTimeout,
		write:      config.HTTPWriteTimeout,
		idle:       5 * time.Minute,
		shutdown:   2 * time.Second,
	}
}

// maxHeaderBytes leaves room for a bearer token; Go's default is 1 MiB.
const maxHeaderBytes = 32 << 10

// Endpoints are the handlers of one server.
type Endpoints struct {
	Metrics http.Handler
	// Ready reports whether a fresh sample exists, and if not, why.
	Ready     func() (bool, string)
	Reload    http.Handler // nil: the admin API is off
	Profiling *Profiling   // likewise
	Pprof     bool
	Status    *Status // nil: / has links only
}

// Handler routes the requests to the endpoints.
func (e *Endpoints) Handler() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", e.Metrics) // GET includes HEAD
	if e.Status != nil {
		e.Status.addTo(mux)
	} else {
		landing, err := landingPage(e.Pprof)
		if err != nil {
			return nil, err
		}
		mux.Handle("GET /{$}", landing)
	}
	// dcgm-exporter's health check and headers. The exporter is healthy while it
	// answers, also during a reload.
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		ok, _ := e.Ready()
		w.Header().Set("X-Reload-In-Progress", "false")
		w.Header().Set("X-Registry-Available", strconv.FormatBool(ok))
		WriteText(w, http.StatusOK, "OK")
	})
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		WriteText(w, http.StatusOK, "gpu_exporter is healthy.\n")
	})
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if ok, why := e.Ready(); !ok {
			WriteText(w, http.StatusServiceUnavailable, "gpu_exporter is not ready: "+why+"\n")
			return
		}
		WriteText(w, http.StatusOK, "gpu_exporter is ready.\n")
	})
	if e.Reload != nil && e.Profiling != nil {
		// A web page in an operator's browser must not change anything.
		sameOrigin := http.NewCrossOriginProtection()
		mux.Handle("/-/reload", sameOrigin.Handler(e.Reload))
		e.Profiling.addTo(mux, sameOrigin)
	} else {
		for _, path := range []string{"/-/reload", "/-/profiling", "/-/profiling/"} {
			mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "The admin API is off: start the exporter with --web.enable-admin-api.", http.StatusForbidden)
			})
		}
	}
	if e.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	noSniff := []string{"nosniff"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Content-Type-Options"] = noSniff
		mux.ServeHTTP(w, r)
	}), nil
}

func landingPage(withPprof bool) (http.Handler, error) {
	page, err := toolkit.NewLandingPage(toolkit.LandingConfig{
		Name:        "gpu_exporter",
		Description: "Prometheus exporter for NVIDIA GPUs",
		Version:     version.Info(),
		Profiling:   strconv.FormatBool(withPprof),
		Links: []toolkit.LandingLinks{
			{Address: "/metrics", Text: "Metrics"},
			{Address: "/-/ready", Text: "Ready", Description: "whether a fresh sample exists"},
			{Address: "/-/healthy", Text: "Healthy", Description: "whether the exporter serves"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("creating the landing page: %w", err)
	}
	return page, nil
}

// WriteText writes a short answer that no client may cache.
func WriteText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // fails only if the client is gone
}

// Serve listens as configured by the flags of exporter-toolkit, until ctx ends or
// listening fails. It calls listening once per address, when all of them accept
// connections. At the end, it lets the requests in progress finish for a limited time.
func Serve(ctx context.Context, handler http.Handler, flags *toolkit.FlagConfig, listening func(), logger *slog.Logger) error {
	t := defaultTimeouts()
	server := newServer(handler, t, logger)
	server.BaseContext = func(net.Listener) context.Context {
		listening()
		return context.Background()
	}
	return serve(ctx, server, t.shutdown, func() error { return toolkit.ListenAndServe(server, flags, logger) })
}

// newServer returns a server without an address, which exporter-toolkit sets.
func newServer(handler http.Handler, t timeouts, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: t.readHeader,
		ReadTimeout:       t.read,
		WriteTimeout:      t.write,
		IdleTimeout:       t.idle,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         newConnections().changed,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // lost clients, port scans
	}
}

func serve(ctx context.Context, server *http.Server, shutdown time.Duration, listen func() error) error {
	result := make(chan error, 1)
	go func() { result <- listen() }()
	select {
	case err := <-result:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		if err := server.Close(); err != nil {
			return fmt.Errorf("closing connections: %w", err)
		}
	}
	if err := <-result; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP: %w", err)
	}
	return nil
}
