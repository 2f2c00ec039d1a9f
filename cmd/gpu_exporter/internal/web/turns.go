// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"time"
)

// maxWait is how long a request waits for its turn. An answer takes milliseconds, so
// bursts of clients are served one after the other.
const maxWait = time.Second

// turns bounds how many answers are prepared at the same time.
type turns struct {
	slots chan struct{} // one element for each answer in preparation
	wait  time.Duration // for a slot
}

func newTurns(limit int) turns { return turns{make(chan struct{}, limit), maxWait} }

// begin waits for a slot, and reports whether it got one. The caller then calls end.
func (t *turns) begin(ctx context.Context) bool {
	select {
	case t.slots <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(t.wait)
	defer timer.Stop()
	select {
	case t.slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (t *turns) end() { <-t.slots }
