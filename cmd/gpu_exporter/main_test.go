// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// envProgram makes the test binary run the program. The program starts the same binary
// as its sampler.
const envProgram = "TEST_PROGRAM"

// maxParallel is the default limit of parallel tests.
const maxParallel = 8

// TestMain runs the tests, or the program if envProgram is set.
func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
	}
	flag.Parse()
	// Each parallel test runs several processes, which mostly wait for a fault to be noticed.
	if cores := runtime.GOMAXPROCS(0); !strictTimes && flag.Lookup("test.parallel").Value.String() == strconv.Itoa(cores) {
		if err := flag.Set("test.parallel", strconv.Itoa(min(2*cores, maxParallel))); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
