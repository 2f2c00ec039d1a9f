// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"

	"gpu_exporter/collector/metrics"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/state"
	"gpu_exporter/collector/supervisor"
	"gpu_exporter/collector/wire"
	"gpu_exporter/collector/xid"
	"gpu_exporter/collector/xid/kmsg"
)

// samplerMemoryLimit is the resident size above which a sampler is replaced. DCGM
// needs far less; a leak reaches it in less than a week.
const samplerMemoryLimit = 1 << 30

// forever is longer than the exporter runs.
const forever = 100 * 365 * 24 * time.Hour

// Exposition is the content of /metrics.
type Exposition = metrics.Exposition

// Config is what a Collector needs for its whole life.
type Config struct {
	Command []string // starts a sampler process
	Env     []string // of that process
	XIDs    *xid.Catalogue
	// KernelLog is the path of the kernel log with the XIDs of the node's GPUs; empty
	// if there is none. KernelLogRequired makes an unreadable log an error of Open.
	KernelLog         string
	KernelLogRequired bool
	// EngineReadsKernelLog declares that DCGM's engine may read the kernel log, too.
	EngineReadsKernelLog bool
	// Owners are the owners of the devices. Observe passes each accepted frame to them.
	Owners  metrics.OwnerSource
	Observe func(wire.Frame)

	Log           *slog.Logger
	SupervisorLog *slog.Logger
	SamplerLog    io.Writer // the sampler's own records; nil drops them
}

// Collector keeps a sampler process running, keeps the state of the node, and builds
// its metric families.
type Collector struct {
	cfg        Config
	state      *state.Node
	supervisor *supervisor.Supervisor
	kernelLog  *kmsg.Follower // nil without a kernel log

	changed chan struct{} // a reason to publish; at most one notice at a time
	served  atomic.Bool   // a sample has been published

	mu     sync.Mutex
	latest *configured // by the newest settings
	shown  *configured // by the settings of the newest sample
}

// configured is what the settings of one reload result in.
type configured struct {
	Settings
	sampler  wire.SamplerConfig
	families *metrics.Families
}

// New returns a Collector that has started nothing.
func New(cfg Config, settings Settings) *Collector {
	c := &Collector{cfg: cfg, state: state.NewNode(cfg.Log, cfg.XIDs), changed: make(chan struct{}, 1)}
	if cfg.EngineReadsKernelLog {
		c.state.SetEngineReadsKernelLog()
	}
	if cfg.KernelLog != "" {
		c.kernelLog = kmsg.NewFollower(kmsg.FollowerConfig{
			Path: cfg.KernelLog, Required: cfg.KernelLogRequired,
			Readable: c.state.SetKernelLog,
			Deliver:  c.state.AddKernelXID,
			Logger:   cfg.Log,
		})
	}
	c.supervisor = supervisor.New(supervisor.Config{
		Command:     cfg.Command,
		Env:         cfg.Env,
		Deliver:     c.deliver,
		Ended:       c.Refresh,
		Links:       c.state.Links,
		Logger:      cfg.SupervisorLog,
		Records:     cfg.SamplerLog,
		MemoryLimit: samplerMemoryLimit,
	})
	c.latest = c.configure(settings)
	c.adopt()
	c.supervisor.Reconfigure(c.latest.sampler)
	return c
}

// deliver passes a frame of the sampler to the state and, if it is accepted, to the
// owners.
func (c *Collector) deliver(f wire.Frame) error {
	if err := c.state.Deliver(f); err != nil {
		return err
	}
	c.cfg.Observe(f)
	return nil
}

// Open opens the kernel log. Call it before Run, so that no XID is missed.
func (c *Collector) Open() error { return c.kernelLog.Open() }

// Close closes the kernel log.
func (c *Collector) Close() { c.kernelLog.Close() }

// RunSampler keeps a sampler process running until ctx ends.
func (c *Collector) RunSampler(ctx context.Context) error { return c.supervisor.Run(ctx) }

// RunKernelLog follows the kernel log until ctx ends.
func (c *Collector) RunKernelLog(ctx context.Context) error {
	if c.kernelLog == nil {
		<-ctx.Done()
		return nil
	}
	return c.kernelLog.Run(ctx)
}

// RunPublisher calls publish for every sample and every change of the owners, and at
// least once per interval, until ctx ends.
func (c *Collector) RunPublisher(ctx context.Context, owners <-chan struct{}, publish func()) error {
	timer := time.NewTimer(c.current().Sampler.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.state.Changed():
		case <-owners:
		case <-c.changed:
		}
		publish()
		// Series that become stale are withheld at that moment, not an interval later.
		timer.Reset(min(c.current().Sampler.Interval, c.untilStale()+time.Millisecond))
	}
}

