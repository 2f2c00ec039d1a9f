// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

// envProgram makes the test binary run the program. The program starts the same binary
// as its sampler.
const envProgram = "TEST_PROGRAM"

// TestMain runs the tests, or the program if envProgram is set.
func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
	}
	os.Exit(m.Run())
}
