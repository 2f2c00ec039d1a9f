// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package dcgm samples the GPUs of a node through DCGM and writes frames. It
// decides what to watch and read; package native makes the calls.
//
//	engine.go        opens the library and the engine
//	sampler.go       builds inventories, plans and watches; run.go is its event loop
//	plan.go          what to watch and read; targets.go groups it into watches
//	reading.go       reads all values of a sample; sample.go writes it
//	tracking.go      reads fields between samples
//	xids.go          turns XIDs into events
//	profiling.go     the state of profiling fields on each GPU
//	polls.go         reads processes, health and fabric by means of background.go
//
// Any call into DCGM can hang, crash or leak. Only the sampler process may run this
// package, and the exporter process survives by killing it. This package must not
// know metrics or owners, and must not keep state that a new sampler cannot rebuild.
package dcgm
