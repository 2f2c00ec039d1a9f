// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"time"
)

// Failure is the sampler's last word: why it cannot go on.
type Failure struct {
	// Reason is a word for a metric label, such as library_missing.
	Reason string
	// Message is for people: what is wrong and what to do.
	Message string
}

// Words for [Failure.Reason]: why a sampler gave up. They stand in
// [SamplerStatus.Restarts] from the start; others may be used too.
const (
	FailureConfig              = "config"                 // it cannot use its configuration
	FailureLibraryMissing      = "library_missing"        // libdcgm.so.4 is not there
	FailureSymbolMissing       = "library_symbol_missing" // libdcgm.so.4 is another than we can use
	FailureLibraryUpdated      = "library_updated"        // libdcgm.so.4 was replaced on disk
	FailureDriverLoaded        = "driver_loaded"          // the driver came after DCGM had started without
	FailureInitFailed          = "init_failed"            // DCGM did not start
	FailureHostengineUnreached = "hostengine_unreachable" // nv-hostengine does not listen
	FailureHostengineLost      = "hostengine_lost"        // the connection to nv-hostengine broke
	FailureEngineStalled       = "engine_stalled"         // DCGM answers with values that are never new
	FailureEngineBlank         = "engine_blank"           // DCGM has no value of anything any more
	FailureDiscoveryFailed     = "discovery_failed"       // DCGM does not say which GPUs there are
	FailureWatchFailed         = "watch_failed"           // DCGM refuses to watch anything
)

// Words for [RejectError.Reason] that stand in [SamplerStatus.FramesRejected]
// from the start. Others may be used too.
const (
	RejectFuture    = "future"             // a sample taken later than now
	RejectInventory = "inventory_mismatch" // it belongs to another inventory
	RejectInvalid   = "invalid"            // it contradicts itself or its inventory
)

// RejectError is returned by [supervisor.Config.Deliver] for a well-formed frame
// that must not be used. Reason is a word for a metric label.
type RejectError struct {
	Reason string
	Err    error
}

func (e *RejectError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap returns the underlying error.
func (e *RejectError) Unwrap() error { return e.Err }

// SamplerStatus says how the sampler is.
type SamplerStatus struct {
	// Running says that a sampler process is there and meant to be, Sampling that
	// it has delivered a sample.
	Running, Sampling bool
	PID               int       // while a sampler is there, be it running, stopping or unreapable
	Started           time.Time // when the running sampler was, else zero
	// NextStart is when the next sampler will be started, if one waits for that.
	NextStart time.Time
	// Unreapable says that a killed sampler does not go away, stuck in the
	// kernel. None other is started meanwhile.
	Unreapable bool
	// Restarts counts the samplers that ended by the reason, FramesRejected the
	// frames that were not used. Both hold all known reasons.
	Restarts       map[string]uint64
	FramesRejected map[string]uint64
	// ProfilingPausedUntil is when the pause of profiling ends, zero if there is none.
	ProfilingPausedUntil time.Time
	// LastFailure is why the last sampler ended that was not meant to.
	LastFailure Failure
}
