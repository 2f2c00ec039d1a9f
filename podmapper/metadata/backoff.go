// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is the time between tries: it doubles up to max, each time with a
// jitter of half of it, so that the nodes of a cluster do not try all at once.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// delay gives the time to the next try.
func (b *backoff) delay() time.Duration {
	b.next = min(max(2*b.next, b.min), b.max)
	return b.next/2 + rand.N(b.next)
}

// wait waits for that time, and at least for a given one. It says false if ctx
// ended before.
func (b *backoff) wait(ctx context.Context, atLeast time.Duration) bool {
	timer := time.NewTimer(max(b.delay(), atLeast))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
