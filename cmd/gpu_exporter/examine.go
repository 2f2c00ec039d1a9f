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

// newSamplerEnv prepares the sampler's environment. The caller closes it, also after
// an error.
func newSamplerEnv(c *config.Static, environ []string) (sampler.Environment, error) {
	executable, err := os.Executable()
	if err != nil {
		return sampler.Environment{}, fmt.Errorf("finding the path of this program: %w: mount /proc, through which the exporter starts its sampler", err)
	}
	return sampler.NewEnvironment(c, environ, executable)
}

// openNode returns how doctor and fields set up an exporter that serves nothing. It
// logs at the level debug only.
func openNode(environ []string, stderr io.Writer) doctor.Open {
	return func(c config.Config) (doctor.Node, func() error, error) {
		c.Interval = min(c.Interval, onceInterval)
		logger, records, flush := slog.New(slog.DiscardHandler), io.Writer(nil), func() {}
		if c.LogLevel == "debug" {
			log, debug, err := newLogQueue(c, stderr)
			if err != nil {
				return nil, func() error { return nil }, err
			}
			logger, records, flush = debug, log, log.close
		}
		env, err := newSamplerEnv(&c.Static, environ)
		end := func() error {
			flush()
			return env.Close()
		}
		if err != nil {
			return nil, end, err
		}
		e, err := newExporter(c, env, logger, logger, records)
		if err != nil {
			return nil, end, err
		}
		return examined{e.collector, e}, end, nil
	}
}

// examined implements doctor.Node.
type examined struct {
	*collector.Collector
	exporter *exporter
}

func (x examined) Sample(ctx context.Context) error { return x.exporter.takeSamples(ctx) }

func (x examined) Owners() *owners.Owners { return x.exporter.owners }

// checkSetup returns a function that finds mistakes in what a configuration names: the
// sources of owners and the libraries.
func checkSetup(environ []string) func(config.Config) (warnings []string, err error) {
	return func(c config.Config) (warnings []string, err error) {
		_, err = owners.New(&c.Static, slog.New(slog.DiscardHandler))
		env, failure := newSamplerEnv(&c.Static, environ)
		if errors.Is(failure, sampler.ErrNoStandIns) {
			failure = nil // the machine that this configuration is for may have them
		}
		if env.Warning != "" {
			warnings = append(warnings, env.Warning)
		}
		return warnings, errors.Join(err, failure, env.Close())
	}
}
