// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"log/slog"
	"time"
)

// callsInTime is the number of calls after which a slow call is logged again: a slow
// driver makes every few calls slow.
const callsInTime = 100

// background makes slow calls one at a time in goroutines, so that a slow or hung call
// delays no sample. The goroutine that samples calls its methods.
type background struct {
	name    string // of the action, for the log
	log     *slog.Logger
	timer   *time.Timer       // fires when a call is due
	results chan func() error // publish the results of calls
	running bool
	overdue bool // the running call is slow
	logged  bool // and that was logged
	slow    int  // calls that must be in time before a slow one is logged again
}

// newBackground returns a background whose first call is due when schedule sets.
func newBackground(name string, log *slog.Logger) background {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return background{name: name, log: log, timer: timer, results: make(chan func() error, 1)}
}

// wait waits for the running call. The engine must not stop during a call.
func (b *background) wait() {
	if b.running {
		<-b.results
		b.running = false
	}
}

// schedule makes the next call due after d.
func (b *background) schedule(d time.Duration) { b.timer.Reset(max(0, d)) }

// untilBeforeSample returns the time until lead before the sample that follows the
// one at tick, or until half an interval before it if the interval is short. Results
// that arrive by then are published with that sample.
func untilBeforeSample(tick time.Time, interval, lead time.Duration) time.Duration {
	return time.Until(tick.Add(interval - min(lead, interval/2)))
}

// start starts a call and returns true, unless one is running. The function that call
// returns publishes the result, in the goroutine that samples.
func (b *background) start(call func() (publish func() error)) bool {
	if b.running {
		if !b.overdue {
			b.overdue = true
			if b.logged = b.slow == 0; b.logged {
				b.log.Warn(b.name + " takes longer than its interval; samples continue without new results")
			}
			b.slow = callsInTime
		}
		return false
	}
	b.running = true
	go func() { b.results <- call() }()
	return true
}

// finish publishes a result.
func (b *background) finish(publish func() error) error {
	b.running = false
	if b.logged {
		b.log.Info(b.name + " has finished")
	} else if b.slow > 0 && !b.overdue {
		b.slow--
	}
	b.overdue, b.logged = false, false
	return publish()
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
