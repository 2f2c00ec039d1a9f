// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package sampler is the sampler process, which the exporter starts as a hidden
// subcommand, and the environment in which it runs: the libraries it loads, and
// the node that --simulate simulates.
//
// Only this package of the exporter imports the packages that load native code.
// It must not know metrics or owners.
package sampler

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"gpu_exporter/collector"
)

const (
	// framesFD is the file descriptor for frames. DCGM prints to standard output.
	framesFD = 3
	// grace bounds how long native code may take to return after the exporter has
	// closed the sampler's standard input.
	grace = 2 * time.Second
)

// sampling reads samples and writes frames until ctx ends.
type sampling func(ctx context.Context, c collector.SamplerConfig, commands <-chan collector.SamplerCommand, frames *collector.FrameWriter, logger *slog.Logger) error

// samplingError carries the failure that the sampler reports to the exporter.
type samplingError struct{ collector.Failure }

func (e *samplingError) Error() string { return e.Message }

// Main runs the sampler process and returns its exit status.
func Main(stdin io.Reader, stderr io.Writer) int {
	ignoreGroupSignals()
	// The sampler makes next to no garbage, so what the initialization of packages
	// leaves behind would never be freed.
	debug.FreeOSMemory()
	return run(stdin, os.NewFile(framesFD, "frames"), newLogger(stderr), sampleDCGM, grace)
}

// newLogger logs every level: the exporter, which reads the log, filters it.
func newLogger(stderr io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String()) // JSON has nanoseconds
			}
			return a
		},
	}))
}

// run reads its configuration from stdin and samples until stdin ends. It returns
// within grace of that end, even if native code hangs. The process then exits, so
// no sampler outlives its exporter.
func run(stdin io.Reader, pipe io.Writer, logger *slog.Logger, sample sampling, grace time.Duration) int {
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
			reportFailure(frames, err, logger) // blocks if nothing reads the pipe
		}
		result <- err
	}()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		err := collector.ReadSamplerCommands(stdin, func(c collector.SamplerCommand) {
			// Only the newest command counts. Native code that hangs must not keep this
			// goroutine from noticing the end of stdin.
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
			logger.Warn("Native code does not return, the sampler exits without it", "waited", grace)
			return 1
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return 1
	}
	return 0
}

// ignoreGroupSignals keeps the sampler alive while the exporter shuts down: a
// terminal sends SIGINT and SIGHUP to both processes, systemd sends SIGTERM. The
// sampler ends when the exporter closes its standard input.
func ignoreGroupSignals() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// reportFailure sends the exporter the reason why sampling ended.
func reportFailure(frames *collector.FrameWriter, err error, logger *slog.Logger) {
	fail := collector.Failure{Reason: "other", Message: err.Error()}
	var failed *samplingError
	if errors.As(err, &failed) {
		fail = failed.Failure
	}
	if err := frames.WriteFailure(fail); err != nil {
		logger.Error("Sampler cannot report its failure", "failure", fail.Message, "err", err)
	}
}
