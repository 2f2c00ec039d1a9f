// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"log/slog"
	"maps"
	"time"
)

// steadyTime is how long a source must have been good for its next trouble to be
// another one.
const steadyTime = time.Minute

// SourceStatus says how the reading from one source goes.
type SourceStatus struct {
	// InUse says whether the Store relies on the source now: if it is not Up
	// then, something is missing. The Pods API is not in use where the API server
	// is asked instead, and the log directory not where the Pods API is.
	InUse bool
	Up    bool // it reports changes as they happen
	// LastSuccess is when it was last known to be good: now, while Up. Zero if it
	// never was.
	LastSuccess time.Time
	// Failures counts by reason; every Reason of the Source is there.
	Failures map[Reason]uint64
	// Reason and Err are of the last failure while Up is false, if there was one.
	Reason Reason
	Err    error
}

// feed is what one source has said. The Store's lock guards it.
type feed struct {
	source  Source
	quietly map[Reason]bool // reasons that are no trouble

	records   []*record // never changed
	up        bool
	upSince   time.Time
	downSince time.Time // zero if it was never up
	failures  map[Reason]uint64
	reason    Reason // of the last failure, while not up
	err       error
	warned    map[Reason]bool // logged in this outage
	told      bool            // the log says that all is well
}

func newFeed(source Source, quietly ...Reason) *feed {
	f := &feed{
		source:   source,
		quietly:  make(map[Reason]bool),
		failures: make(map[Reason]uint64),
		warned:   make(map[Reason]bool),
	}
	for _, r := range source.Reasons() {
		f.failures[r] = 0
	}
	for _, r := range quietly {
		f.quietly[r] = true
	}
	return f
}

// notice is for the log, once the lock is given back.
type notice struct {
	level   slog.Level
	message string
	args    []any
}

func (n *notice) log(to *slog.Logger) {
	if n != nil {
		to.Log(context.Background(), n.level, n.message, n.args...)
	}
}

// succeeded notes that the source is good.
func (f *feed) succeeded(now time.Time) *notice {
	if !f.up {
		f.upSince = now
	}
	f.up, f.reason, f.err = true, "", nil
	if f.told {
		return nil
	}
	f.told = true
	return &notice{slog.LevelInfo, "Pods are being read", []any{"source", f.source}}
}

// failed notes that it is not.
func (f *feed) failed(err error, now time.Time) *notice {
	if f.up {
		f.downSince = now
		if now.Sub(f.upSince) >= steadyTime {
			clear(f.warned)
		}
	}
	f.up, f.err = false, err
	f.reason = f.count(err)
	return f.warn(f.reason, "Pods cannot be read; what was read before is used for a while", err)
}

// odd notes what costs one pod only.
func (f *feed) odd(err error) *notice {
	return f.warn(f.count(err), "A pod cannot be read and is left out", err)
}

// count gives the reason, which is one of the source's.
func (f *feed) count(err error) Reason {
	reason := reasonOf(err)
	if _, known := f.failures[reason]; !known {
		reason = ReasonOther
	}
	f.failures[reason]++
	return reason
}

func (f *feed) warn(reason Reason, message string, err error) *notice {
	level := slog.LevelDebug
	if !f.warned[reason] && !f.quietly[reason] {
		level = slog.LevelWarn
		f.told = false
	}
	f.warned[reason] = true
	return &notice{level, message, []any{"source", f.source, "reason", reason, "err", err, "hint", f.source.Hint(reason)}}
}

// fresh says whether what was said may still be used.
func (f *feed) fresh(now time.Time, maxAge time.Duration) bool {
	return f.up || !f.downSince.IsZero() && now.Sub(f.downSince) < maxAge
}

// stop notes that the source is not asked any more, and forgets what it said.
func (f *feed) stop(now time.Time) {
	if f.up {
		f.downSince = now
	}
	f.records = nil
	f.up, f.reason, f.err, f.told = false, "", nil, false
	clear(f.warned)
}

func (f *feed) status(inUse bool, now time.Time) SourceStatus {
	s := SourceStatus{
		InUse: inUse, Up: f.up, LastSuccess: f.downSince,
		Failures: maps.Clone(f.failures), Reason: f.reason, Err: f.err,
	}
	if f.up {
		s.LastSuccess = now
	}
	return s
}
