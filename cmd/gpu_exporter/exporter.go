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
	"syscall"
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
	"gpu_exporter/collector"
)

// gatherInterval bounds how often the process's own metrics are gathered. That
// costs as much as all other metrics together.
const gatherInterval = time.Second

// exporter connects the collector, the owners of the devices, and the HTTP server.
type exporter struct {
	log       *slog.Logger
	env       sampler.Environment
	collector *collector.Collector
	owners    *owners.Owners
	registry  *prometheus.Registry
	metrics   *web.Metrics
	reloader  *reload.Reloader // nil for a single sample
	webFile   *config.WebFile  // nil without a web configuration
	systemd   *systemd

	publishing sync.Mutex
	process    []*dto.MetricFamily
	gathered   time.Time   // of process
	regather   atomic.Bool // although process is not old

	effective atomic.Pointer[effective]

	mu       sync.Mutex
	cfg      config.Config
	compared bool // the entries of models with the models of the GPUs
}

// newExporter creates the parts and starts none of them. The supervisor logs to
// supervisorLog, and the sampler to records unless it is nil.
func newExporter(cfg config.Config, env sampler.Environment, logger, supervisorLog *slog.Logger, records io.Writer) (*exporter, error) {
	e := &exporter{
		cfg: cfg, log: logger, env: env,
		registry: prometheus.NewRegistry(), metrics: web.NewMetrics(cfg.MaxRequests, logger),
	}
	var err error
	if e.owners, err = owners.New(&cfg.Static, logger); err != nil {
		return nil, err
	}
	kernelLog, err := kernelLogPath(&cfg.Static, env, logger)
	if err != nil {
		return nil, err
	}
	settings, err := e.settings(cfg)
	if err != nil {
		return nil, err
	}
	e.setEffective(cfg, &settings)
	e.collector = collector.New(collector.Config{
		// The path of the program may hold another version when a sampler is restarted.
		Command:              append([]string{"/proc/self/exe"}, sampler.Args(cfg.LogLevel, cfg.LogFormat)...),
		Env:                  env.Env,
		XIDs:                 cfg.XIDs,
		KernelLog:            kernelLog,
		KernelLogRequired:    cfg.KernelLog == config.KernelLogOn,
		EngineReadsKernelLog: engineReadsKernelLog(&cfg.Static),
		Owners:               e.owners,
		Observe:              e.owners.Observe,
		Log:                  logger,
		SupervisorLog:        supervisorLog,
		SamplerLog:           records,
	}, settings)
	e.systemd = newSystemd(logger, e.collector.Ready, e.collector.Refresh)
	logger.Info("Counters loaded", "file", cfg.CountersName, "counters", len(cfg.Counters))
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

// serve samples, publishes and answers scrapes until ctx ends or a part fails.
func (e *exporter) serve(ctx context.Context) error {
	if err := checkAddresses(&e.cfg.Static); err != nil {
		return err
	}
	if err := e.collector.Open(); err != nil {
		return err
	}
	defer e.collector.Close()
	e.metrics.Renew = e.publish
	e.publish()
	handler, err := e.handler()
	if err != nil {
		return err
	}
	webConfig := ""
	if e.cfg.Web.Content != "" {
		if e.webFile, err = config.NewWebFile(e.cfg.Web); err != nil {
			return err
		}
		webConfig = e.webFile.Path()
	}
	if e.env.Summary != "" {
		e.log.Info("Simulating "+e.env.Summary, "look_at", metricsURL(e.cfg.ListenAddresses), "steer_with", e.steering())
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
	start("HTTP server", func(ctx context.Context) error {
		return web.Serve(ctx, handler, e.cfg.WebFlags(webConfig), e.systemd.serving, e.log)
	})
	start("sampler supervisor", e.collector.RunSampler)
	start("kernel log", e.collector.RunKernelLog)
	start("publisher", func(ctx context.Context) error {
		return e.collector.RunPublisher(ctx, e.owners.Changed(), func() {
			e.publish()
			e.systemd.alive()
		})
	})
	start("owners", e.owners.Run)
	start("reloading", e.reloader.Run)
	start("systemd", e.systemd.run)
	return group.Wait()
}

// checkAddresses reports an address in use before a sampler starts.
func checkAddresses(cfg *config.Static) error {
	for _, address := range cfg.ListenAddresses {
		if cfg.SystemdSocket || strings.HasPrefix(address, "vsock://") {
			continue
		}
		switch l, err := net.Listen("tcp", address); {
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("another process listens on %s: stop it, or choose another address with --web.listen-address=HOST:PORT", address)
		case err == nil:
			_ = l.Close() // nothing has connected
		}
	}
	return nil
}

func (e *exporter) handler() (http.Handler, error) {
	endpoints := web.Endpoints{
		Metrics: promhttp.InstrumentMetricHandler(e.registry, e.metrics),
		Ready:   e.collector.Ready,
		Pprof:   e.cfg.Pprof,
		Status:  e.statusPages(),
	}
	if e.cfg.AdminAPI {
		endpoints.Reload = e.reloader
		endpoints.Profiling = &web.Profiling{
			Pause: e.collector.PauseProfiling, Status: e.collector.SamplerStatus, GPUs: e.collector.Profiling, Logger: e.log,
		}
	}
	return endpoints.Handler()
}

// publish makes the families, and those of the process, the answer to scrapes.
func (e *exporter) publish() {
	e.publishing.Lock()
	families, stale := e.collector.Families()
	e.metrics.Publish(e.exposition(families).Append, stale)
	e.publishing.Unlock()
	e.compareModels()
}

// exposition adds the families of the process, which are gathered again if they are old.
func (e *exporter) exposition(families []*dto.MetricFamily) *collector.Exposition {
	if time.Since(e.gathered) >= gatherInterval || e.regather.Swap(false) {
		process, err := e.registry.Gather()
		if err != nil {
			// The families without an error are returned all the same.
			e.log.Warn("Some metrics of the exporter process cannot be gathered", "err", err)
		}
		e.process, e.gathered = process, time.Now()
	}
	return &collector.Exposition{Families: families, Process: e.process}
}

// reloaded publishes the metrics of a reload.
func (e *exporter) reloaded() {
	e.systemd.serving()
	e.regather.Store(true)
	e.collector.Refresh()
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
