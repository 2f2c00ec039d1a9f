// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package poll keeps the table of an owner source fresh: the refresh loop, the
// published table and its expiry, the status with failures by reason, and the
// messages about them in the log.
//
// A Poller refreshes at an interval and when it is triggered. A Source is the part
// without the loop, for sources that receive changes as events. Neither knows what
// a table contains. Reading a table or a status never waits for a refresh.
package poll

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// steadyTime is how long a live source must be up before its next failure is
// logged as a new one. Some servers accept a watch that they cannot keep.
const steadyTime = time.Minute

// Status is the state of a source.
type Status struct {
	Up          bool      // the last refresh succeeded; of a live source: it receives changes
	LastSuccess time.Time // start of the last successful refresh; zero before it
	// Duration is that of the last refresh, successful or not.
	Duration time.Duration
	// Refreshes counts all refreshes, Failures the failures by reason. Failures
	// contains every reason of the source.
	Refreshes uint64
	Failures  map[Reason]uint64
	// Reason, Hint and Err are those of the last failure while Up is false. Hint is
	// what a user can do about it.
	Reason Reason
	Hint   string
	Err    error
}

// Options configure a Source. The zero value of an optional field disables it.
type Options struct {
	Name string // of the source, in the log
	// Hints has what a user can do about a failure, by reason. It contains every
	// reason of the source; any further one becomes Other.
	Hints map[Reason]string
	// Level is the level of the first message about a failure. Optional: Warn.
	Level func(Reason) slog.Level
	// Quiet reports whether a success needs no message, because there is nothing to
	// read on this node. Optional.
	Quiet func() bool
	// MaxAge is how long a table is valid without a success. Zero: for ever.
	MaxAge time.Duration
	// Live means that the source receives changes as events, so its table does not
	// age while it is up.
	Live bool
	Log  *slog.Logger // nil: no log
}

// Source publishes the tables of one source, and its status. Its methods may be
// called from any goroutine.
type Source[T any] struct {
	o         Options
	changed   chan struct{}
	published atomic.Pointer[publication[T]]

	mu        sync.Mutex // guards the rest, and the writing of published
	status    Status
	expiry    *time.Timer // nil before the first table
	upSince   time.Time
	logged    map[Reason]bool // failures logged since the last recovery
	announced bool            // the log contains that the source is up
}

// publication is a table and when it was last known to be right. It is immutable.
type publication[T any] struct {
	table     *T // nil once it is forgotten
	confirmed time.Time
	live      bool // it receives changes, so it is right until they end
}

// NewSource makes a Source without a table.
func NewSource[T any](o Options) *Source[T] {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("source", o.Name)
	s := &Source[T]{o: o, changed: make(chan struct{}, 1), logged: make(map[Reason]bool)}
	s.published.Store(&publication[T]{})
	s.status.Failures = make(map[Reason]uint64)
	for r := range o.Hints {
		s.status.Failures[r] = 0
	}
	return s
}

// Log returns the logger of the source.
func (s *Source[T]) Log() *slog.Logger { return s.o.Log }

// Table returns the current table. It is nil before the first success, and when
// the last success is older than MaxAge.
func (s *Source[T]) Table() *T {
	p := s.published.Load()
	if s.expired(p) {
		return nil
	}
	return p.table
}

// Last returns the last table, even if it is expired, and when it was last known
// to be right.
func (s *Source[T]) Last() (*T, time.Time) {
	p := s.published.Load()
	return p.table, p.confirmed
}

func (s *Source[T]) expired(p *publication[T]) bool {
	return s.o.MaxAge > 0 && !p.live && time.Since(p.confirmed) > s.o.MaxAge
}

// Changed returns a channel that receives when Table returns something new. It is
// for one receiver. Several changes can be one message.
func (s *Source[T]) Changed() <-chan struct{} { return s.changed }

func (s *Source[T]) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Status returns a copy of the status.
func (s *Source[T]) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Failures = maps.Clone(status.Failures)
	if s.o.Live && status.Up {
		status.LastSuccess = time.Now()
	}
	return status
}

// Count counts a failure that affects only a part of a table.
func (s *Source[T]) Count(r Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Failures[s.known(r)]++
}

func (s *Source[T]) known(r Reason) Reason {
	if _, ok := s.o.Hints[r]; !ok {
		return Other
	}
	return r
}

