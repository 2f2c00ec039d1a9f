// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package podmapper knows which containers of this node hold which NVIDIA
// devices, and held them a moment ago. It asks the kubelet's pod-resources API
// in the background, at an interval and whenever the kubelet writes down a
// change, and publishes the answer as an immutable table.
//
// It knows neither the collector nor metrics, and it must never be waited for
// on the scrape path: Table, TableAt and Status only read what is there. A
// kubelet that is away, slow or wrong costs nobody a scrape; the last good table
// stays until it is too old.
package podmapper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
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

// A kubelet that has just started answers List successfully, but at first
// without its pods. It has static pods after some 100 ms (seen with kubelet
// 1.37); those of the API server it asks for after a second's wait for its own
// Node (pkg/kubelet/config/apiserver.go), and then they come all at once.
const (
	// confirmAfter is how long a kubelet that has just started is given before it
	// is believed that owners are gone.
	confirmAfter = 5 * time.Second
	// askAgain is how often it is asked meanwhile.
	askAgain = time.Second
)

// Config says where the owners come from. The zero value of each field is its
// default.
type Config struct {
	Socket        string        // path or unix: URL; DefaultSocket
	ResourceNames []string      // resources to take in addition to nvidia.com/*
	IDType        IDType        // how ambiguous device IDs are read; IDTypeUID
	DRA           bool          // whether devices of ResourceClaims are taken, too
	DRADrivers    []string      // DRA drivers of which all devices are GPUs, in addition to gpu.nvidia.com
	CheckpointDir string        // where the kubelet keeps its device checkpoint; by default device-plugins beside the socket's directory
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
	rules    rules
	interval time.Duration
	maxAge   time.Duration
	timeout  time.Duration
	confirm  time.Duration
	log      *slog.Logger
	kubelet  *kubelet
	trigger  chan struct{}

	checkpoint *checkpoint
	written    atomic.Pointer[time.Time] // when the kubelet last wrote it
	woken      chan struct{}             // by a write

	turn    chan struct{}             // held by the refresh that is under way
	asked   atomic.Pointer[time.Time] // start of the last refresh
	history atomic.Pointer[history]
	changed chan struct{}

	unmatched unmatched

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
	TableTime   time.Time // start of the refresh that last gave the table, also when that is too old; zero without one
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
	// Watching is true while the kubelet's device checkpoint is watched, so that
	// changes are noticed at once. Otherwise they are at the next refresh.
	Watching bool
	// Confirming is true while a report of fewer owners waits for a second one.
	Confirming bool
	// Assignments and UnknownIDs count what is in the table that Table gives:
	// device IDs held by containers, and those of them of no known form.
	Assignments, UnknownIDs int
}

// New makes a Mapper. It does not touch the socket yet.
func New(c Config) (*Mapper, error) {
	m := &Mapper{
		filter:   resourceFilter{names: make(map[string]bool), claims: c.DRA},
		rules:    rules{drivers: make(map[string]bool)},
		interval: cmp.Or(c.Interval, DefaultInterval),
		maxAge:   cmp.Or(c.MaxAge, DefaultMaxAge),
		timeout:  cmp.Or(c.Timeout, DefaultTimeout),
		confirm:  confirmAfter,
		log:      c.Logger,
		trigger:  make(chan struct{}, 1),
		woken:    make(chan struct{}, 1),
		turn:     make(chan struct{}, 1),
		changed:  make(chan struct{}, 1),
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
	for _, name := range c.DRADrivers {
		m.rules.drivers[name] = true
	}
	var err error
	if m.rules.idType, err = ParseIDType(string(c.IDType)); err != nil {
		return nil, err
	}
	if m.socket, err = socketPath(cmp.Or(c.Socket, DefaultSocket)); err != nil {
		return nil, err
	}
	if m.kubelet, err = newKubelet(m.socket, m.timeout); err != nil {
		return nil, fmt.Errorf("preparing the connection to the kubelet: %w", err)
	}
	dir := filepath.Clean(cmp.Or(c.CheckpointDir, filepath.Join(filepath.Dir(filepath.Dir(m.socket)), deviceDir)))
	files := map[string]string{dir: deviceCheckpoint}
	if c.DRA {
		files[filepath.Dir(dir)] = claimCheckpoint
	}
	m.checkpoint = newCheckpoint(files, m.noticed, m.log)
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
	defer m.checkpoint.close()

	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.woken:
			timer.Reset(time.Until(m.earlier(due)))
			continue
		case <-timer.C:
		case <-m.trigger:
		}
		// Its directory may have come only now, as may inotify's resources.
		m.checkpoint.watch()
		next, _ := m.refresh(ctx) // the error is in the status and in the log
		due = time.Now().Add(next)
		timer.Reset(time.Until(m.earlier(due)))
	}
}

// earlier gives due, or before it the time at which to look for what the kubelet
// wrote down.
func (m *Mapper) earlier(due time.Time) time.Time {
	written, asked := m.written.Load(), m.asked.Load()
	if written == nil || asked == nil {
		return due
	}
	if at, ok := nextLook(*written, *asked); ok && at.Before(due) {
		return at
	}
	return due
}

