// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

// envProgram makes the test binary behave as the program itself, which then
// starts itself again as its sampler.
const envProgram = "TEST_PROGRAM"

// The test binary is also the exporter and the sampler process of some tests.
func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
	}
	if way := os.Getenv(envSampler); way != "" {
		os.Exit(runTestSampler(way))
	}
	os.Exit(m.Run())
}
