// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"syscall"
	"time"
	"unsafe"
)

// Uptime returns the time since boot. It continues while the machine is suspended, which
// the clock of package time does not (CLOCK_BOOTTIME and CLOCK_MONOTONIC of
// clock_gettime(2)).
func Uptime() time.Duration {
	const clockBoottime = 7
	var t syscall.Timespec
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&t)), 0) // Linux has had it since 2.6.39
	return time.Duration(t.Nano())
}
