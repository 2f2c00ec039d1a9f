// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"gpu_exporter/collector/wire"
)

// commandQueue holds the newest command until it is written.
type commandQueue struct {
	newest chan wire.SamplerCommand // has room for one
	closed chan struct{}
	close  func()
}

func newCommandQueue() commandQueue {
	q := commandQueue{newest: make(chan wire.SamplerCommand, 1), closed: make(chan struct{})}
	q.close = sync.OnceFunc(func() { close(q.closed) })
	return q
}

// put never waits. Calls must not overlap.
func (q *commandQueue) put(c wire.SamplerCommand) {
	select {
	case <-q.newest: // nobody has read it
	default:
	}
	q.newest <- c
}

// writeTo writes commands until the queue is closed or the reader is gone.
func (q *commandQueue) writeTo(w io.Writer) {
	enc := json.NewEncoder(w) // ends each value with a newline
	for {
		select {
		case c := <-q.newest:
			if enc.Encode(c) != nil {
				return
			}
		case <-q.closed:
			return
		}
	}
}

// profilingPause is the pause of profiling that an operator asked for. It
// outlives samplers.
type profilingPause struct {
	until time.Time // zero: none
	told  time.Time // what the running sampler knows of until
	proc  process   // that sampler, nil if there is none
}

// left is how much of the pause is left.
func (p *profilingPause) left() time.Duration {
	if p.until.IsZero() {
		return 0
	}
	return max(0, time.Until(p.until))
}

// end is when the pause ends; zero if there is none, any more.
func (p *profilingPause) end() time.Time {
	if p.left() == 0 {
		return time.Time{}
	}
	return p.until
}

// PauseProfiling has profiling fields not watched for the given time, by this
// sampler and those that follow it, and returns when that ends; 0 ends a pause.
// It does not wait for the sampler.
func (s *Supervisor) PauseProfiling(d time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiling.until = time.Time{}
	if d > 0 {
		s.profiling.until = time.Now().Add(d)
	}
	s.tell()
	return s.profiling.until
}

// hears says which sampler is told from now on.
func (s *Supervisor) hears(proc process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiling.proc = proc
	if proc != nil && !s.profiling.told.Equal(s.profiling.until) {
		s.tell() // it changed since the sampler got its configuration
	}
}

// tell tells the running sampler of the pause. The mutex must be held.
func (s *Supervisor) tell() {
	if s.profiling.proc == nil {
		return
	}
	s.profiling.told = s.profiling.until
	s.profiling.proc.command(wire.SamplerCommand{ProfilingPause: s.profiling.left()})
}