// noticed is called when the kubelet has written a checkpoint.
func (m *Mapper) noticed() {
	now := time.Now()
	m.written.Store(&now)
	select {
	case m.woken <- struct{}{}:
	default:
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
// kubelet reports fewer owners than before, and may just have started, the table
// stays as it was.
func (m *Mapper) Refresh(ctx context.Context) error {
	_, err := m.refresh(ctx)
	return err
}

// Close ends the connection to the kubelet. Run does it too.
func (m *Mapper) Close() error { return m.kubelet.close() }

// Table gives the owners, or nil while they are not known: before the first
// good answer of the kubelet, and once the last one is older than MaxAge.
func (m *Mapper) Table() *Table {
	h := m.history.Load()
	if h == nil {
		return nil
	}
	return h.at(time.Now(), m.maxAge)
}

// TableAt gives the owners at t, or nil where they are not known. The last
// minutes are remembered; the owners of a time before them, and of one before
// the kubelet's first answer, are taken to be those of the oldest table.
func (m *Mapper) TableAt(t time.Time) *Table {
	h := m.history.Load()
	if h == nil {
		return nil
	}
	// By way of its age, so that a step of the clock between t and now matters
	// only if t comes from elsewhere.
	return h.at(time.Now().Add(-time.Since(t)), m.maxAge)
}

// Changed gives a channel that receives when there is a table with another
// version. It is meant for one receiver; what it does not take in time is
// merged.
func (m *Mapper) Changed() <-chan struct{} { return m.changed }

// Status gives a copy of the state of the refreshes.
func (m *Mapper) Status() Status {
	m.mu.Lock()
	s := m.status
	s.Failures = maps.Clone(s.Failures)
	m.mu.Unlock()

	s.Connections = m.kubelet.connections.Load()
	s.Watching = m.checkpoint.watching()
	s.TableTime = m.lastEpoch().confirmed
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

func (m *Mapper) lastEpoch() epoch {
	h := m.history.Load()
	if h == nil {
		return epoch{}
	}
	return h.last()
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
	m.asked.Store(&start)
	written := m.written.Load()
	connection := m.kubelet.connections.Load()
	now, err := m.kubelet.list(ctx, m.timeout, m.filter)
	if err != nil && ctx.Err() != nil {
		return m.interval, ctx.Err() // we are being stopped: the kubelet did not fail
	}
	if err != nil {
		err = fmt.Errorf("listing pod resources from %s: %w", m.socket, err)
		m.failed(start, m.kubelet.reason(errors.Unwrap(err)), err)
		return m.interval, err
	}
	before := m.lastEpoch()

	// Fewer owners are doubtful if a new connection says so: the kubelet may have
	// just started. connections may have moved on during the call, hence both
	// looks.
	fresh := connection != m.connection || connection != m.kubelet.connections.Load()
	doubtful := fresh && m.Table() != nil && missing(before.table.Assignments, now) && !handedOn(before.table.Assignments, now)
	if doubtful {
		if c := m.kubelet.connections.Load(); m.doubt.since.IsZero() || m.doubt.connection != c {
			m.doubt = doubt{since: start, connection: c}
		}
		if wait := m.confirm - start.Sub(m.doubt.since); wait > 0 {
			m.succeeded(start, true)
			m.log.Debug("Kubelet reports fewer owners after a new connection; asking again before believing it", "wait", wait)
			return min(wait, askAgain, m.interval), nil
		}
	}
	m.doubt = doubt{}
	m.connection = connection
	m.publish(start, written, now)
	m.succeeded(start, false)
	if fresh && len(now) == 0 {
		// The first answer at all, and it is empty. There was nothing to keep,
		// but it is just as likely to be too early.
		return min(m.confirm, askAgain, m.interval), nil
	}
	return m.interval, nil
}

// publish makes the kubelet's answer to a call at start known. written is when
// a checkpoint was last seen to be written before that; it may be nil.
func (m *Mapper) publish(start time.Time, written *time.Time, now []Assignment) {
	var h history
	if old := m.history.Load(); old != nil {
		h = *old
	}
	last := h.last()
	if last.table != nil && slices.Equal(last.table.Assignments, now) {
		h = h.confirm(start)
		m.history.Store(&h)
		return
	}
	t := &Table{Time: start, Version: 1, Assignments: now, rules: m.rules}
	if last.table != nil {
		t.Version = last.table.Version + 1
		// A checkpoint tells when something was allocated, not when it was let go.
		if added := reuse(last.table.Assignments, now); added && written != nil && !written.Add(lastLook).Before(last.confirmed) {
			t.Time = *written
		}
		if !t.Time.After(last.table.Time) {
			t.Time = last.table.Time.Add(1)
		}
	}
	h = h.add(t, start, max(minHistory, 3*m.interval))
	m.history.Store(&h)
	select {
	case m.changed <- struct{}{}:
	default:
	}
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
	m.log.Log(context.Background(), level, "Pod mapping failed", "reason", reason, "err", err, "hint", reason.Hint())

	if last := m.lastEpoch(); last.table != nil && m.Table() == nil && !m.expired {
		m.expired = true
		m.log.Warn("Pod mapping is too old; series go without pod labels until the kubelet answers",
			"age", time.Since(last.confirmed).Round(time.Second), "max_age", m.maxAge)
	}
}
