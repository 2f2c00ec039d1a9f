// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"context"
	"log/slog"
	"time"

	"gpu_exporter/collector"
)

const (
	// cleanupTimeout bounds the goodbye to DCGM, which takes 1 to 1.5 s when all
	// is well, and for ever when a call hangs.
	cleanupTimeout = 1800 * time.Millisecond
	// updateCheck is how often the library's file is looked at.
	updateCheck = 10 * time.Second
	// stallTimeout is how long the engine may give no newer value of anything
	// before it counts as stuck; longer with long intervals.
	stallTimeout = 30 * time.Second
	// blankTimeout is how long an embedded engine may have no value of anything.
	blankTimeout = 5 * time.Second
	// maxSkipped is how many samples are left out while profiling has no values.
	// DCGM has them an interval after the watch, which may fall on either side of our
	// own second reading.
	maxSkipped = 2
	// identityRetry is when a GPU or MIG device whose UUID is not known is asked
	// again; later and later, up to the maximum, while that changes nothing.
	identityRetry    = 10 * time.Second
	maxIdentityRetry = 5 * time.Minute
	// instancesTimeout is for how long MIG instances that cannot be listed count as they
	// were: their ids may be those of others by then. Longer with long intervals.
	instancesTimeout = 10 * time.Second
	// listenEvery is how often XIDs are asked for between samples: an embedded engine
	// takes those that nobody has heard with it when its process ends.
	listenEvery = time.Second
)

// Config is what [Run] needs.
type Config struct {
	Sampler collector.SamplerConfig
	Frames  *collector.FrameWriter
	// MIGDevices lists the MIG devices as NVML names them; it is called when the
	// topology changes, and may be nil.
	MIGDevices func() ([]collector.MIGDevice, error)
	// Processes reads the processes on the devices of an inventory. It is called,
	// from one goroutine of its own, if the configuration asks for processes; it
	// may hang.
	Processes func(*collector.Inventory) (*collector.Processes, error)
	// Commands delivers what the exporter wants; nil if it never wants anything.
	Commands <-chan collector.SamplerCommand
	Logger   *slog.Logger

	timing profilingTiming
}

// Run samples until ctx ends, and then returns nil. When it cannot go on it
// returns a [*FailureError], or the error of a frame that could not be written.
//
// A native call may hang: Run then still returns when ctx ends, and leaves
// behind a goroutine that only the end of the process ends.
func Run(ctx context.Context, cfg Config) error {
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		if err != nil {
			cfg.Logger.Debug("sampling failed while it was ended", "err", err)
		}
	case <-time.After(cleanupTimeout):
		cfg.Logger.Warn("DCGM did not end in time")
	}
	return nil
}

func run(ctx context.Context, cfg Config) error {
	s, err := newSampler(cfg)
	if err != nil {
		return err
	}
	if err := s.sample(); err != nil {
		return err
	}
	ticker := time.NewTicker(cfg.Sampler.Interval)
	defer ticker.Stop()
	processes := newProcessReader(cfg)
	defer processes.stop()
	defer s.fabric.stop()
	s.fabric.schedule(before(time.Now(), cfg.Sampler.Interval, fabricLead))
	looks := newLooks(cfg.Sampler)
	defer looks.Stop()
	listen := time.NewTicker(listenEvery)
	defer listen.Stop()
	health := newHealthReader(cfg, s.lib)
	defer health.stop()
	for err == nil {
		select {
		case <-ctx.Done():
			s.tellRest() // an answer that is waited for may not come
			health.wait()
			s.fabric.wait()
			s.leave()
			return nil
		case tick := <-ticker.C:
			processes.schedule(before(tick, cfg.Sampler.Interval, processLead))
			s.fabric.schedule(before(tick, cfg.Sampler.Interval, fabricLead))
			err = s.sampleInTime(ticker)
			health.follow(s.inv)
		case <-listen.C:
			err = s.writeXIDs()
		case <-looks.C:
			err = s.look(false)
		case c := <-cfg.Commands:
			err = s.command(c)
		case <-processes.due():
			processes.start(s.inv)
		case r := <-processes.results:
			err = s.writeProcesses(processes.finish(r))
		case <-s.fabric.due():
			s.fabric.start(struct{}{})
		case r := <-s.fabric.results:
			s.fabricChanged = s.fabric.finish(r) || s.fabricChanged
		case <-health.due():
			health.start(s.inv)
		case r := <-health.results:
			health.finish(r)
			err = s.writeHealth(r)
			health.follow(s.inv)
		}
	}
	if err := s.tellHeld(); err != nil {
		s.log.Debug("some XIDs are not told", "err", err)
	}
	return err
}

// sampleInTime takes a sample. A tick that came while it took too long is no reason to
// hurry.
func (s *sampler) sampleInTime(ticker *time.Ticker) error {
	start := time.Now()
	if err := s.sample(); err != nil {
		return err
	}
	if time.Since(start) > s.cfg.Sampler.Interval {
		select {
		case <-ticker.C:
		default:
		}
	}
	return nil
}

