// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command gpu_exporter serves metrics on NVIDIA GPUs to Prometheus.
//
// This package is wiring only: flags, subcommands, and the HTTP server. What is
// measured and how it is named lies in package collector, who owns a device in
// package podmapper. Nothing here may call into native code, except that the
// hidden sampler subcommand hands over to collector/dcgm.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
