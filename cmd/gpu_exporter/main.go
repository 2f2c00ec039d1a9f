// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command gpu_exporter serves metrics on NVIDIA GPUs to Prometheus.
//
// This package is wiring only: flags, subcommands, and the HTTP server. What is
// measured and how it is named lies in package collector, who owns a device in
// package podmapper. Nothing here may call into native code, except that the
// hidden sampler subcommand hands over to collector/dcgm.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// gcPercent lets the heap grow by a quarter between collections. Exporter and
// sampler allocate little, and the memory belongs to the node's workloads.
const gcPercent = 25

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// Samples of the heap cost 1.4 MB in each process; only --web.enable-pprof shows them.
	runtime.MemProfileRate = 0
	time.AfterFunc(started, func() { _ = releaseFilePages() }) // a failure costs memory only
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
