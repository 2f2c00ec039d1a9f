// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"log/slog"
	"time"
)

// beside asks something of the driver or the engine beside the samples, so that an
// answer that takes long, or never comes, costs no sample. There is one question at
// a time. Its methods are for the goroutine that samples.
type beside[Q, R any] struct {
	what     string // is asked, for the log
	log      *slog.Logger
	timer    *time.Timer // fires when a question is due; nil if none is ever to be asked
	requests chan Q
	results  chan R
	asking   bool
	overdue  bool // an answer takes too long, and that was logged
}

// newBeside returns one that never asks if ask is nil. The first question is due
// when schedule says.
func newBeside[Q, R any](what string, log *slog.Logger, ask func(Q) R) beside[Q, R] {
	b := beside[Q, R]{what: what, log: log}
	if ask == nil {
		return b
	}
	b.timer = time.NewTimer(time.Hour)
	b.timer.Stop()
	// There is one question at a time, so that nobody waits at these.
	b.requests, b.results = make(chan Q, 1), make(chan R, 1)
	go func() {
		for q := range b.requests {
			b.results <- ask(q)
		}
	}()
	return b
}

// stop ends it, after the question that is under way.
func (b *beside[Q, R]) stop() {
	if b.timer != nil {
		b.timer.Stop()
		close(b.requests)
	}
}

// wait waits for the answer that is under way: the engine must not end while it is
// asked.
func (b *beside[Q, R]) wait() {
	if b.asking {
		<-b.results
		b.asking = false
	}
}

// due delivers when start is to be called.
func (b *beside[Q, R]) due() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

// schedule makes the next question due after d.
func (b *beside[Q, R]) schedule(d time.Duration) {
	if b.timer != nil {
		b.timer.Reset(d)
	}
}

// before returns how long it is until lead before the sample that follows the one
// of this tick, if the interval has room for that: what is answered by then is
// published with that sample.
func before(tick time.Time, interval, lead time.Duration) time.Duration {
	return time.Until(tick.Add(interval - min(lead, interval/2)))
}

// start asks, unless a question is under way.
func (b *beside[Q, R]) start(q Q) bool {
	if b.asking {
		if !b.overdue {
			b.overdue = true
			b.log.Warn(b.what + " takes longer than an interval; samples go on, and that is not renewed")
		}
		return false
	}
	b.asking = true
	b.requests <- q
	return true
}

// finish takes note that an answer has come.
func (b *beside[Q, R]) finish() {
	b.asking = false
	if b.overdue {
		b.overdue = false
		b.log.Info(b.what + " has come to an end")
	}
}
