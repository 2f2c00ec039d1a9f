// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"time"

	"gpu_exporter/collector/dcgm/inventory"
	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/dcgm/watch"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

const (
	// profilingWait is how long a sampler that replaces another one leaves out samples
	// because profiling has no first values, but at least 2 intervals. DCGM has them one
	// interval after the watch, or later on a busy machine.
	profilingWait = 2 * time.Second
	// updateWait bounds how long DCGM takes to update all fields, for which a watch
	// waits: 8 GPUs with 60 fields take 10 s if each call of the driver takes 20 ms.
	updateWait = 30 * time.Second
	// identityRetry is the time to the next read of the identities while a UUID or the
	// profiling fields are unknown, or while the driver does not confirm a changed MIG mode.
	identityRetry = 10 * time.Second
	// instancesTimeout is how long MIG instances that cannot be listed count as
	// unchanged, but at least 2 intervals: their IDs may be reused meanwhile.
	instancesTimeout = 10 * time.Second
)

// sampler is the state of [Run].
type sampler struct {
	cfg       Config
	log       *slog.Logger
	selectors selectors
	engine    *engine
	lib       *native.Library
	discovery *inventory.Discovery
	watcher   *watch.Watcher
	reading   *reading
	tracker   *tracker
	fabric    *fabricPoll
	xids      xids
	profiler  *profiler
	inv       *model.Inventory // the newest one
	appeared  []int64          // of its entities: see [inventory.Found]

	skipUntil    time.Time // until then, samples may be left out
	changed      bool      // the topology changed after the newest inventory
	listed       time.Time // when the MIG instances were last listed
	unlisted     bool      // that is longer ago than instancesTimeout
	updated      bool      // the engine updated all fields once
	incomplete   bool      // a UUID is unknown
	incapable    bool      // the profiling fields of a GPU are unknown after an error
	migChanged   bool      // the last reading found a changed MIG mode
	identityAt   time.Time // when the identities may be read again
	libraryCheck time.Time // when the library's file was last checked
	newest       int64     // time of the newest value, by the engine's clock
	newestSince  time.Time // since when that is the newest
	answeredAt   time.Time // when a GPU last answered; zero: never
}

// newSampler starts the engine and makes the first inventory and its watches.
func newSampler(cfg Config) (*sampler, error) {
	selected, err := newSelectors(cfg.Sampler)
	if err != nil {
		return nil, failure(model.FailureConfig, err, "reading the configuration")
	}
	if cfg.Sampler.Interval <= 0 {
		return nil, failure(model.FailureConfig, nil, "the interval of %s is not positive", cfg.Sampler.Interval)
	}
	start := time.Now()
	e, err := connect(cfg.Sampler)
	if err != nil {
		return nil, err
	}
	s := &sampler{
		cfg: cfg, log: cfg.Logger, selectors: selected, engine: e, lib: e.lib,
		discovery: inventory.New(inventory.Config{
			Library: e.lib, Logger: cfg.Logger, MIGDevices: cfg.MIGDevices, Columns: cfg.Sampler.Fields,
			DCGMVersion: e.version, Links: cfg.Sampler.Links,
		}),
		watcher: watch.New(e.lib, cfg.Sampler.Interval, cfg.Logger, func() {
			_ = cfg.Frames.Write(wire.Frame{Wait: updateWait}) // the next frame fails as well
		}),
		xids:         xids{eventsSince: e.lib.EventsSince},
		profiler:     newProfiler(cfg, start),
		libraryCheck: time.Now(),
		newestSince:  time.Now(),
	}
	if cfg.Sampler.Replaces {
		s.skipUntil = start.Add(max(profilingWait, 2*cfg.Sampler.Interval))
	}
	switch {
	case !cfg.Sampler.EventsSince.IsZero():
		s.xids.since = cfg.Sampler.EventsSince.UnixMicro()
	case cfg.Sampler.Hostengine == "":
		// An embedded engine only has XIDs from after its start. A standalone engine has
		// XIDs from its own start on, because DCGM subscribes to them without a watch
		// (DcgmCacheManager.cpp, ManageDeviceEvents), and its clock may differ.
		s.xids.since = start.UnixMicro()
	}
	s.fabric = newFabricPoll(s.lib, fabricKinds(cfg.Sampler), cfg.Logger)
	if _, c := s.checkTopology(start); c != native.OK {
		return nil, s.failed(c, model.FailureDiscoveryFailed, "listing the GPUs")
	}
	if _, err := s.rebuild(true); err != nil {
		return nil, err
	}
	if unmatched := selected.gpus.Unmatched(s.ids(model.KindGPU), s.ids(model.KindGPUInstance)); len(unmatched) > 0 {
		s.log.Warn("the device selector names devices that do not exist", "devices", unmatched)
	}
	s.log.Info("sampling started", "dcgm", e.version, "driver", s.inv.DriverVersion, "library", e.lib.Path,
		"entities", len(s.inv.Entities), "interval", cfg.Sampler.Interval)
	return s, nil
}

func newSelectors(cfg wire.SamplerConfig) (s selectors, err error) {
	for _, one := range []struct {
		to   *model.Selector
		text string
	}{{&s.gpus, cfg.Devices}, {&s.switches, cfg.Switches}, {&s.cpus, cfg.CPUs}} {
		if *one.to, err = model.ParseSelector(cmp.Or(one.text, "f")); err != nil {
			return s, err
		}
	}
	s.models, err = compileModelRules(cfg.Models)
	return s, err
}

