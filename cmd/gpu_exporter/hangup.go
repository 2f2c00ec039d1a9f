// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

/*
#include <signal.h>

// Runs before Go's runtime, which keeps a SIGHUP ignored that is ignored at its start.
// Otherwise a reload that is requested within the first 50 ms of a start ends the program.
static void __attribute__((constructor)) ignore_hangup(void) { signal(SIGHUP, SIG_IGN); }
*/
import "C"
