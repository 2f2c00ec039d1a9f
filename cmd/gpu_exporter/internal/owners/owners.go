// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package owners joins the devices of the node with their owners: pods, batch
// jobs and containers. It publishes the result as an immutable table, which the
// metric families read.
//
// It is the only package that imports both collector and podmapper. It must not
// define metrics or labels, and a scrape must never wait for it.
package owners

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/collector/model"
	"gpu_exporter/podmapper"
	"gpu_exporter/podmapper/cgroup"
	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/docker"
	"gpu_exporter/podmapper/dra"
	"gpu_exporter/podmapper/jobs"
	"gpu_exporter/podmapper/metadata"
)

const (
	// expiryPoll bounds how late the table notices that a source's data expired.
	expiryPoll = time.Second
	// settleTimeout bounds how long Settle waits for the first answers.
	settleTimeout = podmapper.DefaultTimeout + 3*time.Second
	settlePoll    = 20 * time.Millisecond
)

// Owners keeps the table of owners. A source that is not configured is nil.
type Owners struct {
	cfg       *config.Static
	log       *slog.Logger
	mapper    *podmapper.Mapper
	published *dra.Watcher
	pods      *metadata.Store
	jobs      *jobs.Finder
	engine    *docker.Watcher
	processes *cgroup.Reader // nil unless the processes on the devices are read

	sources  []source      // that run
	readings chan reading  // at most one: the newest
	changed  chan struct{} // at most one notice
	table    atomic.Pointer[table]

	mu sync.Mutex // held while a table is joined; guards the fields below
	// latest has the newest inventory. shown has the inventory of the newest sample,
	// and before the inventory of the sample before it, if it was different.
	latest, shown, before *node
	// taken are the times of the newest samples. An inventory was right until the last of
	// them, because the sampler notices a change only after one or two intervals.
	taken [3]time.Time
	// sampled and sampledBefore are the times of the two newest samples.
	sampled, sampledBefore time.Time
}

// node is an inventory and the history of its devices. It is immutable.
type node struct {
	inventory *model.Inventory
	places    *device.Places
	since     time.Time // when it became known
}

type source interface {
	Run(context.Context) error
	Changed() <-chan struct{} // for one receiver
}

// New creates the configured sources. It reads nothing yet.
func New(c *config.Static, logger *slog.Logger) (*Owners, error) {
	o := &Owners{cfg: c, log: logger, readings: make(chan reading, 1), changed: make(chan struct{}, 1)}
	o.table.Store(&table{})
	if err := errors.Join(o.addKubernetes(), o.addJobs(), o.addDocker()); err != nil {
		return nil, err
	}
	if o.usage() || c.SlurmMode() != config.SlurmOff {
		o.addProcesses()
	}
	return o, nil
}

// usage reports whether the usage of each pod is configured.
func (o *Owners) usage() bool { return o.cfg.Kubernetes && (o.cfg.PodUsage || o.cfg.VirtualGPUs) }

// NeedsProcesses reports whether the sampler must read the processes on the
// devices.
func (o *Owners) NeedsProcesses() bool { return o.processes != nil }

// Changed receives a notice after the table has changed. It is for one receiver.
func (o *Owners) Changed() <-chan struct{} { return o.changed }

func (o *Owners) notify() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// Run refreshes the sources and the table until ctx ends or a source fails.
func (o *Owners) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	start := func(name string, run func(context.Context) error) {
		group.Go(func() error {
			if err := run(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	follow := func(changed <-chan struct{}, expiry <-chan time.Time) func(context.Context) error {
		return func(ctx context.Context) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-changed:
				case <-expiry:
				}
				o.update()
			}
		}
	}
	for _, s := range o.sources {
		start("owner source", s.Run)
		start("owner source", follow(s.Changed(), nil))
	}
	start("processes", o.locateReadings)
	expiry := time.NewTicker(expiryPoll)
	defer expiry.Stop()
	start("expiry", follow(nil, expiry.C))
	return group.Wait()
}

// Settle runs the sources and waits, for a limited time, until each has answered
// or failed. The sources run until stop is called.
func (o *Owners) Settle(ctx context.Context) (stop func()) {
	running, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.Run(running) // each source logs and reports its failure
	}()
	o.await(ctx, o.answered)
	o.update()
	return func() {
		cancel()
		<-done
	}
}

// AwaitPlaces waits, for a limited time, until the processes of a reading are
// located.
func (o *Owners) AwaitPlaces(ctx context.Context, p *model.Processes) {
	if o.processes == nil || p == nil {
		return
	}
	o.await(ctx, func() bool {
		_, located := o.Places(p)
		return located
	})
}

func (o *Owners) await(ctx context.Context, holds func() bool) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	poll := time.NewTicker(settlePoll)
	defer poll.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

// answered reports whether every source has succeeded or failed.
func (o *Owners) answered() bool {
	return !slices.ContainsFunc(o.states(), func(s sourceState) bool { return s.name != "" && !s.status.Up && s.status.Err == nil })
}
