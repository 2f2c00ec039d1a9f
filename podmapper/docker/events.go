// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"log/slog"
	"time"

	"gpu_exporter/podmapper/internal/poll"
)

// eventDelays are the delays of the refreshes after an event. An engine may report
// an event before its list shows it.
var eventDelays = [...]time.Duration{0, time.Second}

// refreshAfterEvent is called when the engine reports an event.
func (w *Watcher) refreshAfterEvent() {
	for _, d := range eventDelays {
		w.TriggerAfter(d)
	}
}

// followEvents receives the engine's events until ctx ends. After a stream ends, it
// starts the next one after a pause and a successful refresh.
func (w *Watcher) followEvents(ctx context.Context) {
	var pause time.Duration
	warned := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.refreshed:
		}
		a := w.api.Load()
		if a == nil {
			continue // a later refresh failed
		}
		start := time.Now()
		err := w.engine.events(ctx, *a, func() {
			w.watching.Store(true)
			w.refreshAfterEvent() // the list is older than the stream
		}, w.refreshAfterEvent)
		w.watching.Store(false)
		if ctx.Err() != nil {
			return
		}
		w.api.Store(nil) // the engine may restart with a different version
		w.Trigger()

		if time.Since(start) >= steadyTime {
			pause, warned = 0, false
		}
		pause = min(max(2*pause, firstRetry), maxRetry)
		reason := poll.ReasonOf(err)
		level := slog.LevelDebug // a restart of the engine ends the stream
		if reason != poll.Unavailable && !warned {
			warned = true
			level = slog.LevelWarn
		}
		w.Log().Log(ctx, level, "Container engine does not report events; changes are detected at the next refresh",
			"reason", reason, "err", err, "hint", w.Hint(reason))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}
