// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"gpu_exporter/collector"
)

const (
	// framesFD is the file descriptor that the sampler writes frames to. Not
	// standard output: DCGM prints there.
	framesFD = 3
	// samplerGrace is how long native code may take to come back after the
	// exporter has closed the sampler's standard input.
	samplerGrace = 2 * time.Second
)

// sampling reads samples and writes frames until ctx ends. See sampleDCGM.
type sampling func(ctx context.Context, c collector.SamplerConfig, commands <-chan collector.SamplerCommand, frames *collector.FrameWriter, logger *slog.Logger) error

// samplingError is why sampling cannot go on, for the exporter to know.
type samplingError struct{ collector.Failure }

func (e *samplingError) Error() string { return e.Message }

// runSampler is the sampler process: it reads its configuration from stdin,
// samples until stdin ends, and returns the exit status. It returns within grace
// of the end of stdin whatever native code does, since main then ends the
// process: no sampler outlives its exporter.
func runSampler(stdin io.Reader, pipe io.Writer, logger *slog.Logger, sample sampling, grace time.Duration) int {
	c, err := collector.ReadSamplerConfig(stdin)
	if err != nil {
		logger.Error("Sampler cannot start: it is run by the exporter, not by hand", "err", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan error, 1)
	commands := make(chan collector.SamplerCommand, 1)
	go func() {
		frames := collector.NewFrameWriter(pipe)
		err := sample(ctx, c, commands, frames, logger)
		if err != nil && !errors.Is(err, context.Canceled) {
			// In here, since a pipe that nobody reads blocks.
			reportFailure(frames, err, logger)
		}
		result <- err
	}()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		err := collector.ReadSamplerCommands(stdin, func(c collector.SamplerCommand) {
			// Only the newest counts, and native code that hangs must not keep us from
			// seeing the end.
			select {
			case <-commands:
			default:
			}
			commands <- c
		})
		if err != nil {
			logger.Warn("A command of the exporter cannot be read", "err", err)
		}
	}()

	select {
	case err = <-result:
	case <-closed:
		cancel()
		select {
		case err = <-result:
		case <-time.After(grace):
			logger.Warn("Native code did not come back, ending the sampler without it", "waited", grace)
			return 1
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return 1
	}
	return 0
}

// ignoreGroupSignals keeps the sampler alive while the exporter shuts down: a
// terminal sends SIGINT and SIGHUP to both processes, systemd SIGTERM. The
// exporter decides when the sampler ends, and its own end ends it.
func ignoreGroupSignals() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// reportFailure tells the exporter why sampling ended.
func reportFailure(frames *collector.FrameWriter, err error, logger *slog.Logger) {
	fail := collector.Failure{Reason: "other", Message: err.Error()}
	var failed *samplingError
	if errors.As(err, &failed) {
		fail = failed.Failure
	}
	if err := frames.Write(collector.Frame{Failure: &fail}); err != nil {
		logger.Error("Sampler cannot report its failure", "failure", fail.Message, "err", err)
	}
}
