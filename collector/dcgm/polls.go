// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"log/slog"
	"time"

	"gpu_exporter/collector/dcgm/health"
	"gpu_exporter/collector/dcgm/native"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

const (
	// processLead is the time before a sample at which the processes are read.
	processLead = time.Second
	// fabricLead is the time before a sample at which the fabric is listed.
	fabricLead = 500 * time.Millisecond
	// fabricWait bounds how long the first sample waits for the first list.
	fabricWait = 2 * time.Second
	// peersInterval is the time between two reads of the topology between GPUs. A new
	// inventory causes one as well.
	peersInterval = time.Minute
)

// processPoll reads the processes on the devices in the background.
type processPoll struct {
	background[*model.Inventory, processResult]
	failure failureLog
}

type processResult struct {
	processes *model.Processes
	err       error
}

// newProcessPoll returns a poll whose first call is due at once.
func newProcessPoll(cfg Config) *processPoll {
	var read func(*model.Inventory) processResult
	if cfg.Sampler.Processes && cfg.Processes != nil {
		read = func(inv *model.Inventory) processResult {
			processes, err := cfg.Processes(inv)
			return processResult{processes, err}
		}
	}
	p := &processPoll{background: newBackground("reading the processes", cfg.Logger, read)}
	p.schedule(0)
	return p
}

// writeProcesses writes a result unless the inventory changed meanwhile: its
// processes may have run on instances that no longer exist.
func (s *sampler) writeProcesses(p *processPoll, r processResult) error {
	p.finish()
	p.failure.warn(p.log, "the processes on the devices cannot be read", r.err)
	if r.processes == nil || r.processes.Generation != s.inv.Generation {
		return nil
	}
	return s.cfg.Frames.Write(wire.Frame{Processes: r.processes})
}

// healthPoll makes health checks and reads the topology between GPUs in the background.
type healthPoll struct {
	background[healthRequest, healthResult]
	interval                      time.Duration
	generation                    uint64 // of the last checked inventory
	peersAt                       time.Time
	checkFailure, topologyFailure failureLog
}

type healthRequest struct {
	inv   *model.Inventory
	peers bool
}

type healthResult struct {
	health   *model.Health
	err      error
	peers    *model.Peers // nil if not requested
	peersErr error
}

// newHealthPoll returns a poll whose first check is due at once.
func newHealthPoll(cfg Config, lib *native.Library) (*healthPoll, error) {
	var call func(healthRequest) healthResult
	if cfg.Sampler.HealthInterval > 0 {
		checker, err := health.NewChecker(lib, cfg.Logger)
		if err != nil {
			return nil, failure(model.FailureInitFailed, err, "starting health checks")
		}
		call = func(q healthRequest) (r healthResult) {
			r.health, r.err = checker.Check(q.inv)
			if q.peers {
				r.peers, r.peersErr = checker.Peers(q.inv)
			}
			return r
		}
	}
	h := &healthPoll{background: newBackground("a health check", cfg.Logger, call), interval: cfg.Sampler.HealthInterval}
	h.schedule(0)
	return h, nil
}

// follow makes a check due at once if inv was not checked yet.
func (h *healthPoll) follow(inv *model.Inventory) {
	if !h.running && inv.Generation != h.generation {
		h.schedule(0)
	}
}

// check starts a check of the entities of inv, unless one is running.
func (h *healthPoll) check(inv *model.Inventory) {
	h.schedule(h.interval)
	now := time.Now()
	peers := inv.Generation != h.generation || now.Sub(h.peersAt) >= peersInterval
	if !h.start(healthRequest{inv, peers}) {
		return
	}
	if peers {
		h.peersAt = now
	}
	h.generation = inv.Generation
}

// writeHealth writes a result unless the inventory changed meanwhile. A failed check
// concerns every inventory.
func (s *sampler) writeHealth(h *healthPoll, r healthResult) error {
	h.finish()
	h.checkFailure.warn(h.log, "the health cannot be checked", r.err)
	if r.peers != nil {
		h.topologyFailure.warn(h.log, "the topology between the GPUs cannot be read completely", r.peersErr)
	}
	defer h.follow(s.inv)
	if r.err != nil || r.health.Generation == s.inv.Generation {
		if err := s.cfg.Frames.Write(wire.Frame{Health: r.health}); err != nil {
			return err
		}
	}
	if r.peers == nil || r.peers.Generation != s.inv.Generation {
		return nil
	}
	return s.cfg.Frames.Write(wire.Frame{Peers: r.peers})
}

// fabricKinds returns the kinds to list. Switches and links are always listed:
// `gpu_nvlink_up` needs them.
func fabricKinds(cfg wire.SamplerConfig) model.KindSet {
	kinds := model.Kinds(model.KindSwitch, model.KindLink)
	for _, kind := range []model.EntityKind{model.KindCPU, model.KindCPUCore, model.KindConnectX} {
		if len(cfg.Fields[kind]) > 0 {
			kinds |= model.Kinds(kind)
		}
	}
	return kinds
}

// fabricPoll lists the fabric in the background: the state of each link is a driver call.
type fabricPoll struct {
	background[struct{}, fabricResult]
	links  native.Code // of listing the links
	read   time.Time   // when they were last listed; zero: never
	listed bool        // the switches were listed at least once
	fabric native.Fabric
}

type fabricResult struct {
	started time.Time
	fabric  native.Fabric // if changed
	changed bool
	links   native.Code
	listed  bool
}

// newFabricPoll starts a poll of the kinds, and waits briefly for its first result.
func newFabricPoll(lib *native.Library, kinds model.KindSet, log *slog.Logger) *fabricPoll {
	lister := lib.NewFabricLister(kinds)
	p := &fabricPoll{background: newBackground("listing the NVLinks", log, func(struct{}) fabricResult {
		r := fabricResult{started: time.Now()} // a link may go down at any later time
		var c native.Code
		if r.changed, r.links, c = lister.Check(); c != native.OK {
			r.links, r.changed = c, false
		}
		r.listed = c == native.OK
		if r.changed {
			r.fabric = lister.Fabric()
		}
		return r
	})}
	p.start(struct{}{})
	select {
	case result := <-p.results:
		p.receive(result)
	case <-time.After(fabricWait):
		log.Warn("listing the NVLinks is slow; their series appear when it is done")
	}
	return p
}

// readAt returns when the links were last listed, by the current wall clock; zero if
// they never were.
func (p *fabricPoll) readAt() time.Time {
	if p.read.IsZero() {
		return p.read
	}
	return time.Now().Add(-time.Since(p.read))
}

// receive takes over a result and reports whether the fabric changed.
func (p *fabricPoll) receive(r fabricResult) bool {
	p.finish()
	p.listed = p.listed || r.listed
	if r.links == native.LinksNotListed {
		return false
	}
	if r.links == native.OK {
		p.read = r.started
	}
	if r.links != p.links {
		if p.links = r.links; p.links != native.OK {
			p.log.Warn("the NVLinks cannot be listed; their state is withheld when it is too old", "code", int(p.links))
		}
	}
	if r.changed {
		p.fabric = r.fabric
	}
	return r.changed
}
