// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package poll

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultRetry    = time.Second
	DefaultMinPause = 100 * time.Millisecond
)

// maxDue bounds the requests that are kept.
const maxDue = 32

// Config configures a Poller.
type Config[T any] struct {
	Options
	// Refresh reads the source once. It returns a new table, or the previous one
	// if nothing changed. Previous is nil before the first success. At most one
	// Refresh runs at a time.
	Refresh func(ctx context.Context, previous *T) (*T, error)
	// Before, if set, runs in Run before each Refresh, for example to start a watch
	// of the directory that Refresh reads.
	Before   func(context.Context)
	Interval time.Duration // between refreshes
	// Retry is the first pause after a failure. It doubles up to Interval. No
	// trigger shortens it. Zero: DefaultRetry.
	Retry time.Duration
	// MinPause is the least pause after a refresh before a triggered one. Zero:
	// DefaultMinPause.
	MinPause time.Duration
	// Rest bounds the load of triggers: a refresh that took d is followed by a pause
	// of at least Rest·d, but at most Interval. Zero: no such bound.
	Rest int
}

// Poller refreshes a Source. Its methods may be called from any goroutine.
type Poller[T any] struct {
	*Source[T]
	c       Config[T]
	turn    chan struct{} // held by the running refresh
	wake    chan struct{} // due has changed
	awaited atomic.Bool   // a caller of Confirm waits

	mu       sync.Mutex
	regular  time.Time   // the next refresh without a request
	due      []time.Time // requested refreshes, ascending
	earliest time.Time   // no triggered refresh before
	retry    time.Duration
}

// New makes a Poller. It does not read anything yet.
func New[T any](c Config[T]) *Poller[T] {
	c.Retry = min(cmp.Or(c.Retry, DefaultRetry), c.Interval)
	c.MinPause = min(cmp.Or(c.MinPause, DefaultMinPause), c.Interval)
	return &Poller[T]{
		Source: NewSource[T](c.Options),
		c:      c,
		turn:   make(chan struct{}, 1),
		wake:   make(chan struct{}, 1),
	}
}

// Run refreshes until ctx ends. It returns nil. Refresh must obey its context.
func (p *Poller[T]) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
			if p.c.Before != nil {
				p.c.Before(ctx)
			}
			_ = p.Refresh(ctx) // the status and the log contain the error
		}
		timer.Reset(time.Until(p.next()))
	}
}

// next returns when Run refreshes next.
func (p *Poller[T]) next() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.regular
	if len(p.due) > 0 && p.due[0].Before(next) {
		next = p.due[0]
	}
	if next.Before(p.earliest) {
		return p.earliest
	}
	return next
}

// Trigger requests a refresh soon. It does not wait.
func (p *Poller[T]) Trigger() { p.TriggerAfter(0) }

// Confirm requests a refresh, after whose success Changed receives even if nothing changed.
func (p *Poller[T]) Confirm() {
	p.awaited.Store(true)
	p.Trigger()
}

// TriggerAfter requests a refresh that begins after d. It does not wait.
func (p *Poller[T]) TriggerAfter(d time.Duration) {
	p.mu.Lock()
	now := time.Now()
	// One refresh serves all requests that are due.
	if n, _ := slices.BinarySearchFunc(p.due, now, time.Time.Compare); n > 1 {
		p.due = p.due[n-1:]
	}
	at := now.Add(d)
	i, _ := slices.BinarySearchFunc(p.due, at, time.Time.Compare)
	if i == len(p.due) || p.due[i].Sub(at) > p.c.MinPause {
		p.due = slices.Insert(p.due, i, at)
	}
	if n := len(p.due); n > maxDue { // the last one serves the dropped ones, too
		p.due = slices.Delete(p.due, n-2, n-1)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Refresh refreshes now and waits for it, with or without Run. It returns the
// error of ctx, and does not count a failure, if ctx ends first.
func (p *Poller[T]) Refresh(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	awaited := p.awaited.Swap(false)
	start := time.Now()
	previous, _ := p.Last()
	table, err := p.c.Refresh(ctx, previous)
	if awaited && err != nil {
		p.awaited.Store(true)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	p.plan(start, err)
	if err != nil {
		p.Fail(start, err)
	} else {
		p.Succeed(start, table)
		if awaited {
			p.notify()
		}
	}
	return err
}

// plan sets the time of the next refresh, after one that began at start.
func (p *Poller[T]) plan(start time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait := p.c.Interval
	p.earliest = now.Add(max(p.c.MinPause, min(time.Duration(p.c.Rest)*now.Sub(start), p.c.Interval)))
	if err != nil {
		p.retry = min(max(2*p.retry, p.c.Retry), p.c.Interval)
		wait = p.retry
		p.earliest = now.Add(max(p.c.MinPause, p.c.Retry))
	} else {
		p.retry = 0
	}
	p.regular = now.Add(wait)
	// The requests that this refresh has served.
	for len(p.due) > 0 && !p.due[0].After(start) {
		p.due = p.due[1:]
	}
}
