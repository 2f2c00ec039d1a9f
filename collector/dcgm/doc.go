// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dcgm reads the GPUs through NVIDIA's libdcgm.so.4 and writes what it
// reads as frames. It runs in the sampler process only: any call in here can
// hang, crash or leak, and the exporter process must survive that by killing
// this one.
//
// Two roads lead into the library. go-dcgm opens and closes the engine and
// answers what is asked once (versions, profiling metric groups). What happens
// at every interval, and what needs DCGM's error code (watches), goes through
// native.c: one bulk call into one reused buffer, because go-dcgm copies and
// clears 4 KiB for each value and drops most codes.
//
// This package must not be imported by the exporter process's code paths other
// than to start [Run], must not know metrics or pods, and keeps nothing that a
// new sampler process could not find out again.
package dcgm
