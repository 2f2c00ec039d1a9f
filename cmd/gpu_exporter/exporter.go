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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/exporter-toolkit/web"

	conf "gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/reload"
	"gpu_exporter/collector"
)

// samplerMemoryLimit is the resident size over which a sampler is replaced. Far
// above what DCGM needs, far below what a leak in it reaches in a week.
const samplerMemoryLimit = 1 << 30

// exporter is everything but the HTTP server: the sampler's supervisor, what is
// known of the node, the pod mapper, and the exposition that scrapes get.
type exporter struct {
	cfg        config
	log        *slog.Logger
	simulation string // what is simulated, in words; empty if nothing is
	steering   string // a command line that steers it
	node       *collector.Node
	supervisor *collector.Supervisor
	kernelLog  *kernelLog // nil if it is not to be followed
	owners     *owners    // nil if nobody is asked for owners
	registry   *prometheus.Registry
	reloader   *reload.Reloader // nil if nothing is ever reloaded
	current    atomic.Pointer[collector.Exposition]
	served     atomic.Bool // current has had a sample
	process    []*dto.MetricFamily
	gathered   time.Time // when process was

	// reloaded delivers after each reload, at most one notice at a time.
	reloaded  chan struct{}
	mu        sync.Mutex
	latest    *collection // of the newest configuration
	collected *collection // of the newest sample; see adopt
}

// newExporter puts the parts together. It starts nothing. samplerLogger gets what
// the supervisor and the sampler say.
func newExporter(cfg config, env samplerEnv, logger, samplerLogger *slog.Logger) (*exporter, error) {
	var err error
	e := &exporter{
		cfg: cfg, log: logger, simulation: env.Summary, steering: env.Steering,
		node: collector.NewNode(logger, cfg.XIDs), registry: prometheus.NewRegistry(), reloaded: make(chan struct{}, 1),
	}
	if e.owners, err = newOwners(cfg, logger); err != nil {
		return nil, err
	}
	if e.kernelLog, err = newKernelLog(cfg, env, e.node.AddKernelXID, logger); err != nil {
		return nil, err
	}
	if e.kernelLog != nil {
		e.kernelLog.readable = e.node.ExpectKernelSamples
	}
	e.supervisor = collector.NewSupervisor(collector.SupervisorConfig{
		// Not the path: what lies there may be another version by the time that a
		// sampler is restarted.
		Command:     []string{"/proc/self/exe", commandSampler},
		Env:         env.Env,
		Deliver:     e.node.Deliver,
		Links:       e.node.Links,
		Logger:      samplerLogger,
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
		versioncollector.NewCollector(programName),
	} {
		if err := e.registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the process's own metrics: %w", err)
		}
	}
	return e, nil
}

// watchedFields returns the fields to read for each kind of entity, in the order
// of the counters file, and those that tell whether a switch is up.
func watchedFields(counters []collector.Counter) map[collector.EntityKind][]collector.FieldID {
	fields := map[collector.EntityKind][]collector.FieldID{}
	for _, kind := range conf.CollectedKinds() {
		for _, c := range counters {
			if c.On(kind) && !slices.Contains(fields[kind], c.Field.ID) {
				fields[kind] = append(fields[kind], c.Field.ID)
			}
		}
	}
	for _, f := range collector.SwitchFields() {
		if !slices.Contains(fields[collector.KindSwitch], f) {
			fields[collector.KindSwitch] = append(fields[collector.KindSwitch], f)
		}
	}
	return fields
}

// serve samples, maps, publishes and answers scrapes until ctx ends or one of
// these cannot go on.
func (e *exporter) serve(ctx context.Context) error {
	// Before a sampler hears of XIDs.
	if err := e.kernelLog.open(); err != nil {
		return err
	}
	defer e.kernelLog.close()
	if engineReadsKernelLog(e.cfg) {
		e.node.ExpectKernelSamples()
	}
	e.publish()
	handler, err := newMux(
		promhttp.InstrumentMetricHandler(e.registry, newMetricsHandler(e.exposition, e.cfg.MaxRequests, e.log)),
		e.ready, e.reloadHandler(), e.cfg.Pprof,
		adminEndpoints(e.cfg.AdminAPI, profilingControl{node: e.node, supervisor: e.supervisor, log: e.log})...)
	if err != nil {
		return err
	}
	if e.simulation != "" {
		e.log.Info("Simulating "+e.simulation, "look_at", metricsURL(e.cfg.ListenAddresses), "steer_with", e.steering)
	}
	server := newHTTPServer(handler, defaultTimeouts(), e.log)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	context.AfterFunc(ctx, func() { e.log.Info("Shutting down") })
	part := func(name string, run func(context.Context) error) {
		wg.Go(func() {
			defer cancel() // without one of the parts the others make no sense
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
			}
		})
	}
	part("HTTP server", func(ctx context.Context) error {
		return serveHTTP(ctx, server, defaultTimeouts().shutdown, func() error {
			return web.ListenAndServe(server, e.cfg.WebFlags(), e.log)
		})
	})
	part("sampler supervisor", e.supervisor.Run)
	part("publisher", e.publishLoop)
	if e.reloader != nil {
		part("reloading", e.reloader.Run)
	}
	if e.kernelLog != nil {
		part("kernel log", e.kernelLog.follow)
	}
	for _, p := range e.owners.parts() {
		part(p.name, p.run)
	}
	wg.Wait()
	return errors.Join(errs...)
}

