// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Command pause is all that the containers of the tests run: it waits for
// SIGTERM and then succeeds.
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
