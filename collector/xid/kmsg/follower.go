// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gpu_exporter/collector/model"
)

// retryInterval is the time between two attempts to open an unreadable log.
const retryInterval = 10 * time.Second

// FollowerConfig configures a [Follower].
type FollowerConfig struct {
	Path     string
	Required bool // Open returns an error if the log cannot be read
	// Readable is called with true before the records of a newly opened log and after
	// records were lost, and with false when the log can no longer be read.
	Readable func(bool)
	Deliver  func(model.KernelXID) // called for each XID, in order
	Logger   *slog.Logger
}

// Follower follows the kernel log at a path, and opens it again after a failure.
// It reads a log from its end, so it delivers no XID twice. A nil Follower follows
// nothing.
type Follower struct {
	FollowerConfig
	retry time.Duration

	mu      sync.Mutex
	tried   bool   // Open was called
	lost    uint64 // in logs before the current one
	current *Log   // nil while the log is unreadable
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
	err := f.open()
	f.mu.Lock()
	f.tried = true
	f.mu.Unlock()
	if err != nil && f.Required {
		return fmt.Errorf("%w: run with CAP_SYSLOG and with the log mounted, or without --xid.kernel-log=on", err)
	}
	if err != nil {
		f.Logger.Info("XIDs are counted from DCGM until the kernel log is readable", "err", err)
	}
	return nil
}

func (f *Follower) open() error {
	l, err := Open(f.Path)
	if err != nil {
		return err
	}
	l.onLoss = func() { f.Readable(true) }
	f.Readable(true)
	f.mu.Lock()
	f.current = l
	f.mu.Unlock()
	f.Logger.Info("XIDs are counted from the kernel log", "file", f.Path)
	return nil
}

// Close closes the log.
func (f *Follower) Close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current != nil {
		_ = f.current.Close() // opened for reading
	}
}

// Status returns the state of the log, and false before Open.
func (f *Follower) Status() (model.KernelLogStatus, bool) {
	if f == nil {
		return model.KernelLogStatus{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	lost := f.lost
	if f.current != nil {
		lost += f.current.Lost()
	}
	return model.KernelLogStatus{Up: f.current != nil, Lost: lost}, f.tried
}

// Run follows the log until ctx ends. Call it after Open.
func (f *Follower) Run(ctx context.Context) error {
	for f != nil && ctx.Err() == nil {
		l := f.current // only Open and this goroutine write it
		if l == nil {
			if wait(ctx, f.retry); ctx.Err() == nil {
				if err := f.open(); err != nil {
					f.Logger.Debug("The kernel log is still unreadable", "err", err)
				}
			}
			continue
		}
		err := l.Follow(ctx, f.Deliver)
		if err == nil {
			return nil
		}
		f.mu.Lock()
		f.lost, f.current = f.lost+l.Lost(), nil
		f.mu.Unlock()
		_ = l.Close() // opened for reading
		f.Readable(false)
		f.Logger.Warn("The kernel log is unreadable; XIDs are counted from DCGM until it is readable", "file", f.Path, "err", err)
	}
	return nil
}
