// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"time"
)

// Failure is the reason why a sampler exits.
type Failure struct {
	// Reason is the value of a metric label, such as library_missing.
	Reason string
	// Message describes the problem and its remedy.
	Message string
}

// Values of [Failure.Reason]. [SamplerStatus.Restarts] has all of them from the start, and
// may have more.
const (
	FailureConfig              = "config"                 // invalid configuration
	FailureLibraryMissing      = "library_missing"        // no libdcgm.so.4
	FailureSymbolMissing       = "library_symbol_missing" // libdcgm.so.4 is incompatible
	FailureLibraryUpdated      = "library_updated"        // libdcgm.so.4 was replaced on disk
	FailureDriverLoaded        = "driver_loaded"          // the driver was loaded after DCGM started
	FailureInitFailed          = "init_failed"            // DCGM did not start
	FailureHostengineUnreached = "hostengine_unreachable" // nv-hostengine does not listen
	FailureHostengineLost      = "hostengine_lost"        // the connection to nv-hostengine broke
	FailureEngineStalled       = "engine_stalled"         // DCGM returns only old values
	FailureEngineBlank         = "engine_blank"           // DCGM returns only blank values
	FailureDiscoveryFailed     = "discovery_failed"       // DCGM does not list the GPUs
	FailureWatchFailed         = "watch_failed"           // DCGM rejects all watches
)

// EngineGone reports whether the failure means that there is no working engine. After
// other failures, such as a crash, the next sampler usually continues within seconds.
func (f Failure) EngineGone() bool {
	switch f.Reason {
	case FailureHostengineUnreached, FailureHostengineLost, FailureEngineStalled, FailureEngineBlank, FailureInitFailed:
		return true
	}
	return false
}

// Values of [RejectError.Reason]. [SamplerStatus.FramesRejected] has all of them from the
// start, and may have more.
const (
	RejectFuture    = "future"             // the sample's time is in the future
	RejectInventory = "inventory_mismatch" // the frame belongs to another inventory
	RejectInvalid   = "invalid"            // the frame contradicts itself or its inventory
)

// RejectError is returned by [supervisor.Config.Deliver] for a well-formed frame that must
// not be used. Reason is the value of a metric label.
type RejectError struct {
	Reason string
	Err    error
}

func (e *RejectError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap returns the underlying error.
func (e *RejectError) Unwrap() error { return e.Err }

// SamplerStatus is the state of the sampler process.
type SamplerStatus struct {
	// Running: a sampler process runs and is not being stopped. Sampling: it has also
	// delivered a sample.
	Running, Sampling bool
	// EngineGone: after the newest sample DCGM's engine failed or did not answer, or a
	// sampler ended without any sample. The GPUs are not observed now.
	EngineGone bool
	PID        int       // of a running, stopping or unreapable sampler; else 0
	Started    time.Time // when the running sampler was started; else zero
	// NextStart is when the next sampler will be started; zero if none is scheduled.
	NextStart time.Time
	// Unreapable: a killed sampler is stuck in the kernel. No other sampler is started
	// until it exits.
	Unreapable bool
	// Restarts counts the ended samplers by reason, FramesRejected the rejected frames.
	Restarts       map[string]uint64
	FramesRejected map[string]uint64
	// LinesDropped counts the lines of the samplers' output that were not logged, because
	// they were too many.
	LinesDropped uint64
	// ProfilingPausedUntil is when the pause of profiling ends; zero if not paused.
	ProfilingPausedUntil time.Time
	// LastFailure is why the last sampler ended unexpectedly.
	LastFailure Failure
}
