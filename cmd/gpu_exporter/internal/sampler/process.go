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
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/common/promslog"

	"gpu_exporter/collector/dcgm"
	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// grace bounds how long native code may take to return after the exporter has
// closed the sampler's standard input.
const grace = 2 * time.Second

// sampling reads samples and writes frames until ctx ends.
type sampling func(ctx context.Context, c wire.SamplerConfig, commands <-chan wire.SamplerCommand, frames *wire.FrameWriter, logger *slog.Logger) error

// Command is the name of the hidden subcommand.
const Command = "sampler"

// Args returns the arguments of a sampler that logs in the given level and format.
func Args(level, format string) []string { return []string{Command, level, format} }

// Main runs the sampler process and returns its exit status. args are those after
// the subcommand. Without them nothing reads the log's pipe, so it logs to stderr.
func Main(args []string, stdin io.Reader, stderr io.Writer) int {
	ignoreGroupSignals()
	// The sampler makes next to no garbage, so what the initialization of packages
	// leaves behind would never be freed.
	debug.FreeOSMemory()
	limitErr := limitMemory()
	level, format := promslog.NewLevel(), promslog.NewFormat()
	if len(args) == 2 {
		if err := errors.Join(level.Set(args[0]), format.Set(args[1])); err != nil {
			_, _ = fmt.Fprintln(stderr, "gpu_exporter sampler:", err)
			return 1
		}
		stderr = os.NewFile(wire.RecordsFD, "records")
	}
	logger := promslog.New(&promslog.Config{Level: level, Format: format, Writer: stderr}).With("component", "dcgm")
	if limitErr != nil {
		logger.Debug("The sampler's memory is not limited", "err", limitErr)
	}
	return run(stdin, os.NewFile(wire.FramesFD, "frames"), logger, sampleDCGM, grace)
}

// run reads its configuration from stdin and samples until stdin ends. It returns
// within grace of that end, even if native code hangs. The process then exits, so
// no sampler outlives its exporter.
func run(stdin io.Reader, pipe io.Writer, logger *slog.Logger, sample sampling, grace time.Duration) int {
	c, err := wire.ReadSamplerConfig(stdin)
	if err != nil {
		logger.Error("Sampler cannot start: it is run by the exporter, not by hand", "err", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan error, 1)
	commands := make(chan wire.SamplerCommand, 1)
	go func() {
		frames := wire.NewFrameWriter(pipe)
		err := sample(ctx, c, commands, frames, logger)
		if err != nil && !errors.Is(err, context.Canceled) {
			reportFailure(frames, err, logger) // blocks if nothing reads the pipe
		}
		result <- err
	}()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		err := wire.ReadSamplerCommands(stdin, func(c wire.SamplerCommand) {
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

// maxGrowth bounds the private memory, touched or not, that the libraries allocate, in bytes.
// The supervisor replaces a sampler with 1 GiB of resident memory, but checks only once a
// second. Stacks of threads, 8 MiB each, count too.
const maxGrowth = 8 << 30

// limitMemory makes absurd allocations fail, and the sampler with them. go-nvml allocates
// room for as many processes as the driver reports: up to 128 GiB if the driver returns
// garbage. The kernel grants that on a large machine, and would then kill the whole
// container when the memory is used.
func limitMemory() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("reading the size of the process: %w", err)
	}
	var kib uint64
	_, data, _ := strings.Cut(string(status), "\nVmData:")
	if _, err := fmt.Sscan(data, &kib); err != nil {
		return fmt.Errorf("reading VmData in /proc/self/status: %w", err)
	}
	limit := kib<<10 + maxGrowth
	// It fails only if the limit that the process inherited is lower.
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("setting RLIMIT_DATA to %d bytes: %w", limit, err)
	}
	return nil
}

// reportFailure sends the exporter the reason why sampling ended.
func reportFailure(frames *wire.FrameWriter, err error, logger *slog.Logger) {
	fail := model.Failure{Reason: "other", Message: err.Error()}
	if failed, ok := errors.AsType[*dcgm.FailureError](err); ok {
		fail = failed.Failure
	}
	if err := frames.Write(wire.Frame{Failure: &fail}); err != nil {
		logger.Error("Sampler cannot report its failure", "failure", fail.Message, "err", err)
	}
}
