// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// retryInterval is how often a Follower tries a log that cannot be read.
const retryInterval = 10 * time.Second

const countedFromLog = "XIDs are counted from the kernel log"

// FollowerConfig configures a [Follower].
type FollowerConfig struct {
	Path     string
	Required bool // Open returns an error if the log cannot be read
	// Readable is called with true before the records of a newly opened log and after
	// records were lost, and with false when the log can no longer be read.
	Readable func(bool)
	Deliver  func(XID) // called for each XID, in order
	Logger   *slog.Logger
}

// Follower follows the kernel log at a path, and opens it again after a failure.
// It reads a log from its end, so it delivers no XID twice. A nil Follower follows
// nothing.
type Follower struct {
	FollowerConfig
	retry time.Duration

	mu      sync.Mutex
	tried   bool
	up      bool
	lost    uint64 // in logs before the current one
	current *Log   // nil until the log is readable
}

// NewFollower returns a Follower. It opens nothing.
func NewFollower(c FollowerConfig) *Follower {
	return &Follower{FollowerConfig: c, retry: retryInterval}
}

// Open opens the log at its end. If that fails and the log is not required, Run
// tries again.
func (f *Follower) Open() error {
	if f == nil {
		return nil
	}
	l, err := Open(f.Path)
	f.mu.Lock()
	f.tried = true
	f.mu.Unlock()
	switch {
	case err == nil:
		f.replace(l)
		f.Logger.Info(countedFromLog, "file", f.Path)
	case f.Required:
		return fmt.Errorf("%w: run with CAP_SYSLOG and with the log mounted, or without --xid.kernel-log=on", err)
	default:
		f.Logger.Info("XIDs are counted from DCGM until the kernel log is readable", "err", err)
	}
	return nil
}

// Close closes the log.
func (f *Follower) Close() {
	if l := f.open(); l != nil {
		_ = l.Close() // opened for reading
	}
}

// Status reports whether the log is being read, and how many records were
// overwritten before they were read. It returns false before Open.
func (f *Follower) Status() (up bool, lost uint64, ok bool) {
	if f == nil {
		return false, 0, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	lost = f.lost
	if f.current != nil {
		lost += f.current.Lost()
	}
	return f.up, lost, f.tried
}

// Run follows the log until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	recovered := countedFromLog
	for f != nil {
		l := f.open()
		if l == nil {
			if l = f.reopen(ctx); l == nil {
				return nil
			}
			f.replace(l)
			f.Logger.Info(recovered, "file", f.Path)
		}
		err := l.Follow(ctx, f.Deliver)
		if err == nil {
			return nil
		}
		f.mu.Lock()
		f.up, f.lost, f.current = false, f.lost+l.Lost(), nil
		f.mu.Unlock()
		_ = l.Close() // opened for reading
		f.Readable(false)
		f.Logger.Warn("The kernel log is unreadable; XIDs are counted from DCGM until it is readable", "file", f.Path, "err", err)
		recovered = "The kernel log is readable again; XIDs are counted from it"
	}
	return nil
}

// reopen opens the log as soon as that is possible. It returns nil if ctx ends
// before.
func (f *Follower) reopen(ctx context.Context) *Log {
	retry := time.NewTicker(f.retry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
		}
		l, err := Open(f.Path)
		if err == nil {
			return l
		}
		f.Logger.Debug("The kernel log is still not readable", "err", err)
	}
}

func (f *Follower) replace(l *Log) {
	l.onLoss = func() { f.Readable(true) }
	f.Readable(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current, f.up = l, true
}

// open returns the open log, or nil.
func (f *Follower) open() *Log {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}
