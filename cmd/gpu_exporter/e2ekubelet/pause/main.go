// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command pause is the program of the tests' containers. It waits for SIGTERM and exits
// with status 0.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}
