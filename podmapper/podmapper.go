// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package podmapper knows which containers of this node hold which NVIDIA
// devices. It asks the kubelet's pod-resources API in the background and
// publishes the answer as an immutable table.
//
// It knows neither the collector nor metrics, and it must never be waited for
// on the scrape path: Table and Status only read what is there. A kubelet that
// is away, slow or wrong costs nobody a scrape; the last good table stays until
// it is too old.
package podmapper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSocket is where the kubelet serves pod-resources.
const DefaultSocket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// Defaults of Config.
const (
	DefaultInterval = 10 * time.Second
	DefaultMaxAge   = 5 * time.Minute
	DefaultTimeout  = 5 * time.Second
)

// confirmAfter is how long a kubelet that suddenly reports fewer owners is
// given before it is believed. A kubelet answers List successfully but without
// pods for about 100 ms after its start (seen with kubelet 1.37).
const confirmAfter = time.Second

// Config says where the owners come from. The zero value of each field is its
// default.
type Config struct {
	Socket        string        // path or unix: URL; DefaultSocket
	ResourceNames []string      // resources to take in addition to nvidia.com/*
	IDType        IDType        // how ambiguous device IDs are read; IDTypeUID
	Interval      time.Duration // between refreshes
	MaxAge        time.Duration // how long a table is good without a refresh
	Timeout       time.Duration // for one call to the kubelet
	Logger        *slog.Logger  // nil: no log
}

// Mapper keeps the table of owners fresh. Its methods may be called from any
// goroutine.
type Mapper struct {
	socket   string
	filter   resourceFilter
	idType   IDType
	interval time.Duration
	maxAge   time.Duration
	timeout  time.Duration
	confirm  time.Duration
	log      *slog.Logger
	kubelet  *kubelet
	trigger  chan struct{}

	turn  chan struct{} // held by the refresh that is under way
	table atomic.Pointer[Table]

	// What one refresh leaves to the next; guarded by turn.
	connection uint64          // the connection that gave the table
	doubt      doubt           // fewer owners, not believed yet
	warned     map[Reason]bool // logged since the last success
	expired    bool            // that the table is too old was logged

	mu     sync.Mutex
	status Status
}

// doubt is a report of fewer owners that waits for a second one by the same
// kubelet. The zero value is no doubt.
type doubt struct {
	since      time.Time
	connection uint64
}

// Status says how the refreshes go.
type Status struct {
	Up          bool      // the last refresh succeeded
	LastSuccess time.Time // start of the last successful refresh; zero before it
	TableTime   time.Time // Table.Time, also when that table is too old; zero without one
	// Duration is that of the last refresh, failed or not.
	Duration time.Duration
	// Refreshes counts all refreshes, Failures the failed ones by reason.
	Refreshes uint64
	Failures  map[Reason]uint64
	// Reason and Err are those of the last refresh; empty if it succeeded.
	Reason Reason
	Err    error
	// Connections counts the connections to the kubelet since the start.
	Connections uint64
	// Confirming is true while a report of fewer owners waits for a second one.
	Confirming bool
	// Assignments and UnknownIDs count what is in the table that Table gives:
	// device IDs held by containers, and those of them of no known form.
	Assignments, UnknownIDs int
}

// New makes a Mapper. It does not touch the socket yet.
func New(c Config) (*Mapper, error) {
	m := &Mapper{
		filter:   resourceFilter{names: make(map[string]bool)},
		interval: cmp.Or(c.Interval, DefaultInterval),
		maxAge:   cmp.Or(c.MaxAge, DefaultMaxAge),
		timeout:  cmp.Or(c.Timeout, DefaultTimeout),
		confirm:  confirmAfter,
		log:      c.Logger,
		trigger:  make(chan struct{}, 1),
		turn:     make(chan struct{}, 1),
		warned:   make(map[Reason]bool),
		status:   Status{Failures: make(map[Reason]uint64)},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.interval < 0 || m.timeout < 0 || m.maxAge < m.interval {
		return nil, fmt.Errorf("pod mapping: interval %s, timeout %s and maximum age %s must be positive, and the age no less than the interval",
			m.interval, m.timeout, m.maxAge)
	}
	for _, name := range c.ResourceNames {
		m.filter.names[name] = true
	}
	var err error
	if m.idType, err = ParseIDType(string(c.IDType)); err != nil {
		return nil, err
	}
	if m.socket, err = socketPath(cmp.Or(c.Socket, DefaultSocket)); err != nil {
		return nil, err
	}
	if m.kubelet, err = newKubelet(m.socket, m.timeout); err != nil {
		return nil, fmt.Errorf("preparing the connection to the kubelet: %w", err)
	}
	return m, nil
}

// Run refreshes the table until ctx ends, and then closes the connection. It
// returns nil.
func (m *Mapper) Run(ctx context.Context) error {
	defer func() { _ = m.Close() }() // there may have been a Close before
	var watcher sync.WaitGroup
	defer watcher.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watcher.Go(func() { m.kubelet.watch(ctx, m.Trigger) })

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.trigger:
		}
		next, _ := m.refresh(ctx) // the error is in the status and in the log
		timer.Reset(next)
	}
}