// sampler is the state of a running [Run].
type sampler struct {
	cfg        Config
	log        *slog.Logger
	selectors  selectors
	engine     *engine
	lib        *library
	identities identities
	watcher    *watcher
	reading    *reading
	tracker    *tracker
	fabric     *fabricReader
	inv        *collector.Inventory

	xids     xids
	profiler *profiler

	skip          int           // how many samples may still be left out
	changed       bool          // the topology, since the newest inventory
	fabricChanged bool          // since the newest inventory
	listed        time.Time     // when the MIG instances last were
	unlisted      bool          // that is too long ago
	generation    uint64        // of the newest inventory
	updated       bool          // the engine was asked to update all fields
	rebuildAt     time.Time     // when to discover again without a change; zero: never
	retry         time.Duration // how long after the last time
	migChanged    bool          // the last reading found another MIG mode than the inventory's
	migQuiet      time.Time     // until when that is ignored: the GPU, when asked, did not say so
	updateChecks  time.Time     // when the library's file was last looked at
	newest        int64         // the newest value's time, and
	newestSince   time.Time     // since when that has been the newest
	valuesAt      time.Time     // when there last was any value; zero: never
}

func newSampler(cfg Config) (*sampler, error) {
	var selected selectors
	for _, one := range []struct {
		to   *collector.Selector
		text string
	}{{&selected.gpus, cfg.Sampler.Devices}, {&selected.switches, cfg.Sampler.Switches}, {&selected.cpus, cfg.Sampler.CPUs}} {
		var err error
		if *one.to, err = collector.ParseSelector(orFlex(one.text)); err != nil {
			return nil, failure(collector.FailureConfig, err, "reading the configuration")
		}
	}
	var err error
	if selected.models, err = compileModelRules(cfg.Sampler.Models); err != nil {
		return nil, failure(collector.FailureConfig, err, "reading the configuration")
	}
	if cfg.Sampler.Interval <= 0 {
		return nil, failure(collector.FailureConfig, nil, "the interval of %s is not positive", cfg.Sampler.Interval)
	}
	start := time.Now()
	e, err := connect(cfg.Sampler)
	if err != nil {
		return nil, err
	}
	s := &sampler{
		cfg:       cfg,
		log:       cfg.Logger,
		selectors: selected,
		engine:    e,
		lib:       e.lib,
		identities: identities{
			lib:        e.lib,
			log:        cfg.Logger,
			migDevices: cfg.MIGDevices,
			columns:    cfg.Sampler.Fields,
			version:    e.version,
			known:      make(map[uint32]*knownGPU),
			fabric:     fabricIdentities{known: knownPorts(cfg.Sampler.Links)},
		},
		watcher:      newWatcher(e.lib, cfg.Sampler.Interval, cfg.Logger),
		updateChecks: time.Now(),
		newestSince:  time.Now(),
	}
	if cfg.Sampler.Replaces {
		s.skip = maxSkipped
	}
	s.xids.valuesSince = s.lib.valuesSince
	s.profiler = newProfiler(cfg, start)
	switch {
	case !cfg.Sampler.EventsSince.IsZero():
		s.xids.since = cfg.Sampler.EventsSince.UnixMicro()
	case cfg.Sampler.Hostengine == "":
		// What an embedded engine heard, it heard since it was started. A standalone
		// one has heard since its own start, as DCGM subscribes to XIDs whether or
		// not anyone watches (DcgmCacheManager.cpp, ManageDeviceEvents), and keeps at
		// least the newest of each entity; it may go by another clock, too.
		s.xids.since = start.UnixMicro()
	}
	s.fabric = newFabricReader(s.lib, fabricKinds(cfg.Sampler), cfg.Logger)
	if _, c := s.checkTopology(start); c != codeOK {
		return nil, s.failed(c, collector.FailureDiscoveryFailed, "listing the GPUs")
	}
	if _, err := s.rebuild(true); err != nil {
		return nil, err
	}
	if unmatched := selected.gpus.Unmatched(s.ids(collector.KindGPU), s.ids(collector.KindGPUInstance)); len(unmatched) > 0 {
		s.log.Warn("the device selector names what is not there", "devices", unmatched)
	}
	s.log.Info("sampling", "dcgm", e.version, "driver", s.inv.DriverVersion, "library", e.lib.path,
		"entities", len(s.inv.Entities), "interval", cfg.Sampler.Interval)
	return s, nil
}

func orFlex(devices string) string {
	if devices == "" {
		return "f"
	}
	return devices
}

