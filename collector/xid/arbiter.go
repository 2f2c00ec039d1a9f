// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package xid

import "time"

// Source is the source that counts XIDs.
type Source uint8

// The sources.
const (
	SourceDCGM Source = iota
	SourceKernelLog
)

// String returns the value of a source label.
func (s Source) String() string {
	if s == SourceKernelLog {
		return "kernel_log"
	}
	return "dcgm"
}

const (
	// reportLag bounds how much later DCGM reports an XID than the kernel logs it.
	// DCGM's engine takes one XID per second from the driver (EventThreadMain of its
	// cache manager), so it is late by ten minutes after a burst of 600.
	reportLag = 10 * time.Minute
	// readLag bounds how much later this process reads a record of the kernel log than
	// DCGM reports its XID. Usually the record is first.
	readLag = 5 * time.Second
	// repeatWindow is the longest time between DCGM's two reports of one XID; see
	// [Arbiter.EngineReadsKernelLog]. Separate GSP timeouts are 6 s apart.
	repeatWindow = 5 * time.Second
)

// repeatedByEngine reports whether DCGM's engine reads the code from the kernel log,
// in addition to the driver's event (DcgmKmsgReaderThread of DCGM 4.6).
func repeatedByEngine(code int64) bool { return code == 79 || code == 119 || code == 120 }

// Arbiter decides which reports are new XIDs. The kernel log is the source while it is
// readable, otherwise DCGM is. Reports of the other source are dropped, except around a
// change of the source: then both sources report the same XIDs, and a report is new if
// its source has made more reports of the code on the GPU than the other. Time stamps
// cannot match them, because DCGM stamps an XID when it takes it in.
//
// Example: the kernel log logs 3 XIDs and becomes unreadable. DCGM reports these 3
// within the next minute, and then a fourth: the fourth is new.
//
// XIDs that DCGM reports more than reportLag late may repeat after a change of the source.
type Arbiter struct {
	// EngineReadsKernelLog is set if DCGM's engine may be able to read the kernel log.
	// It may then report XIDs 79, 119 and 120 twice.
	EngineReadsKernelLog bool

	source   Source
	changed  time.Time // when the kernel log became the source or had a gap; zero: at the start
	balances map[gpuCode]balance
	// repeats holds the XIDs whose second report from DCGM is expected, with the
	// engine's time of the first.
	repeats map[gpuCode]time.Time
}

type gpuCode struct {
	uuid string
	code int64
}

// balance compares the two sources' reports of one code on one GPU. It expires reportLag
// after the newest report.
type balance struct {
	lead   int  // the reports of the kernel log minus those of DCGM
	both   bool // DCGM's reports count too: it made one around a change of the source
	newest time.Time
}

// NewArbiter returns an arbiter whose source is DCGM.
func NewArbiter() Arbiter {
	return Arbiter{balances: map[gpuCode]balance{}, repeats: map[gpuCode]time.Time{}}
}

// Source returns the current source.
func (a *Arbiter) Source() Source { return a.source }

// StartWithKernelLog makes the kernel log the source before DCGM has reported anything.
func (a *Arbiter) StartWithKernelLog() { a.source = SourceKernelLog }

// SetKernelLog makes the kernel log the source, or DCGM if the log is unreadable. Call
// it with true again after records were lost: DCGM may report their XIDs.
func (a *Arbiter) SetKernelLog(readable bool, now time.Time) {
	if !readable {
		a.source = SourceDCGM
		return
	}
	a.source, a.changed = SourceKernelLog, now
}

// Logged takes a record of the kernel log about a GPU and reports whether it is new.
func (a *Arbiter) Logged(uuid string, code int64, now time.Time) bool {
	id := gpuCode{uuid, code}
	b := a.balance(id, now)
	b.lead++
	a.set(id, b, now)
	return b.lead > 0 || !b.both
}

// Reported takes a report of DCGM about a GPU or an instance of it and reports whether
// it is new. at is the engine's time of the XID.
func (a *Arbiter) Reported(uuid string, code int64, at, now time.Time) bool {
	id := gpuCode{uuid, code}
	if a.EngineReadsKernelLog && repeatedByEngine(code) {
		if first, expected := a.repeats[id]; expected && at.Sub(first).Abs() <= repeatWindow {
			delete(a.repeats, id)
			return false
		}
		a.repeats[id] = at
	}
	b := a.balance(id, now)
	if a.source == SourceKernelLog && !b.both && !a.changed.IsZero() && now.Sub(a.changed) <= reportLag {
		// The records of earlier reports that did not count are still to come, and count.
		b.lead, b.both = max(b.lead, 0), true
	}
	if b.lead <= 0 && a.source == SourceDCGM {
		return true
	}
	isNew := b.lead <= 0 && b.both
	b.lead--
	a.set(id, b, now)
	return isNew
}

// balance returns the balance at a time.
func (a *Arbiter) balance(id gpuCode, now time.Time) balance {
	b := a.balances[id]
	age := now.Sub(b.newest)
	if age > reportLag {
		return balance{} // the source that is behind missed the XIDs
	}
	if b.lead < 0 && !b.both && age > readLag {
		b.lead = 0 // the kernel log does not have them
	}
	return b
}

func (a *Arbiter) set(id gpuCode, b balance, now time.Time) {
	if b.lead == 0 && !b.both {
		delete(a.balances, id)
		return
	}
	b.newest = now
	a.balances[id] = b
}
