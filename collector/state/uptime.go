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
