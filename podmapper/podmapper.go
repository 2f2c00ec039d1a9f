// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package podmapper maps the NVIDIA devices of this node to the containers that
// hold them. It reads the kubelet's pod-resources API in the background, at an
// interval and when the kubelet writes a checkpoint, and publishes immutable tables.
//
// It must not know the collector or metrics. Table and Status never wait for the
// kubelet. The last good table remains until it expires.
package podmapper

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gpu_exporter/podmapper/device"
	"gpu_exporter/podmapper/internal/dirwatch"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/unixsocket"
)

// DefaultSocket is the kubelet's default.
const DefaultSocket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// Defaults of Config.
const (
	DefaultInterval = 10 * time.Second
	DefaultMaxAge   = 5 * time.Minute
	DefaultTimeout  = 5 * time.Second
)

// A kubelet that has just started answers List without its pods. Static pods appear
// after about 100 ms (kubelet 1.37). Those of the API server appear all at once,
// after the kubelet has waited a second for its Node (pkg/kubelet/config/apiserver.go).
const (
	// confirmAfter is for how long a new connection must report fewer owners before
	// the report is accepted.
	confirmAfter = 5 * time.Second
	// confirmPause is the time between the calls until then.
	confirmPause = time.Second
	// retryPause is the first pause after a failure, such as a kubelet restart.
	retryPause = 200 * time.Millisecond
)

// Config configures a Mapper. The zero value of each field is its default.
type Config struct {
	Socket        string        // path or unix: URL; DefaultSocket
	ResourceNames []string      // resources in addition to nvidia.com/*; a minus in front excludes one
	IDType        device.IDType // meaning of ambiguous device IDs; IDTypeUID
	DRA           bool          // include the devices of ResourceClaims
	// AdminAccess returns the devices that a ResourceClaim has with adminAccess. Nil: the
	// pods that have such claims count as owners.
	AdminAccess func(ctx context.Context, namespace, name string) ([]device.PublishedName, error)
	Node        string        // name of this node in Kubernetes; identifies static pods
	Self        Pod           // the exporter's own pod, which is no owner
	Interval    time.Duration // between refreshes
	MaxAge      time.Duration // of a table without a refresh
	Timeout     time.Duration // of one call to the kubelet
	Logger      *slog.Logger  // nil: no log
}

// Mapper keeps the table of owners up to date. Its methods may be called from any
// goroutine.
type Mapper struct {
	poll    *poll.Poller[Table]
	kubelet *kubelet
	log     *slog.Logger
	filter  resourceFilter
	idType  device.IDType
	node    string

	adminAccess func(ctx context.Context, namespace, name string) ([]device.PublishedName, error)

	checkpoint *dirwatch.Watcher
	written    atomic.Pointer[time.Time] // last write of a checkpoint

	unmatched unmatchedLog

	confirm time.Duration // confirmAfter, but for tests
	listed  atomic.Pointer[listed]

	// State of the refresh, which runs once at a time.
	trusted uint64    // the connection that returned the table
	fewer   uint64    // the connection that reported fewer owners, ...
	since   time.Time // ... and when it first did
	claims  map[claimName]*claimRead
	// claimsDenied: the log has that ResourceClaims cannot be read.
	claimsDenied bool
	clustered    bool      // an API server exists
	away         time.Time // since when a restarted kubelet lists none of its pods; zero: it does
}

// listed is a table and the start of the last refresh that returned it.
type listed struct {
	table *Table
	at    time.Time
}

// SourceStatus is the part of a status that all sources of owners have.
type SourceStatus = poll.Status

// Status is the state of a Mapper.
type Status struct {
	poll.Status
	Assignments int // of the current table
}

// New makes a Mapper. It does not open the socket yet.
func New(c Config) (*Mapper, error) {
	idType, err := device.ParseIDType(string(c.IDType))
	if err != nil {
		return nil, err
	}
	m := &Mapper{
		filter: resourceFilter{names: set(c.ResourceNames), claims: c.DRA, self: c.Self},
		node:   c.Node,

		adminAccess: c.AdminAccess,
		idType:      idType,
		confirm:     confirmAfter,
	}
	interval, maxAge, timeout := cmp.Or(c.Interval, DefaultInterval), cmp.Or(c.MaxAge, DefaultMaxAge), cmp.Or(c.Timeout, DefaultTimeout)
	if interval < 0 || timeout < 0 || maxAge < interval {
		return nil, fmt.Errorf("pod mapping: interval %s, timeout %s and maximum age %s must be positive, and the age no less than the interval",
			interval, timeout, maxAge)
	}
	m.clustered = c.Self.Name != "" && !m.isStatic(c.Self.Name)
	socket, err := unixsocket.Path(cmp.Or(c.Socket, DefaultSocket))
	if err != nil {
		return nil, fmt.Errorf("pod mapping: %w", err)
	}
	if m.kubelet, err = newKubelet(socket, timeout); err != nil {
		return nil, fmt.Errorf("preparing the connection to the kubelet: %w", err)
	}
	m.poll = poll.New(poll.Config[Table]{
		Options:  poll.Options{Name: "kubelet", Hints: hints(), MaxAge: maxAge, Log: c.Logger},
		Refresh:  m.refresh,
		Before:   func(context.Context) { m.checkpoint.Watch() }, // a directory can appear late
		Interval: interval,
		Retry:    retryPause,
	})
	m.log = m.poll.Log()
	files := make(map[string]func(string) bool)
	for dir, file := range checkpointFiles(socket, c.DRA) {
		files[dir] = func(name string) bool { return name == file }
	}
	m.checkpoint = dirwatch.New(files, m.checkpointWritten, m.log)
	return m, nil
}

