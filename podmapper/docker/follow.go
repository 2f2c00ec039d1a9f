// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"log/slog"
	"time"
)

// follower keeps a Watcher told of events. It belongs to one Run, whose
// goroutine calls its methods.
type follower struct {
	w      *Watcher
	ended  chan error // of the stream under way; nil without one
	cancel context.CancelFunc
	since  time.Time

	pause  time.Duration // before the next stream, after the last one ended by itself
	next   time.Time
	warned bool
}

// start has the engine report events, if it does not already and the last
// stream's end is long enough ago. Otherwise it asks to be called again, before
// due if need be. It does not wait.
func (f *follower) start(ctx context.Context, due time.Time) time.Time {
	now := time.Now()
	if f.ended != nil {
		return due
	}
	if now.Before(f.next) {
		if f.next.Before(due) {
			return f.next
		}
		return due
	}
	if f.w.take(ctx) != nil {
		return due
	}
	known := f.w.api
	f.w.give()
	if known == nil {
		return due // a Refresh failed meanwhile
	}
	a := *known
	ctx, f.cancel = context.WithCancel(ctx)
	f.ended, f.since = make(chan error, 1), now
	go func(ended chan<- error) {
		err := f.w.engine.events(ctx, a, f.opened, f.w.notice)
		f.w.setWatching(false)
		ended <- err
	}(f.ended)
	return due
}

// opened is called when events begin to be reported. What happened between the
// last list and now was not.
func (f *follower) opened() {
	f.w.setWatching(true)
	f.w.notice()
}

// failed notes that the stream ended by itself.
func (f *follower) failed(err error) {
	f.cancel()
	f.ended = nil
	now := time.Now()
	if now.Sub(f.since) >= steady {
		f.pause, f.warned = 0, false
	}
	f.pause = min(max(2*f.pause, firstRetry), maxRetry)
	f.next = now.Add(f.pause)

	level := slog.LevelDebug // an engine that is restarted ends the stream
	if reason := reasonOf(err); reason != ReasonUnavailable && !f.warned {
		f.warned = true
		level = slog.LevelWarn
	}
	f.w.log.Log(context.Background(), level, "Container engine does not report events; changes are noticed at the next refresh",
		"reason", reasonOf(err), "err", err, "hint", reasonOf(err).Hint())
}

// stop ends the stream, if there is one, and waits for that.
func (f *follower) stop() {
	if f.ended != nil {
		f.cancel()
		err := <-f.ended
		f.w.log.Debug("Events of the container engine are not followed any more", "err", err)
		f.ended = nil
	}
}

func (w *Watcher) setWatching(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Watching = yes
}
