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

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/doctor"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
	"gpu_exporter/collector"
)

// openNode returns how doctor and fields set up an exporter that serves nothing. It logs
// at the level debug only.
func openNode(environ []string, stderr io.Writer) doctor.Open {
	return func(c config.Config) (doctor.Node, func() error, error) {
		logger := slog.New(slog.DiscardHandler)
		if c.LogLevel == "debug" {
			var err error
			if logger, err = newLogger(c, stderr); err != nil {
				return nil, func() error { return nil }, err
			}
		}
		env, err := newSamplerEnv(c, environ)
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

// Owners implements doctor.Node.
func (e *exporter) Owners() *owners.Owners { return e.owners }

// checkSetup returns a function that finds the mistakes that are not in a configuration
// itself, but in what it names: sources of owners and libraries.
func checkSetup(environ []string) func(config.Config) (warnings []string, err error) {
	return func(c config.Config) (warnings []string, err error) {
		o, err := owners.New(ownersConfig(c), slog.New(slog.DiscardHandler))
		if err == nil && o.SlicesError() != nil {
			warnings = append(warnings, fmt.Sprintf("--kubernetes-enable-dra: %v", o.SlicesError()))
		}
		env, failure := newSamplerEnv(c, environ)
		if errors.Is(failure, sampler.ErrNoStandIns) {
			failure = nil // the machine that this configuration is for may have them
		}
		if env.Warning != "" {
			warnings = append(warnings, env.Warning)
		}
		return warnings, errors.Join(err, failure, env.Close())
	}
}

// newSamplerEnv prepares the environment of the sampler. The caller closes it, also after
// an error.
func newSamplerEnv(c config.Config, environ []string) (sampler.Environment, error) {
	executable, err := os.Executable()
	if err != nil {
		return sampler.Environment{}, fmt.Errorf("finding the path of this program: %w", err)
	}
	return sampler.NewEnvironment(sampler.EnvironmentConfig{
		Simulate: c.Simulate, LibraryPath: c.LibraryPath, CheckLibrary: !c.SkipStartupCheck,
	}, environ, executable)
}
