// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/cmd/gpu_exporter/internal/reload"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/cmd/gpu_exporter/internal/web"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/supervisor"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid/kmsg"
)

// samplerMemoryLimit is the resident size above which a sampler is replaced. DCGM
// needs far less; a leak reaches it in less than a week.
const samplerMemoryLimit = 1 << 30

// exporter connects the sampler's supervisor, the state of the node, the owners of
// its devices and the metrics.
type exporter struct {
	cfg        config.Config
	log        *slog.Logger
	env        sampler.Environment
	node       *state.Node
	supervisor *supervisor.Supervisor
	kernelLog  *kmsg.Follower // nil if no kernel log is followed
	owners     *owners.Owners
	registry   *prometheus.Registry
	metrics    *web.Metrics
	reloader   *reload.Reloader // nil for a single sample
	served     atomic.Bool      // a sample has been published
	process    []*dto.MetricFamily
	gathered   time.Time // of process

	// reloaded receives after each reload, at most one notice at a time.
	reloaded  chan struct{}
	mu        sync.Mutex
	latest    *collection // of the newest configuration
	collected *collection // of the newest sample; see adopt
}

// newExporter creates the parts and starts none of them. The supervisor logs to
// supervisorLog, and the sampler to records unless it is nil.
func newExporter(cfg config.Config, env sampler.Environment, logger, supervisorLog *slog.Logger, records io.Writer) (*exporter, error) {
	e := &exporter{
		cfg: cfg, log: logger, env: env,
		node: state.NewNode(logger, cfg.XIDs), registry: prometheus.NewRegistry(), reloaded: make(chan struct{}, 1),
		metrics: web.NewMetrics(cfg.MaxRequests, logger),
	}
	var err error
	if e.owners, err = owners.New(&cfg.Static, logger); err != nil {
		return nil, err
	}
	if e.kernelLog, err = newKernelLog(&cfg.Static, env, e.node, logger); err != nil {
		return nil, err
	}
	e.supervisor = supervisor.New(supervisor.Config{
		// The path of the program may hold another version when a sampler is restarted.
		Command:     append([]string{"/proc/self/exe"}, sampler.Args(cfg.LogLevel, cfg.LogFormat)...),
		Env:         env.Env,
		Deliver:     e.deliver,
		Links:       e.node.Links,
		Logger:      supervisorLog,
		Records:     records,
		MemoryLimit: samplerMemoryLimit,
	})
	first, err := e.newCollection(cfg)
	if err != nil {
		return nil, err
	}
	e.latest = first
	logger.Info("Counters loaded", "file", cfg.CountersName, "counters", len(cfg.Counters))
	e.adopt()
	e.supervisor.Reconfigure(first.sampler)
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector(config.ProgramName),
	} {
		if err := e.registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the process's own metrics: %w", err)
		}
	}
	return e, nil
}

// deliver passes a frame of the sampler on to the node and, if it is accepted, to
// the owners.
func (e *exporter) deliver(f wire.Frame) error {
	if err := e.node.Deliver(f); err != nil {
		return err
	}
	e.owners.Observe(f)
	return nil
}

// serve samples, publishes and answers scrapes until ctx ends or a part fails.
func (e *exporter) serve(ctx context.Context) error {
	// The kernel log must be open before a sampler reports XIDs.
	if err := e.kernelLog.Open(); err != nil {
		return err
	}
	defer e.kernelLog.Close()
	if engineReadsKernelLog(&e.cfg.Static) {
		e.node.SetEngineReadsKernelLog()
	}
	e.publish()
	handler, err := e.handler()
	if err != nil {
		return err
	}
	if e.env.Summary != "" {
		e.log.Info("Simulating "+e.env.Summary, "look_at", metricsURL(e.cfg.ListenAddresses), "steer_with", e.env.Steering)
	}
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { e.log.Info("Shutting down") })
	start := func(name string, run func(context.Context) error) {
		group.Go(func() error {
			switch err := run(ctx); {
			case err != nil && !errors.Is(err, context.Canceled):
				return fmt.Errorf("%s: %w", name, err)
			case ctx.Err() == nil:
				return fmt.Errorf("%s: ended unexpectedly", name)
			}
			return nil
		})
	}
	start("HTTP server", func(ctx context.Context) error { return web.Serve(ctx, handler, e.cfg.WebFlags(), e.log) })
	start("sampler supervisor", e.supervisor.Run)
	start("publisher", e.publishLoop)
	start("owners", e.owners.Run)
	start("reloading", e.reloader.Run)
	if e.kernelLog != nil {
		start("kernel log", e.kernelLog.Run)
	}
	return group.Wait()
}

func (e *exporter) handler() (http.Handler, error) {
	endpoints := web.Endpoints{
		Metrics: promhttp.InstrumentMetricHandler(e.registry, e.metrics),
		Ready:   e.ready,
		Reload:  e.reloader,
		Pprof:   e.cfg.Pprof,
	}
	if e.cfg.AdminAPI {
		endpoints.Profiling = &web.Profiling{
			Pause: e.supervisor.PauseProfiling, Status: e.supervisor.Status, GPUs: e.node.Profiling, Logger: e.log,
		}
	}
	return endpoints.Handler()
}

// metricsURL returns the address of /metrics on this machine.
func metricsURL(addresses []string) string {
	for _, address := range addresses {
		if host, port, err := net.SplitHostPort(address); err == nil && !strings.Contains(host, "//") {
			return "http://" + net.JoinHostPort(cmp.Or(host, "localhost"), port) + "/metrics"
		}
	}
	return "/metrics"
}

// ready reports whether a fresh sample exists, and if not, why.
func (e *exporter) ready() (bool, string) {
	if _, fresh := e.node.Freshness(e.shown().cfg.MaxAge); fresh && e.served.Load() {
		return true, ""
	}
	reason := e.node.Staleness()
	status := e.supervisor.Status()
	switch {
	case status.Unreapable:
		reason += ": a killed sampler is stuck in the kernel, and no other can start"
	case status.LastFailure.Message != "":
		reason += ": " + status.LastFailure.Message
	case !status.Running:
		reason += ": no sampler is running"
	}
	return false, reason
}
