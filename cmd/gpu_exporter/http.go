// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	conf "gpu_exporter/cmd/gpu_exporter/internal/config"
)

// httpTimeouts bounds how long a slow client can hold a connection.
type httpTimeouts struct {
	readHeader, read, write, idle, shutdown time.Duration
}

// defaultTimeouts: requests are a few hundred bytes, bodies a few megabytes at
// most. Idle is longer than common scrape intervals, so that Prometheus keeps
// its connection. Shutdown stays within dcgm-exporter's 8 s.
func defaultTimeouts() httpTimeouts {
	return httpTimeouts{
		readHeader: 5 * time.Second,
		read:       conf.HTTPReadTimeout,
		write:      conf.HTTPWriteTimeout,
		idle:       5 * time.Minute,
		shutdown:   5 * time.Second,
	}
}

// maxHeaderBytes leaves room for a bearer token; Go's default is 1 MiB.
const maxHeaderBytes = 32 << 10

// newHTTPServer returns a server without address: [web.ListenAndServe] knows it.
func newHTTPServer(handler http.Handler, t httpTimeouts, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: t.readHeader,
		ReadTimeout:       t.read,
		WriteTimeout:      t.write,
		IdleTimeout:       t.idle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // clients that go away, port scans
	}
}

// endpoint is one more path, and what answers there.
type endpoint struct {
	path    string
	handler http.Handler
}

// newMux routes all endpoints. ready says whether there is something to scrape,
// and if not, why.
func newMux(metrics http.Handler, ready func() (bool, string), reload http.Handler, withPprof bool, more ...endpoint) (http.Handler, error) {
	landing, err := newLandingPage(withPprof)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", getOnly(metrics.ServeHTTP))
	mux.Handle("/", getOnly(landing.ServeHTTP))
	// dcgm-exporter's health check, with its headers: it is healthy as long as it
	// answers, and it does not stop serving in order to reload.
	mux.Handle("/health", getOnly(func(w http.ResponseWriter, _ *http.Request) {
		ok, _ := ready()
		w.Header().Set("X-Reload-In-Progress", "false")
		w.Header().Set("X-Registry-Available", strconv.FormatBool(ok))
		writeText(w, http.StatusOK, "OK")
	}))
	mux.Handle("/-/healthy", getOnly(func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "gpu_exporter is healthy.\n")
	}))
	mux.Handle("/-/ready", getOnly(func(w http.ResponseWriter, _ *http.Request) {
		if ok, why := ready(); !ok {
			writeText(w, http.StatusServiceUnavailable, "gpu_exporter is not ready: "+why+"\n")
			return
		}
		writeText(w, http.StatusOK, "gpu_exporter is ready.\n")
	}))
	mux.Handle("/-/reload", reload)
	for _, e := range more {
		mux.Handle(e.path, e.handler)
	}
	if withPprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-Content-Type-Options"] = noSniff
		mux.ServeHTTP(w, r)
	}), nil
}

var noSniff = []string{"nosniff"}

func newLandingPage(withPprof bool) (http.Handler, error) {
	page, err := web.NewLandingPage(web.LandingConfig{
		Name:        "NVIDIA GPU Exporter",
		Description: "Prometheus exporter for NVIDIA GPUs",
		Version:     version.Info(),
		Profiling:   strconv.FormatBool(withPprof),
		Links: []web.LandingLinks{
			{Address: "/metrics", Text: "Metrics"},
			{Address: "/-/ready", Text: "Ready", Description: "whether a fresh sample exists"},
			{Address: "/-/healthy", Text: "Healthy", Description: "whether the exporter serves"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the landing page: %w", err)
	}
	return page, nil
}

// getOnly refuses methods other than GET and HEAD.
func getOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed: use GET or HEAD.", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	})
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // an error is the client's, which has gone away
}

// serveHTTP runs listen, which serves with server, until ctx ends or listen
// fails, and then lets requests finish for a while.
func serveHTTP(ctx context.Context, server *http.Server, shutdown time.Duration, listen func() error) error {
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
