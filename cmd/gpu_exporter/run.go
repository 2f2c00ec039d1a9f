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
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"
	"k8s.io/klog/v2"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/doctor"
	"gpu_exporter/cmd/gpu_exporter/internal/reload"
	"gpu_exporter/cmd/gpu_exporter/internal/sampler"
)

// gcPercent lets a heap grow by a quarter before garbage is collected: exporter and
// sampler make little of it, and memory is what a node has to give away.
const gcPercent = 25

// run is the program: it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	line, err := config.Parse(args, environ, stdout)
	if err != nil {
		var mistakes *config.Error
		if !errors.As(err, &mistakes) {
			mistakes = &config.Error{Mistakes: []string{err.Error()}}
		}
		for _, mistake := range mistakes.Mistakes {
			printf(stderr, "%s: error: %s\n", config.ProgramName, mistake)
		}
		if !mistakes.InFile { // --help does not describe the file
			printf(stderr, "%s: see --help\n", config.ProgramName)
		}
		return 1
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	switch line.Command {
	case "":
		return 0
	case config.Sampler:
		return sampler.Main(stdin, stderr)
	case config.CheckConfig:
		return doctor.CheckConfig(line, checkSetup(environ), stdout, stderr)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	switch line.Command {
	case config.Doctor:
		return doctor.Run(ctx, line, openNode(environ, stderr), stdout, stderr)
	case config.Fields:
		return doctor.Fields(ctx, line, openNode(environ, stderr), stdout, stderr)
	}
	logger, err := newLogger(line.Config, stderr)
	if err != nil {
		printf(stderr, "%s: error: %v\n", config.ProgramName, err)
		return 1
	}
	signal.Ignore(syscall.SIGHUP) // until a reload is possible
	klog.SetSlogLogger(logger)    // where client-go logs
	if err := runExporter(ctx, line, stdout, environ, logger); err != nil {
		reload.LogError(logger, err, "gpu_exporter ends")
		return 1
	}
	return 0
}

// runExporter serves, or prints one sample.
func runExporter(ctx context.Context, line config.CommandLine, stdout io.Writer, environ []string, logger *slog.Logger) error {
	logger.Info("Starting "+config.ProgramName, "version", version.Info(), "build", version.BuildContext())
	for _, w := range line.Warnings {
		logger.Warn(w)
	}
	env, err := newSamplerEnv(line.Config, environ)
	defer func() {
		if err := env.Close(); err != nil {
			logger.Warn("Cannot clean up", "err", err)
		}
	}()
	if err != nil {
		return err
	}
	if env.Warning != "" {
		logger.Warn(env.Warning)
	}
	samplerLogger := logger
	if line.Command == config.Once {
		line.Config.Interval = min(line.Config.Interval, onceInterval)
		if line.Config.LogLevel != "debug" {
			// It speaks of trying again, which is not true of one sample; why there is
			// none is the error in the end.
			samplerLogger = slog.New(slog.DiscardHandler)
		}
	}
	e, err := newExporter(line.Config, env, logger, samplerLogger)
	if err != nil {
		return err
	}
	if line.Command == config.Once {
		defer reload.OnHangup(func() { logger.Info("SIGHUP is ignored: one sample is taken with the configuration as it was") })()
		return e.once(ctx, stdout)
	}
	e.reloader = reload.New(reload.Config{Log: logger, Files: line.Config.Files, Load: line.Again, Apply: e.reload, Done: e.reloadEnded})
	if err := e.reloader.Register(e.registry); err != nil {
		return err
	}
	defer reload.OnHangup(func() { _ = e.reloader.Reload("SIGHUP") })() // logged there
	return e.serve(ctx)
}

// printf writes for people to read. An error is the reader's, who has gone away.
func printf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

func newLogger(c config.Config, stderr io.Writer) (*slog.Logger, error) {
	level, format := promslog.NewLevel(), promslog.NewFormat()
	if err := level.Set(c.LogLevel); err != nil {
		return nil, fmt.Errorf("setting the log level: %w", err)
	}
	if err := format.Set(c.LogFormat); err != nil {
		return nil, fmt.Errorf("setting the log format: %w", err)
	}
	return promslog.New(&promslog.Config{Level: level, Format: format, Writer: stderr}), nil
}
