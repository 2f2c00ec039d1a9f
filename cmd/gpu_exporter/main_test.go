// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

// The test binary is also the sampler process of some tests.
func TestMain(m *testing.M) {
	if way := os.Getenv(envSampler); way != "" {
		os.Exit(runTestSampler(way))
	}
	os.Exit(m.Run())
}
