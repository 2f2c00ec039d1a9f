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
	background
	failure failureLog
}

// newProcessPoll returns a poll whose first call is due at once.
func newProcessPoll(cfg Config) *processPoll {
	p := &processPoll{background: newBackground("reading the processes", cfg.Logger)}
	p.schedule(0)
	return p
}

// readProcesses starts to read the processes. It drops the result if the inventory
// changes meanwhile: the processes may have run on instances that no longer exist.
func (s *sampler) readProcesses(p *processPoll) {
	if !s.cfg.Sampler.Processes || s.cfg.Processes == nil {
		return
	}
	inv := s.inv
	p.start(func() func() error {
		processes, err := s.cfg.Processes(inv)
		return func() error {
			p.failure.warn(p.log, "the processes on the devices cannot be read", err)
			if processes == nil || processes.Generation != s.inv.Generation {
				return nil
			}
			return s.cfg.Frames.Write(wire.Frame{Processes: processes})
		}
	})
}

// healthPoll makes health checks and reads the topology between GPUs in the background.
type healthPoll struct {
	background
	checker                       *health.Checker // nil: disabled
	interval                      time.Duration
	generation                    uint64 // of the last checked inventory
	peersAt                       time.Time
	checkFailure, topologyFailure failureLog
}

// newHealthPoll returns a poll whose first check is due at once.
func newHealthPoll(cfg Config, lib *native.Library) (*healthPoll, error) {
	h := &healthPoll{background: newBackground("a health check", cfg.Logger), interval: cfg.Sampler.HealthInterval}
	if h.interval <= 0 {
		return h, nil
	}
	var err error
	if h.checker, err = health.NewChecker(lib, cfg.Logger); err != nil {
		return nil, failure(model.FailureInitFailed, err, "starting health checks")
	}
	h.schedule(0)
	return h, nil
}

// follow makes a check due at once if inv was not checked yet.
func (h *healthPoll) follow(inv *model.Inventory) {
	if h.checker != nil && !h.running && inv.Generation != h.generation {
		h.schedule(0)
	}
}

// checkHealth starts a check of the inventory, unless one is running.
func (s *sampler) checkHealth(h *healthPoll) {
	h.schedule(h.interval)
	now, inv := time.Now(), s.inv
	withPeers := s.cfg.Sampler.Peers && (inv.Generation != h.generation || now.Sub(h.peersAt) >= peersInterval)
	started := h.start(func() func() error {
		health, err := h.checker.Check(inv)
		var peers *model.Peers
		var peersErr error
		if withPeers {
			peers, peersErr = h.checker.Peers(inv)
		}
		return func() error {
			h.checkFailure.warn(h.log, "the health cannot be checked", err)
			if withPeers {
				h.topologyFailure.warn(h.log, "the topology between the GPUs cannot be read completely", peersErr)
			}
			return s.writeHealth(h, health, peers)
		}
	})
	if !started {
		return
	}
	if withPeers {
		h.peersAt = now
	}
	h.generation = inv.Generation
}

// writeHealth writes results unless the inventory changed meanwhile. A failed check
// concerns every inventory.
func (s *sampler) writeHealth(h *healthPoll, health *model.Health, peers *model.Peers) error {
	defer h.follow(s.inv)
	if health.Failure != "" || health.Generation == s.inv.Generation {
		if err := s.cfg.Frames.Write(wire.Frame{Health: health}); err != nil {
			return err
		}
	}
	if peers == nil || peers.Generation != s.inv.Generation {
		return nil
	}
	return s.cfg.Frames.Write(wire.Frame{Peers: peers})
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
	background
	lister native.FabricLister
	links  native.Code // of listing the links
	read   time.Time   // when they were last listed; zero: never
	listed bool        // the switches were listed at least once
	fabric native.Fabric
	// updated is set if the newest list differs from the one before.
	updated bool
	// changed is set if devices or links appeared or disappeared after the newest inventory.
	changed bool
}

// newFabricPoll starts a poll of the kinds, and waits briefly for its first result.
func newFabricPoll(lib *native.Library, kinds model.KindSet, log *slog.Logger) *fabricPoll {
	p := &fabricPoll{background: newBackground("listing the NVLinks", log), lister: lib.NewFabricLister(kinds)}
	p.list()
	select {
	case publish := <-p.results:
		_ = p.finish(publish) // a list has no error
	case <-time.After(fabricWait):
		log.Warn("listing the NVLinks is slow; their series appear when it is done")
	}
	return p
}

// list starts a list of the fabric, unless one is running.
func (p *fabricPoll) list() {
	p.start(func() func() error {
		started := time.Now() // a link may go down at any later time
		changed, links, c := p.lister.Check()
		listed := p.lister.SwitchesListed()
		var fabric native.Fabric
		if c != native.OK {
			links, changed = c, false
		}
		if changed {
			fabric = p.lister.Fabric()
		}
		return func() error {
			p.listed = listed
			if links == native.LinksNotListed {
				return nil
			}
			if links == native.OK {
				p.read = started
			}
			if links != p.links && links != native.OK {
				p.log.Warn("the NVLinks cannot be listed; their state is withheld when it is too old", "code", int(links))
			}
			if p.links = links; changed {
				p.fabric, p.updated = fabric, true
			}
			return nil
		}
	})
}

// readAt returns when the links were last listed, by the current wall clock; zero if
// they never were.
func (p *fabricPoll) readAt() time.Time {
	if p.read.IsZero() {
		return p.read
	}
	return time.Now().Add(-time.Since(p.read))
}
