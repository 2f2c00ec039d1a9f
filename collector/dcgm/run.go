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
	// identityRetry is how often a GPU that did not tell its UUID is asked again.
	identityRetry = 10 * time.Second
)

// Config is what [Run] needs.
type Config struct {
	Sampler collector.SamplerConfig
	Frames  *collector.FrameWriter
	// MIGDevices lists the MIG devices as NVML names them; it is called when the
	// topology changes, and may be nil.
	MIGDevices func() ([]collector.MIGDevice, error)
	Logger     *slog.Logger
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
	for {
		select {
		case <-ctx.Done():
			s.engine.close()
			return nil
		case <-ticker.C:
		}
		start := time.Now()
		if err := s.sample(); err != nil {
			return err
		}
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
	selector   collector.Selector
	engine     *engine
	lib        *library
	identities identities
	watcher    *watcher
	reading    *reading
	inv        *collector.Inventory

	xids xids

	rebuildAt    time.Time // when to discover again without a change; zero: never
	updateChecks time.Time // when the library's file was last looked at
	newest       int64     // the newest value's time, and
	newestSince  time.Time // since when that has been the newest
	valuesAt     time.Time // when there last was any value; zero: never
}

func newSampler(cfg Config) (*sampler, error) {
	selector, err := collector.ParseSelector(orFlex(cfg.Sampler.Devices))
	if err != nil {
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
		cfg:      cfg,
		log:      cfg.Logger,
		selector: selector,
		engine:   e,
		lib:      e.lib,
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
	s.xids.valuesSince = s.lib.valuesSince
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
	if _, c := s.lib.checkTopology(); c != codeOK {
		return nil, s.failed(c, collector.FailureDiscoveryFailed, "listing the GPUs")
	}
	if err := s.rebuild(); err != nil {
		return nil, err
	}
	if unmatched := selector.Unmatched(s.ids(collector.KindGPU), s.ids(collector.KindGPUInstance)); len(unmatched) > 0 {
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

// rebuild makes the inventory, the watches and the plan of what the topology now
// is, and writes the inventory.
func (s *sampler) rebuild() error {
	top := s.lib.topology()
	inv, incomplete, c := s.identities.inventory(top)
	if c != codeOK {
		return s.failed(c, collector.FailureDiscoveryFailed, "reading the identity of the GPUs")
	}
	s.rebuildAt = time.Time{}
	if incomplete {
		s.rebuildAt = time.Now().Add(identityRetry)
	}
	capabilities, c := s.engine.capabilities(top)
	if c != codeOK {
		return s.failed(c, collector.FailureDiscoveryFailed, "asking for profiling metric groups")
	}
	p := newPlan(inv, s.selector, capabilities)
	for i := range inv.Entities {
		inv.Entities[i].Selected = p.events[i]
	}
	targets := p.targets()
	if c := s.watcher.set(targets); c != codeOK {
		return s.failed(c, collector.FailureWatchFailed, "watching fields")
	}
	if err := s.refused(targets); err != nil {
		return err
	}
	p.refuse(s.watcher.units)
	// The first values come with the next cycle (dcgmWatchFields in dcgm_agent.h):
	// have it now. DCGM 4.6 has done it by itself, and then this is quick.
	if len(targets) > 0 {
		if c := s.lib.update(); c != codeOK {
			return s.failed(c, collector.FailureWatchFailed, "updating the fields")
		}
	}
	if err := s.cfg.Frames.WriteInventory(inv); err != nil {
		return err
	}
	s.inv = inv
	s.reading = newReading(s.lib, p)
	if c := s.xids.listen(s.watcher.units, inv); c != codeOK {
		return s.failed(c, collector.FailureWatchFailed, "listening for XIDs")
	}
	return nil
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
			s.log.Info("fields are not watched", "entity", collector.EntityKind(r.entity.kind), "id", r.entity.id,
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
	if now.Sub(s.updateChecks) >= updateCheck {
		s.updateChecks = now
		if s.engine.updated() {
			return failure(collector.FailureLibraryUpdated, nil, "%s was replaced on disk", s.lib.path)
		}
		if s.engine.driverArrived() {
			return failure(collector.FailureDriverLoaded, nil, "the NVIDIA driver was loaded after DCGM had started without it")
		}
	}
	changed, c := s.lib.checkTopology()
	if c.lost() {
		return s.failed(c, collector.FailureHostengineLost, "listing the GPUs")
	}
	if c != codeOK {
		// The readings say more about what is wrong.
		s.log.Debug("topology not checked", "err", s.lib.err(c, "listing the GPUs"))
	}
	if changed || !s.rebuildAt.IsZero() && now.After(s.rebuildAt) {
		// What was heard under the old inventory belongs to it.
		if err := s.writeXIDs(); err != nil {
			return err
		}
		if err := s.rebuild(); err != nil {
			return err
		}
		s.log.Info("the topology changed", "entities", len(s.inv.Entities), "generation", s.inv.Generation)
	}

	sample, found, c := s.reading.take()
	if c != codeOK {
		return s.failed(c, collector.FailureHostengineLost, "reading values")
	}
	if err := s.cfg.Frames.WriteSample(sample); err != nil {
		return err
	}
	if found.xids || len(s.xids.unread) > 0 {
		if err := s.writeXIDs(); err != nil {
			return err
		}
	}
	if found.migChanged && s.rebuildAt.IsZero() {
		s.rebuildAt = now // at the next sample
	}
	if err := s.checkBlank(now); err != nil {
		return err
	}
	return s.checkProgress(now)
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
		if ok && gpu.State == collector.EntityUp && s.reading.plan.read[i] {
			return true
		}
	}
	return false
}

// checkProgress finds an engine that answers but no longer samples, because its
// own thread is stuck in the driver: it would give the same old values for ever.
func (s *sampler) checkProgress(now time.Time) error {
	// Any other time is progress: clocks are set back, too.
	if s.reading.newest != s.newest || s.newest == 0 {
		s.newest, s.newestSince = s.reading.newest, now
		return nil
	}
	if limit := max(stallTimeout, 3*s.cfg.Sampler.Interval); now.Sub(s.newestSince) > limit {
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