// untilStale returns the time until the first series become stale.
func (c *Collector) untilStale() time.Duration {
	wait := forever
	for _, freshness := range []func(time.Duration) (time.Duration, bool){c.state.Freshness, c.state.LinksFreshness} {
		if left, fresh := freshness(c.current().Metrics.MaxAge); fresh {
			wait = min(wait, left)
		}
	}
	return wait
}

// Refresh makes RunPublisher publish again.
func (c *Collector) Refresh() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Families builds the families of this moment, sorted by name. Only one goroutine may
// call it at a time. stale reports whether series in them have become stale since: the
// process may have been stopped, or the machine suspended.
func (c *Collector) Families() (families []*dto.MetricFamily, stale func() bool) {
	_, sample := c.state.Newest()
	expires := state.Uptime() + c.untilStale()
	now := c.adopt()
	families = now.families.Build()
	for next := c.adopt(); next != now; next = c.adopt() { // the first sample of new settings arrived meanwhile
		now, families = next, next.families.Build()
	}
	if sample != nil {
		c.served.Store(true)
	}
	return families, func() bool { return state.Uptime() > expires }
}

// Ready reports whether a fresh sample of a GPU has been published, and if not, why. A node
// can be declared to have no GPUs.
func (c *Collector) Ready() (bool, string) {
	settings, status := c.current(), c.supervisor.Status()
	_, fresh := c.state.Freshness(settings.Metrics.MaxAge)
	if fresh && c.served.Load() && !status.EngineGone {
		if settings.AllowNoGPUs {
			return true, ""
		}
		switch found, answer := c.state.GPUs(); {
		case answer > 0:
			return true, ""
		case found > 0:
			return false, fmt.Sprintf("none of the %d GPUs answers", found)
		case c.unselected() > 0:
			return false, fmt.Sprintf("the device selector %q matches none of the %d GPUs", settings.Sampler.Devices, c.unselected())
		default:
			return false, "no GPU was found: load the NVIDIA driver, or set --devices.allow-none on a node without GPUs"
		}
	}
	reason := c.state.Staleness()
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

// unselected returns the number of GPUs that the device selector does not match.
func (c *Collector) unselected() (count int) {
	inv, _ := c.state.Newest()
	for _, e := range inv.Entities {
		if e.Kind == model.KindGPU && !e.Selected {
			count++
		}
	}
	return count
}

// Newest returns the newest inventory and sample; nil if there is none.
func (c *Collector) Newest() (*model.Inventory, *model.Sample) { return c.state.Newest() }

// Processes returns the newest reading of the processes on the devices, or nil.
func (c *Collector) Processes() *model.Processes { return c.state.Processes() }

// Profiling returns the state of profiling on each GPU, or nil if it is unknown.
func (c *Collector) Profiling() (*model.Profiling, *model.Inventory) { return c.state.Profiling() }

// PauseProfiling pauses profiling for a time and returns its end; 0 resumes.
func (c *Collector) PauseProfiling(d time.Duration) (until time.Time) {
	return c.supervisor.PauseProfiling(d)
}

// SamplerStatus returns the status of the sampler process.
func (c *Collector) SamplerStatus() model.SamplerStatus { return c.supervisor.Status() }

// Models returns the models of the node's GPUs, sorted.
func (c *Collector) Models() []string {
	inv, _ := c.state.Newest()
	if inv == nil {
		return nil
	}
	var models []string
	for i := range inv.Entities {
		if gpu := &inv.Entities[i]; gpu.Kind == model.KindGPU {
			models = append(models, gpu.Model)
		}
	}
	slices.Sort(models)
	return models
}

// Changed receives after every accepted sample, at most one notice at a time. Without
// RunPublisher it is for one receiver.
func (c *Collector) Changed() <-chan struct{} { return c.state.Changed() }

// KernelLog returns the path of the kernel log, empty without one, and why it is
// unreadable.
func (c *Collector) KernelLog() (path string, err error) {
	if c.kernelLog == nil {
		return "", nil
	}
	return c.kernelLog.Path, ProbeKernelLog(c.kernelLog.Path)
}

// ProbeKernelLog returns why the kernel log at the path is unreadable, or nil.
func ProbeKernelLog(path string) error {
	l, err := kmsg.Open(path)
	if err != nil {
		return err
	}
	return l.Close()
}
