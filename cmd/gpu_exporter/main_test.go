// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

// envProgram makes the test binary run the program, which also starts it as its
// sampler.
const envProgram = "TEST_PROGRAM"

// TestMain makes the test binary the exporter, and its sampler, of some tests.
func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
	}
	os.Exit(m.Run())
}
