// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	conf "gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/doctor"
	"gpu_exporter/collector"
)

// openNode returns how doctor and fields set up an exporter that serves nothing. It logs
// at the level debug only.
func openNode(environ []string, stderr io.Writer) doctor.Open {
	return func(c conf.Config) (doctor.Node, func() error, error) {
		logger := slog.New(slog.DiscardHandler)
		if c.LogLevel == "debug" {
			var err error
			if logger, err = newLogger(c, stderr); err != nil {
				return nil, func() error { return nil }, err
			}
		}
		executable, err := os.Executable()
		if err != nil {
			return nil, func() error { return nil }, fmt.Errorf("finding the path of this program: %w", err)
		}
		env, err := newSamplerEnv(c, environ, executable)
		if err != nil {
			return nil, env.Close, err
		}
		e, err := newExporter(c, env, logger, logger)
		return e, env.Close, err
	}
}

// Sample implements doctor.Node.
func (e *exporter) Sample(ctx context.Context) error { return e.takeSamples(ctx) }

// Newest implements doctor.Node.
func (e *exporter) Newest() (*collector.Inventory, *collector.Sample) { return e.node.Newest() }

// checkSetup returns a function that finds the mistakes that are not in a configuration
// itself, but in what it names: sources of owners and libraries.
func checkSetup(environ []string) func(conf.Config) (warnings []string, err error) {
	return func(c conf.Config) (warnings []string, err error) {
		o, err := newOwners(c, slog.New(slog.DiscardHandler))
		if o != nil && o.noSlices != nil {
			warnings = append(warnings, fmt.Sprintf("--kubernetes-enable-dra: %v", o.noSlices))
		}
		warning, failure := trySamplerEnv(c, environ)
		if warning != "" {
			warnings = append(warnings, warning)
		}
		return warnings, errors.Join(err, failure)
	}
}

// trySamplerEnv checks where the libraries come from.
func trySamplerEnv(c conf.Config, environ []string) (warning string, err error) {
	executable, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding the path of this program: %w", err)
	}
	if c.Simulate != "" {
		if _, err := simLibraries(executable); err != nil {
			// The machine that this configuration is for may have them.
			_, err := findScenario(c.Simulate)
			return "", err
		}
	}
	env, err := newSamplerEnv(c, environ, executable)
	return env.Warning, errors.Join(err, env.Close())
}
