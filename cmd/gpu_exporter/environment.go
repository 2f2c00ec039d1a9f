// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/cmd/gpu_exporter/internal/web"
)

const dcgmLibrary = sampler.DCGMLibrary

// httpTimeouts are the fixed limits that dcgm-exporter's flags for them name.
type httpTimeouts struct{ read, write time.Duration }

func defaultTimeouts() httpTimeouts { return httpTimeouts{web.ReadTimeout, web.WriteTimeout} }

func scenarioList() string { return listOf(sampler.Scenarios()) }

func newSamplerEnv(c config, environ []string, executable string) (sampler.Environment, error) {
	return sampler.NewEnvironment(sampler.EnvironmentConfig{
		Simulate: c.Simulate, LibraryPath: c.LibraryPath, CheckLibrary: c.StartupChecks,
	}, environ, executable)
}