func set(names []string) map[string]bool {
	s := make(map[string]bool, len(names))
	for _, n := range names {
		s[n] = true
	}
	return s
}

// Run refreshes the table until ctx ends, and then closes the connection. It
// returns nil.
func (m *Mapper) Run(ctx context.Context) error {
	m.checkpoint.Enable()
	ctx, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { m.kubelet.watch(ctx, m.Trigger) })
	defer func() {
		cancel()
		m.checkpoint.Close()
		watcher.Wait()
		_ = m.Close() // it may be closed already
	}()
	return m.poll.Run(ctx)
}

// checkpointWritten requests refreshes after the kubelet wrote a checkpoint. The
// first one should suffice; the others are for kubelets that list a change late.
func (m *Mapper) checkpointWritten() {
	now := time.Now()
	m.written.Store(&now)
	for _, after := range []time.Duration{0, 200 * time.Millisecond, lastLook} {
		m.poll.TriggerAfter(after)
	}
}

// lastLook is when the last refresh after a checkpoint begins.
const lastLook = time.Second

// Trigger requests a refresh from Run. It does not wait.
func (m *Mapper) Trigger() { m.poll.Trigger() }

// Confirm requests a refresh, after which Changed receives, even if nothing changed.
func (m *Mapper) Confirm() { m.poll.Confirm() }

// Confirmed returns the table and the start of the last refresh that returned it. The
// time is zero while a newer table is being published.
func (m *Mapper) Confirmed() (*Table, time.Time) {
	t, l := m.Table(), m.listed.Load()
	if t == nil || l == nil || l.table != t {
		return t, time.Time{}
	}
	return t, l.at
}

// Refresh refreshes now and waits for it, with or without Run. If a new connection
// reports fewer owners, the table remains until that is confirmed.
func (m *Mapper) Refresh(ctx context.Context) error { return m.poll.Refresh(ctx) }

// Close closes the connection to the kubelet. Run does so too.
func (m *Mapper) Close() error { return m.kubelet.conn.Close() }

// Table returns the owners. It is nil before the first good answer of the kubelet,
// and when the last one is older than MaxAge.
func (m *Mapper) Table() *Table { return m.poll.Table() }

// Changed returns a channel that receives when Table returns something new. It is
// for one receiver. Several changes can be one message.
func (m *Mapper) Changed() <-chan struct{} { return m.poll.Changed() }

// Status returns a copy of the state.
func (m *Mapper) Status() Status {
	s := Status{Status: m.poll.Status()}
	if t := m.Table(); t != nil {
		s.Assignments = len(t.Assignments)
	}
	return s
}

// refresh implements poll.Config.Refresh.
func (m *Mapper) refresh(ctx context.Context, previous *Table) (*Table, error) {
	start, written, connection := time.Now(), m.written.Load(), m.kubelet.connections.Load()
	answer, err := m.kubelet.list(ctx)
	if err != nil {
		m.fewer = 0
		return nil, err
	}
	now, truncated := m.filter.collect(answer)
	now = m.withoutMonitors(ctx, now)
	latest := m.kubelet.connections.Load() // it can change during the call
	fresh := connection != m.trusted || connection != latest
	away := m.withoutAPIServer(answer, fresh)
	if away {
		now = m.keep(m.Table(), now, start)
		if start.Sub(m.away) < m.confirm {
			m.poll.TriggerAfter(confirmPause)
		}
	}
	if wait := m.doubt(start, latest, fresh, now); wait > 0 {
		m.poll.TriggerAfter(min(wait, confirmPause))
		return previous, nil
	}
	if !away {
		m.trusted = connection
	}
	if fresh && len(now) == 0 {
		// The first answer can be too early, even without a previous table.
		m.poll.TriggerAfter(min(m.confirm, confirmPause))
	}
	t := m.newTable(previous, &Table{Time: start, Version: 1, Assignments: now, Truncated: truncated, Partial: away, idType: m.idType}, written)
	m.listed.Store(&listed{t, start})
	return t, nil
}

// doubt returns how long a report of owners still needs a confirmation: a fresh
// connection that reports fewer owners may lead to a kubelet that has just started.
func (m *Mapper) doubt(start time.Time, connection uint64, fresh bool, now []Assignment) time.Duration {
	if current := m.Table(); !fresh || current == nil || !missing(current.Assignments, now) || handedOver(current.Assignments, now) {
		m.fewer = 0
		return 0
	}
	if m.fewer != connection {
		m.fewer, m.since = connection, start
	}
	return max(0, m.confirm-start.Sub(m.since))
}

// newTable completes the table of an answer, or returns the previous one if nothing
// changed. Written is the last write of a checkpoint before the call, or nil.
func (m *Mapper) newTable(previous, t *Table, written *time.Time) *Table {
	now := t.Assignments
	added := len(now)
	if previous != nil {
		added = reuse(previous.Assignments, now)
		if previous.Truncated == t.Truncated && previous.Partial == t.Partial && added == 0 && len(now) == len(previous.Assignments) {
			return previous
		}
	}
	if t.Truncated > 0 {
		m.poll.Count(poll.TooLarge)
		m.log.Warn("A pod has more devices or longer names than a pod can have; the rest is ignored", "truncated", t.Truncated)
	}
	if previous != nil {
		t.Version = previous.Version + 1
		// A checkpoint announces new assignments, and no ended ones.
		if added > 0 && written != nil && !written.Add(lastLook).Before(m.listed.Load().at) {
			t.Time = *written
		}
		if !t.Time.After(previous.Time) {
			t.Time = previous.Time.Add(1)
		}
	}
	for i := range now {
		if now[i].since.IsZero() {
			now[i].since = t.Time
		}
	}
	return t
}