// metricsURL is where to look, on this machine, at what is served.
func metricsURL(addresses []string) string {
	for _, address := range addresses {
		if host, port, err := net.SplitHostPort(address); err == nil && !strings.Contains(host, "//") {
			return "http://" + net.JoinHostPort(cmp.Or(host, "localhost"), port) + "/metrics"
		}
	}
	return "/metrics"
}

// publishLoop publishes an exposition for every sample, and at least one for
// every interval, so that our own metrics go on while no sample comes.
func (e *exporter) publishLoop(ctx context.Context) error {
	timer := time.NewTimer(e.shown().cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-e.node.Changed():
		case <-e.owners.changed():
		case <-e.owners.placed():
		case <-e.reloaded:
			e.gathered = time.Time{} // the process's own metrics say how it went
		}
		e.publish()
		// Series that become too old are withheld then, not an interval later.
		cfg := e.shown().cfg
		wait := cfg.Interval
		for _, freshness := range []func(time.Duration) (time.Duration, bool){e.node.Freshness, e.node.LinksFreshness} {
			if left, fresh := freshness(cfg.MaxAge); fresh {
				wait = min(wait, left+time.Millisecond)
			}
		}
		timer.Reset(wait)
	}
}

// gatherEvery is how often the process's own metrics are gathered at the most: that
// costs as much as all the others, and they need not keep up with short intervals.
const gatherEvery = time.Second

// gather gathers the process's own metrics, unless that was just done.
func (e *exporter) gather() {
	if time.Since(e.gathered) < gatherEvery {
		return
	}
	process, err := e.registry.Gather()
	if err != nil {
		// What could be gathered is there all the same.
		e.log.Warn("Some metrics of the exporter process cannot be gathered", "err", err)
	}
	e.process, e.gathered = process, time.Now()
}

// publish replaces the exposition that scrapes get.
func (e *exporter) publish() {
	e.gather()
	inv, sample := e.node.Newest()
	c := e.adopt()
	families := c.families.Build()
	for now := e.adopt(); now != c; now = e.adopt() { // the first sample of a new configuration came in between
		c, families = now, now.families.Build()
	}
	e.current.Store(&collector.Exposition{Families: families, Process: e.process})
	if sample != nil {
		e.served.Store(true)
		e.compareModels(c, inv)
	}
}

// compareModels says, once for each configuration, which entries of models fit no GPU.
func (e *exporter) compareModels(c *collection, inv *collector.Inventory) {
	if c.compared {
		return
	}
	var gpus []string
	for i := range inv.Entities {
		if gpu := &inv.Entities[i]; gpu.Kind == collector.KindGPU {
			gpus = append(gpus, gpu.Model)
		}
	}
	if len(gpus) == 0 {
		return // some may come
	}
	c.compared = true
	slices.Sort(gpus)
	gpus = slices.Compact(gpus)
	for _, match := range c.unmatched(gpus) {
		e.log.Info("An entry of models matches no GPU here", "file", c.cfg.ConfigFile, "match", match, "gpus", strings.Join(gpus, ", "))
	}
}

// exposition returns what a scrape gets now. serve publishes before it listens,
// so there always is one.
func (e *exporter) exposition() exposition { return e.current.Load() }

// ready says whether a sample exists that is young enough, and if not, why not.
func (e *exporter) ready() (bool, string) {
	if _, fresh := e.node.Freshness(e.shown().cfg.MaxAge); fresh && e.served.Load() {
		return true, ""
	}
	reason := e.node.Staleness()
	status := e.supervisor.Status()
	switch {
	case status.Unreapable:
		reason += ": a killed sampler is stuck in the kernel, none other can start"
	case status.LastFailure.Message != "":
		reason += ": " + status.LastFailure.Message
	case !status.Running:
		reason += ": no sampler is running"
	}
	return false, reason
}

const (
	onceSamples = 3
	// onceTimeout is longer than the supervisor gives a sampler to start.
	onceTimeout = 45 * time.Second
	// onceInterval is the longest time between the samples of once.
	onceInterval = 500 * time.Millisecond
)

// once writes the exposition of one sample to w. That is the third one, since DCGM
// has no profiling values in the first, and may have none yet in the second.
func (e *exporter) once(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	stop := e.owners.settle(ctx)
	defer stop()
	if err := e.takeSamples(ctx); err != nil {
		return err
	}
	e.publish()
	if p := e.node.Processes(); p != nil && e.owners != nil && e.owners.places != nil {
		e.owners.places.find(p)
		e.publish()
	}
	body, err := e.exposition().Append(nil, expfmt.NewFormat(expfmt.TypeTextPlain))
	if err != nil {
		e.log.Warn("Some metrics cannot be shown", "err", err)
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("writing the metrics: %w", err)
	}
	return nil
}

// takeSamples runs a sampler until it has delivered some samples, and ends it. The
// error says why there are none.
func (e *exporter) takeSamples(ctx context.Context) error {
	supervised, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.supervisor.Run(supervised) }()
	defer func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			e.log.Warn("The sampler did not stop as it should", "err", err)
		}
	}()

	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for samples := 0; samples < onceSamples; {
		select {
		case <-e.node.Changed():
			samples++
		case <-poll.C:
			if fail := e.supervisor.Status().LastFailure; fail.Message != "" {
				return fmt.Errorf("%s (%s)", fail.Message, fail.Reason)
			}
		case <-ctx.Done():
			_, reason := e.ready()
			return fmt.Errorf("no sample: %s", reason)
		}
	}
	return nil
}