func (s *sampler) ids(kind model.EntityKind) []uint32 {
	var ids []uint32
	for _, e := range s.inv.Entities {
		if e.Kind == kind {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// failed returns the failure for an error code.
func (s *sampler) failed(c native.Code, reason, doing string) error {
	err := s.lib.Err(c, doing)
	if c.EngineLost() {
		return failure(model.FailureHostengineLost, err, "the DCGM engine does not answer any more")
	}
	return failure(reason, err, "DCGM refused")
}

// rebuild makes and writes a new inventory, and changes watches and readings
// accordingly. It does nothing if neither topology nor identities changed.
func (s *sampler) rebuild(topologyChanged bool) (rebuilt bool, err error) {
	top := s.lib.Topology()
	if s.unlisted {
		top.Instances = nil
	}
	found, c := s.discovery.Inventory(top, s.fabric.fabric, s.newest)
	if c != native.OK {
		return false, s.failed(c, model.FailureDiscoveryFailed, "reading the identity of the GPUs")
	}
	inv := found.Inventory
	inv.Derived, inv.InstancesUnknown = s.cfg.Sampler.Derived, s.unlisted
	unchanged := !topologyChanged && s.inv != nil && inventory.Equal(inv, s.inv)
	if s.incomplete = found.Incomplete; s.incomplete || unchanged {
		s.identityAt = time.Now().Add(identityRetry)
	}
	if unchanged && !s.incapable {
		return false, nil
	}
	capabilities, c := s.engine.capabilities(top)
	if c != native.OK {
		return false, s.failed(c, model.FailureDiscoveryFailed, "listing profiling metric groups")
	}
	s.incapable = false
	for _, of := range capabilities {
		s.incapable = s.incapable || of.status == model.StatusError
	}
	if unchanged && maps.EqualFunc(capabilities, s.profiler.capabilities, capability.equal) {
		return false, nil
	}
	s.profiler.capabilities = capabilities
	p := s.plan(inv)
	for i := range inv.Entities {
		inv.Entities[i].Selected = p.selected[i]
	}
	inv.Generation, inv.Revision = 1, s.cfg.Sampler.Revision
	if s.inv != nil {
		inv.Generation = s.inv.Generation + 1
		if err := s.writeEvents(s.xids.emitBefore(inv)); err != nil {
			return false, err
		}
	}
	// This frame shows that the sampler is alive. It precedes the watches, because
	// dcgmWatchFields waits until all fields were read from the driver.
	if err := s.cfg.Frames.Write(wire.Frame{Inventory: inv}); err != nil {
		return false, err
	}
	s.inv, s.changed, s.fabric.changed, s.appeared = inv, false, false, found.Appeared
	return true, s.watch(p, true)
}

func (s *sampler) plan(inv *model.Inventory) *plan {
	p := newPlan(inv, s.selectors, s.profiler.capabilities)
	p.track(s.cfg.Sampler.Tracked, s.cfg.Sampler.Interval, s.profiler.paused())
	return p
}

// watch carries out a plan. With retry, it watches refused fields again.
func (s *sampler) watch(p *plan, retry bool) error {
	// A new tracker starts without values.
	if err := s.writeTracks(); err != nil {
		return err
	}
	s.profiler.apply(p)
	targets := p.targets()
	if c := s.watcher.Set(targets, retry); c != native.OK {
		return s.failed(c, model.FailureWatchFailed, "watching fields")
	}
	if err := s.checkRefusals(targets); err != nil {
		return err
	}
	p.refuse(s.watcher.Units())
	s.reading = newReading(s.lib, p, s.appeared, s.cfg.Sampler.Interval, cmp.Or(s.cfg.Sampler.MaxAge, defaultMaxAge))
	s.tracker = newTracker(s.reading)
	if c := s.xids.watch(s.watcher.Units(), p.inv); c != native.OK {
		return s.failed(c, model.FailureWatchFailed, "reading XIDs")
	}
	s.profiler.watched(s.reading, s.watcher.Units(), s.newest, time.Now())
	return s.writeProfiling()
}

// checkRefusals logs the fields that are not watched. It fails if none is watched.
func (s *sampler) checkRefusals(targets []watch.Target) error {
	watched := len(targets) == 0
	var last native.Code
	for _, u := range s.watcher.Units() {
		watched = watched || len(u.Watches) > 0
		for _, r := range u.Refused {
			last = r.Code
			fields := r.Fields
			if fields == nil {
				fields = u.Fields
			}
			level := slog.LevelInfo
			if u.Profiling {
				level = slog.LevelDebug // the state of profiling is logged once
			}
			s.log.Log(context.Background(), level, "fields are not watched", "entity", model.EntityKind(r.Entity.Kind), "id", r.Entity.ID,
				"fields", fields, "err", s.lib.Err(r.Code, "watching"))
		}
	}
	if watched || last == native.GPULost || last == native.GPUsDetached {
		return nil
	}
	// DCGM refuses devices that left after they were listed as bad parameters.
	if changed, err := s.topologyChanged(time.Now()); err != nil || changed {
		return err // the next poll makes a new inventory
	}
	return s.failed(last, model.FailureWatchFailed, "watching fields")
}
