// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"context"
	"errors"
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
	for {
		select {
		case <-ctx.Done():
			health.wait()
			s.fabric.wait()
			s.leave()
			return nil
		case <-listen.C:
			if err := s.writeXIDs(); err != nil {
				return err
			}
			continue
		case <-looks.C:
			if err := s.look(false); err != nil {
				return err
			}
			continue
		case <-processes.due():
			processes.start(s.inv)
			continue
		case c := <-cfg.Commands:
			if err := s.command(c); err != nil {
				return err
			}
			continue
		case r := <-processes.results:
			if err := s.writeProcesses(processes.finish(r)); err != nil {
				return err
			}
			continue
		case <-s.fabric.due():
			s.fabric.start(struct{}{})
			continue
		case r := <-s.fabric.results:
			s.fabricChanged = s.fabric.finish(r) || s.fabricChanged
			continue
		case <-health.due():
			health.start(s.inv)
			continue
		case r := <-health.results:
			health.finish(r)
			if err := s.writeHealth(r); err != nil {
				return err
			}
			health.follow(s.inv)
			continue
		case tick := <-ticker.C:
			processes.schedule(before(tick, cfg.Sampler.Interval, processLead))
			s.fabric.schedule(before(tick, cfg.Sampler.Interval, fabricLead))
		}
		start := time.Now()
		if err := s.sample(); err != nil {
			return err
		}
		health.follow(s.inv)
		// A tick that came while a sample took too long is no reason to hurry.
		if time.Since(start) > cfg.Sampler.Interval {
			select {
			case <-ticker.C:
			default:
			}
		}
	}
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
	fabricChanged bool          // since the newest inventory
	instances     code          // of listing the MIG instances
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
	if _, c := s.checkTopology(); c != codeOK {
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
	f, c := s.identities.inventory(top, s.fabric.now, s.newest)
	if c != codeOK {
		return false, s.failed(c, collector.FailureDiscoveryFailed, "reading the identity of the GPUs")
	}
	inv := f.inv
	inv.Derived = s.cfg.Sampler.Derived
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
	// Before the watches: dcgmWatchFields waits until everything was read from the
	// driver, which may take long, and this frame says that we live.
	if err := s.cfg.Frames.WriteInventory(inv); err != nil {
		return false, err
	}
	s.inv = inv
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

// sample reads everything once and writes what it finds.
func (s *sampler) sample() error {
	now := time.Now()
	if err := s.checkLibrary(now); err != nil {
		return err
	}
	if err := s.followTopology(now); err != nil {
		return err
	}
	sample, found, c := s.take()
	if c != codeOK {
		return s.failed(c, collector.FailureHostengineLost, "reading values")
	}
	stuck := s.stuck(now)
	sample.Time = sample.Time.Add(-stuck)
	if err := s.write(sample, found, now); err != nil {
		return err
	}
	if s.migChanged = found.migChanged; s.migChanged && !now.Before(s.migQuiet) {
		s.rebuildAt = now // at the next sample
	}
	if err := s.checkBlank(now); err != nil {
		return err
	}
	if err := s.checkProgress(stuck); err != nil {
		return err
	}
	return s.rewatchProfiling(now)
}

// checkLibrary finds out, now and then, that another library or driver is there than
// the one in use.
func (s *sampler) checkLibrary(now time.Time) error {
	if now.Sub(s.updateChecks) < updateCheck {
		return nil
	}
	s.updateChecks = now
	if s.engine.updated() {
		if err := s.tellRest(); err != nil {
			return err
		}
		return failure(collector.FailureLibraryUpdated, nil, "%s was replaced on disk", s.lib.path)
	}
	if s.engine.driverArrived() {
		return failure(collector.FailureDriverLoaded, nil, "the NVIDIA driver was loaded after DCGM had started without it")
	}
	return nil
}

// followTopology makes a new inventory if the node is another one now, or may be.
func (s *sampler) followTopology(now time.Time) error {
	changed, c := s.checkTopology()
	if s.fabricChanged {
		s.fabricChanged, changed = false, true
	}
	if c.lost() {
		return s.failed(c, collector.FailureHostengineLost, "listing the GPUs")
	}
	if c != codeOK {
		// The readings say more about what is wrong.
		s.log.Debug("topology not checked", "err", s.lib.err(c, "listing the GPUs"))
	}
	if !changed && (s.rebuildAt.IsZero() || now.Before(s.rebuildAt)) {
		return nil
	}
	// What was heard and seen under the old inventory belongs to it.
	if err := errors.Join(s.writeXIDs(), s.writeTracks()); err != nil {
		return err
	}
	rebuilt, err := s.rebuild(changed)
	if err != nil || !rebuilt {
		return err
	}
	what := "the topology changed"
	if !changed {
		what = "the GPUs tell more, or other, of themselves"
	}
	s.log.Info(what, "entities", len(s.inv.Entities), "generation", s.inv.Generation)
	return nil
}

// write writes a sample after all that belongs to it, which is shown with it.
func (s *sampler) write(sample *collector.Sample, found news, now time.Time) error {
	if err := s.look(true); err != nil {
		return err
	}
	s.profiler.look(s.reading, now)
	if err := s.writeProfiling(); err != nil {
		return err
	}
	if found.xids || len(s.xids.unread) > 0 {
		if err := s.writeXIDs(); err != nil {
			return err
		}
	}
	if s.skip > 0 && s.reading.plan.warming(sample) {
		s.skip--
		return nil
	}
	s.skip = 0
	return s.cfg.Frames.WriteSample(sample)
}

// tellRest writes what has come since the newest sample, before the engine ends.
func (s *sampler) tellRest() error {
	return errors.Join(s.writeXIDs(), s.look(true))
}

// leave ends the engine.
func (s *sampler) leave() {
	if err := s.tellRest(); err != nil {
		s.log.Debug("what came since the newest sample is not told", "err", err)
	}
	s.engine.close()
}

// checkTopology says whether the node is another one than at the last time.
func (s *sampler) checkTopology() (bool, code) {
	changed, instances, c := s.lib.checkTopology()
	if c == codeOK && instances != s.instances {
		if s.instances = instances; instances != codeOK {
			s.log.Warn("MIG instances cannot be listed, and count as they were", "err", s.lib.err(instances, "listing the MIG instances"))
		}
	}
	return changed, c
}

// take takes a reading.
func (s *sampler) take() (*collector.Sample, news, code) {
	sample, found, c := s.reading.take()
	if c != codeOK || s.reading.newest != 0 || s.updated || !s.readsGPUs() {
		return sample, found, c
	}
	// Before DCGM 4.6, dcgmWatchFields left the first values to the next cycle
	// (dcgm_agent.h): have it now, once.
	s.updated = true
	if c := s.lib.update(); c != codeOK {
		return nil, news{}, c
	}
	return s.reading.take()
}

// checkBlank finds an embedded engine that has lost its hold on the driver: after
// XID 119 every field of every GPU is blank until the engine is started anew. A
// standalone engine is not ours to restart, and GPUs that are known to be lost
// need no new engine.
func (s *sampler) checkBlank(now time.Time) error {
	if s.reading.values > 0 || s.cfg.Sampler.Hostengine != "" || !s.readsGPUs() {
		s.valuesAt = now
		return nil
	}
	if s.valuesAt.IsZero() {
		return nil // never had one: a new engine would not either
	}
	if limit := max(blankTimeout, 3*s.cfg.Sampler.Interval); now.Sub(s.valuesAt) > limit {
		return failure(collector.FailureEngineBlank, nil, "every field of every GPU has been blank for %s, as after XID 119: DCGM needs a new start", limit)
	}
	return nil
}

// readsGPUs says whether the plan reads any GPU, or instance of one, that is up.
func (s *sampler) readsGPUs() bool {
	for i := range s.inv.Entities {
		gpu, ok := s.inv.GPU(i)
		if ok && s.inv.Entities[i].Kind.OfGPU() && gpu.State == collector.EntityUp && s.reading.plan.read[i] {
			return true
		}
	}
	return false
}

// stuck says for how long there has been no newer value of anything. The values
// of a sample are that much older than their reading.
func (s *sampler) stuck(now time.Time) time.Duration {
	// Any other time is progress: clocks are set back, too.
	if s.reading.newest != s.newest || s.newest == 0 {
		s.newest, s.newestSince = s.reading.newest, now
	}
	return now.Sub(s.newestSince)
}

// checkProgress finds an engine that answers but no longer samples, because its
// own thread is stuck in the driver: it would give the same old values for ever.
func (s *sampler) checkProgress(stuck time.Duration) error {
	if limit := max(stallTimeout, 3*s.cfg.Sampler.Interval); stuck > limit {
		return failure(collector.FailureEngineStalled, nil, "DCGM has had no new value of any field for %s: its sampling thread is stuck, probably in the driver", limit)
	}
	return nil
}

func (s *sampler) writeXIDs() error {
	events, c := s.xids.collect(s.reading)
	if c.lost() {
		return s.failed(c, collector.FailureHostengineLost, "reading XIDs")
	}
	if c != codeOK {
		s.log.Debug("XIDs are read one by one", "err", s.lib.err(c, "reading XIDs"))
	}
	if len(events) == 0 {
		return nil
	}
	return s.cfg.Frames.WriteEvents(s.inv.Generation, events)
}
