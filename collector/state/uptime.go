// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"syscall"
	"time"
	"unsafe"
)

// Uptime returns the time since boot, which continues while the machine is suspended.
func Uptime() time.Duration { return readClock(7) } // CLOCK_BOOTTIME

// suspended returns how long the machine has been suspended since boot. The clock of
// package time stands still meanwhile. Two readings differ by scheduling delays at least.
func suspended() time.Duration { return Uptime() - readClock(1) } // CLOCK_MONOTONIC

// readClock calls clock_gettime(2), which cannot fail for these clocks.
func readClock(id uintptr) time.Duration {
	var t syscall.Timespec
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}