// Hint returns what a user can do about a failure.
func (s *Source[T]) Hint(r Reason) string { return s.o.Hints[s.known(r)] }

// Succeed records a success that began at start, and publishes its table. The
// same pointer as before means that nothing changed.
func (s *Source[T]) Succeed(start time.Time, table *T) {
	if s.succeed(start, table) {
		s.o.Log.Info("Owner source is up")
	}
}

func (s *Source[T]) succeed(start time.Time, table *T) (announce bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refreshes++
	s.status.Duration = time.Since(start)
	s.replace(table, start, s.o.Live)
	if !s.status.Up {
		s.upSince = time.Now()
	}
	s.setFailure("", "", nil)
	s.status.Up = true
	s.status.LastSuccess = start
	if !s.o.Live {
		clear(s.logged)
	}
	if s.announced || s.o.Quiet != nil && s.o.Quiet() {
		return false
	}
	s.announced = true
	return true
}

// Publish publishes a table that is right at the moment, although the source is not
// up: a list that is not watched yet.
func (s *Source[T]) Publish(table *T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(table, time.Now(), s.published.Load().live)
}

func (s *Source[T]) replace(table *T, confirmed time.Time, live bool) {
	before := s.published.Load()
	s.publish(publication[T]{table: table, confirmed: confirmed, live: live})
	if table != before.table || s.expired(before) {
		s.notify()
	}
}

// Fail records a failure. The last table remains until it expires.
func (s *Source[T]) Fail(start time.Time, err error) {
	level, reason, hint := s.fail(start, err)
	s.o.Log.Log(context.Background(), level, "Owner source failed", "reason", reason, "err", err, "hint", hint)
}

func (s *Source[T]) fail(start time.Time, err error) (level slog.Level, reason Reason, hint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Refreshes++
	s.status.Duration = time.Since(start)
	s.end()
	reason = s.known(ReasonOf(err))
	s.status.Failures[reason]++
	hint = s.Hint(reason)
	s.setFailure(reason, hint, err)
	if s.logged[reason] {
		return slog.LevelDebug, reason, hint
	}
	s.logged[reason] = true
	level = slog.LevelWarn
	if s.o.Level != nil {
		level = s.o.Level(reason)
	}
	s.announced = s.announced && level < slog.LevelWarn
	return level, reason, hint
}

func (s *Source[T]) setFailure(reason Reason, hint string, err error) {
	s.status.Up, s.status.Reason, s.status.Hint, s.status.Err = false, reason, hint, err
}

// end records that a live source no longer receives changes.
func (s *Source[T]) end() {
	last := *s.published.Load()
	if !last.live {
		return
	}
	now := time.Now()
	last.live, last.confirmed = false, now
	s.publish(last)
	s.status.LastSuccess = now
	if now.Sub(s.upSince) >= steadyTime {
		clear(s.logged)
	}
}

// Forget drops the table, because the source knows that it is no longer right.
func (s *Source[T]) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

func (s *Source[T]) forget() {
	last := *s.published.Load()
	if last.table != nil {
		last.table = nil
		s.published.Store(&last)
		s.notify()
	}
}

// Stop records that the source is no longer read: it is neither up nor failed, and
// has no table.
func (s *Source[T]) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	s.forget()
	s.setFailure("", "", nil)
	s.announced = false
	clear(s.logged)
}

// publish also arranges for the notice of the expiry. A timer does it, because a
// refresh that hangs must not keep a table valid.
func (s *Source[T]) publish(p publication[T]) {
	s.published.Store(&p)
	if s.o.MaxAge == 0 {
		return
	}
	wait := time.Until(p.confirmed.Add(s.o.MaxAge)) + time.Millisecond
	if s.expiry == nil {
		s.expiry = time.AfterFunc(wait, s.checkExpiry)
	} else {
		s.expiry.Reset(wait)
	}
}

func (s *Source[T]) checkExpiry() {
	s.mu.Lock()
	p := s.published.Load()
	if p.table == nil || !s.expired(p) {
		s.mu.Unlock()
		return
	}
	s.announced = false
	s.notify()
	s.mu.Unlock()
	s.o.Log.Warn("Owner source has expired; its owners are unknown until it recovers",
		"age", time.Since(p.confirmed).Round(time.Second), "max_age", s.o.MaxAge)
}
