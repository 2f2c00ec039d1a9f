// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime returns the time since boot, which continues while the machine is suspended.
func Uptime() time.Duration { return readClock(unix.CLOCK_BOOTTIME) }

// suspended returns how long the machine has been suspended since boot. The clock of
// package time does not advance meanwhile. Two readings differ by scheduling delays at least.
func suspended() time.Duration { return Uptime() - readClock(unix.CLOCK_MONOTONIC) }

func readClock(id int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(id, &t) // cannot fail for these clocks
	return time.Duration(t.Nano())
}

// minSuspension is longer than the error of [suspended] on a busy machine.
const minSuspension = time.Second

// receipt is when data was received.
type receipt struct {
	at        time.Time     // with the monotonic clock
	suspended time.Duration // how long the machine had been suspended
}

func received(now time.Time) receipt { return receipt{now, suspended()} }

// since returns the time since the receipt. Steps of the wall clock have no effect. The
// time of a suspension counts, in which the monotonic clock stands still.
func (r receipt) since(now time.Time) time.Duration {
	d := now.Sub(r.at)
	if s := suspended() - r.suspended; s > minSuspension {
		d += s
	}
	return d
}

// age returns the age of data with a time, which matters up to the receipt only.
func (r receipt) age(at, now time.Time) time.Duration { return max(0, r.at.Sub(at)) + r.since(now) }