// Trigger asks Run for a refresh now. It does not wait.
func (m *Mapper) Trigger() {
	select {
	case m.trigger <- struct{}{}:
	default: // one is already asked for
	}
}

// Refresh does one refresh now and waits for it, with or without Run. If the
// kubelet reports fewer owners than before and that is not yet confirmed, the
// table stays as it was.
func (m *Mapper) Refresh(ctx context.Context) error {
	_, err := m.refresh(ctx)
	return err
}

// Close ends the connection to the kubelet. Run does it too.
func (m *Mapper) Close() error { return m.kubelet.close() }

// Table gives the owners, or nil while they are not known: before the first
// good answer of the kubelet, and once the last one is older than MaxAge.
func (m *Mapper) Table() *Table {
	t := m.table.Load()
	if t == nil || time.Since(t.Time) > m.maxAge {
		return nil
	}
	return t
}

// Status gives a copy of the state of the refreshes.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	s := m.status
	s.Failures = maps.Clone(s.Failures)
	m.mu.Unlock()

	s.Connections = m.kubelet.connections.Load()
	if t := m.table.Load(); t != nil {
		s.TableTime = t.Time
	}
	if t := m.Table(); t != nil {
		s.Assignments = len(t.Assignments)
		for _, a := range t.Assignments {
			if a.Known.Form == FormUnknown {
				s.UnknownIDs++
			}
		}
	}
	return s
}

// refresh asks the kubelet once and publishes what it says. It returns when to
// ask next.
func (m *Mapper) refresh(ctx context.Context) (next time.Duration, err error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return m.interval, ctx.Err()
	}

	start := time.Now()
	connection := m.kubelet.connections.Load()
	list, err := m.kubelet.list(ctx, m.timeout)
	if err != nil && ctx.Err() != nil {
		return m.interval, ctx.Err() // we are being stopped: the kubelet did not fail
	}
	if err != nil {
		err = fmt.Errorf("listing pod resources from %s: %w", m.socket, err)
		m.failed(start, m.kubelet.reason(errors.Unwrap(err)), err)
		return m.interval, err
	}
	now := m.filter.assignments(list)
	before := m.table.Load()

	// Fewer owners are doubtful if none is left at all, or if a new connection
	// says so: a kubelet that has just started does not know its pods yet.
	// connections may have moved on during the call, hence both looks.
	fresh := connection != m.connection || connection != m.kubelet.connections.Load()
	doubtful := m.Table() != nil && (fresh || len(now) == 0) && missing(before.Assignments, now)
	if doubtful {
		if c := m.kubelet.connections.Load(); m.doubt.since.IsZero() || m.doubt.connection != c {
			m.doubt = doubt{since: start, connection: c}
		}
		if wait := m.confirm - start.Sub(m.doubt.since); wait > 0 {
			m.succeeded(start, true)
			m.log.Debug("Kubelet reports fewer owners; asking again before believing it", "wait", wait)
			return min(wait, m.interval), nil
		}
	}
	m.doubt = doubt{}
	m.connection = connection
	m.publish(start, before, now)
	m.succeeded(start, false)
	if fresh && len(now) == 0 {
		// The first answer at all, and it is empty. There was nothing to keep,
		// but it is just as likely to be too early.
		return min(m.confirm, m.interval), nil
	}
	return m.interval, nil
}

func (m *Mapper) publish(start time.Time, before *Table, now []Assignment) {
	t := &Table{Time: start, Version: 1, Assignments: now, idType: m.idType}
	if before != nil {
		t.Version = before.Version
		if slices.Equal(before.Assignments, now) {
			t.Assignments = before.Assignments // lets go of the answer's strings
		} else {
			t.Version++
		}
	}
	m.table.Store(t)
}

func (m *Mapper) succeeded(start time.Time, confirming bool) {
	m.mu.Lock()
	first, wasUp := m.status.LastSuccess.IsZero(), m.status.Up
	m.status.Refreshes++
	m.status.Up, m.status.Reason, m.status.Err = true, "", nil
	m.status.LastSuccess = start
	m.status.Duration = time.Since(start)
	m.status.Confirming = confirming
	m.mu.Unlock()
	m.expired = false
	clear(m.warned)

	if !wasUp {
		msg := "Kubelet answers again; pod mapping is up"
		if first {
			msg = "Pod mapping is up"
		}
		m.log.Info(msg, "socket", m.socket)
	}
}

func (m *Mapper) failed(start time.Time, reason Reason, err error) {
	m.mu.Lock()
	m.status.Refreshes++
	m.status.Failures[reason]++
	m.status.Up, m.status.Reason, m.status.Err = false, reason, err
	m.status.Duration = time.Since(start)
	m.mu.Unlock()

	m.doubt = doubt{}
	level := slog.LevelDebug
	if !m.warned[reason] {
		m.warned[reason] = true
		level = slog.LevelWarn
	}
	m.log.Log(context.Background(), level, "Pod mapping failed", "reason", reason, "err", err, "hint", reason.hint())

	if t := m.table.Load(); t != nil && m.Table() == nil && !m.expired {
		m.expired = true
		m.log.Warn("Pod mapping is too old; series go without pod labels until the kubelet answers",
			"age", time.Since(t.Time).Round(time.Second), "max_age", m.maxAge)
	}
}
