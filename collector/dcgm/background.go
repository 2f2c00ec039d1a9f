// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"log/slog"
	"time"
)

// background makes slow calls in a goroutine of its own, one at a time, so that a
// slow or hung call delays no sample. The goroutine that samples calls its methods.
type background[Q, R any] struct {
	name     string // of the action, for the log
	log      *slog.Logger
	timer    *time.Timer // fires when a call is due; nil if calls are disabled
	requests chan Q
	results  chan R
	running  bool
	overdue  bool // the running call was logged as slow
}

// newBackground starts the goroutine that calls call. A nil call disables it. The
// first call is due when schedule sets.
func newBackground[Q, R any](name string, log *slog.Logger, call func(Q) R) background[Q, R] {
	b := background[Q, R]{name: name, log: log}
	if call == nil {
		return b
	}
	b.timer = time.NewTimer(time.Hour)
	b.timer.Stop()
	// With one call at a time, a buffer of one never blocks.
	b.requests, b.results = make(chan Q, 1), make(chan R, 1)
	go func() {
		for q := range b.requests {
			b.results <- call(q)
		}
	}()
	return b
}

// stop ends the goroutine after the running call.
func (b *background[Q, R]) stop() {
	if b.timer != nil {
		b.timer.Stop()
		close(b.requests)
	}
}

// wait waits for the running call. The engine must not stop during a call.
func (b *background[Q, R]) wait() {
	if b.running {
		<-b.results
		b.running = false
	}
}

// due delivers when start is to be called.
func (b *background[Q, R]) due() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

func (b *background[Q, R]) schedule(d time.Duration) {
	if b.timer != nil {
		b.timer.Reset(d)
	}
}

// untilBeforeSample returns the time until lead before the sample that follows the
// one at tick, or until half an interval before it if the interval is short. Results
// that arrive by then are published with that sample.
func untilBeforeSample(tick time.Time, interval, lead time.Duration) time.Duration {
	return time.Until(tick.Add(interval - min(lead, interval/2)))
}

// start starts a call and returns true, unless one is running.
func (b *background[Q, R]) start(q Q) bool {
	if b.running {
		if !b.overdue {
			b.overdue = true
			b.log.Warn(b.name + " takes longer than its interval; samples continue without new results")
		}
		return false
	}
	b.running = true
	b.requests <- q
	return true
}

// finish records that the caller received the result.
func (b *background[Q, R]) finish() {
	b.running = false
	if b.overdue {
		b.overdue = false
		b.log.Info(b.name + " has finished")
	}
}

// failureLog logs a failure once until it changes or ends.
type failureLog struct{ last string }

func (f *failureLog) warn(log *slog.Logger, message string, err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure != f.last && failure != "" {
		log.Warn(message, "err", err)
	}
	f.last = failure
}