func (s *sampler) ids(kind collector.EntityKind) []uint32 {
	var ids []uint32
	for _, e := range s.inv.Entities {
		if e.Kind == kind {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// failed makes a code the end of the sampler.
func (s *sampler) failed(c code, reason, doing string) error {
	err := s.lib.err(c, doing)
	if c.lost() {
		return failure(collector.FailureHostengineLost, err, "the DCGM engine does not answer any more")
	}
	return failure(reason, err, "DCGM refused")
}

// rebuild makes the inventory, the watches and the plan of what the node now is,
// and writes the inventory; unless nothing changed, and it was not the topology
// that did.
func (s *sampler) rebuild(topologyChanged bool) (rebuilt bool, err error) {
	top := s.lib.topology()
	if s.unlisted {
		top.mig = nil
	}
	f, c := s.identities.inventory(top, s.fabric.now, s.newest)
	if c != codeOK {
		return false, s.failed(c, collector.FailureDiscoveryFailed, "reading the identity of the GPUs")
	}
	inv := f.inv
	inv.Derived, inv.InstancesUnknown = s.cfg.Sampler.Derived, s.unlisted
	now := time.Now()
	s.rebuildAt = time.Time{}
	if !topologyChanged && s.inv != nil && same(inv, s.inv) {
		s.retry = min(2*s.retry, maxIdentityRetry)
		if f.incomplete {
			s.rebuildAt = now.Add(s.retry)
		}
		if s.migChanged {
			s.migQuiet = now.Add(identityRetry)
		}
		return false, nil
	}
	s.retry = identityRetry
	if f.incomplete {
		s.rebuildAt = now.Add(s.retry)
	}
	capabilities, c := s.engine.capabilities(top)
	if c != codeOK {
		return false, s.failed(c, collector.FailureDiscoveryFailed, "asking for profiling metric groups")
	}
	s.profiler.capabilities, s.profiler.appeared = capabilities, f.appeared
	p := s.plan(inv)
	for i := range inv.Entities {
		inv.Entities[i].Selected = p.selected[i]
	}
	s.generation++
	inv.Generation, inv.Revision = s.generation, s.cfg.Sampler.Revision
	if s.inv != nil {
		if err := s.writeEvents(s.xids.tellBefore(inv)); err != nil {
			return false, err
		}
	}
	// Before the watches: dcgmWatchFields waits until everything was read from the
	// driver, which may take long, and this frame says that we live.
	if err := s.cfg.Frames.Write(collector.Frame{Inventory: inv}); err != nil {
		return false, err
	}
	s.inv, s.changed, s.fabricChanged = inv, false, false
	return true, s.watch(p, true)
}

// plan says what is to be read of an inventory.
func (s *sampler) plan(inv *collector.Inventory) *plan {
	p := newPlan(inv, s.selectors, s.profiler.capabilities)
	p.track(s.cfg.Sampler.Tracked, s.cfg.Sampler.Interval, s.profiler.paused(), s.profiler.silent(inv))
	return p
}

// watch makes the watches and the reading those of the plan. With retry, what was
// refused before is tried again.
func (s *sampler) watch(p *plan, retry bool) error {
	// What the watches that follow are of begins with nothing seen.
	if err := s.writeTracks(); err != nil {
		return err
	}
	s.profiler.shape(p, s.newest)
	targets := p.targets()
	if c := s.watcher.set(targets, retry); c != codeOK {
		return s.failed(c, collector.FailureWatchFailed, "watching fields")
	}
	if err := s.refused(targets); err != nil {
		return err
	}
	p.refuse(s.watcher.units)
	s.reading = newReading(s.lib, p, s.profiler.appeared, s.cfg.Sampler.Interval)
	s.reading.derived = newDerivedReading(p, s.watcher.units)
	s.tracker = newTracker(s.lib, p, s.reading, s.profiler.appeared)
	if c := s.xids.listen(s.watcher.units, p.inv); c != codeOK {
		return s.failed(c, collector.FailureWatchFailed, "listening for XIDs")
	}
	s.profiler.watched(s.reading, s.watcher.units, time.Now())
	return s.writeProfiling()
}

// refused logs what is not watched. That nothing at all is watched is an error.
func (s *sampler) refused(targets []target) error {
	watched := len(targets) == 0
	var last code
	for _, u := range s.watcher.units {
		watched = watched || len(u.watches) > 0
		for _, r := range u.refused {
			last = r.code
			fields := r.fields
			if fields == nil {
				fields = u.fields
			}
			level := slog.LevelInfo
			if u.profiling {
				level = slog.LevelDebug // the state of profiling says it, and says it once
			}
			s.log.Log(context.Background(), level, "fields are not watched", "entity", collector.EntityKind(r.entity.kind), "id", r.entity.id,
				"fields", fields, "err", s.lib.err(r.code, "watching"))
		}
	}
	if watched || last == codeGPULost || last == codeGPUsDetached {
		return nil
	}
	return s.failed(last, collector.FailureWatchFailed, "watching fields")
}
