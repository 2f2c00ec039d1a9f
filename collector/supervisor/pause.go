// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"time"

	"gpu_exporter/collector/wire"
)

// profilingPause is the pause of profiling that an operator requested. It outlives
// samplers.
type profilingPause struct {
	until  time.Time // zero: no pause
	sent   time.Time // the value of until that the running sampler knows
	target process   // the running sampler; nil: none
}

// remaining returns 0 if profiling is not paused.
func (p *profilingPause) remaining() time.Duration {
	if p.until.IsZero() {
		return 0
	}
	return max(0, time.Until(p.until))
}

// PauseProfiling makes this sampler and its successors stop watching profiling fields
// for d, and returns the end of the pause. 0 ends a pause. It does not wait for the
// sampler.
func (s *Supervisor) PauseProfiling(d time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiling.until = time.Time{}
	if d > 0 {
		s.profiling.until = time.Now().Add(d)
	}
	s.sendPause()
	return s.profiling.until
}

// setPauseTarget sets the sampler that receives the pauses from now on.
func (s *Supervisor) setPauseTarget(proc process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiling.target = proc
	if !s.profiling.sent.Equal(s.profiling.until) { // changed since nextConfig
		s.sendPause()
	}
}

// sendPause sends the pause to the running sampler. The caller holds the mutex.
func (s *Supervisor) sendPause() {
	if s.profiling.target == nil {
		return
	}
	s.profiling.sent = s.profiling.until
	s.profiling.target.command(wire.SamplerCommand{ProfilingPause: s.profiling.remaining()})
}
